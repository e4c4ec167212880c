//! Messages in chunks (draft-ietf-ohai-chunked-ohttp §6), without IO: both sides push bytes in and take bytes out.

use std::{fmt, mem};

use confonnx_tensor::Erased;

use crate::{
    Draft, bhttp,
    context::{Open, Seal, SealError},
    padding::padded_len,
    secret::Plaintext,
    suite::TAG_LEN,
};

/// How many bytes of plaintext the largest chunk has, sent or accepted: what the draft obliges every peer to accept.
pub const MAX_CHUNK: usize = 16_384;

const MAX_SEALED_CHUNK: usize = MAX_CHUNK + TAG_LEN;
const FINAL_AAD: &[u8] = b"final";
/// How many bytes the length of a largest chunk takes.
const CHUNK_LENGTH: usize = 4;

/// Seals a message chunk by chunk.
pub struct ChunkSealer(Box<dyn Seal>);

impl ChunkSealer {
    pub(crate) fn new(context: Box<dyn Seal>) -> Self {
        Self(context)
    }

    /// The sealed length of a message of `len` bytes, by [`chunk`](Self::chunk) in multiples of [`MAX_CHUNK`], then
    /// [`finish`](Self::finish).
    pub fn sealed_len(len: usize) -> usize {
        let chunks = len.saturating_sub(1) / MAX_CHUNK;
        let last = len.saturating_sub(chunks.saturating_mul(MAX_CHUNK));
        let whole = MAX_SEALED_CHUNK.saturating_add(CHUNK_LENGTH);
        chunks.saturating_mul(whole).saturating_add(last).saturating_add(TAG_LEN).saturating_add(1)
    }

    /// Appends `message` to `out`, sealed in as many chunks as it takes. More may follow.
    ///
    /// # Errors
    /// [`SealError::TooLong`] after 2⁶⁴ chunks.
    pub fn chunk(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        for chunk in message.chunks(MAX_CHUNK) {
            write_varint(chunk.len().saturating_add(TAG_LEN), out);
            seal_onto(self.0.as_mut(), b"", chunk, out)?;
        }
        Ok(())
    }

    /// Appends the end of the message to `out`: `message`, then nothing may follow.
    ///
    /// # Errors
    /// [`SealError::TooLong`] after 2⁶⁴ chunks.
    pub fn finish(mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let (chunks, last) = match message.chunks(MAX_CHUNK).next_back() {
            Some(last) => (message.strip_suffix(last).unwrap_or_default(), last),
            None => (message, message),
        };
        self.chunk(chunks, out)?;
        out.push(0);
        seal_onto(self.0.as_mut(), FINAL_AAD, last, out)
    }
}

/// A message that is sealed piece by piece, as it is sent.
pub struct Pieces {
    /// The bytes before the first chunk.
    start: Vec<u8>,
    /// The sealer; none when the last piece was made.
    sealer: Option<ChunkSealer>,
    message: Draft,
    at: usize,
}

impl Pieces {
    /// `start`, as it is, then `message`, sealed.
    pub fn new(start: Vec<u8>, sealer: ChunkSealer, message: Draft) -> Self {
        Self { start, sealer: Some(sealer), message, at: 0 }
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> usize {
        let left = self.message.message().len().saturating_sub(self.at);
        let sealed = self.sealer.as_ref().map_or(0, |_| ChunkSealer::sealed_len(left));
        self.start.len().saturating_add(sealed)
    }
}

impl Iterator for Pieces {
    type Item = Result<Vec<u8>, SealError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut sealer = self.sealer.take()?;
        let rest = self.message.message().get(self.at..).unwrap_or_default();
        let (piece, rest) = rest.split_at(rest.len().min(PIECE));
        let mut out = mem::take(&mut self.start);
        out.reserve_exact(ChunkSealer::sealed_len(piece.len()).saturating_add(TAG_LEN));
        if rest.is_empty() {
            return Some(sealer.finish(piece, &mut out).map(|()| out));
        }
        let sealed = sealer.chunk(piece, &mut out);
        self.at = self.at.saturating_add(piece.len());
        self.sealer = Some(sealer);
        Some(sealed.map(|()| out))
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({} bytes to come)", self.remaining())
    }
}

/// How many bytes of a message are sealed at a time: enough for what sending takes to be little.
const PIECE: usize = 4 * MAX_CHUNK;

/// Appends `message` to `out`, sealed, with its tag.
pub(crate) fn seal_onto(
    context: &mut (impl Seal + ?Sized),
    aad: &[u8],
    message: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    let start = out.len();
    out.reserve(message.len().saturating_add(TAG_LEN));
    out.extend_from_slice(message);
    let sealed = out.get_mut(start..).unwrap_or_default();
    let tag = context.seal(aad, sealed).map_err(|_| SealError::TooLong { len: message.len() })?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// Why chunks do not make a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChunkError {
    /// The bytes end before the final chunk does.
    Truncated,
    /// A chunk is not authentic, or the final one is no final chunk.
    Decrypt,
    /// A chunk is longer than [`MAX_CHUNK`], or shorter than its tag.
    Size,
}

/// Collects chunks of any split of the bytes they arrive in.
pub(crate) struct ChunkReader {
    /// Sealed bytes that do not make a whole chunk yet.
    pending: Vec<u8>,
    /// Whether all bytes from here on belong to the final chunk.
    last: bool,
    message: Erased<Vec<u8>>,
    /// How many bytes the sealed message can have at most.
    limit: usize,
}

impl ChunkReader {
    /// An opener of a message of at most `limit` bytes, sealed, which the caller enforces.
    pub(crate) fn new(limit: usize) -> Self {
        Self { pending: Vec::new(), last: false, message: Erased::default(), limit }
    }

    pub(crate) fn push(
        &mut self,
        sealed: &[u8],
        context: &mut (impl Open + ?Sized),
    ) -> Result<(), ChunkError> {
        let held = mem::take(&mut self.pending);
        if held.is_empty() {
            let rest = self.open_whole_chunks(sealed, context)?;
            self.pending = rest.to_vec();
        } else {
            let mut held = held;
            held.extend_from_slice(sealed);
            let rest = self.open_whole_chunks(&held, context)?.len();
            held.drain(..held.len().saturating_sub(rest));
            self.pending = held;
        }
        if self.last && self.pending.len() > MAX_SEALED_CHUNK {
            return Err(ChunkError::Size);
        }
        Ok(())
    }

    /// The message as far as it was opened.
    pub(crate) fn opened(&self) -> &[u8] {
        &self.message
    }

    pub(crate) fn finish(mut self, context: &mut (impl Open + ?Sized)) -> Result<Plaintext, ChunkError> {
        if !self.last {
            return Err(ChunkError::Truncated);
        }
        let last = mem::take(&mut self.pending);
        self.open_chunk(&last, FINAL_AAD, context)?;
        let len = self.message.len();
        Ok(Plaintext::within(self.message, 0..len))
    }

    /// Opens the chunks that are complete, and returns the bytes after them.
    fn open_whole_chunks<'a>(
        &mut self,
        mut sealed: &'a [u8],
        context: &mut (impl Open + ?Sized),
    ) -> Result<&'a [u8], ChunkError> {
        while !self.last {
            let Some((len, rest)) = read_varint(sealed) else {
                break;
            };
            if len == 0 {
                self.last = true;
                return Ok(rest);
            }
            let len = usize::try_from(len).map_err(|_| ChunkError::Size)?;
            if !(TAG_LEN..=MAX_SEALED_CHUNK).contains(&len) {
                return Err(ChunkError::Size);
            }
            let Some((chunk, rest)) = rest.split_at_checked(len) else {
                break;
            };
            self.open_chunk(chunk, b"", context)?;
            sealed = rest;
        }
        Ok(sealed)
    }

    fn open_chunk(
        &mut self,
        sealed: &[u8],
        aad: &[u8],
        context: &mut (impl Open + ?Sized),
    ) -> Result<(), ChunkError> {
        let (chunk, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(ChunkError::Truncated)?;
        let start = self.message.len();
        self.message.append(chunk);
        let data = self.message.get_mut(start..).unwrap_or_default();
        context.open(aad, data, tag).map_err(|_| ChunkError::Decrypt)?;
        if start == 0 {
            // Room for all that is announced, so that a large message is neither moved nor given twice its room. What is never used costs nothing.
            let announced = bhttp::announced_len(&self.message).map_or(0, padded_len);
            self.message.reserve_total(announced.min(self.limit));
        }
        Ok(())
    }
}

/// RFC 9000 §16. Lengths we write are below 2¹⁶.
fn write_varint(len: usize, out: &mut Vec<u8>) {
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short @ 0..=0x3f), _) => out.push(short),
        (_, Ok(medium @ 0..=0x3fff)) => out.extend((medium | 0x4000).to_be_bytes()),
        _ => out.extend((u32::try_from(len).unwrap_or(u32::MAX) | 0x8000_0000).to_be_bytes()),
    }
}

/// RFC 9000 §16. `None` when incomplete.
fn read_varint(input: &[u8]) -> Option<(u64, &[u8])> {
    let first = *input.first()?;
    let (bytes, rest) = input.split_at_checked(1_usize.checked_shl(u32::from(first >> 6))?)?;
    let value = bytes.iter().fold(0_u64, |value, &byte| (value << 8) | u64::from(byte));
    let bits = match bytes.len() {
        1 => 6,
        2 => 14,
        4 => 30,
        _ => 62,
    };
    Some((value & (u64::MAX >> (64_u32.saturating_sub(bits))), rest))
}
