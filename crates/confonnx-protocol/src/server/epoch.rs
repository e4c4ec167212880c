//! Epochs, and the keys that an epoch's secret gives for one binding (`docs/protocol.md`, section 3).

use std::{sync::Arc, time::Duration};

use confonnx_attest::UnixTime;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    KeyConfig,
    context::PrivateKey,
    resumption::ResumptionTable,
    secret::EpochSecret,
    suite::{Aead, Kem},
};

const SALT: &[u8] = b"confonnx keys v1";

/// A secret and when its keys are current.
#[derive(Debug)]
pub struct Epoch {
    /// The epoch's number: one more than that of the epoch before. All that share the secret agree on it.
    pub number: u64,
    /// What the keys are derived from.
    pub secret: EpochSecret,
    /// When the epoch's keys become current.
    pub not_before: UnixTime,
    /// When the keys stop being current.
    pub not_after: UnixTime,
}

/// One key for each KEM, and when they are good.
pub(super) struct EpochKeys {
    pub(super) number: u64,
    /// The secret, kept to derive the keys of another binding for as long as the keys themselves.
    pub(super) secret: Arc<EpochSecret>,
    pub(super) keys: Vec<EpochKey>,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    pub(super) accepted_until: UnixTime,
    /// Resumptions that requests to these keys began. They end with the keys.
    pub(super) resumptions: ResumptionTable,
}

/// A private key and what is published of it. The private key is erased on drop.
pub(super) struct EpochKey {
    pub(super) config: KeyConfig,
    pub(super) private: PrivateKey,
}

impl EpochKeys {
    pub(super) fn new(epoch: Epoch, binding: &[u8; 32], grace: Duration, resumptions: usize) -> Self {
        let Epoch { number, secret, not_before, not_after } = epoch;
        let accepted_until = UnixTime(not_after.0.saturating_add(grace.as_secs()));
        let keys = derive(&secret, number, binding);
        let resumptions = ResumptionTable::new(resumptions);
        Self { number, secret: Arc::new(secret), keys, not_before, not_after, accepted_until, resumptions }
    }

    /// The same epoch's keys for another binding, without resumptions.
    pub(super) fn rebound(&self, binding: &[u8; 32], resumptions: usize) -> Self {
        let keys = derive(&self.secret, self.number, binding);
        let (secret, resumptions) = (Arc::clone(&self.secret), ResumptionTable::new(resumptions));
        Self { keys, secret, resumptions, ..*self }
    }

    pub(super) fn is_accepted(&self, now: UnixTime) -> bool {
        now < self.accepted_until
    }

    pub(super) fn has_begun(&self, now: UnixTime) -> bool {
        self.not_before <= now
    }
}

#[expect(clippy::expect_used, reason = "lengths that are fixed here")]
fn derive(secret: &EpochSecret, number: u64, binding: &[u8; 32]) -> Vec<EpochKey> {
    let prk = Hkdf::<Sha256>::new(Some(SALT), secret.expose());
    let key = |(id, kem): (u8, Kem)| {
        let mut ikm = Zeroizing::new([0; 32]);
        prk.expand_multi_info(&[b"kem", &kem.id().to_be_bytes(), binding], ikm.as_mut_slice())
            .expect("32 bytes are fewer than HKDF's limit");
        let (private, public) = PrivateKey::derive(kem, ikm.as_slice());
        let config =
            KeyConfig::new(id, kem, public, Aead::ALL.to_vec()).expect("a derived public key is well-formed");
        EpochKey { config, private }
    };
    identifiers(number, binding).zip(Kem::ALL).map(key).collect()
}

/// The identifiers of an epoch's keys. Those of epochs whose numbers differ by less than 85 are distinct.
fn identifiers(number: u64, binding: &[u8; 32]) -> impl Iterator<Item = u8> {
    let [offset, ..] = *binding;
    let [.., low] = number.to_be_bytes();
    let first = offset.wrapping_add(low.wrapping_mul(3));
    (0..=u8::MAX).map(move |position| first.wrapping_add(position))
}
