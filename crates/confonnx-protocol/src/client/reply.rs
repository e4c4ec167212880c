//! Opening replies.

use std::fmt;

use thiserror::Error;

use crate::{
    Plaintext,
    chunked::{ChunkError, ChunkReader, MAX_CHUNK},
    reply_key::{ReplyKey, ReplySecret},
    suite::TAG_LEN,
};

/// Why a reply was not opened. It is no answer of the server that was attested.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpenReplyError {
    /// The reply ends too early.
    #[error("the reply ends after {len} bytes, before its end was authenticated; send the request again")]
    Truncated {
        /// How many bytes were received.
        len: usize,
    },
    /// The reply was altered, or answers another request.
    #[error("the reply does not decrypt: it was altered, or answers another request; send the request again")]
    Decrypt,
    /// A chunk is larger than allowed or too small for its tag.
    #[error("a chunk of the reply is not between {TAG_LEN} bytes and {MAX_CHUNK} bytes and its tag")]
    ChunkSize,
    /// The reply is larger than the caller allows.
    #[error("the reply is larger than the {limit} bytes allowed; raise the limit")]
    TooLarge {
        /// How many bytes are allowed, sealed.
        limit: usize,
    },
}

/// Opens the reply to one request.
pub struct ReplyOpener(ReplySecret);

impl ReplyOpener {
    pub(crate) fn new(secret: ReplySecret) -> Self {
        Self(secret)
    }

    /// Opens a `message/ohttp-res` (RFC 9458 §4.4) or `message/confonnx-session-res`, in the buffer it came in.
    ///
    /// # Errors
    /// [`OpenReplyError`].
    pub fn open(self, mut reply: Vec<u8>) -> Result<Plaintext, OpenReplyError> {
        let len = reply.len();
        let truncated = OpenReplyError::Truncated { len };
        let Some((nonce, sealed)) = reply.split_at_mut_checked(self.0.nonce_len()) else {
            return Err(truncated);
        };
        let Some((data, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(truncated);
        };
        let message = nonce.len()..nonce.len().saturating_add(data.len());
        self.0
            .key(nonce)
            .and_then(|mut key| crate::context::Open::open(&mut key, b"", data, tag))
            .map_err(|_| OpenReplyError::Decrypt)?;
        Ok(Plaintext::within(reply, message))
    }
}

impl fmt::Debug for ReplyOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyOpener")
    }
}

/// Opens the reply to one chunked request (draft-ietf-ohai-chunked-ohttp §6.2), as its bytes arrive.
pub struct ChunkedReplyOpener {
    state: ReplyState,
    received: usize,
    limit: usize,
}

enum ReplyState {
    Nonce { secret: ReplySecret, nonce: Vec<u8> },
    Chunks { key: ReplyKey, reader: ChunkReader },
    Failed,
}

impl ChunkedReplyOpener {
    pub(super) fn new(secret: ReplySecret, limit: usize) -> Self {
        Self { state: ReplyState::Nonce { secret, nonce: Vec::new() }, received: 0, limit }
    }

    /// Takes the next bytes of the reply, however they were split on the way.
    ///
    /// # Errors
    /// [`OpenReplyError`]; after one, the reply is lost.
    pub fn push(&mut self, mut sealed: &[u8]) -> Result<(), OpenReplyError> {
        self.received = self.received.saturating_add(sealed.len());
        let state = std::mem::replace(&mut self.state, ReplyState::Failed);
        if self.received > self.limit {
            return Err(OpenReplyError::TooLarge { limit: self.limit });
        }
        let (mut key, mut reader) = match state {
            ReplyState::Nonce { secret, mut nonce } => {
                let missing = secret.nonce_len().saturating_sub(nonce.len());
                let Some((rest_of_nonce, rest)) = sealed.split_at_checked(missing) else {
                    nonce.extend_from_slice(sealed);
                    self.state = ReplyState::Nonce { secret, nonce };
                    return Ok(());
                };
                nonce.extend_from_slice(rest_of_nonce);
                sealed = rest;
                (secret.key(&nonce).map_err(|_| OpenReplyError::Decrypt)?, ChunkReader::new(self.limit))
            }
            ReplyState::Chunks { key, reader } => (key, reader),
            ReplyState::Failed => return Err(OpenReplyError::Decrypt),
        };
        reader.push(sealed, &mut key).map_err(|err| self.error(err))?;
        self.state = ReplyState::Chunks { key, reader };
        Ok(())
    }

    /// As much of the message as was opened. Each byte is authentic and in its place, but the rest may be missing:
    /// [`Self::finish`] alone says that it was whole.
    pub fn opened(&self) -> &[u8] {
        match &self.state {
            ReplyState::Chunks { reader, .. } => reader.opened(),
            ReplyState::Nonce { .. } | ReplyState::Failed => &[],
        }
    }

    /// The message, when all bytes were taken.
    ///
    /// # Errors
    /// [`OpenReplyError::Truncated`] when the final chunk is missing or cut.
    pub fn finish(mut self) -> Result<Plaintext, OpenReplyError> {
        match std::mem::replace(&mut self.state, ReplyState::Failed) {
            ReplyState::Chunks { mut key, reader } => reader.finish(&mut key).map_err(|err| self.error(err)),
            ReplyState::Nonce { .. } => Err(OpenReplyError::Truncated { len: self.received }),
            ReplyState::Failed => Err(OpenReplyError::Decrypt),
        }
    }

    fn error(&self, err: ChunkError) -> OpenReplyError {
        match err {
            ChunkError::Truncated => OpenReplyError::Truncated { len: self.received },
            ChunkError::Decrypt => OpenReplyError::Decrypt,
            ChunkError::Size => OpenReplyError::ChunkSize,
        }
    }
}

impl fmt::Debug for ChunkedReplyOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkedReplyOpener")
    }
}
