//! DHKEM (RFC 9180 §4.1) over aws-lc, for X25519 and P-256.
//!
//! The private keys live in aws-lc's memory, which it erases when it frees them: they are never moved, so no copy stays
//! behind on a stack.

use std::{fmt, marker::PhantomData, sync::Arc};

use aws_lc_rs::{
    agreement,
    encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin},
    hkdf,
};
use hpke::{
    Deserializable, HpkeError, Kem, Serializable,
    hybrid_array::{
        ArraySize,
        typenum::{U32, U65, Unsigned},
    },
    kem::SharedSecret,
};
use rand_core::CryptoRng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

/// DHKEM with HKDF-SHA256 over `C`.
pub(crate) struct DhKem<C>(PhantomData<C>);

/// A curve of RFC 9180 §7.1.
pub(crate) trait Curve: Sized + Send + Sync + 'static {
    const KEM_ID: u16;
    const ALGORITHM: &agreement::Algorithm;
    /// Npk and Nenc.
    type PublicLen: ArraySize;

    /// Whether bytes of the right length have the form of a public key.
    fn is_public(bytes: &[u8]) -> bool;

    /// DeriveKeyPair (§7.1.3) from its `dkp_prk`.
    fn derive(prk: &hkdf::Prk) -> Option<agreement::PrivateKey>;

    /// SerializePrivateKey.
    fn bytes(key: &agreement::PrivateKey) -> Option<Zeroizing<Vec<u8>>>;
}

pub(crate) struct X25519;
pub(crate) struct P256;

impl Curve for X25519 {
    const KEM_ID: u16 = 0x0020;
    const ALGORITHM: &agreement::Algorithm = &agreement::X25519;
    type PublicLen = U32;

    fn is_public(_: &[u8]) -> bool {
        true
    }

    fn derive(prk: &hkdf::Prk) -> Option<agreement::PrivateKey> {
        let mut key = Zeroizing::new([0; NSK]);
        labeled_expand(Self::KEM_ID, prk, b"sk", b"", key.as_mut_slice())?;
        agreement::PrivateKey::from_private_key(Self::ALGORITHM, key.as_slice()).ok()
    }

    fn bytes(key: &agreement::PrivateKey) -> Option<Zeroizing<Vec<u8>>> {
        let bytes: Curve25519SeedBin<'_> = key.as_be_bytes().ok()?;
        Some(Zeroizing::new(bytes.as_ref().to_vec()))
    }
}

impl Curve for P256 {
    const KEM_ID: u16 = 0x0010;
    const ALGORITHM: &agreement::Algorithm = &agreement::ECDH_P256;
    type PublicLen = U65;

    /// A point on the curve, uncompressed (§7.1.1, §7.1.4); aws-lc would take other forms.
    fn is_public(bytes: &[u8]) -> bool {
        let parsed = agreement::UnparsedPublicKey::new(Self::ALGORITHM, bytes).try_into();
        bytes.first() == Some(&4) && parsed.is_ok_and(|_: agreement::ParsedPublicKey| true)
    }

    fn derive(prk: &hkdf::Prk) -> Option<agreement::PrivateKey> {
        // The first candidate is out of range once in 2^32 keys.
        (0..=u8::MAX).find_map(|counter| {
            let mut key = Zeroizing::new([0; NSK]);
            labeled_expand(Self::KEM_ID, prk, b"candidate", &[counter], key.as_mut_slice())?;
            agreement::PrivateKey::from_private_key(Self::ALGORITHM, key.as_slice()).ok()
        })
    }

    fn bytes(key: &agreement::PrivateKey) -> Option<Zeroizing<Vec<u8>>> {
        let bytes: EcPrivateKeyBin<'_> = key.as_be_bytes().ok()?;
        Some(Zeroizing::new(bytes.as_ref().to_vec()))
    }
}

/// A public key, or an encapsulated one, which is the same.
pub(crate) struct DhPublicKey<C>(Arc<[u8]>, PhantomData<C>);

/// A private key with its public half. Clones share it.
pub(crate) struct DhPrivateKey<C>(Arc<Pair>, PhantomData<C>);

struct Pair {
    private: agreement::PrivateKey,
    public: Arc<[u8]>,
}

impl<C: Curve> DhPrivateKey<C> {
    fn new(private: agreement::PrivateKey) -> Option<Self> {
        let public = private.compute_public_key().ok()?.as_ref().into();
        Some(Self(Arc::new(Pair { private, public }), PhantomData))
    }

    fn derive(ikm: &[u8]) -> Option<Self> {
        Self::new(C::derive(&labeled_extract(C::KEM_ID, b"dkp_prk", ikm))?)
    }

    fn public(&self) -> DhPublicKey<C> {
        DhPublicKey(Arc::clone(&self.0.public), PhantomData)
    }

    /// The shared secret with `peer`, extracted and expanded in the context of both sides' keys.
    fn agree(
        &self,
        peer: &[u8],
        encapsulated: &[u8],
        recipient: &[u8],
        failed: HpkeError,
    ) -> Result<SharedSecret<DhKem<C>>, HpkeError> {
        let peer = agreement::UnparsedPublicKey::new(C::ALGORITHM, peer);
        let mut secret = Zeroizing::new([0; 32]);
        let context = [encapsulated, recipient].concat();
        // aws-lc refuses an all-zero result (§7.1.4) and points that are not on the curve.
        agreement::agree(&self.0.private, peer, (), |dh| {
            let prk = labeled_extract(C::KEM_ID, b"eae_prk", dh);
            labeled_expand(C::KEM_ID, &prk, b"shared_secret", &context, secret.as_mut_slice()).ok_or(())
        })
        .map_err(|()| failed)?;
        Ok(SharedSecret((*secret).into()))
    }
}

impl<C: Curve> Kem for DhKem<C> {
    type PublicKey = DhPublicKey<C>;
    type PrivateKey = DhPrivateKey<C>;
    type EncappedKey = DhPublicKey<C>;
    type NSecret = U32;

    const KEM_ID: u16 = C::KEM_ID;

    fn sk_to_pk(private: &DhPrivateKey<C>) -> DhPublicKey<C> {
        private.public()
    }

    #[expect(clippy::expect_used, reason = "the trait has no error, and keys are derived from any bytes")]
    fn derive_keypair(ikm: &[u8]) -> (DhPrivateKey<C>, DhPublicKey<C>) {
        let private = DhPrivateKey::derive(ikm).expect("a key is derived from any bytes");
        let public = private.public();
        (private, public)
    }

    fn decap(
        private: &DhPrivateKey<C>,
        sender: Option<&DhPublicKey<C>>,
        encapsulated: &DhPublicKey<C>,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        private.agree(&encapsulated.0, &encapsulated.0, &private.0.public, HpkeError::DecapError)
    }

    fn encap_with_rng(
        public: &DhPublicKey<C>,
        sender: Option<(&DhPrivateKey<C>, &DhPublicKey<C>)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, DhPublicKey<C>), HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::EncapError);
        }
        let mut ikm = Zeroizing::new([0; NSK]);
        rng.fill_bytes(ikm.as_mut_slice());
        let ephemeral = DhPrivateKey::<C>::derive(ikm.as_slice()).ok_or(HpkeError::EncapError)?;
        let encapsulated = ephemeral.public();
        let shared = ephemeral.agree(&public.0, &encapsulated.0, &public.0, HpkeError::EncapError)?;
        Ok((shared, encapsulated))
    }
}

impl<C> Clone for DhPublicKey<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<C> Clone for DhPrivateKey<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<C> PartialEq for DhPublicKey<C> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<C> Eq for DhPublicKey<C> {}

impl<C> fmt::Debug for DhPublicKey<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DhPublicKey")
    }
}

impl<C: Curve> Serializable for DhPublicKey<C> {
    type OutputSize = C::PublicLen;

    fn write_exact(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

impl<C: Curve> Deserializable for DhPublicKey<C> {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let expected = <C::PublicLen as Unsigned>::USIZE;
        if bytes.len() != expected {
            return Err(HpkeError::IncorrectInputLength(expected, bytes.len()));
        }
        if !C::is_public(bytes) {
            return Err(HpkeError::ValidationError);
        }
        Ok(Self(bytes.into(), PhantomData))
    }
}

impl<C: Curve> ConstantTimeEq for DhPrivateKey<C> {
    fn ct_eq(&self, other: &Self) -> Choice {
        match (C::bytes(&self.0.private), C::bytes(&other.0.private)) {
            (Some(ours), Some(theirs)) => ours.ct_eq(&theirs),
            _ => 0.into(),
        }
    }
}

impl<C: Curve> Serializable for DhPrivateKey<C> {
    type OutputSize = U32;

    #[expect(clippy::expect_used, reason = "the trait has no error, and a key was checked when it was made")]
    fn write_exact(&self, out: &mut [u8]) {
        let bytes = C::bytes(&self.0.private).expect("aws-lc gives back the key it has");
        out.copy_from_slice(&bytes);
    }
}

impl<C: Curve> Deserializable for DhPrivateKey<C> {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let private = agreement::PrivateKey::from_private_key(C::ALGORITHM, bytes);
        private.ok().and_then(Self::new).ok_or(HpkeError::ValidationError)
    }
}

/// LabeledExtract (§4) with an empty salt.
fn labeled_extract(kem_id: u16, label: &[u8], ikm: &[u8]) -> hkdf::Prk {
    let mut labeled = [VERSION, SUITE, &kem_id.to_be_bytes(), label, ikm].concat();
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"").extract(&labeled);
    labeled.as_mut_slice().zeroize();
    prk
}

/// LabeledExpand (§4) to the length of `out`.
fn labeled_expand(kem_id: u16, prk: &hkdf::Prk, label: &[u8], info: &[u8], out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let kem_id = kem_id.to_be_bytes();
    let info = [&length, VERSION, SUITE, &kem_id, label, info];
    prk.expand(&info, Len(out.len())).and_then(|material| material.fill(out)).ok()
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// Nsk of both curves.
const NSK: usize = 32;
const VERSION: &[u8] = b"HPKE-v1";
const SUITE: &[u8] = b"KEM";
