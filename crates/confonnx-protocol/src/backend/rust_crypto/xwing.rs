//! X-Wing of the `hpke` crate, with X25519 shares of small order refused as aws-lc refuses them.

use hpke::{HpkeError, Kem, Serializable, hybrid_array::typenum::U32, kem::SharedSecret};
use rand_core::CryptoRng;

type Standard = hpke::kem::XWing;
type PublicKey = <Standard as Kem>::PublicKey;
type PrivateKey = <Standard as Kem>::PrivateKey;
type EncappedKey = <Standard as Kem>::EncappedKey;

/// ML-KEM-768 with X25519.
pub(crate) struct XWing;

impl Kem for XWing {
    type PublicKey = PublicKey;
    type PrivateKey = PrivateKey;
    type EncappedKey = EncappedKey;
    type NSecret = U32;

    const KEM_ID: u16 = Standard::KEM_ID;

    fn sk_to_pk(private: &PrivateKey) -> PublicKey {
        Standard::sk_to_pk(private)
    }

    fn derive_keypair(ikm: &[u8]) -> (PrivateKey, PublicKey) {
        Standard::derive_keypair(ikm)
    }

    fn decap(
        private: &PrivateKey,
        sender: Option<&PublicKey>,
        encapsulated: &EncappedKey,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() || is_small_order(&encapsulated.to_bytes()) {
            return Err(HpkeError::DecapError);
        }
        Standard::decap(private, None, encapsulated).map(|secret| SharedSecret(secret.0.clone()))
    }

    fn encap_with_rng(
        public: &PublicKey,
        sender: Option<(&PrivateKey, &PublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, EncappedKey), HpkeError> {
        if sender.is_some() || is_small_order(&public.to_bytes()) {
            return Err(HpkeError::EncapError);
        }
        let (secret, encapsulated) = Standard::encap_with_rng(public, None, rng)?;
        Ok((SharedSecret(secret.0.clone()), encapsulated))
    }
}

/// Whether the X25519 share at the end of `bytes` gives everybody the same secret. A clamped scalar is a multiple of
/// eight, the cofactor, so exactly these shares become zero by any.
fn is_small_order(bytes: &[u8]) -> bool {
    bytes.last_chunk().is_none_or(|share| x25519_dalek::x25519([1; 32], *share) == [0; 32])
}
