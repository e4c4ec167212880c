//! Whether erased keys are gone: this process's own memory is searched for them. In a binary of its own, so that no other
//! test's memory is searched, or holds what is searched for.

#![allow(clippy::restriction, reason = "a test may panic")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::Duration,
};

use confonnx_attest::UnixTime;
use confonnx_protocol::{
    EpochSecret,
    server::{Epoch, KeyRing, Ratchet, ResumptionLimits, RingConfig},
};

#[path = "it/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "it/support.rs"]
#[allow(dead_code)]
mod support;

const START: UnixTime = UnixTime(1_795_426_200);
const HOUR: Duration = Duration::from_secs(3600);

/// What a needle is stored under, so that the test itself does not hold what it searches for.
const MASK: u8 = 0xa5;

// The three run one after the other, in one test, because each searches the memory of them all.
#[test]
fn erased_secrets_and_keys_are_gone() {
    a_resumptions_secret_after_its_lifetime();
    an_epochs_secret_and_private_keys_after_its_grace();
    the_links_and_epochs_that_a_ratchet_went_past();
}

/// The resumption of `vectors/session`, which says what its secret is.
fn a_resumptions_secret_after_its_lifetime() {
    let (ring, needle) = std::thread::spawn(|| resume(&vector())).join().unwrap();
    let in_use = count(&needle)[0];
    assert!(in_use > 0, "in use, yet not found");
    ring.retire(UnixTime(START.0 + 599));
    assert_eq!(count(&needle), [in_use]);
    ring.retire(UnixTime(START.0 + 600));
    assert_eq!(count(&needle), [0]);
}

fn vector() -> serde_json::Value {
    let path = "/../../vectors/session/exchange-x25519-aes-256-gcm/case.json";
    let case = fs::read(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    serde_json::from_slice(&case).unwrap()
}

/// A ring that was asked by the resumption, and the resumption's secret, masked.
fn resume(case: &serde_json::Value) -> (KeyRing, Vec<Vec<u8>>) {
    let hex = |value: &serde_json::Value| bytes(value.as_str().unwrap()).collect::<Vec<u8>>();
    let server: case::Server = serde_json::from_value(case["server"].clone()).unwrap();
    let ring = server.ring();
    let (opened, _) = ring.open(hex(&case["session"]["request"]["sealed"]), START).unwrap();
    opened.grant_resumption(&mut case::Fixed(hex(&case["session"]["id"]))).unwrap();
    for message in case["messages"].as_array().unwrap() {
        ring.open_resumed(hex(&message["request"]["sealed"]), START).unwrap();
    }
    let secret = bytes(case["session_secret"].as_str().unwrap()).map(|byte| byte ^ MASK);
    (ring, vec![secret.collect()])
}

fn an_epochs_secret_and_private_keys_after_its_grace() {
    // In a thread of its own, whose stack is searched like the rest once it has ended.
    let (ring, needles) = std::thread::spawn(begin).join().unwrap();
    let in_use =
        |found: &[usize]| found[0] > 0 && found[1] > 0 && found[2] + found[3] > 0 && found[4] + found[5] > 0;
    let found = count(&needles);
    assert!(in_use(&found), "in use, yet not found: {found:?}");
    // With other claims the keys are erased, and the secret stays to make others.
    ring.rebind([2; 32]);
    let found = count(&needles);
    assert!(found[0] > 0 && found[1..] == [0; 5], "{found:?}");
    let ring = std::thread::spawn(move || {
        ring.rebind([1; 32]);
        ring
    });
    let ring = ring.join().unwrap();
    assert!(in_use(&count(&needles)));

    let later = UnixTime(START.0 + 3600);
    let secret = EpochSecret::new(std::array::from_fn(|i| i as u8 ^ 0x33));
    let end = UnixTime(later.0 + 3600);
    ring.install(Epoch { number: 1, secret, not_before: later, not_after: end }, later).unwrap();
    ring.retire(end);
    assert_eq!(count(&needles), [0; 6], "in the order of NEEDLES");
}

fn the_links_and_epochs_that_a_ratchet_went_past() {
    let needles: Vec<_> = LINKS.iter().map(|hex| masked(hex)).collect();
    let begin = || {
        let first = EpochSecret::new(std::array::from_fn(|i| (i * 53 + 29) as u8));
        let mut ratchet = Ratchet::start(first, 0, START, HOUR);
        ratchet.epoch(START).unwrap();
        // A ratchet's state is written and dropped, as when a replica joins.
        Ratchet::from_state(&ratchet.state()).unwrap();
        ratchet
    };
    let mut ratchet = std::thread::spawn(begin).join().unwrap();
    let [chain_0, epoch_0, chain_1, epoch_1, chain_2] = count(&needles)[..] else { panic!("five needles") };
    assert!(epoch_0 > 0 && chain_1 > 0, "in use, yet not found: {epoch_0} {chain_1}");
    assert_eq!((chain_0, epoch_1, chain_2), (0, 0, 0));
    let advance = move || {
        ratchet.epoch(UnixTime(START.0 + 3600)).unwrap();
        ratchet.forget(UnixTime(START.0 + 7200), HOUR);
        ratchet
    };
    let ratchet = std::thread::spawn(advance).join().unwrap();
    let found = count(&needles);
    assert!(found[..3] == [0; 3] && found[3] > 0 && found[4] > 0, "in the order of LINKS: {found:?}");
    drop(ratchet);
    assert_eq!(count(&needles), [0; 5]);
}

fn begin() -> (KeyRing, Vec<Vec<u8>>) {
    let resumption = ResumptionLimits { max: 16, lifetime: HOUR };
    let config = RingConfig { grace: HOUR, date_window: HOUR, replay_capacity: 16, resumption };
    let ring = KeyRing::new(config, [1; 32], START).unwrap();
    let secret = EpochSecret::new(std::array::from_fn(|i| (i * 37 + 11) as u8));
    let epoch = Epoch { number: 0, secret, not_before: START, not_after: UnixTime(START.0 + 3600) };
    ring.install(epoch, START).unwrap();
    (ring, NEEDLES.iter().map(|hex| masked(hex)).collect())
}

/// How often each needle occurs in this process's writable memory.
fn count(needles: &[Vec<u8>]) -> Vec<usize> {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut counts = vec![0; needles.len()];
    // One buffer serves all needles and is masked before it is searched. It lies in pages of its own, which are left
    // out.
    let mut buffer = vec![0_u8; 1 << 20];
    let own = buffer.as_ptr().addr() as u64..buffer.as_ptr().addr() as u64 + buffer.len() as u64;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, flags) = (fields.next().unwrap(), fields.next().unwrap());
        if !flags.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        // Pieces of memory overlap, so that no needle is cut in two.
        while at + 64 < end {
            let len = (end - at).min(buffer.len() as u64);
            let piece = &mut buffer[..len as usize];
            if memory.read_exact_at(piece, at).is_err() {
                break;
            }
            piece.iter_mut().for_each(|byte| *byte ^= MASK);
            for (count, needle) in counts.iter_mut().zip(needles) {
                let found = piece.windows(needle.len()).enumerate().filter(|(_, window)| window == needle);
                *count += found.filter(|(offset, _)| !own.contains(&(at + *offset as u64))).count();
            }
            at += len - 64.min(len - 1);
        }
    }
    counts
}

fn masked(hex: &str) -> Vec<u8> {
    bytes(hex).collect()
}

fn bytes(hex: &str) -> impl Iterator<Item = u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
}

/// What is searched for, masked; computed from docs/protocol.md section 3 with Python's hashlib.
const NEEDLES: [&str; 6] = [
    "ae95f0df3a614cab96fdd8076249b493fe25006f4ab19cfb260d6857b299c423", // the epoch secret
    "2e8158de185066703cf26e63ecce009be015f86393bd5179b2c06222780de3b6", // X-Wing's seed
    "107ad7306f58e46259a78fef586e495fc228bc26c6e03dbe23940dc180f924ed", // X25519's private key
    "157ad7306f58e46259a78fef586e495fc228bc26c6e03dbe23940dc180f924ed", // the same, clamped
    "45a4d39bf91ee9cbead074f024dd27a462b9ad99ccf1b0ae0fb9ed3e1284a7fd", // P-256's private key, little-endian
    "fda784123eedb90faeb0f1cc99adb962a427dd24f074d0eacbe91ef99bd3a445", // the same, big-endian
];

/// The needles of a ratchet, computed likewise.
const LINKS: [&str; 5] = [
    "b8f722195483fe35605f8ac13c6ba69dc80772a9e4d30e45b0efda114cbbf62d", // its first secret
    "a7e4d10fa0c01aa6b47f8b2cea152510cff3c788140a3bfa78bc174a9a9c6f8c", // the secret of epoch 0
    "514f4c16bdb0da73b91717d951286c06f7fa74a231d0da51c264aec0be05af8c", // the link after it
    "bbb0cb386d186800953cbaa162027e91fc2638d5d5d3c1abbaa1fe392483e9a4", // the secret of epoch 1
    "47d78fb9041a9d93106021922c182b3feb1a45ce21e88e76a30bc000aac3d54f", // the link after it
];
