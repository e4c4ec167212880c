//! A client's and a server's end, with a clock of the test's.

use std::time::Duration;

use confonnx_attest::{
    Claims, Digest, Document, Expectations, Nonce, Policy, Trusted, UnixTime, merkle::Tree,
    produce::Attester, report_data,
};
use confonnx_protocol::{
    EpochSecret, Kem, KeyConfig,
    client::SealingKey,
    server::{Epoch, KeyRing, ResumptionLimits, RingConfig},
};
use getrandom::{SysRng, rand_core::UnwrapErr};

pub(crate) const START: UnixTime = UnixTime(1_795_426_200);
pub(crate) const ROLLOVER: u64 = 86_400;
pub(crate) const GRACE: u64 = 3_600;
pub(crate) const WINDOW: u64 = 300;
pub(crate) const LIFETIME: u64 = 600;

pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

pub(crate) fn after(seconds: u64) -> UnixTime {
    UnixTime(START.0 + seconds)
}

pub(crate) fn config() -> RingConfig {
    RingConfig {
        grace: Duration::from_secs(GRACE),
        date_window: Duration::from_secs(WINDOW),
        replay_capacity: 1_000,
        resumption: ResumptionLimits { max: 100, lifetime: Duration::from_secs(LIFETIME) },
    }
}

/// What the keys are bound to; its first byte is the first key id.
pub(crate) fn binding(first_key_id: u8) -> [u8; 32] {
    std::array::from_fn(|at| if at == 0 { first_key_id } else { 0xb0 })
}

pub(crate) fn epoch(number: u64, secret: [u8; 32], begins: UnixTime) -> Epoch {
    let secret = EpochSecret::new(secret);
    Epoch { number, secret, not_before: begins, not_after: UnixTime(begins.0 + ROLLOVER) }
}

pub(crate) fn ring() -> KeyRing {
    ring_of([7; 32], 17)
}

pub(crate) fn ring_of(secret: [u8; 32], first_key_id: u8) -> KeyRing {
    ring_with(config(), secret, first_key_id)
}

pub(crate) fn ring_with(config: RingConfig, secret: [u8; 32], first_key_id: u8) -> KeyRing {
    let ring = KeyRing::new(config, binding(first_key_id), START).unwrap();
    ring.install(epoch(0, secret, START), START).unwrap();
    ring
}

/// Begins the next epoch.
pub(crate) fn rotate(ring: &KeyRing, secret: [u8; 32], now: UnixTime) {
    ring.install(epoch(ring.newest().unwrap().number + 1, secret, now), now).unwrap();
}

/// An attestation of these keys that the client trusts.
pub(crate) fn trusted(key_configs: &[u8]) -> Trusted {
    let nonce = Nonce([5; 32]);
    let tree = Tree::new(vec![nonce]).unwrap();
    let claims = Claims::example(START).to_bytes();
    let evidence = Attester::insecure(Digest([1; 32]))
        .evidence(&report_data(&tree.root(), key_configs, &claims))
        .unwrap();
    let document = Document::new(key_configs.to_vec(), claims, evidence, tree.root(), tree.proof(0));
    let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
    document.verify(Some(&nonce), START).unwrap().appraise(&policy, START).unwrap()
}

/// The ring's current key of that KEM, attested.
pub(crate) fn sealing_key(ring: &KeyRing, kem: Kem) -> SealingKey {
    sealing_key_of(&ring.key_configs(), kem)
}

pub(crate) fn sealing_key_of(key_configs: &[u8], kem: Kem) -> SealingKey {
    let configs = KeyConfig::parse_list(key_configs).unwrap();
    let config = configs.into_iter().find(|config| config.kem() == kem).unwrap();
    SealingKey::new(config, &trusted(key_configs)).unwrap()
}
