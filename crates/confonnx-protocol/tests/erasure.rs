//! Whether erased keys are gone: this process's own memory is searched for them. In a binary of its own, so that no other
//! test's memory is searched, or holds what is searched for.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::Duration,
};

use confonnx_attest::UnixTime;
use confonnx_protocol::{
    EpochSecret,
    server::{KeyRing, RingConfig, SessionLimits},
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

// One after the other: each searches the memory of both.
#[test]
fn erased_secrets_and_keys_are_gone() {
    an_epochs_secret_and_private_keys_after_its_grace();
    a_sessions_secret_after_its_lifetime();
}

/// The session of `vectors/session`, which says what its secret is.
fn a_sessions_secret_after_its_lifetime() {
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

/// A ring that was asked in the session, and the session's secret, masked.
fn resume(case: &serde_json::Value) -> (KeyRing, Vec<Vec<u8>>) {
    let hex = |value: &serde_json::Value| octets(value.as_str().unwrap()).collect::<Vec<u8>>();
    let server: case::Server = serde_json::from_value(case["server"].clone()).unwrap();
    let ring = server.ring();
    let (opened, _) = ring.open(hex(&case["session"]["request"]["sealed"]), START).unwrap();
    opened.grant_session(&mut case::Fixed(hex(&case["session"]["id"]))).unwrap();
    for message in case["messages"].as_array().unwrap() {
        ring.open_session(hex(&message["request"]["sealed"]), START).unwrap();
    }
    let secret = octets(case["session_secret"].as_str().unwrap()).map(|octet| octet ^ MASK);
    (ring, vec![secret.collect()])
}

fn an_epochs_secret_and_private_keys_after_its_grace() {
    // In a thread of its own, whose stack is searched like the rest once it has ended.
    let (ring, needles) = std::thread::spawn(begin).join().unwrap();
    let [_, x_wing, x25519, _, p_256, _] = count(&needles)[..] else { panic!("six needles") };
    assert!(x_wing > 0 && x25519 > 0 && p_256 > 0, "in use, yet not found: {x_wing}, {x25519}, {p_256}");

    let later = UnixTime(START.0 + 3600);
    ring.rotate(EpochSecret::new(std::array::from_fn(|i| i as u8 ^ 0x33)), later).unwrap();
    ring.retire(UnixTime(later.0 + 3600));
    assert_eq!(count(&needles), [0; 6], "in the order of NEEDLES");
}

fn begin() -> (KeyRing, Vec<Vec<u8>>) {
    let sessions = SessionLimits { max: 16, lifetime: HOUR };
    let config = RingConfig { rollover: HOUR, grace: HOUR, date_window: HOUR, replay_capacity: 16, sessions };
    let ring = KeyRing::new(config, EpochSecret::new(std::array::from_fn(|i| (i * 37 + 11) as u8)), 1, START)
        .unwrap();
    (ring, NEEDLES.iter().map(|hex| masked(hex)).collect())
}

/// How often each needle occurs in this process's writable memory.
fn count(needles: &[Vec<u8>]) -> Vec<usize> {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut counts = vec![0; needles.len()];
    // One buffer for all, masked before it is searched; it lies in pages of its own and is left out.
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
        // Pieces overlap, so that no needle is cut.
        while at + 64 < end {
            let len = (end - at).min(buffer.len() as u64);
            let piece = &mut buffer[..len as usize];
            if memory.read_exact_at(piece, at).is_err() {
                break;
            }
            piece.iter_mut().for_each(|octet| *octet ^= MASK);
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
    octets(hex).collect()
}

fn octets(hex: &str) -> impl Iterator<Item = u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
}

/// What is searched for, masked; computed from docs/protocol.md section 3 with Python's hashlib.
const NEEDLES: [&str; 6] = [
    "ae95f0df3a614cab96fdd8076249b493fe25006f4ab19cfb260d6857b299c423", // the epoch secret
    "41ce0290ec8b4351458308eeff28c0592244a84298b929f5a0debff5f5e8ae0f", // X-Wing's seed
    "777a8acd8f1e222c25f44a1661a4801c208f3284ebdbf808847e58a12c81d8bd", // X25519's private key
    "757a8acd8f1e222c25f44a1661a4801c208f3284ebdbf808847e58a12c81d8fd", // the same, clamped
    "b3fac07b4e40bccc6e360cbb21c8173cb6e6e3d67764b83e3d8fa5476f8033bf", // P-256's private key, little-endian
    "bf33806f47a58f3d3eb86477d6e3e6b63c17c821bb0c366eccbc404e7bc0fab3", // the same, big-endian
];
