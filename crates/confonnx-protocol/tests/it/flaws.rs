//! The flaws of the 2020 design that this crate has to be free of, by their numbers in its review: each test fails on
//! a design that has the flaw. (4) to (6), (9) and (12) concern attestation, models and clients.

use std::collections::HashSet;

use confonnx_protocol::{
    Aead, EpochSecret, Kem, KeyConfig,
    server::{Epoch, KeyRing, OpenError},
};

use crate::support::{
    ROLLOVER, START, WINDOW, after, binding, config, epoch, ring, ring_of, rng, rotate, sealing_key,
};

/// (1) Keys came from a clock-seeded generator whose next outputs were sent as nonces.
#[test]
fn flaw_01_keys_do_not_come_from_the_clock() {
    let of = |secret, time| {
        let ring = KeyRing::new(config(), binding(0), time).unwrap();
        ring.install(Epoch { secret, ..epoch(0, [0; 32], time) }, time).unwrap();
        ring.key_configs()
    };
    let random = || EpochSecret::generate(&mut rng());
    assert_ne!(of(random(), START), of(random(), START));
    // The clock adds nothing: one secret gives one set of keys at any time.
    let same = || EpochSecret::new([7; 32]);
    assert_eq!(of(same(), START), of(same(), after(5)));
}

/// (2) Every response to one client was under the same key and IV.
#[test]
fn flaw_02_no_two_replies_share_key_and_nonce() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let (request, opener) = key.seal(Aead::Aes256Gcm, b"same", &mut rng()).unwrap();
        let reply = ring.open(request, START).unwrap().1.seal(&[0; 64], &mut rng()).unwrap();
        let (nonce, sealed) = reply.split_at(32);
        // Zeros encrypted are the key stream, none of which may repeat.
        assert!(seen.insert(nonce.to_vec()) && seen.insert(sealed[..32].to_vec()));
        assert_eq!(opener.open(reply).unwrap().expose(), [0; 64]);
    }
}

/// (3) Responses were not bound to their request.
#[test]
fn flaw_03_a_reply_opens_for_its_request_alone() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::XWing);
    let (first, first_opener) = key.seal(Aead::Aes256Gcm, b"same", &mut rng()).unwrap();
    let (second, second_opener) = key.seal(Aead::Aes256Gcm, b"same", &mut rng()).unwrap();
    let reply = ring.open(first, START).unwrap().1.seal(b"one", &mut rng()).unwrap();
    ring.open(second, START).unwrap();
    second_opener.open(reply.clone()).unwrap_err();
    assert_eq!(first_opener.open(reply).unwrap().expose(), b"one");
}

/// (7) There was no replay defence; key version and "outdated" flag were not authenticated.
#[test]
fn flaw_07_a_replay_is_refused_for_as_long_as_its_date_is_good() {
    let ring = ring();
    let (request, _) = sealing_key(&ring, Kem::XWing).seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap();
    let latest_date = after(WINDOW);
    let (opened, _) = ring.open(request.clone(), START).unwrap();
    opened.check_date(latest_date).unwrap();
    for seconds in [0, 1, WINDOW, 2 * WINDOW] {
        assert_eq!(ring.open(request.clone(), after(seconds)).unwrap_err(), OpenError::Replayed);
    }
    // Now the request is forgotten, and its date refuses it.
    let (opened, _) = ring.open(request, after(2 * WINDOW + 1)).unwrap();
    opened.check_date(latest_date).unwrap_err();
}

#[test]
fn flaw_07_the_key_identifier_is_authenticated() {
    // The same secret key under two identifiers: nothing but the header tells them apart.
    let (ring, twin) = (ring_of([7; 32], 17), KeyRing::new(config(), binding(17), START).unwrap());
    twin.install(epoch(4, [7; 32], START), START).unwrap();
    let (request, _) = sealing_key(&ring, Kem::X25519).seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap();
    let mut relabelled = request.clone();
    relabelled[0] += 12;
    assert_eq!(twin.open(relabelled, START).unwrap_err(), OpenError::Decrypt);
    ring.open(request, START).unwrap();
}

#[test]
fn flaw_07_outdated_is_decided_where_the_request_is_opened() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let seal = || key.seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap().0;
    assert!(!ring.open(seal(), START).unwrap().0.outdated);
    rotate(&ring, [8; 32], after(ROLLOVER));
    assert!(ring.open(seal(), after(ROLLOVER)).unwrap().0.outdated);
}

/// (8) The request's kind was outside the authenticated data.
#[test]
fn flaw_08_a_chunked_message_is_not_a_whole_one() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let (whole, _) = key.seal(Aead::Aes256Gcm, b"message", &mut rng()).unwrap();
    let (head, sealed) = whole.split_at(7 + 32);
    let mut opener = ring.chunked_opener(1 << 20);
    opener.push(head, START).unwrap();
    opener.push(&[&[sealed.len() as u8], sealed].concat(), START).unwrap_err();

    let mut chunked = Vec::new();
    let (sealer, _) = key.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut chunked).unwrap();
    sealer.finish(b"message", &mut chunked).unwrap();
    chunked.remove(7 + 32);
    assert_eq!(ring.open(chunked, START).unwrap_err(), OpenError::Decrypt);
}

#[test]
fn flaw_08_a_chunk_is_not_the_final_one() {
    let ring = ring();
    let mut request = Vec::new();
    let (mut sealer, _) = sealing_key(&ring, Kem::X25519)
        .seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut request)
        .unwrap();
    let head = request.len();
    sealer.chunk(b"part", &mut request).unwrap();
    // The first chunk's length becomes 0, which marks the final chunk.
    request[head] = 0;
    let mut opener = ring.chunked_opener(1 << 20);
    opener.push(&request, START).unwrap();
    assert_eq!(opener.finish(START).unwrap_err(), OpenError::Decrypt);
}

/// (10) Key derivation had no extract and no transcript, and served two algorithms with one secret.
#[test]
fn flaw_10_keys_of_one_secret_are_independent() {
    let configs = KeyConfig::parse_list(&ring().key_configs()).unwrap();
    let [x_wing, x25519, p256] = configs.as_slice() else { panic!("{configs:?}") };
    let (_, x25519_of_x_wing) = x_wing.public_key().split_at(1184);
    assert_ne!(x25519_of_x_wing, x25519.public_key());
    assert!(!p256.public_key().windows(32).any(|part| part == x25519.public_key()));
}

/// (11) The "previous" key was all zero at the start.
#[test]
fn flaw_11_there_is_no_previous_key_at_the_start() {
    let ring = ring();
    assert_eq!(ring.keys().len(), 3);
    let zero = ring_of([0; 32], 14);
    let (request, _) = sealing_key(&zero, Kem::X25519).seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap();
    assert_eq!(ring.open(request, START).unwrap_err(), OpenError::UnknownKey(15));
    // The all-zero secret is not the current one either.
    let zero = ring_of([0; 32], 17);
    let (request, _) = sealing_key(&zero, Kem::X25519).seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap();
    assert_eq!(ring.open(request, START).unwrap_err(), OpenError::Decrypt);
}

/// (13) Absent fields crashed; secrets were left in buffers; errors told what they should not.
#[test]
fn flaw_13_nothing_absent_crashes_and_no_error_quotes_the_message() {
    let ring = ring();
    for request in [vec![], vec![17], vec![17; 7], vec![17; 39], vec![0; 2_000]] {
        ring.open(request.clone(), START).unwrap_err();
        let mut opener = ring.chunked_opener(1 << 20);
        let _ = opener.push(&request, START);
        opener.finish(START).unwrap_err();
    }
    let key = sealing_key(&ring, Kem::X25519);
    let (request, _) = key.seal(Aead::Aes256Gcm, b"attack at dawn", &mut rng()).unwrap();
    let (opened, reply) = ring.open(request, START).unwrap();
    let shown = format!("{opened:?} {reply:?} {key:?}");
    assert!(!shown.contains("attack") && !shown.contains("97, 116"), "{shown}");
    key.seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap().1.open(vec![]).unwrap_err();
}
