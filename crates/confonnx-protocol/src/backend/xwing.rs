//! X-Wing (draft-connolly-cfrg-xwing-kem): ML-KEM-768 and X25519 under one SHA3-256 combiner.
//!
//! Key derivation and encapsulation are those of the `hpke` crate. Decapsulation, which a server does for each
//! request, is composed here of aws-lc's ML-KEM-768 and X25519, with the key expanded once and not for each message.

use std::sync::Arc;

use aws_lc_rs::{agreement, kem as lc_kem};
use hpke::{Deserializable, HpkeError, Kem, Serializable, hybrid_array::typenum::U32, kem::SharedSecret};
#[expect(deprecated, reason = "aws-lc-rs makes no ML-KEM key from a seed")]
use ml_kem::ExpandedKeyEncoding;
use ml_kem::{DecapsulationKey, MlKem768};
use rand_core::CryptoRng;
use sha3::{Digest, Sha3_256};
use shake::{ExtendableOutput, Shake256, Update, XofReader};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

type Standard = hpke::kem::XWing;
type PublicKey = <Standard as Kem>::PublicKey;
type EncappedKey = <Standard as Kem>::EncappedKey;

const LABEL: &[u8; 6] = br"\.//^\";
const SEED_LEN: usize = 32;
const ML_KEM_SEED_LEN: usize = 64;
const ML_KEM_PUBLIC_KEY_LEN: usize = 1184;
const ML_KEM_CIPHERTEXT_LEN: usize = 1088;
const X25519_LEN: usize = 32;

/// X-Wing with a private key that is expanded once.
pub(crate) struct XWing;

/// An expanded private key. Clones share it; the last one to go erases it.
#[derive(Clone)]
pub(crate) struct XWingPrivateKey(Arc<Expanded>);

struct Expanded {
    seed: Zeroizing<[u8; SEED_LEN]>,
    public: PublicKey,
    public_x25519: [u8; X25519_LEN],
    ml_kem: lc_kem::DecapsulationKey,
    x25519: agreement::PrivateKey,
}

impl XWingPrivateKey {
    /// expandDecapsulationKey of the draft: SHAKE-256 of the seed gives ML-KEM's d ‖ z, then the X25519 key.
    fn expand(seed: &[u8; SEED_LEN], public: PublicKey) -> Result<Self, HpkeError> {
        let mut expanded = Zeroizing::new([0; ML_KEM_SEED_LEN + X25519_LEN]);
        let mut shake = Shake256::default();
        shake.update(seed);
        shake.finalize_xof().read(expanded.as_mut_slice());
        let (ml_kem_seed, x25519_key) = expanded.split_at(ML_KEM_SEED_LEN);

        let ml_kem_seed = ml_kem_seed.try_into().map_err(|_| HpkeError::ValidationError)?;
        let ml_kem = DecapsulationKey::<MlKem768>::from_seed(ml_kem_seed);
        // The expanded form is what aws-lc-rs reads; it never leaves this function.
        #[expect(deprecated, reason = "aws-lc-rs makes no ML-KEM key from a seed")]
        let mut ml_kem_bytes = ml_kem.to_expanded_bytes();
        let ml_kem = lc_kem::DecapsulationKey::new(&lc_kem::ML_KEM_768, &ml_kem_bytes);
        ml_kem_bytes.zeroize();

        let public_bytes = public.to_bytes();
        let (_, public_x25519) = public_bytes.split_at(ML_KEM_PUBLIC_KEY_LEN);
        Ok(Self(Arc::new(Expanded {
            seed: Zeroizing::new(*seed),
            public_x25519: public_x25519.try_into().map_err(|_| HpkeError::ValidationError)?,
            public,
            ml_kem: ml_kem.map_err(|_| HpkeError::ValidationError)?,
            x25519: agreement::PrivateKey::from_private_key(&agreement::X25519, x25519_key)
                .map_err(|_| HpkeError::ValidationError)?,
        })))
    }

    /// Decapsulate of the draft. An X25519 share of small order is refused.
    pub(super) fn decapsulate(&self, encapsulated: &[u8]) -> Result<[u8; 32], HpkeError> {
        let key = &*self.0;
        let (ct_m, ct_x) =
            encapsulated.split_at_checked(ML_KEM_CIPHERTEXT_LEN).ok_or(HpkeError::DecapError)?;
        let ss_m = key.ml_kem.decapsulate(ct_m.into()).map_err(|_| HpkeError::DecapError)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, ct_x);
        agreement::agree(&key.x25519, peer, HpkeError::DecapError, |ss_x| {
            Ok(Sha3_256::new()
                .chain_update(ss_m.as_ref())
                .chain_update(ss_x)
                .chain_update(ct_x)
                .chain_update(key.public_x25519)
                .chain_update(LABEL)
                .finalize()
                .into())
        })
    }
}

impl Serializable for XWingPrivateKey {
    type OutputSize = U32;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(self.0.seed.as_slice());
    }
}

impl Deserializable for XWingPrivateKey {
    fn from_bytes(seed: &[u8]) -> Result<Self, HpkeError> {
        let private = <Standard as Kem>::PrivateKey::from_bytes(seed)?;
        let mut seed: [u8; SEED_LEN] =
            seed.try_into().map_err(|_| HpkeError::IncorrectInputLength(SEED_LEN, seed.len()))?;
        let key = Self::expand(&seed, Standard::sk_to_pk(&private));
        seed.zeroize();
        key
    }
}

impl ConstantTimeEq for XWingPrivateKey {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.seed.ct_eq(&*other.0.seed)
    }
}

impl Kem for XWing {
    type PublicKey = PublicKey;
    type PrivateKey = XWingPrivateKey;
    type EncappedKey = EncappedKey;
    type NSecret = U32;

    const KEM_ID: u16 = Standard::KEM_ID;

    fn sk_to_pk(private: &XWingPrivateKey) -> PublicKey {
        private.0.public.clone()
    }

    fn derive_keypair(ikm: &[u8]) -> (XWingPrivateKey, PublicKey) {
        let (private, public) = Standard::derive_keypair(ikm);
        let mut seed: [u8; SEED_LEN] = private.to_bytes().into();
        let key = XWingPrivateKey::expand(&seed, public.clone()).expect("a seed of 32 octets expands");
        seed.zeroize();
        (key, public)
    }

    fn decap(
        private: &XWingPrivateKey,
        sender: Option<&PublicKey>,
        encapsulated: &EncappedKey,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        let mut secret = private.decapsulate(&encapsulated.to_bytes())?;
        let shared = SharedSecret(secret.into());
        secret.zeroize();
        Ok(shared)
    }

    fn encap_with_rng(
        public: &PublicKey,
        sender: Option<(&XWingPrivateKey, &PublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, EncappedKey), HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::EncapError);
        }
        let (shared, encapsulated) = Standard::encap_with_rng(public, None, rng)?;
        Ok((SharedSecret(shared.0), encapsulated))
    }
}
