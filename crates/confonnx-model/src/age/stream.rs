//! The content of a file: chunks of 64 KiB, each sealed under its number, the last one marked.

use std::io::{self, ErrorKind, Read};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use confonnx_tensor::Erased;

use super::{Failed, Secret, key::derive};

pub(super) struct Stream {
    cipher: LessSafeKey,
    counter: u64,
}

impl Stream {
    pub(super) fn new(file_key: &Secret<16>, nonce: &[u8; 16]) -> Result<Self, Failed> {
        let key = derive(nonce, file_key.as_slice(), b"payload")?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).map_err(|_| Failed)?;
        Ok(Self { cipher: LessSafeKey::new(key), counter: 0 })
    }

    /// Seals a chunk in place; the bytes to write.
    pub(super) fn seal<'c>(&mut self, chunk: &'c mut Chunk, last: bool) -> Result<&'c [u8], Failed> {
        let nonce = self.next_nonce(last)?;
        let len = chunk.len;
        let data = chunk.buffer.get_mut(..len).ok_or(Failed)?;
        let tag = self.cipher.seal_in_place_separate_tag(nonce, Aad::empty(), data).map_err(|_| Failed)?;
        let end = len.checked_add(TAG_LEN).ok_or(Failed)?;
        chunk.buffer.get_mut(len..end).ok_or(Failed)?.copy_from_slice(tag.as_ref());
        chunk.buffer.get(..end).ok_or(Failed)
    }

    /// Opens a chunk in place.
    pub(super) fn open<'c>(&mut self, chunk: &'c mut Chunk, last: bool) -> Result<&'c [u8], Failed> {
        let nonce = self.next_nonce(last)?;
        let len = chunk.len;
        let data = chunk.buffer.get_mut(..len).ok_or(Failed)?;
        self.cipher.open_in_place(nonce, Aad::empty(), data).map(|opened| &*opened).map_err(|_| Failed)
    }

    /// Eleven bytes of counter and one that marks the last chunk.
    fn next_nonce(&mut self, last: bool) -> Result<Nonce, Failed> {
        let [a, b, c, d, e, f, g, h] = self.counter.to_be_bytes();
        self.counter = self.counter.checked_add(1).ok_or(Failed)?;
        Ok(Nonce::assume_unique_for_key([0, 0, 0, a, b, c, d, e, f, g, h, u8::from(last)]))
    }
}

/// A buffer for one chunk and the byte after it, which says whether it is the last.
pub(super) struct Chunk {
    buffer: Erased<Vec<u8>>,
    size: usize,
    len: usize,
    next: Option<u8>,
}

impl Chunk {
    /// For what will be sealed.
    pub(super) fn plaintext() -> Self {
        Self::of(CHUNK)
    }

    /// For what will be opened.
    pub(super) fn sealed() -> Self {
        Self::of(CHUNK + TAG_LEN)
    }

    fn of(size: usize) -> Self {
        Self { buffer: vec![0; CHUNK + TAG_LEN].into(), size, len: 0, next: None }
    }

    /// Reads the next chunk; whether it is the last one.
    pub(super) fn fill(&mut self, file: &mut impl Read) -> io::Result<bool> {
        self.len = 0;
        if let (Some(byte), Some(first)) = (self.next.take(), self.buffer.first_mut()) {
            *first = byte;
            self.len = 1;
        }
        let free = self.buffer.get_mut(self.len..self.size).unwrap_or_default();
        self.len = self.len.saturating_add(read_full(file, free)?);
        let mut next = [0];
        if self.len == self.size && read_full(file, &mut next)? == 1 {
            self.next = Some(next[0]);
        }
        Ok(self.next.is_none())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

/// Reads until `buffer` is full or the file ends.
fn read_full(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

const CHUNK: usize = 64 << 10;
const TAG_LEN: usize = 16;
