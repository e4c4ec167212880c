//! X-Wing (draft-connolly-cfrg-xwing-kem): ML-KEM-768 and X25519 under one SHA3-256 combiner.
//!
//! Key derivation is that of the `hpke` crate. Encapsulation and decapsulation, of which each request takes one, are
//! composed here of aws-lc's ML-KEM-768 and X25519, with keys expanded once and not for each message.

use std::{fmt, sync::Arc};

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
type EncappedKey = <Standard as Kem>::EncappedKey;

const LABEL: &[u8; 6] = br"\.//^\";
const SEED_LEN: usize = 32;
const ML_KEM_SEED_LEN: usize = 64;
const ML_KEM_PUBLIC_KEY_LEN: usize = 1184;
const ML_KEM_CIPHERTEXT_LEN: usize = 1088;
const X25519_LEN: usize = 32;

/// X-Wing with a private key that is expanded once.
pub(crate) struct XWing;

/// A public key, of which aws-lc has the ML-KEM part. Clones share it.
#[derive(Clone)]
pub(crate) struct XWingPublicKey(Arc<Public>);

struct Public {
    bytes: [u8; ML_KEM_PUBLIC_KEY_LEN + X25519_LEN],
    ml_kem: lc_kem::EncapsulationKey,
}

/// An expanded private key. Clones share it; the last one to go erases it.
#[derive(Clone)]
pub(crate) struct XWingPrivateKey(Arc<Expanded>);

struct Expanded {
    seed: Zeroizing<[u8; SEED_LEN]>,
    public: XWingPublicKey,
    ml_kem: lc_kem::DecapsulationKey,
    x25519: agreement::PrivateKey,
}

impl XWingPrivateKey {
    /// expandDecapsulationKey of the draft: SHAKE-256 of the seed gives ML-KEM's d ‖ z, then the X25519 key.
    fn expand(seed: &[u8; SEED_LEN], public: XWingPublicKey) -> Result<Self, HpkeError> {
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

        Ok(Self(Arc::new(Expanded {
            seed: Zeroizing::new(*seed),
            public,
            ml_kem: ml_kem.map_err(|_| HpkeError::ValidationError)?,
            x25519: agreement::PrivateKey::from_private_key(&agreement::X25519, x25519_key)
                .map_err(|_| HpkeError::ValidationError)?,
        })))
    }

    /// Decapsulate of the draft. An X25519 share of small order is refused.
    fn decapsulate(&self, encapsulated: &[u8]) -> Result<[u8; 32], HpkeError> {
        let key = &*self.0;
        let (ct_m, ct_x) =
            encapsulated.split_at_checked(ML_KEM_CIPHERTEXT_LEN).ok_or(HpkeError::DecapError)?;
        let ss_m = key.ml_kem.decapsulate(ct_m.into()).map_err(|_| HpkeError::DecapError)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, ct_x);
        agreement::agree(&key.x25519, peer, HpkeError::DecapError, |ss_x| {
            Ok(combine(ss_m.as_ref(), ss_x, ct_x, key.public.x25519()))
        })
    }
}

impl XWingPublicKey {
    fn x25519(&self) -> &[u8] {
        &self.0.bytes[ML_KEM_PUBLIC_KEY_LEN..]
    }

    /// Encapsulate of the draft: the shared secret and what carries it. aws-lc draws ML-KEM's randomness itself, and
    /// takes none from outside.
    fn encapsulate(
        &self,
        rng: &mut impl CryptoRng,
    ) -> Result<([u8; 32], [u8; ML_KEM_CIPHERTEXT_LEN + X25519_LEN]), HpkeError> {
        let failed = HpkeError::EncapError;
        let (ct_m, ss_m) = self.0.ml_kem.encapsulate().map_err(|_| HpkeError::EncapError)?;
        let mut ephemeral = Zeroizing::new([0; X25519_LEN]);
        rng.fill_bytes(ephemeral.as_mut_slice());
        let ephemeral = agreement::PrivateKey::from_private_key(&agreement::X25519, ephemeral.as_slice())
            .map_err(|_| HpkeError::EncapError)?;
        let ct_x = ephemeral.compute_public_key().map_err(|_| HpkeError::EncapError)?;
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, self.x25519());
        let secret = agreement::agree(&ephemeral, peer, failed, |ss_x| {
            Ok(combine(ss_m.as_ref(), ss_x, ct_x.as_ref(), self.x25519()))
        })?;
        let mut encapsulated = [0; ML_KEM_CIPHERTEXT_LEN + X25519_LEN];
        let (to_ct_m, to_ct_x) = encapsulated.split_at_mut(ML_KEM_CIPHERTEXT_LEN);
        to_ct_m.copy_from_slice(ct_m.as_ref());
        to_ct_x.copy_from_slice(ct_x.as_ref());
        Ok((secret, encapsulated))
    }
}

/// Combiner of the draft.
fn combine(ss_m: &[u8], ss_x: &[u8], ct_x: &[u8], pk_x: &[u8]) -> [u8; 32] {
    Sha3_256::new()
        .chain_update(ss_m)
        .chain_update(ss_x)
        .chain_update(ct_x)
        .chain_update(pk_x)
        .chain_update(LABEL)
        .finalize()
        .into()
}

impl Serializable for XWingPublicKey {
    type OutputSize = <<Standard as Kem>::PublicKey as Serializable>::OutputSize;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.bytes);
    }
}

impl Deserializable for XWingPublicKey {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        // Checks what FIPS 203 section 7.2 asks of an encapsulation key.
        <Standard as Kem>::PublicKey::from_bytes(bytes)?;
        let bytes: [u8; ML_KEM_PUBLIC_KEY_LEN + X25519_LEN] =
            bytes.try_into().map_err(|_| HpkeError::ValidationError)?;
        let ml_kem = lc_kem::EncapsulationKey::new(&lc_kem::ML_KEM_768, &bytes[..ML_KEM_PUBLIC_KEY_LEN])
            .map_err(|_| HpkeError::ValidationError)?;
        Ok(Self(Arc::new(Public { bytes, ml_kem })))
    }
}

impl PartialEq for XWingPublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for XWingPublicKey {}

impl fmt::Debug for XWingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("XWingPublicKey")
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
        let public = XWingPublicKey::from_bytes(&Standard::sk_to_pk(&private).to_bytes());
        let key = public.and_then(|public| Self::expand(&seed, public));
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
    type PublicKey = XWingPublicKey;
    type PrivateKey = XWingPrivateKey;
    type EncappedKey = EncappedKey;
    type NSecret = U32;

    const KEM_ID: u16 = Standard::KEM_ID;

    fn sk_to_pk(private: &XWingPrivateKey) -> XWingPublicKey {
        private.0.public.clone()
    }

    #[expect(clippy::expect_used, reason = "the trait has no error, and any seed expands")]
    fn derive_keypair(ikm: &[u8]) -> (XWingPrivateKey, XWingPublicKey) {
        let (private, _) = Standard::derive_keypair(ikm);
        let mut seed: [u8; SEED_LEN] = private.to_bytes().into();
        let key = XWingPrivateKey::from_bytes(&seed).expect("a seed of 32 bytes expands");
        seed.zeroize();
        let public = Self::sk_to_pk(&key);
        (key, public)
    }

    fn decap(
        private: &XWingPrivateKey,
        sender: Option<&XWingPublicKey>,
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
        public: &XWingPublicKey,
        sender: Option<(&XWingPrivateKey, &XWingPublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, EncappedKey), HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::EncapError);
        }
        let (mut secret, encapsulated) = public.encapsulate(rng)?;
        let shared = SharedSecret(secret.into());
        secret.zeroize();
        Ok((shared, EncappedKey::from_bytes(&encapsulated)?))
    }
}
