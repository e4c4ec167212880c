//! The client's side: sealing requests to attested keys, opening the replies.

mod reply;

use std::{fmt, sync::Arc};

use confonnx_attest::Trusted;
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    Draft, KeyConfig,
    chunked::ChunkSealer,
    context::{Framing, HEADER_LEN, PublicKey, SealError, Sender, header, info},
    key_config::KeyConfigError,
    reply_key::ReplySecret,
    resumption::{ResumptionOffer, ResumptionSecret},
    suite::Aead,
};

pub use self::reply::{ChunkedReplyOpener, OpenReplyError, ReplyOpener};

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

    /// How many bytes sealing puts before a message: header and encapsulated key. For [`Draft::request`].
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

    /// As [`seal`](Self::seal), and what a resumption can be made of: for a `message` whose field
    /// [`RESUMPTION_FIELD`](crate::resumption::RESUMPTION_FIELD) offers one.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_offering(
        &self,
        aead: Aead,
        message: impl Into<Draft>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, ReplyOpener, ResumptionOffer), SealError> {
        let (request, opener, context) = self.seal_whole(aead, message.into(), rng)?;
        let failed = SealError::Encapsulate(self.config.kem());
        let secret = ResumptionSecret::export(&*context).map_err(|_| failed)?;
        let header = header(self.config.key_id(), self.config.kem(), aead);
        Ok((request, opener, ResumptionOffer::new(secret, header, aead)))
    }

    fn seal_whole(&self, aead: Aead, message: Draft, rng: &mut impl CryptoRng) -> Result<Sealed, SealError> {
        let mut start = Vec::with_capacity(self.room());
        let (mut context, secret) = self.start(Framing::Whole, aead, rng, &mut start)?;
        let too_long = SealError::TooLong { len: message.message().len() };
        let request = message.seal(&start, |data| context.seal(b"", data)).map_err(|_| too_long)?;
        Ok((request, ReplyOpener::new(secret), context))
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
        let opener = ChunkedReplyOpener::new(secret, reply_limit);
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
