//! The start of a file: who can open it, and what keeps that from being altered.

use std::io::Read;

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, X25519},
    hmac,
};
use base64ct::{Base64Unpadded, Encoding};
use zeroize::Zeroizing;

use super::{
    DecryptError, Failed, Secret,
    key::{ModelKey, derive, random, wrap_key},
};

pub(super) const VERSION: &str = "age-encryption.org/v1\n";

/// A header that was read, not yet authentic.
pub(super) struct Header {
    /// Ephemeral share and wrapped file key of each X25519 recipient.
    recipients: Vec<([u8; 32], [u8; WRAPPED_LEN])>,
    /// The text that the code authenticates.
    text: Vec<u8>,
    code: [u8; 32],
}

/// The header of a file with `file_key` for one recipient.
pub(super) fn write(key: &ModelKey, file_key: &Secret<16>) -> Result<String, Failed> {
    let ephemeral = random::<32>()?;
    let ephemeral =
        agreement::PrivateKey::from_private_key(&X25519, ephemeral.as_slice()).map_err(|_| Failed)?;
    let share = ephemeral.compute_public_key().map_err(|_| Failed)?;
    let share: [u8; 32] = share.as_ref().try_into().map_err(|_| Failed)?;
    let recipient = key.recipient_bytes();
    let wrap = wrap_key(&ephemeral, recipient, &share, recipient).ok_or(Failed)?;
    let mut wrapped = file_key.to_vec();
    cipher(&wrap)?.seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut wrapped).map_err(|_| Failed)?;
    let text = format!(
        "{VERSION}-> X25519 {}\n{}\n---",
        Base64Unpadded::encode_string(&share),
        Base64Unpadded::encode_string(&wrapped)
    );
    let code = hmac::sign(&code_key(file_key)?, text.as_bytes());
    Ok(format!("{text} {}\n", Base64Unpadded::encode_string(code.as_ref())))
}

/// Reads a header and no byte more.
pub(super) fn read(file: &mut impl Read) -> Result<Header, DecryptError> {
    let mut lines = Lines { file, text: Vec::new() };
    if lines.next()? != VERSION.trim_end() {
        return Err(DecryptError::Header("the first line names another format"));
    }
    let mut recipients = Vec::new();
    let mut line = lines.next()?;
    loop {
        if let Some(code) = line.strip_prefix("--- ") {
            let code = bytes(code).ok_or(DecryptError::Header("its code is not 32 bytes of base64"))?;
            let end =
                lines.text.len().saturating_sub(line.len()).saturating_sub(1).saturating_add("---".len());
            lines.text.truncate(end);
            return Ok(Header { recipients, text: lines.text, code });
        }
        let stanza =
            line.strip_prefix("-> ").ok_or(DecryptError::Header("a line is neither recipient nor end"))?;
        // Bodies are lines of 64 characters; a shorter one, maybe empty, is the last.
        let mut body = String::new();
        loop {
            let line = lines.next()?;
            body.push_str(&line);
            if line.len() < 64 {
                break;
            }
        }
        if let Some(share) = stanza.strip_prefix("X25519 ") {
            let malformed = DecryptError::Header("an X25519 recipient is malformed");
            match (bytes(share), bytes(&body)) {
                (Some(share), Some(wrapped)) => recipients.push((share, wrapped)),
                _ => return Err(malformed),
            }
        }
        line = lines.next()?;
    }
}

impl Header {
    /// The file key, if `key` is one of the recipients and the header is authentic.
    pub(super) fn open(&self, key: &ModelKey) -> Result<Secret<16>, DecryptError> {
        let file_key = self
            .recipients
            .iter()
            .find_map(|(share, wrapped)| unwrap(key, share, wrapped))
            .ok_or(DecryptError::WrongKey)?;
        let altered = DecryptError::Header("it was altered");
        let code_key = code_key(&file_key).map_err(|_| DecryptError::Header("the library failed"))?;
        match hmac::verify(&code_key, &self.text, &self.code) {
            Ok(()) => Ok(file_key),
            Err(_) => Err(altered),
        }
    }
}

fn unwrap(key: &ModelKey, share: &[u8; 32], wrapped: &[u8; WRAPPED_LEN]) -> Option<Secret<16>> {
    let mut wrapped = Zeroizing::new(*wrapped);
    let cipher = cipher(&key.wrap_key(share)?).ok()?;
    let opened = cipher.open_in_place(zero_nonce(), Aad::empty(), wrapped.as_mut_slice()).ok()?;
    let opened: &[u8] = opened;
    opened.try_into().ok().map(Zeroizing::new)
}

/// Lines of a file, read byte by byte: what follows the header must stay.
struct Lines<'f, R> {
    file: &'f mut R,
    /// All lines so far, with their ends.
    text: Vec<u8>,
}

impl<R: Read> Lines<'_, R> {
    fn next(&mut self) -> Result<String, DecryptError> {
        let start = self.text.len();
        loop {
            let mut byte = [0];
            if self.file.read(&mut byte)? == 0 {
                return Err(DecryptError::Header("it ends within its header"));
            }
            self.text.extend(byte);
            if byte == *b"\n" {
                break;
            }
            if self.text.len() > MAX_HEADER {
                return Err(DecryptError::Header("its header is longer than 64 KiB"));
            }
        }
        let line = self.text.get(start..self.text.len().saturating_sub(1)).unwrap_or_default();
        let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii());
        line.map(str::to_owned).ok_or(DecryptError::Header("its header is not text"))
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    Base64Unpadded::decode_vec(text).ok()?.try_into().ok()
}

fn cipher(key: &Secret<32>) -> Result<LessSafeKey, Failed> {
    UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).map(LessSafeKey::new).map_err(|_| Failed)
}

/// Each wrapping key wraps one file key, so its nonce can be zero.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn code_key(file_key: &Secret<16>) -> Result<hmac::Key, Failed> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, derive(b"", file_key.as_slice(), b"header")?.as_slice()))
}

const WRAPPED_LEN: usize = 32;
const MAX_HEADER: usize = 64 << 10;
