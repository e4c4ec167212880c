//! The `age` format (C2SP age, version 1), with X25519 recipients: one stream encrypted to one key.
//!
//! Files open with the `age` tool and its kin, and files that those write open here. Both directions stream: what is
//! encrypted is never in memory for that. The primitives are aws-lc's; docs/decisions/0007 says why the format is read
//! here.

mod header;
mod key;
mod stream;

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use key::{KeyError, ModelKey};

/// The digests of a model and of its encrypted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// SHA-256 of what was encrypted; of a file with its data files, the model hash.
    pub plaintext: [u8; 32],
    /// SHA-256 of the encrypted file.
    pub ciphertext: [u8; 32],
}

/// Why a model was not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// The model cannot be read.
    #[error("cannot read the model: {0}")]
    Read(#[source] io::Error),
    /// The encrypted file cannot be written.
    #[error("cannot write the encrypted model: {0}")]
    Write(#[source] io::Error),
    /// The library has no randomness, or no memory.
    #[error("the cryptographic library failed")]
    Library,
}

/// Why an encrypted model was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// The file cannot be read.
    #[error("cannot read the encrypted model: {0}")]
    Read(#[from] io::Error),
    /// The file is not in the `age` format.
    #[error("expected a file in the age format, version 1: {0}")]
    Header(&'static str),
    /// No recipient of the file is this key.
    #[error("the file is not encrypted to this key; give the key it was encrypted with")]
    WrongKey,
    /// The file was altered or cut.
    #[error("the file was altered or cut after {after} bytes of the model")]
    Altered {
        /// How many bytes of plaintext were authentic.
        after: u64,
    },
}

/// Whether a file that starts with `head` is encrypted.
pub fn is_encrypted(head: &[u8]) -> bool {
    head.starts_with(header::VERSION.as_bytes())
}

/// Encrypts `model` to `key`.
///
/// # Errors
/// [`EncryptError`]
pub fn encrypt(key: &ModelKey, mut model: impl Read, out: impl Write) -> Result<Digests, EncryptError> {
    let mut out = Hashing { inner: out, hash: Sha256::new() };
    let mut plaintext = Sha256::new();
    let file_key = key::random::<16>().map_err(|_| EncryptError::Library)?;
    let header = header::write(key, &file_key).map_err(|_| EncryptError::Library)?;
    let nonce = key::random::<16>().map_err(|_| EncryptError::Library)?;
    out.write_all(header.as_bytes())
        .and_then(|()| out.write_all(nonce.as_slice()))
        .map_err(EncryptError::Write)?;
    let mut stream = stream::Stream::new(&file_key, &nonce).map_err(|_| EncryptError::Library)?;
    let mut chunk = stream::Chunk::plaintext();
    loop {
        let last = chunk.fill(&mut model).map_err(EncryptError::Read)?;
        plaintext.update(chunk.bytes());
        let sealed = stream.seal(&mut chunk, last).map_err(|_| EncryptError::Library)?;
        out.write_all(sealed).map_err(EncryptError::Write)?;
        if last {
            break;
        }
    }
    out.flush().map_err(EncryptError::Write)?;
    Ok(Digests { plaintext: plaintext.finalize().into(), ciphertext: out.hash.finalize().into() })
}

/// Opens an encrypted model with `key`, handing each piece to `each` as soon as it is authentic. Pieces that were handed
/// over before an error are a beginning of the model, and nothing to use.
///
/// # Errors
/// [`DecryptError`]
pub fn decrypt(
    key: &ModelKey,
    encrypted: impl Read,
    mut each: impl FnMut(&[u8]),
) -> Result<Digests, DecryptError> {
    let mut encrypted = Hashing { inner: encrypted, hash: Sha256::new() };
    let mut plaintext = Sha256::new();
    let header = header::read(&mut encrypted)?;
    let file_key = header.open(key)?;
    let mut nonce = [0; 16];
    encrypted.read_exact(&mut nonce).map_err(|_| DecryptError::Altered { after: 0 })?;
    let mut after = 0_u64;
    let mut stream = stream::Stream::new(&file_key, &nonce).map_err(|_| DecryptError::Altered { after })?;
    let mut chunk = stream::Chunk::sealed();
    loop {
        let last = chunk.fill(&mut encrypted)?;
        let opened = stream.open(&mut chunk, last).map_err(|_| DecryptError::Altered { after })?;
        // Only an empty model has an empty chunk: otherwise the chunk before was the last.
        if opened.is_empty() && after > 0 {
            return Err(DecryptError::Altered { after });
        }
        plaintext.update(opened);
        each(opened);
        after = after.saturating_add(opened.len() as u64);
        if last {
            break;
        }
    }
    Ok(Digests { plaintext: plaintext.finalize().into(), ciphertext: encrypted.hash.finalize().into() })
}

/// A key of a file or a stream, erased on drop.
type Secret<const N: usize> = Zeroizing<[u8; N]>;

/// The library failed; it does not say why.
#[derive(Debug)]
struct Failed;

/// Hashes what passes.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
