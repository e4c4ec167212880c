//! Sealing and opening with what a hostile network makes of messages.

use confonnx_protocol::{
    Aead, ChunkSealer, Code, Kem, KeyConfig, MAX_CHUNK, SealError,
    client::{BindingError, ChunkedReplyOpener, OpenReplyError, SealingKey},
    key_config::KeyConfigError,
    server::{KeyRing, OpenError, Opened, Reply},
};
use proptest::prelude::*;

use crate::support::{START, ring, ring_of, rng, sealing_key, trusted};

#[test]
fn every_suite_carries_messages_both_ways() {
    let ring = ring();
    for kem in Kem::ALL {
        for aead in Aead::ALL {
            let (request, opener) = sealing_key(&ring, kem).seal(aead, b"question", &mut rng()).unwrap();
            let (opened, reply) = ring.open(request, START).unwrap();
            assert_eq!(opened.plaintext.expose(), b"question");
            let reply = reply.seal(b"answer", &mut rng()).unwrap();
            assert_eq!(opener.open(reply).unwrap().expose(), b"answer");
        }
    }
}

#[test]
fn a_request_cut_anywhere_is_refused_by_one_code() {
    let ring = ring();
    let (request, _) = sealing_key(&ring, Kem::X25519).seal(Aead::Aes256Gcm, &[7; 40], &mut rng()).unwrap();
    for len in 0..request.len() {
        let err = ring.open(request[..len].to_vec(), START).unwrap_err();
        assert_eq!(err.code(), Code::RequestInvalid, "{len}: {err}");
    }
    ring.open(request, START).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let ring = ring();
    for kem in Kem::ALL {
        let (request, _) =
            sealing_key(&ring, kem).seal(Aead::ChaCha20Poly1305, &[7; 40], &mut rng()).unwrap();
        for at in 0..request.len() {
            let mut altered = request.clone();
            altered[at] ^= 1 << (at % 8);
            assert!(ring.open(altered, START).is_err(), "{kem} {at}");
        }
        ring.open(request, START).unwrap();
    }
}

#[test]
fn a_reply_cut_or_altered_anywhere_is_refused() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let exchange = || {
        let (request, opener) = key.seal(Aead::Aes128Gcm, b"q", &mut rng()).unwrap();
        (ring.open(request, START).unwrap().1.seal(&[7; 20], &mut rng()).unwrap(), opener)
    };
    let len = exchange().0.len();
    for at in 0..len {
        let (reply, opener) = exchange();
        opener.open(reply[..at].to_vec()).unwrap_err();
        let (mut reply, opener) = exchange();
        reply[at] ^= 0x80;
        assert_eq!(opener.open(reply).unwrap_err(), OpenReplyError::Decrypt);
    }
}

#[test]
fn suites_the_key_is_not_for_are_refused() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let (request, _) = key.seal(Aead::Aes256Gcm, b"q", &mut rng()).unwrap();
    // KEM of another key, unknown KEM, unknown KDF, export-only AEAD.
    for (at, bytes) in [(1, [0x64, 0x7a]), (1, [0x7f, 0xff]), (3, [0, 2]), (5, [0xff, 0xff])] {
        let mut altered = request.clone();
        altered[at..at + 2].copy_from_slice(&bytes);
        assert_eq!(ring.open(altered, START).unwrap_err().code(), Code::SuiteUnsupported);
    }
    // A cipher that the key is published for, but not the one that the request was sealed with.
    let mut altered = request;
    altered[6] = 3;
    assert_eq!(ring.open(altered, START).unwrap_err(), OpenError::Decrypt);
}

#[test]
fn only_listed_keys_can_be_sealed_to() {
    let ours = ring();
    let other = ring_of([9; 32], 17);
    let list = KeyConfig::parse_list(&ours.key_configs()).unwrap();
    let foreign = KeyConfig::parse_list(&other.key_configs()).unwrap().remove(0);
    let proof = trusted(&ours.key_configs());
    let err = SealingKey::new(foreign, &proof).unwrap_err();
    assert_eq!(err, BindingError::NotListed { key_id: 17, listed: vec![17, 18, 19] });

    let one = KeyConfig::new(17, Kem::XWing, list[0].public_key().to_vec(), vec![Aead::Aes128Gcm]).unwrap();
    let key = SealingKey::new(one.clone(), &trusted(&KeyConfig::encode_list([&one]))).unwrap();
    let err = key.seal(Aead::Aes256Gcm, b"q", &mut rng()).map(drop).unwrap_err();
    assert_eq!(err, SealError::Suite { key_id: 17, aead: Aead::Aes256Gcm });
}

#[test]
fn degenerate_public_keys_are_refused() {
    let err = KeyConfig::new(1, Kem::P256, vec![4; 65], Aead::ALL.to_vec()).unwrap_err();
    assert_eq!(err, KeyConfigError::PublicKey { key_id: 1, kem: Kem::P256 });
    // X25519 has no malformed keys, but a point of small order gives no secret.
    let zero = KeyConfig::new(1, Kem::X25519, vec![0; 32], Aead::ALL.to_vec()).unwrap();
    let key = SealingKey::new(zero.clone(), &trusted(&KeyConfig::encode_list([&zero]))).unwrap();
    let err = key.seal(Aead::Aes256Gcm, b"q", &mut rng()).map(drop).unwrap_err();
    assert_eq!(err, SealError::Encapsulate(Kem::X25519));
}

#[test]
fn key_config_lists_cut_anywhere_are_refused_or_shorter() {
    let list = ring().key_configs();
    let whole = KeyConfig::parse_list(&list).unwrap();
    assert_eq!(KeyConfig::encode_list(&whole), list);
    for len in 0..list.len() {
        match KeyConfig::parse_list(&list[..len]) {
            Ok(configs) => assert!(whole.starts_with(&configs) && configs.len() < whole.len()),
            Err(KeyConfigError::Truncated { .. } | KeyConfigError::NoneUsable { entries: 0 }) => {}
            Err(err) => panic!("{len}: {err}"),
        }
    }
}

#[test]
fn keys_of_unknown_algorithms_are_skipped() {
    let mut list = vec![0, 5, 1, 0x12, 0x34, 9, 9];
    assert_eq!(KeyConfig::parse_list(&list), Err(KeyConfigError::NoneUsable { entries: 1 }));
    list.extend(ring().key_configs());
    assert_eq!(KeyConfig::parse_list(&list).unwrap().len(), 3);
    let twice = [ring().key_configs(), ring().key_configs()].concat();
    assert_eq!(KeyConfig::parse_list(&twice), Err(KeyConfigError::DuplicateKeyId(17)));
}

fn open(ring: &KeyRing, request: Vec<u8>) -> (Opened, Reply) {
    ring.open(request, START).unwrap()
}

fn chunked_request(ring: &KeyRing, message: &[u8]) -> (Vec<u8>, ChunkedReplyOpener) {
    let mut request = Vec::new();
    let (sealer, opener) = sealing_key(ring, Kem::X25519)
        .seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut request)
        .unwrap();
    sealer.finish(message, &mut request).unwrap();
    (request, opener)
}

fn open_chunked(ring: &KeyRing, request: &[u8], piece: usize) -> Result<Vec<u8>, OpenError> {
    let mut opener = ring.chunked_opener(1 << 20);
    for piece in request.chunks(piece) {
        opener.push(piece, START)?;
    }
    Ok(opener.finish(START)?.0.plaintext.expose().to_vec())
}

#[test]
fn chunks_carry_messages_of_every_size_however_they_are_split() {
    let ring = ring();
    for len in [0, 1, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 3 * MAX_CHUNK] {
        let message = vec![0x5a; len];
        for piece in [1, 7, 40, 1_000, 1 << 20] {
            let (request, _) = chunked_request(&ring, &message);
            let start = sealing_key(&ring, Kem::X25519).room();
            assert_eq!(request.len(), start + ChunkSealer::sealed_len(len), "{len}");
            assert_eq!(open_chunked(&ring, &request, piece).unwrap(), message, "{len} {piece}");
        }
    }
}

#[test]
fn a_chunked_request_without_its_end_is_refused() {
    let ring = ring();
    let (request, _) = chunked_request(&ring, &[7; 2 * MAX_CHUNK]);
    for len in (0..request.len()).step_by(97).chain([request.len() - 1]) {
        let err = open_chunked(&ring, &request[..len], 4_096).unwrap_err();
        assert_eq!(err.code(), Code::RequestInvalid, "{len}: {err}");
    }
    open_chunked(&ring, &request, 4_096).unwrap();
}

#[test]
fn chunks_cannot_be_dropped_swapped_or_repeated() {
    let ring = ring();
    let mut request = Vec::new();
    let (mut sealer, _) = sealing_key(&ring, Kem::X25519)
        .seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut request)
        .unwrap();
    let head = request.len();
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for n in 0..3 {
        let mut chunk = Vec::new();
        sealer.chunk(&[n; 10], &mut chunk).unwrap();
        chunks.push(chunk);
    }
    let mut end = Vec::new();
    sealer.finish(b"", &mut end).unwrap();
    let head = request[..head].to_vec();
    let with = |order: &[usize]| {
        let chunks: Vec<u8> = order.iter().flat_map(|&n| chunks[n].clone()).collect();
        open_chunked(&ring, &[head.clone(), chunks, end.clone()].concat(), 9)
    };
    for order in [&[0, 1][..], &[1, 2], &[0, 2, 1], &[0, 0, 1, 2], &[]] {
        assert_eq!(with(order), Err(OpenError::Decrypt), "{order:?}");
    }
    assert_eq!(with(&[0, 1, 2]).unwrap().len(), 30);
}

#[test]
fn chunks_of_no_allowed_size_and_long_requests_are_refused() {
    let ring = ring();
    let (request, _) = chunked_request(&ring, b"");
    let head = &request[..7 + 32];
    for length in [vec![15], vec![0x80, 0, 0x40, 0x11], vec![0xff; 8]] {
        let mut opener = ring.chunked_opener(1 << 20);
        opener.push(head, START).unwrap();
        assert_eq!(opener.push(&length, START), Err(OpenError::ChunkSize), "{length:?}");
        // An opener that failed once stays failed.
        opener.push(b"", START).unwrap_err();
        opener.finish(START).unwrap_err();
    }
    let mut opener = ring.chunked_opener(100);
    let err = opener.push(&[17; 101], START).unwrap_err();
    assert_eq!((&err, err.code()), (&OpenError::TooLarge { limit: 100 }, Code::RequestTooLarge));
    // A final chunk that never ends.
    let mut opener = ring.chunked_opener(1 << 20);
    opener.push(head, START).unwrap();
    assert_eq!(opener.push(&[0; MAX_CHUNK + 18], START), Err(OpenError::ChunkSize));
}

#[test]
fn a_chunked_request_is_served_once() {
    let ring = ring();
    let (request, _) = chunked_request(&ring, b"once");
    // This copy of the request began before the other one ended: the end decides which is the replay.
    let mut slow = ring.chunked_opener(1 << 20);
    slow.push(&request, START).unwrap();
    open_chunked(&ring, &request, 9).unwrap();
    assert_eq!(slow.finish(START).unwrap_err(), OpenError::Replayed);
    assert_eq!(open_chunked(&ring, &request, 9), Err(OpenError::Replayed));
}

#[test]
fn a_chunked_reply_without_its_end_is_refused() {
    let ring = ring();
    let reply_to = |request: &[u8]| {
        let mut opener = ring.chunked_opener(1 << 20);
        opener.push(request, START).unwrap();
        let mut reply = Vec::new();
        let sealer = opener.finish(START).unwrap().1.start(&mut rng(), &mut reply).unwrap();
        sealer.finish(&[7; MAX_CHUNK + 5], &mut reply).unwrap();
        reply
    };
    let cut = |len: usize| {
        let (request, mut opener) = chunked_request(&ring, b"q");
        let reply = reply_to(&request);
        let len = len.min(reply.len());
        for piece in reply[..len].chunks(1_000) {
            opener.push(piece)?;
        }
        Ok::<_, OpenReplyError>(opener.finish()?.expose().to_vec())
    };
    let len = {
        let (request, _) = chunked_request(&ring, b"q");
        reply_to(&request).len()
    };
    for len in [0, 31, 32, 33, 40, MAX_CHUNK, len - 21, len - 20, len - 1] {
        cut(len).unwrap_err();
    }
    assert_eq!(cut(usize::MAX).unwrap(), [7; MAX_CHUNK + 5]);

    let mut request = Vec::new();
    let (sealer, mut opener) = sealing_key(&ring, Kem::X25519)
        .seal_chunked(Aead::Aes256Gcm, 1_000, &mut rng(), &mut request)
        .unwrap();
    sealer.finish(b"q", &mut request).unwrap();
    assert_eq!(opener.push(&reply_to(&request)), Err(OpenReplyError::TooLarge { limit: 1_000 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_comes_back(message in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let ring = ring_of([3; 32], 200);
        let key = sealing_key(&ring, Kem::X25519);
        let (request, opener) = key.seal(Aead::ChaCha20Poly1305, &message, &mut rng()).unwrap();
        let (opened, reply) = open(&ring, request);
        prop_assert_eq!(opened.plaintext.expose(), &message[..]);
        let reply = reply.seal(&message, &mut rng()).unwrap();
        let reply = opener.open(reply).unwrap();
        prop_assert_eq!(reply.expose(), &message[..]);
    }

    #[test]
    fn nothing_random_is_opened_or_panics(
        mut request in proptest::collection::vec(any::<u8>(), 0..3_000),
        chunked: bool,
        kem in 0..3_usize,
    ) {
        let ring = ring_of([3; 32], 0);
        let header = [kem as u8, 0, 0, 0, 1, 0, 2];
        for (byte, known) in request.iter_mut().zip(header) {
            *byte = known;
        }
        for (byte, known) in request.iter_mut().skip(1).zip(Kem::ALL[kem].id().to_be_bytes()) {
            *byte = known;
        }
        if chunked {
            prop_assert!(open_chunked(&ring, &request, 500).is_err());
        } else {
            prop_assert!(ring.open(request, START).is_err());
        }
    }

    #[test]
    fn no_list_of_keys_panics(list in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = KeyConfig::parse_list(&list);
    }
}
