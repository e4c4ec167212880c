//! The client's side: sealing requests to attested keys, opening the replies.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::{fmt, sync::Arc};

use confonnx_attest::Trusted;
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    Draft, KeyConfig, Plaintext,
    chunked::{ChunkError, ChunkReader, ChunkSealer, MAX_CHUNK},
    context::{Framing, HEADER_LEN, PublicKey, SealError, Sender, header, info},
    key_config::KeyConfigError,
    reply_key::{ReplyKey, ReplySecret},
    session::{SessionOffer, SessionSecret},
    suite::{Aead, TAG_LEN},
};

/// A key that a trusted attestation lists: the only thing a request can be sealed to.
#[derive(Clone)]
pub struct SealingKey {
    config: KeyConfig,
    key: Arc<PublicKey>,
}

/// Why a key is not one of the attested server's.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BindingError {
    /// The attested list cannot be read.
    #[error("the attested keys cannot be read: {0}")]
    KeyConfigs(#[from] KeyConfigError),
    /// The attested list does not have this key.
    #[error("key {key_id} is not among the attested keys ({listed:?}); attest the server again")]
    NotListed {
        /// The key's identifier.
        key_id: u8,
        /// Identifiers of the attested keys.
        listed: Vec<u8>,
    },
}

/// Why a reply was not opened. It is no answer of the server that was attested.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpenReplyError {
    /// The reply ends too early.
    #[error("the reply ends after {len} bytes, before its end was authenticated; send the request again")]
    Truncated {
        /// Bytes received.
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
        /// Bytes allowed, sealed.
        limit: usize,
    },
}

impl SealingKey {
    /// A key of the list that `proof` vouches for.
    ///
    /// # Errors
    /// [`BindingError`] unless exactly this configuration is listed.
    pub fn new(config: KeyConfig, proof: &Trusted) -> Result<Self, BindingError> {
        let listed = KeyConfig::parse_list(proof.key_configs())?;
        let not_listed = || BindingError::NotListed {
            key_id: config.key_id(),
            listed: listed.iter().map(KeyConfig::key_id).collect(),
        };
        if !listed.contains(&config) {
            return Err(not_listed());
        }
        let key = PublicKey::parse(config.kem(), config.public_key()).ok_or_else(not_listed)?;
        Ok(Self { config, key: Arc::new(key) })
    }

    /// The key's configuration.
    pub fn config(&self) -> &KeyConfig {
        &self.config
    }

    /// Bytes that sealing puts before a message: header and encapsulated key. For [`Draft::request`].
    pub fn room(&self) -> usize {
        self.config.kem().encapsulated_key_len().saturating_add(HEADER_LEN)
    }

    /// Seals `message`, padded binary HTTP, as `message/ohttp-req` (RFC 9458 §4.3), in its buffer. The opener is for its
    /// reply alone.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        &self,
        aead: Aead,
        message: impl Into<Draft>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, ReplyOpener), SealError> {
        self.seal_whole(aead, message.into(), rng).map(|(request, opener, _)| (request, opener))
    }

    /// The same, and what a session can be made of: for a `message` whose field
    /// [`SESSION_FIELD`](crate::session::SESSION_FIELD) offers one.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_offering(
        &self,
        aead: Aead,
        message: impl Into<Draft>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, ReplyOpener, SessionOffer), SealError> {
        let (request, opener, context) = self.seal_whole(aead, message.into(), rng)?;
        let failed = SealError::Encapsulate(self.config.kem());
        let secret = SessionSecret::export(&*context).map_err(|_| failed)?;
        let header = header(self.config.key_id(), self.config.kem(), aead);
        Ok((request, opener, SessionOffer::new(secret, header, aead)))
    }

    fn seal_whole(&self, aead: Aead, message: Draft, rng: &mut impl CryptoRng) -> Result<Sealed, SealError> {
        let mut start = Vec::with_capacity(self.room());
        let (mut context, secret) = self.start(Framing::Whole, aead, rng, &mut start)?;
        let too_long = SealError::TooLong { len: message.message().len() };
        let request = message.seal(&start, |data| context.seal(b"", data)).map_err(|_| too_long)?;
        Ok((request, ReplyOpener(secret), context))
    }

    /// Starts a `message/ohttp-chunked-req` (draft-ietf-ohai-chunked-ohttp §6.1) and appends its start to `out`. The
    /// opener is for its reply alone, of at most `reply_limit` bytes, sealed.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_chunked(
        &self,
        aead: Aead,
        reply_limit: usize,
        rng: &mut impl CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<(ChunkSealer, ChunkedReplyOpener), SealError> {
        let (context, secret) = self.start(Framing::Chunked, aead, rng, out)?;
        let opener = ChunkedReplyOpener {
            state: ReplyState::Nonce { secret, nonce: Vec::new() },
            received: 0,
            limit: reply_limit,
        };
        Ok((ChunkSealer::new(context), opener))
    }

    fn start(
        &self,
        framing: Framing,
        aead: Aead,
        rng: &mut impl CryptoRng,
        out: &mut Vec<u8>,
    ) -> Result<(Box<dyn Sender>, ReplySecret), SealError> {
        if !self.config.aeads().contains(&aead) {
            return Err(SealError::Suite { key_id: self.config.key_id(), aead });
        }
        let header = header(self.config.key_id(), self.config.kem(), aead);
        let (encapsulated, context) = self.key.sender(aead, &info(framing.request(), &header), rng)?;
        let secret = ReplySecret::export(&*context, framing, aead, &encapsulated)
            .map_err(|_| SealError::Encapsulate(self.config.kem()))?;
        out.extend_from_slice(&header);
        out.extend_from_slice(&encapsulated);
        Ok((context, secret))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({}, {})", self.config.key_id(), self.config.kem())
    }
}

/// The request, its reply's opener, and the context.
type Sealed = (Vec<u8>, ReplyOpener, Box<dyn Sender>);

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
