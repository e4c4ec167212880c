//! The keys of one epoch, derived from its secret (`docs/protocol.md`, section 3).

use std::time::Duration;

use confonnx_attest::UnixTime;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    KeyConfig,
    context::PrivateKey,
    secret::EpochSecret,
    session::SessionTable,
    suite::{Aead, Kem},
};

const SALT: &[u8] = b"confonnx epoch v1";

/// One key for each KEM, and when they are good.
pub(super) struct Epoch {
    pub(super) keys: Vec<EpochKey>,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
    pub(super) accepted_until: UnixTime,
    /// Those opened by requests to these keys. They end with them.
    pub(super) sessions: SessionTable,
}

/// A private key and what is published of it. The private key is erased on drop.
pub(super) struct EpochKey {
    pub(super) config: KeyConfig,
    pub(super) private: PrivateKey,
}

/// Keys without identifiers yet.
pub(super) struct Derived(Vec<(Kem, PrivateKey, Vec<u8>)>);

impl Derived {
    pub(super) fn new(secret: &EpochSecret) -> Self {
        let prk = Hkdf::<Sha256>::new(Some(SALT), secret.expose());
        let derive = |kem: Kem| {
            let mut ikm = Zeroizing::new([0; 32]);
            prk.expand_multi_info(&[b"kem", &kem.id().to_be_bytes()], ikm.as_mut_slice())
                .expect("32 octets are fewer than HKDF's limit");
            let (private, public) = PrivateKey::derive(kem, ikm.as_slice());
            (kem, private, public)
        };
        Self(Kem::ALL.into_iter().map(derive).collect())
    }
}

impl Epoch {
    /// The epoch that starts at `now`; its keys take their identifiers from `ids`.
    pub(super) fn start(
        derived: Derived,
        ids: impl Iterator<Item = u8>,
        now: UnixTime,
        rollover: Duration,
        grace: Duration,
        sessions: usize,
    ) -> Self {
        let keys = derived
            .0
            .into_iter()
            .zip(ids)
            .map(|((kem, private, public), id)| {
                let config = KeyConfig::new(id, kem, public, Aead::ALL.to_vec())
                    .expect("a derived public key is well-formed");
                EpochKey { config, private }
            })
            .collect();
        let not_after = later(now, rollover);
        let accepted_until = later(not_after, grace);
        Self { keys, not_before: now, not_after, accepted_until, sessions: SessionTable::new(sessions) }
    }

    pub(super) fn is_accepted(&self, now: UnixTime) -> bool {
        now < self.accepted_until
    }
}

pub(super) fn later(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime(time.0.saturating_add(by.as_secs()))
}
