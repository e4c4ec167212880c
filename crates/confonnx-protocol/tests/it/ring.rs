//! The key ring through rollover, grace, erasure, and a clock that goes backwards.

use std::thread;

use confonnx_attest::UnixTime;
use confonnx_protocol::{
    Aead, Code, EpochSecret, Kem, KeyConfig,
    client::SealingKey,
    server::{KeyRing, OpenError, RingConfig, RingError},
};

use crate::support::{
    GRACE, ROLLOVER, START, WINDOW, after, config, ring, ring_of, rng, sealing_key, sealing_key_of,
};

fn seal(key: &SealingKey) -> Vec<u8> {
    key.seal(Aead::Aes256Gcm, b"message", &mut rng()).unwrap().0
}

fn ids(ring: &KeyRing) -> Vec<u8> {
    ring.keys().iter().map(|key| key.key_id).collect()
}

#[test]
fn published_keys_match_their_configs() {
    let ring = ring();
    let configs = KeyConfig::parse_list(&ring.key_configs()).unwrap();
    let keys = ring.keys();
    assert_eq!(ids(&ring), [17, 18, 19]);
    for (config, key) in configs.iter().zip(&keys) {
        assert_eq!((config.key_id(), config.kem()), (key.key_id, key.kem));
        assert_eq!(config.aeads(), Aead::ALL);
        assert_eq!(key.not_before, START);
        assert_eq!(key.not_after, after(ROLLOVER));
        assert_eq!(key.accepted_until, after(ROLLOVER + GRACE));
    }
    assert_eq!(configs.iter().map(KeyConfig::kem).collect::<Vec<_>>(), Kem::ALL);
}

#[test]
fn a_key_is_current_then_accepted_then_refused() {
    let ring = ring();
    let old = sealing_key(&ring, Kem::XWing);
    assert_eq!(ring.next_change(START), after(ROLLOVER));
    assert!(!ring.open(seal(&old), after(ROLLOVER - 1)).unwrap().0.outdated);

    ring.rotate(EpochSecret::new([8; 32]), after(ROLLOVER)).unwrap();
    assert_eq!(ids(&ring), [20, 21, 22, 17, 18, 19]);
    let new = sealing_key(&ring, Kem::XWing);
    assert_eq!(new.config().key_id(), 20);
    assert!(!ring.open(seal(&new), after(ROLLOVER)).unwrap().0.outdated);
    let last = after(ROLLOVER + GRACE - 1);
    assert!(ring.open(seal(&old), last).unwrap().0.outdated);

    assert_eq!(ring.next_change(last), after(ROLLOVER + GRACE));
    // Refused by time alone, erased when told to.
    let err = ring.open(seal(&old), after(ROLLOVER + GRACE)).unwrap_err();
    assert_eq!(err, OpenError::UnknownKey(17));
    assert_eq!(err.code(), Code::KeyUnknown);
    ring.retire(after(ROLLOVER + GRACE));
    assert_eq!(ids(&ring), [20, 21, 22]);
    assert_eq!(ring.next_change(after(ROLLOVER + GRACE)), after(2 * ROLLOVER));
}

#[test]
fn a_clock_set_back_revives_neither_keys_nor_replays() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let request = seal(&key);
    ring.open(request.clone(), after(100)).unwrap();
    // Time goes on until the replay table may forget, then the host sets it back.
    ring.open(seal(&key), after(101 + 2 * WINDOW)).unwrap();
    let (opened, _) = ring.open(request, after(100)).unwrap();
    opened.check_date(after(100)).unwrap_err();

    ring.open(seal(&key), after(ROLLOVER + GRACE)).unwrap_err();
    let err = ring.open(seal(&key), START).unwrap_err();
    assert_eq!(err, OpenError::UnknownKey(key.config().key_id()));
    assert!(ring.keys().is_empty());
    assert_eq!(ring.time(), after(ROLLOVER + GRACE));
}

#[test]
fn a_late_rotation_leaves_no_keys_rather_than_old_ones() {
    let ring = ring();
    let now = after(ROLLOVER + GRACE + 5);
    assert!(ring.next_change(now) <= now);
    ring.retire(now);
    assert!(ring.keys().is_empty());
    ring.rotate(EpochSecret::new([8; 32]), now).unwrap();
    assert_eq!(ring.keys().len(), 3);
    assert_eq!(ring.keys()[0].not_before, now);
}

#[test]
fn identifiers_are_unique_among_accepted_keys() {
    let ring = ring_of([1; 32], 250);
    for n in 1..=40 {
        ring.rotate(EpochSecret::new([n; 32]), after(60 * u64::from(n))).unwrap();
        let mut ids = ids(&ring);
        assert_eq!(ids.len(), 3 * (usize::from(n) + 1));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3 * (usize::from(n) + 1));
    }
    let keys = |n: u8| ring.rotate(EpochSecret::new([n; 32]), after(60 * 41));
    let refused = (41..=100).map(keys).find_map(Result::err);
    assert_eq!(refused, Some(RingError::TooManyEpochs(64)));
    // As the first ones expire, there is room again.
    ring.rotate(EpochSecret::new([200; 32]), after(ROLLOVER + GRACE + 60)).unwrap();
    KeyConfig::parse_list(&ring.key_configs()).unwrap();
}

#[test]
fn dates_are_checked_on_both_sides_by_the_time_of_receipt() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let (opened, _) = ring.open(seal(&key), after(1_000)).unwrap();
    for date in [1_000 - WINDOW, 1_000, 1_000 + WINDOW] {
        opened.check_date(after(date)).unwrap();
    }
    for date in [1_000 - WINDOW - 1, 1_000 + WINDOW + 1] {
        let err = opened.check_date(after(date)).unwrap_err();
        assert_eq!((err.date, err.now, err.window), (after(date), after(1_000), WINDOW));
    }
    opened.check_date(UnixTime(0)).unwrap_err();
    opened.check_date(UnixTime(u64::MAX)).unwrap_err();
}

#[test]
fn a_full_replay_table_refuses_until_time_passes() {
    let small = RingConfig { replay_capacity: 2, ..config() };
    let ring = KeyRing::new(small, EpochSecret::new([7; 32]), 17, START).unwrap();
    let key = sealing_key(&ring, Kem::X25519);
    let first = seal(&key);
    ring.open(first.clone(), START).unwrap();
    ring.open(seal(&key), START).unwrap();
    let err = ring.open(seal(&key), after(2 * WINDOW)).unwrap_err();
    assert_eq!((&err, err.code()), (&OpenError::ReplayFull, Code::ReplayStateFull));
    assert_eq!(ring.open(first, after(2 * WINDOW)).unwrap_err(), OpenError::Replayed);
    ring.open(seal(&key), after(2 * WINDOW + 1)).unwrap();
}

#[test]
fn what_does_not_decrypt_takes_no_room_and_locks_out_nobody() {
    let small = RingConfig { replay_capacity: 1, ..config() };
    let ring = KeyRing::new(small, EpochSecret::new([7; 32]), 17, START).unwrap();
    let request = seal(&sealing_key(&ring, Kem::X25519));
    let mut altered = request.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(ring.open(altered, START).unwrap_err(), OpenError::Decrypt);
    ring.open(request, START).unwrap();
}

#[test]
fn of_one_request_sent_many_times_at_once_one_is_served() {
    let ring = ring();
    let request = seal(&sealing_key(&ring, Kem::XWing));
    let served: usize = thread::scope(|scope| {
        let open = || usize::from(ring.open(request.clone(), START).is_ok());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(served, 1);
}

#[test]
fn keys_rotate_while_requests_are_opened() {
    let ring = ring();
    let list = ring.key_configs();
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..20 {
                ring.rotate(EpochSecret::new([n; 32]), after(u64::from(n))).unwrap();
                ring.retire(after(u64::from(n)));
            }
        });
        let key = sealing_key_of(&list, Kem::X25519);
        for _ in 0..50 {
            ring.open(seal(&key), START).unwrap();
        }
    });
}

#[test]
fn settings_that_leave_no_keys_are_refused() {
    let new = |config| KeyRing::new(config, EpochSecret::new([7; 32]), 0, START).map(drop);
    let zero = std::time::Duration::ZERO;
    assert_eq!(new(RingConfig { rollover: zero, ..config() }), Err(RingError::Rollover(zero)));
    assert_eq!(new(RingConfig { date_window: zero, ..config() }), Err(RingError::DateWindow(zero)));
    assert_eq!(new(RingConfig { replay_capacity: 0, ..config() }), Err(RingError::ReplayCapacity));
}
