//! The key ring through rollover, grace, erasure, and a clock that goes backwards.

use std::thread;

use confonnx_attest::UnixTime;
use confonnx_protocol::{
    Aead, Code, Kem, KeyConfig,
    client::SealingKey,
    server::{Epoch, EpochInfo, KeyRing, OpenError, RingConfig, RingError},
};

use crate::support::{
    GRACE, ROLLOVER, START, WINDOW, after, binding, config, epoch, ring, ring_of, ring_with, rng, rotate,
    sealing_key, sealing_key_of,
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
fn a_key_is_accepted_early_then_current_then_outdated_then_refused() {
    let ring = ring();
    let old = sealing_key(&ring, Kem::XWing);
    ring.install(epoch(1, [8; 32], after(ROLLOVER)), START).unwrap();
    assert_eq!((ids(&ring), ring.current().unwrap().number), (vec![17, 18, 19], 0));
    assert_eq!(ring.newest().unwrap().number, 1);
    // A replica whose clock is ahead publishes the new key already.
    let new = sealing_key(&ring_at(1, [8; 32]), Kem::XWing);
    assert_eq!(new.config().key_id(), 20);
    assert!(!ring.open(seal(&new), START).unwrap().0.outdated);
    assert!(!ring.open(seal(&old), after(ROLLOVER - 1)).unwrap().0.outdated);

    assert!(ring.open(seal(&old), after(ROLLOVER)).unwrap().0.outdated);
    assert_eq!(ids(&ring), [20, 21, 22, 17, 18, 19]);
    assert_eq!(sealing_key(&ring, Kem::XWing).config(), new.config());
    assert!(!ring.open(seal(&new), after(ROLLOVER)).unwrap().0.outdated);
    let last = after(ROLLOVER + GRACE - 1);
    assert!(ring.open(seal(&old), last).unwrap().0.outdated);
    assert!(ring.knows(17, last) && !ring.knows(99, last));

    assert_eq!(ring.next_expiry(), Some(after(ROLLOVER + GRACE)));
    // The old key is refused by the time alone, and erased by `retire`.
    let err = ring.open(seal(&old), after(ROLLOVER + GRACE)).unwrap_err();
    assert_eq!(err, OpenError::UnknownKey(17));
    assert_eq!(err.code(), Code::KeyUnknown);
    ring.retire(after(ROLLOVER + GRACE));
    assert_eq!(ids(&ring), [20, 21, 22]);
    assert_eq!(ring.next_expiry(), Some(after(2 * ROLLOVER + GRACE)));
}

/// A ring that knows one epoch alone.
fn ring_at(number: u64, secret: [u8; 32]) -> KeyRing {
    let ring = KeyRing::new(config(), binding(17), START).unwrap();
    ring.install(epoch(number, secret, after(number * ROLLOVER)), START).unwrap();
    ring
}

#[test]
fn replicas_agree_on_keys_that_one_of_them_has_not_begun() {
    let (ahead, behind) = (ring_at(7, [1; 32]), ring_at(7, [1; 32]));
    ahead.retire(after(7 * ROLLOVER));
    // Without an older epoch, one that is yet to begin is published: it is better than none.
    assert_eq!(ahead.key_configs(), behind.key_configs());
    assert_eq!(behind.keys()[0].not_before, after(7 * ROLLOVER));
}

#[test]
fn other_claims_are_other_keys_at_once() {
    let ring = ring();
    ring.install(epoch(1, [8; 32], after(10)), after(10)).unwrap();
    let (current, sealed_before) = (sealing_key(&ring, Kem::XWing), seal(&sealing_key(&ring, Kem::X25519)));
    let configs = ring.key_configs();
    let mut chunked = Vec::new();
    let (sealer, _) = current.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut chunked).unwrap();
    sealer.finish(b"message", &mut chunked).unwrap();
    let mut receiving = ring.chunked_opener(1 << 20);
    receiving.push(&chunked, after(10)).unwrap();

    ring.rebind(binding(99));
    assert_eq!(ids(&ring), [102, 103, 104, 99, 100, 101]);
    let refused = ring.open(sealed_before, after(10)).unwrap_err();
    assert_eq!(refused, OpenError::UnknownKey(21));
    // A request that was not received whole before the keys changed is not served either.
    assert_eq!(receiving.finish(after(10)).unwrap_err(), OpenError::UnknownKey(20));
    let shared = [ids(&ring), ids(&ring_of([7; 32], 99))].concat();
    assert_eq!(shared[3..6], shared[6..], "secret and binding make the identifiers");

    // For another binding the same identifiers belong to other keys.
    let mut other = binding(17);
    other[31] ^= 1;
    ring.rebind(other);
    assert_eq!(ids(&ring), [20, 21, 22, 17, 18, 19]);
    assert_eq!(ring.open(seal(&current), after(10)).unwrap_err(), OpenError::Decrypt);
    ring.rebind(binding(17));
    assert_eq!(ring.key_configs(), configs);
    ring.open(seal(&current), after(10)).unwrap();
}

#[test]
fn another_secret_for_an_epoch_replaces_it() {
    let ring = ring();
    let old = sealing_key(&ring, Kem::X25519);
    let configs = ring.key_configs();
    ring.install(epoch(0, [7; 32], START), after(5)).unwrap();
    assert_eq!(ring.key_configs(), configs, "the same again changes nothing");
    ring.install(epoch(0, [8; 32], START), after(5)).unwrap();
    assert_eq!(ids(&ring), [17, 18, 19]);
    assert_eq!(ring.open(seal(&old), after(5)).unwrap_err(), OpenError::Decrypt);
}

#[test]
fn epochs_that_contradict_each_other_are_refused() {
    let ring = ring();
    let backwards = Epoch { not_after: START, ..epoch(1, [1; 32], START) };
    let times = RingError::Times { number: 1, not_before: START, not_after: START };
    assert_eq!(ring.install(backwards, START), Err(times));
    let early = ring.install(epoch(1, [1; 32], UnixTime(START.0 - 1)), START);
    assert_eq!(early, Err(RingError::Order { number: 1, other: 0 }));
    let far = ring.install(epoch(85, [1; 32], after(1)), START);
    assert_eq!(far, Err(RingError::Apart { number: 85, other: 0 }));
    let only = EpochInfo { number: 0, not_before: START, not_after: after(ROLLOVER) };
    assert_eq!((ring.newest(), ring.current()), (Some(only), Some(only)));
}

#[test]
fn a_clock_set_back_revives_neither_keys_nor_replays() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let request = seal(&key);
    ring.open(request.clone(), after(100)).unwrap();
    // Time goes on until the replay table may forget the request, then the host sets the time back.
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
fn without_a_new_epoch_there_are_no_keys_rather_than_old_ones() {
    let ring = ring();
    let now = after(ROLLOVER + GRACE + 5);
    ring.retire(now);
    assert!(ring.keys().is_empty() && ring.current().is_none());
    ring.install(epoch(0, [7; 32], START), START).unwrap();
    assert!(ring.keys().is_empty(), "over by the ring's clock, whatever the host says");
    ring.install(epoch(2, [8; 32], now), now).unwrap();
    assert_eq!(ring.keys().len(), 3);
    assert_eq!(ring.keys()[0].not_before, now);
}

#[test]
fn identifiers_are_unique_among_accepted_keys() {
    let ring = ring_of([1; 32], 250);
    for n in 1..64 {
        rotate(&ring, [n; 32], after(60 * u64::from(n)));
        let mut ids = ids(&ring);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3 * (usize::from(n) + 1));
    }
    let refused = ring.install(epoch(64, [64; 32], after(60 * 64)), after(60 * 64));
    assert_eq!(refused, Err(RingError::TooManyEpochs(64)));
    // As the first epochs expire, there is room again.
    rotate(&ring, [200; 32], after(ROLLOVER + GRACE + 60));
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
    let ring = ring_with(small, [7; 32], 17);
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
    let ring = ring_with(small, [7; 32], 17);
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
                rotate(&ring, [n; 32], after(u64::from(n)));
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
    let new = |config| KeyRing::new(config, binding(0), START).map(drop);
    let zero = std::time::Duration::ZERO;
    assert_eq!(new(RingConfig { date_window: zero, ..config() }), Err(RingError::DateWindow(zero)));
    assert_eq!(new(RingConfig { replay_capacity: 0, ..config() }), Err(RingError::ReplayCapacity));
}
