use proptest::prelude::*;

use super::*;

/// A log with SHA-256 and SHA-384 digests of `events`: register, type, data.
pub(crate) fn log(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut spec = SPEC_ID.to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    spec.extend(2u32.to_le_bytes());
    for (algorithm, size) in [(TPM_ALG_SHA256, 32u16), (TPM_ALG_SHA384, 48)] {
        spec.extend(algorithm.to_le_bytes());
        spec.extend(size.to_le_bytes());
    }
    spec.push(0);
    let mut log = [0u32.to_le_bytes(), EV_NO_ACTION.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend(u32::try_from(spec.len()).unwrap().to_le_bytes());
    log.extend(spec);
    for (register, kind, data) in events {
        log.extend([register.to_le_bytes(), kind.to_le_bytes(), 2u32.to_le_bytes()].concat());
        log.extend(TPM_ALG_SHA256.to_le_bytes());
        log.extend(Sha256::digest(data));
        log.extend(TPM_ALG_SHA384.to_le_bytes());
        log.extend(Sha384::digest(data));
        log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        log.extend(*data);
    }
    log
}

fn hex(bytes: &[u8]) -> String {
    crate::digest::encode(bytes)
}

#[test]
fn registers_replay_to_values_computed_elsewhere() {
    let bytes = log(&[(1, 8, b"one"), (2, 8, b"other"), (1, 13, b"two"), (1, EV_NO_ACTION, b"ignored")]);
    let log = EventLog::parse(&bytes).unwrap();
    // python: s = lambda b: hashlib.sha256(b).digest(); s(s(bytes(32) + s(b"one")) + s(b"two")).hex()
    assert_eq!(hex(&log.replay(Bank::Sha256, 1).unwrap()), SHA256_ONE_TWO);
    assert_eq!(hex(&log.replay(Bank::Sha384, 1).unwrap()), SHA384_ONE_TWO);
    assert_eq!(log.replay(Bank::Sha384, 7).unwrap(), vec![0; 48]);
    assert!(log.extends(2) && !log.extends(7));
    assert_eq!((log.events().len(), log.events()[2].data, log.len()), (4, &b"two"[..], bytes.len()));
}

#[test]
fn the_startup_locality_is_where_pcr_0_starts() {
    let bytes = log(&[(0, EV_NO_ACTION, b"StartupLocality\0\x03"), (0, 8, b"one")]);
    // python: s(bytes(31) + b"\x03" + s(b"one")).hex()
    let found = EventLog::parse(&bytes).unwrap().replay(Bank::Sha256, 0).unwrap();
    assert_eq!(hex(&found), "6d7c58a95f4ee9f48f5ba4967c1945e651f67295d4541f3d9ff23002c120eb4f");
}

#[test]
fn only_padding_may_follow() {
    let mut bytes = log(&[(1, 8, b"one")]);
    let len = bytes.len();
    for padding in [0x00, 0xff] {
        bytes.truncate(len);
        bytes.resize(len + 100, padding);
        assert_eq!(EventLog::parse(&bytes).unwrap().len(), len);
        bytes[len + 99] = 1;
        assert!(EventLog::parse(&bytes).is_err());
    }
    bytes.truncate(len - 1);
    let wanted = Truncated { what: "event data", wanted: 3, left: 2 };
    assert_eq!(EventLog::parse(&bytes).unwrap_err(), EventLogError::Truncated { index: 1, source: wanted });
}

#[test]
fn digests_have_to_be_declared_and_single() {
    let bytes = log(&[(1, 8, b"one")]);
    let first = bytes.len() - 3 - 4 - 48 - 2 - 32 - 2;
    let mut undeclared = bytes.clone();
    undeclared[first] = 0x0d;
    let error = EventLogError::Algorithm { index: 1, algorithm: 0x000d };
    assert_eq!(EventLog::parse(&undeclared).unwrap_err(), error);
    let mut twice = bytes;
    twice[first + 34] = 0x0b;
    let error = EventLogError::Algorithm { index: 1, algorithm: 0x000b };
    assert_eq!(EventLog::parse(&twice).unwrap_err(), error);
}

#[test]
fn other_logs_are_refused() {
    let mut bytes = log(&[]);
    bytes[32] = b's';
    assert_eq!(EventLog::parse(&bytes).unwrap_err(), EventLogError::Header);
    assert!(EventLog::parse(&[]).is_err());
    assert_eq!(
        EventLog::parse(&vec![0; MAX_LOG_BYTES + 1]).unwrap_err(),
        EventLogError::TooLong { found: MAX_LOG_BYTES + 1 }
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(position in 0usize..400, byte: u8, cut in 0usize..400) {
        let mut bytes = log(&[(0, EV_NO_ACTION, b"StartupLocality\0\x03"), (1, 8, b"one"), (2, 8, b"two")]);
        if let Some(place) = bytes.get_mut(position) {
            *place = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(log) = EventLog::parse(&bytes) {
            let _ = log.replay(Bank::Sha256, 0);
        }
    }
}

const SHA256_ONE_TWO: &str = "b88f3f290fe4ac11da329c5515b418b937de9be1abffb4ff40de976ef83a28ee";
const SHA384_ONE_TWO: &str =
    "9ab05f5f20b059df7187f2c2d7c61e2bf59482f99cf3f7a4fb8af4660b48b12f47f1200d57a0a5f601c987071e885e31";
