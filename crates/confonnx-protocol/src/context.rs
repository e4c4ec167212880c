//! HPKE contexts (RFC 9180 §5.1.1, base mode) for the suites chosen at run time.

use aead::inout::InOutBuf;
use hpke::{
    Deserializable, Kem as HpkeKem, OpModeR, OpModeS, Serializable,
    aead::{AeadCtxR, AeadCtxS, AeadTag},
    kdf::HkdfSha256,
    setup_receiver, setup_sender_with_rng,
};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{
    backend::{
        Aes128Gcm, Aes256Gcm, ChaCha20Poly1305, Cipher, CipherFailure, DhP256, DhX25519, HpkeAead, XWing,
    },
    suite::{Aead, KDF_ID, Kem, TAG_LEN},
};

/// Why a message was not sealed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// The key is not published for this cipher.
    #[error("key {key_id} cannot be used with {aead}; choose one of the ciphers its configuration lists")]
    Suite {
        /// The key's identifier.
        key_id: u8,
        /// The cipher asked for.
        aead: Aead,
    },
    /// No secret could be encapsulated to the public key: it is degenerate.
    #[error("the server's {0} public key cannot be sealed to; attest the server again")]
    Encapsulate(Kem),
    /// The message or the stream is too long for the cipher.
    #[error("a message of {len} bytes is too long for the cipher")]
    TooLong {
        /// How many bytes were to be sealed.
        len: usize,
    },
}

/// Seals messages in order, each under its own nonce.
pub(crate) trait Seal: Send {
    /// Encrypts `data` in place and returns the tag.
    fn seal(&mut self, aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG_LEN], CipherFailure>;
}

/// Opens messages in order.
pub(crate) trait Open: Send {
    /// Decrypts `data` in place; it holds nothing of value when that fails.
    fn open(&mut self, aad: &[u8], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), CipherFailure>;
}

/// Secrets for the reply, from the context of the request.
pub(crate) trait Export: Sync {
    fn export(&self, label: &[u8], out: &mut [u8]) -> Result<(), CipherFailure>;
}

/// The client's end of a request.
pub(crate) trait Sender: Seal + Export {}
impl<T: Seal + Export> Sender for T {}

/// The server's end of a request.
pub(crate) trait Receiver: Open + Export {}
impl<T: Open + Export> Receiver for T {}

/// A parsed public key.
pub(crate) enum PublicKey {
    XWing(<XWing as HpkeKem>::PublicKey),
    X25519(<DhX25519 as HpkeKem>::PublicKey),
    P256(<DhP256 as HpkeKem>::PublicKey),
}

impl PublicKey {
    pub(crate) fn parse(kem: Kem, bytes: &[u8]) -> Option<Self> {
        Some(match kem {
            Kem::XWing => Self::XWing(Deserializable::from_bytes(bytes).ok()?),
            Kem::X25519 => Self::X25519(Deserializable::from_bytes(bytes).ok()?),
            Kem::P256 => Self::P256(Deserializable::from_bytes(bytes).ok()?),
        })
    }

    fn kem(&self) -> Kem {
        match self {
            Self::XWing(_) => Kem::XWing,
            Self::X25519(_) => Kem::X25519,
            Self::P256(_) => Kem::P256,
        }
    }

    /// A new context, and the encapsulated key that opens it.
    pub(crate) fn sender(
        &self,
        aead: Aead,
        info: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Box<dyn Sender>), SealError> {
        match self {
            Self::XWing(key) => sender::<XWing>(key, aead, info, rng),
            Self::X25519(key) => sender::<DhX25519>(key, aead, info, rng),
            Self::P256(key) => sender::<DhP256>(key, aead, info, rng),
        }
        .map_err(|_| SealError::Encapsulate(self.kem()))
    }
}

/// A private key, erased on drop.
pub(crate) enum PrivateKey {
    XWing(<XWing as HpkeKem>::PrivateKey),
    X25519(<DhX25519 as HpkeKem>::PrivateKey),
    P256(<DhP256 as HpkeKem>::PrivateKey),
}

impl PrivateKey {
    /// DeriveKeyPair (RFC 9180 §7.1.3; for X-Wing draft-ietf-hpke-pq), with the serialized public key.
    pub(crate) fn derive(kem: Kem, ikm: &[u8]) -> (Self, Vec<u8>) {
        match kem {
            Kem::XWing => {
                let (private, public) = XWing::derive_keypair(ikm);
                (Self::XWing(private), public.to_bytes().to_vec())
            }
            Kem::X25519 => {
                let (private, public) = DhX25519::derive_keypair(ikm);
                (Self::X25519(private), public.to_bytes().to_vec())
            }
            Kem::P256 => {
                let (private, public) = DhP256::derive_keypair(ikm);
                (Self::P256(private), public.to_bytes().to_vec())
            }
        }
    }

    /// The context that the sender of `encapsulated` made.
    pub(crate) fn receiver(
        &self,
        aead: Aead,
        encapsulated: &[u8],
        info: &[u8],
    ) -> Result<Box<dyn Receiver>, CipherFailure> {
        match self {
            Self::XWing(key) => receiver::<XWing>(key, aead, encapsulated, info),
            Self::X25519(key) => receiver::<DhX25519>(key, aead, encapsulated, info),
            Self::P256(key) => receiver::<DhP256>(key, aead, encapsulated, info),
        }
        .map_err(|_| CipherFailure)
    }
}

/// How many bytes the header of a sealed request has: key id, KEM, KDF, AEAD (RFC 9458 §4.3).
pub(crate) const HEADER_LEN: usize = 7;

/// The header of a sealed request.
pub(crate) fn header(key_id: u8, kem: Kem, aead: Aead) -> [u8; HEADER_LEN] {
    let [[k0, k1], [d0, d1], [a0, a1]] =
        [kem.id().to_be_bytes(), KDF_ID.to_be_bytes(), aead.id().to_be_bytes()];
    [key_id, k0, k1, d0, d1, a0, a1]
}

/// The `info` of a request's context: its label and header, so that both are authenticated (RFC 9458 §4.3).
pub(crate) fn info(label: &[u8], header: &[u8; HEADER_LEN]) -> Vec<u8> {
    [label, &[0], header].concat()
}

/// Whether a message is sealed as a whole or in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Whole,
    Chunked,
}

impl Framing {
    /// The label of requests.
    pub(crate) const fn request(self) -> &'static [u8] {
        match self {
            Self::Whole => b"message/bhttp request",
            Self::Chunked => b"message/bhttp chunked request",
        }
    }

    /// The exporter label of replies.
    pub(crate) const fn reply(self) -> &'static [u8] {
        match self {
            Self::Whole => b"message/bhttp response",
            Self::Chunked => b"message/bhttp chunked response",
        }
    }
}

type Made<T> = Result<T, hpke::HpkeError>;

fn sender<K: HpkeKem + Send + Sync + 'static>(
    key: &K::PublicKey,
    aead: Aead,
    info: &[u8],
    rng: &mut impl CryptoRng,
) -> Made<(Vec<u8>, Box<dyn Sender>)> {
    fn with<C: Cipher, K: HpkeKem + Send + Sync + 'static>(
        key: &K::PublicKey,
        info: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Made<(Vec<u8>, Box<dyn Sender>)> {
        let (encapsulated, context) =
            setup_sender_with_rng::<HpkeAead<C>, HkdfSha256, K>(&OpModeS::Base, key, info, rng)?;
        Ok((encapsulated.to_bytes().to_vec(), Box::new(SenderContext(context))))
    }
    match aead {
        Aead::Aes256Gcm => with::<Aes256Gcm, K>(key, info, rng),
        Aead::Aes128Gcm => with::<Aes128Gcm, K>(key, info, rng),
        Aead::ChaCha20Poly1305 => with::<ChaCha20Poly1305, K>(key, info, rng),
    }
}

fn receiver<K: HpkeKem + Send + Sync + 'static>(
    key: &K::PrivateKey,
    aead: Aead,
    encapsulated: &[u8],
    info: &[u8],
) -> Made<Box<dyn Receiver>> {
    fn with<C: Cipher, K: HpkeKem + Send + Sync + 'static>(
        key: &K::PrivateKey,
        encapsulated: &K::EncappedKey,
        info: &[u8],
    ) -> Made<Box<dyn Receiver>> {
        let context = setup_receiver::<HpkeAead<C>, HkdfSha256, K>(&OpModeR::Base, key, encapsulated, info)?;
        Ok(Box::new(ReceiverContext(context)))
    }
    let encapsulated = K::EncappedKey::from_bytes(encapsulated)?;
    match aead {
        Aead::Aes256Gcm => with::<Aes256Gcm, K>(key, &encapsulated, info),
        Aead::Aes128Gcm => with::<Aes128Gcm, K>(key, &encapsulated, info),
        Aead::ChaCha20Poly1305 => with::<ChaCha20Poly1305, K>(key, &encapsulated, info),
    }
}

struct SenderContext<C: Cipher, K: HpkeKem>(AeadCtxS<HpkeAead<C>, HkdfSha256, K>);
struct ReceiverContext<C: Cipher, K: HpkeKem>(AeadCtxR<HpkeAead<C>, HkdfSha256, K>);

impl<C: Cipher, K: HpkeKem + Send> Seal for SenderContext<C, K> {
    fn seal(&mut self, aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG_LEN], CipherFailure> {
        let tag = self.0.seal_inout_detached(InOutBuf::from(data), aad).map_err(|_| CipherFailure)?;
        tag.to_bytes().as_slice().try_into().map_err(|_| CipherFailure)
    }
}

impl<C: Cipher, K: HpkeKem + Send> Open for ReceiverContext<C, K> {
    fn open(&mut self, aad: &[u8], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), CipherFailure> {
        let tag = AeadTag::from_bytes(tag).map_err(|_| CipherFailure)?;
        self.0.open_inout_detached(InOutBuf::from(data), aad, &tag).map_err(|_| CipherFailure)
    }
}

impl<C: Cipher, K: HpkeKem + Sync> Export for SenderContext<C, K> {
    fn export(&self, label: &[u8], out: &mut [u8]) -> Result<(), CipherFailure> {
        self.0.export(label, out).map_err(|_| CipherFailure)
    }
}

impl<C: Cipher, K: HpkeKem + Sync> Export for ReceiverContext<C, K> {
    fn export(&self, label: &[u8], out: &mut [u8]) -> Result<(), CipherFailure> {
        self.0.export(label, out).map_err(|_| CipherFailure)
    }
}
