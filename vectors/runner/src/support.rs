//! Both ends of an exchange, at the time of the vectors.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{
    Claims, Document, Expectations, Nonce, Policy, Trusted, UnixTime, merkle::Tree, report_data,
};
use confonnx_protocol::{
    EpochSecret, Kem, KeyConfig,
    client::SealingKey,
    server::{Epoch, ResumptionLimits, RingConfig},
};
use rand_core::{TryCryptoRng, TryRng, utils};
use serde_json::json;

pub(crate) const START: UnixTime = UnixTime(1_795_426_200);

pub(crate) fn config() -> RingConfig {
    RingConfig {
        grace: Duration::from_secs(600),
        date_window: Duration::from_secs(300),
        replay_capacity: 1_000,
        resumption: ResumptionLimits { max: 100, lifetime: Duration::from_secs(600) },
    }
}

pub(crate) fn epoch(number: u64, secret: [u8; 32], begins: UnixTime) -> Epoch {
    let secret = EpochSecret::new(secret);
    Epoch { number, secret, not_before: begins, not_after: UnixTime(begins.0 + 86_400) }
}

/// A policy that accepts the insecure TEE.
pub(crate) fn policy() -> Policy {
    Policy::new(Expectations::new().allow_debug(true)).expect("a policy that expects something")
}

/// A generator of the same numbers in every run, for scenes that are about something else.
pub(crate) fn rng() -> Counting {
    Counting(NEXT.fetch_add(1 << 32, Relaxed))
}

/// The generator SplitMix64.
pub(crate) struct Counting(u64);

static NEXT: AtomicU64 = AtomicU64::new(0);

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(mixed ^ (mixed >> 31))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        utils::fill_bytes_via_next_word(out, || self.try_next_u64())
    }
}

impl TryCryptoRng for Counting {}

/// An attestation of these keys by the insecure TEE, which the client trusts.
fn trusted(key_configs: &[u8]) -> Option<Trusted> {
    let nonce = Nonce([5; 32]);
    let tree = Tree::new(vec![nonce]).ok()?;
    let document = document(key_configs, &Claims::example(START).to_bytes(), &tree);
    Document::parse(&document).ok()?.verify(Some(&nonce), START).ok()?.appraise(&policy(), START).ok()
}

/// The attestation document of the insecure TEE for the only nonce of `tree` (docs/protocol.md 2.2, 2.7).
pub(crate) fn document(key_configs: &[u8], claims: &[u8], tree: &Tree) -> Vec<u8> {
    let report = json!({
        "warning": "insecure: this proves nothing",
        "report_data": hex(&report_data(&tree.root(), key_configs, claims)),
        "measurement": "01".repeat(32),
        "debug": true,
    });
    let b64u = Base64UrlUnpadded::encode_string;
    let document = json!({
        "version": 1,
        "key_configs": b64u(key_configs),
        "claims": b64u(claims),
        "evidence": { "tee": "insecure", "report": b64u(report.to_string().as_bytes()), "endorsements": {} },
        "freshness": { "root": hex(&tree.root()), "proof": { "leaf_index": 0, "tree_size": 1, "path": [] } },
    });
    document.to_string().into_bytes()
}

/// The current key of that KEM in `key_configs`, attested.
pub(crate) fn sealing_key(key_configs: &[u8], kem: &str) -> Option<SealingKey> {
    let kem = Kem::from_name(kem)?;
    let configs = KeyConfig::parse_list(key_configs).ok()?;
    let config = configs.into_iter().find(|config| config.kem() == kem)?;
    SealingKey::new(config, &trusted(key_configs)?).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
