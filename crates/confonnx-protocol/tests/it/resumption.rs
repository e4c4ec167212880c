//! Resumption from both ends, and what somebody in between can do to them.

use std::collections::HashSet;

use confonnx_protocol::{
    Aead, Code, Draft, Incoming, Kem,
    bhttp::RequestHead,
    client::ReplyOpener,
    resumption::{Resumption, ResumptionGrant, ResumptionOffer},
    server::{KeyRing, OpenError, ResumptionLimits, RingConfig},
};
use proptest::prelude::*;

use crate::{
    case::Fixed,
    support::{
        GRACE, LIFETIME, ROLLOVER, START, WINDOW, after, config, ring, ring_of, ring_with, rng, rotate,
        sealing_key,
    },
};

/// Bytes before the ciphertext: header, identifier, counter, salt.
const HEADER: usize = 7;
const ID: usize = HEADER + 16;
const COUNTER: usize = ID + 8;
const SALT: usize = COUNTER + 32;

fn offer(ring: &KeyRing, kem: Kem, aead: Aead) -> (Vec<u8>, ReplyOpener, ResumptionOffer) {
    sealing_key(ring, kem).seal_offering(aead, b"may I?", &mut rng()).unwrap()
}

/// A resumption opened at the start.
fn open(ring: &KeyRing, kem: Kem, aead: Aead) -> Resumption {
    let (request, opener, offer) = offer(ring, kem, aead);
    let (opened, reply) = ring.open(request, START).unwrap();
    opened.check_date(START).unwrap();
    let grant = opened.grant_resumption(&mut rng()).unwrap();
    assert_eq!(u64::from(grant.lifetime()), LIFETIME);
    // The grant travels as text, inside the seal.
    let reply = opener.open(reply.seal(grant.to_string().as_bytes(), &mut rng()).unwrap()).unwrap();
    let grant: ResumptionGrant = std::str::from_utf8(reply.expose()).unwrap().parse().unwrap();
    offer.accept(&grant)
}

fn resumption(ring: &KeyRing) -> Resumption {
    open(ring, Kem::X25519, Aead::Aes256Gcm)
}

fn sealed(resumption: &Resumption, message: &[u8]) -> Vec<u8> {
    resumption.seal(message, &mut rng()).unwrap().0
}

#[test]
fn requests_and_replies_go_both_ways_by_every_suite() {
    let ring = ring();
    for kem in Kem::ALL {
        for aead in Aead::ALL {
            let resumption = open(&ring, kem, aead);
            for len in [0, 1, 512, 100_000] {
                let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
                let (request, opener) = resumption.seal(&message, &mut rng()).unwrap();
                assert_eq!(request.len(), Resumption::ROOM + len + 16);
                let (opened, reply) = ring.open_resumed(request, START).unwrap();
                assert_eq!(opened.plaintext.expose(), message);
                assert!(!opened.outdated && opened.grant_resumption(&mut rng()).is_none());
                let reply = reply.seal(&message, &mut rng()).unwrap();
                assert_eq!(opener.open(reply).unwrap().expose(), message);
            }
        }
    }
}

#[test]
fn a_message_is_neither_moved_nor_unaligned() {
    let ring = ring();
    let resumption = resumption(&ring);
    let draft = Draft::request(Resumption::ROOM, &RequestHead::new("GET", "/v2"), &[]).unwrap();
    let message = draft.message().as_ptr();
    let (request, _) = resumption.seal(draft, &mut rng()).unwrap();
    assert_eq!(request[Resumption::ROOM..].as_ptr(), message);
    let mut incoming = Incoming::with_capacity(request.len());
    incoming.push(&request);
    let (opened, _) = ring.open_resumed(incoming, START).unwrap();
    assert_eq!(opened.plaintext.expose().as_ptr().addr() % 8, 0);
}

#[test]
fn a_resumption_ends_with_its_lifetime() {
    let ring = ring();
    let resumption = resumption(&ring);
    ring.open_resumed(sealed(&resumption, b"q"), after(LIFETIME - 1)).unwrap();
    let late = ring.open_resumed(sealed(&resumption, b"q"), after(LIFETIME)).unwrap_err();
    assert_eq!((&late, late.code()), (&OpenError::UnknownResumption, Code::ResumptionUnknown));
    // Setting the time back does not revive the resumption.
    assert_eq!(
        ring.open_resumed(sealed(&resumption, b"q"), START).unwrap_err(),
        OpenError::UnknownResumption
    );
}

#[test]
fn a_resumption_ends_with_its_keys() {
    let ring = ring();
    let last = after(ROLLOVER + GRACE - 1);
    let (request, _, offer) = offer(&ring, Kem::X25519, Aead::Aes256Gcm);
    let grant = ring.open(request, last).unwrap().0.grant_resumption(&mut rng()).unwrap();
    assert_eq!(grant.lifetime(), 1, "no longer than the keys are accepted");
    let first = offer.accept(&grant);
    ring.open_resumed(sealed(&first, b"q"), last).unwrap();
    rotate(&ring, [8; 32], last);
    let (opened, _) = ring.open_resumed(sealed(&first, b"q"), last).unwrap();
    assert!(opened.outdated, "still accepted, and the client is told");
    ring.retire(after(ROLLOVER + GRACE));
    assert_eq!(ring.open_resumed(sealed(&first, b"q"), last).unwrap_err(), OpenError::UnknownResumption);
}

#[test]
fn no_resumption_is_granted_by_an_outdated_key_or_a_chunked_request() {
    let ring = ring();
    let (request, _, _) = offer(&ring, Kem::X25519, Aead::Aes256Gcm);
    rotate(&ring, [8; 32], START);
    let (opened, _) = ring.open(request, START).unwrap();
    assert!(opened.outdated && opened.grant_resumption(&mut rng()).is_none());

    let mut chunked = Vec::new();
    let key = sealing_key(&ring, Kem::X25519);
    let (sealer, _) = key.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut chunked).unwrap();
    sealer.finish(b"may I?", &mut chunked).unwrap();
    let mut opener = ring.chunked_opener(1 << 20);
    opener.push(&chunked, START).unwrap();
    assert!(opener.finish(START).unwrap().0.grant_resumption(&mut rng()).is_none());
}

#[test]
fn a_server_holds_as_many_resumptions_as_it_is_told() {
    let of = |max| {
        let resumption = ResumptionLimits { max, ..config().resumption };
        ring_with(RingConfig { resumption, ..config() }, [7; 32], 17)
    };
    let none = of(0);
    let (request, _, _) = offer(&none, Kem::X25519, Aead::Aes256Gcm);
    assert!(none.open(request, START).unwrap().0.grant_resumption(&mut rng()).is_none());

    let one = of(1);
    let (first, second) = (resumption(&one), resumption(&one));
    assert_eq!(one.open_resumed(sealed(&first, b"q"), START).unwrap_err(), OpenError::UnknownResumption);
    one.open_resumed(sealed(&second, b"q"), START).unwrap();
}

#[test]
fn requests_may_overtake_each_other_within_the_window() {
    let ring = ring();
    let resumption = resumption(&ring);
    let requests: Vec<_> = (0..1_026).map(|_| sealed(&resumption, b"q")).collect();
    for at in [1_024, 3, 2, 1_025, 500] {
        ring.open_resumed(requests[at].clone(), START).unwrap();
        assert_eq!(ring.open_resumed(requests[at].clone(), START).unwrap_err(), OpenError::Replayed);
    }
    // Request 1 is 1,024 counters behind the newest.
    assert_eq!(ring.open_resumed(requests[1].clone(), START).unwrap_err(), OpenError::Replayed);
}

#[test]
fn the_date_is_checked_as_in_a_full_request() {
    let ring = ring();
    let resumption = resumption(&ring);
    let (opened, _) = ring.open_resumed(sealed(&resumption, b"q"), after(WINDOW + 1)).unwrap();
    opened.check_date(after(1)).unwrap();
    opened.check_date(START).unwrap_err();
}

#[test]
fn many_threads_share_a_resumption() {
    let ring = ring();
    let resumption = resumption(&ring);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let (request, opener) = resumption.seal(b"q", &mut rng()).unwrap();
                    let (_, reply) = ring.open_resumed(request, START).unwrap();
                    opener.open(reply.seal(b"a", &mut rng()).unwrap()).unwrap();
                }
            });
        }
    });
}

/// (2) Every response to one client was under the same key and IV.
#[test]
fn flaw_02_no_two_messages_of_a_resumption_share_key_and_nonce() {
    let ring = ring();
    let resumption = resumption(&ring);
    let mut seen = HashSet::new();
    for _ in 0..50 {
        let (request, opener) = resumption.seal(&[0; 64], &mut rng()).unwrap();
        let reply = ring.open_resumed(request.clone(), START).unwrap().1.seal(&[0; 64], &mut rng()).unwrap();
        // Zeros encrypted are the key stream, none of which may repeat in either direction.
        assert!(seen.insert(request[SALT..SALT + 32].to_vec()) && seen.insert(reply[32..64].to_vec()));
        assert_eq!(opener.open(reply).unwrap().expose(), [0; 64]);
    }
}

#[test]
fn flaw_02_copies_of_a_client_that_count_alike_share_no_key() {
    let ring = ring();
    let key = sealing_key(&ring, Kem::X25519);
    let twin = || key.seal_offering(Aead::Aes256Gcm, b"may I?", &mut Fixed(vec![9; 32])).unwrap();
    let ((request, _, one), (same, _, other)) = (twin(), twin());
    assert_eq!(request, same);
    let grant = ring.open(request, START).unwrap().0.grant_resumption(&mut rng()).unwrap();
    let (one, other) = (one.accept(&grant), other.accept(&grant));
    let (first, second) = (sealed(&one, &[0; 64]), sealed(&other, &[0; 64]));
    assert_eq!(first[..COUNTER], second[..COUNTER]);
    assert_ne!(first[SALT..], second[SALT..]);
    ring.open_resumed(first, START).unwrap();
    assert_eq!(ring.open_resumed(second, START).unwrap_err(), OpenError::Replayed);
}

/// (3) Responses were not bound to their request.
#[test]
fn flaw_03_a_reply_in_a_resumption_opens_for_its_request_alone() {
    let ring = ring();
    let resumption = resumption(&ring);
    let ((first, first_opener), (second, second_opener)) =
        (resumption.seal(b"same", &mut rng()).unwrap(), resumption.seal(b"same", &mut rng()).unwrap());
    let reply = ring.open_resumed(first, START).unwrap().1.seal(b"one", &mut rng()).unwrap();
    ring.open_resumed(second, START).unwrap();
    second_opener.open(reply.clone()).unwrap_err();
    let (_, full_opener, _) = offer(&ring, Kem::X25519, Aead::Aes256Gcm);
    full_opener.open(reply.clone()).unwrap_err();
    assert_eq!(first_opener.open(reply).unwrap().expose(), b"one");
}

/// (7) There was no replay defence; key version was not authenticated.
#[test]
fn flaw_07_a_message_of_one_resumption_is_none_of_another() {
    let ring = ring();
    let (one, other) = (resumption(&ring), resumption(&ring));
    let (message, foreign) = (sealed(&one, b"q"), sealed(&other, b"q"));
    let mut relabelled = message.clone();
    relabelled[HEADER..ID].copy_from_slice(&foreign[HEADER..ID]);
    assert_eq!(ring.open_resumed(relabelled, START).unwrap_err(), OpenError::Decrypt);
    ring.open_resumed(message, START).unwrap();
    ring.open_resumed(foreign, START).unwrap();
}

#[test]
fn flaw_07_a_resumption_is_of_the_server_that_granted_it() {
    // Two replicas share keys. The host replays the offer to the second, which gets the same secret out of it.
    let (ring, twin) = (ring(), ring_of([7; 32], 17));
    let (request, _, offer) = offer(&ring, Kem::X25519, Aead::Aes256Gcm);
    let grant = ring.open(request.clone(), START).unwrap().0.grant_resumption(&mut rng()).unwrap();
    let replayed = twin.open(request, START).unwrap().0.grant_resumption(&mut rng()).unwrap();
    let message = sealed(&offer.accept(&grant), b"q");
    ring.open_resumed(message.clone(), START).unwrap();
    assert_eq!(twin.open_resumed(message.clone(), START).unwrap_err(), OpenError::UnknownResumption);
    // Under the identifier that the second replica gave, the message does not open: the identifier goes into the key.
    let mut renamed = message;
    renamed[HEADER..ID].copy_from_slice(&id_of(&replayed));
    assert_eq!(twin.open_resumed(renamed, START).unwrap_err(), OpenError::Decrypt);
}

/// (8) The request's kind was outside the authenticated data.
#[test]
fn flaw_08_no_message_of_one_kind_opens_as_another() {
    let ring = ring();
    let resumption = resumption(&ring);
    for message in [&b"q"[..], &[0; 2_000]] {
        let request = sealed(&resumption, message);
        assert_eq!(ring.open(request.clone(), START).unwrap_err(), OpenError::Decrypt);
        let mut chunked = ring.chunked_opener(1 << 20);
        let _ = chunked.push(&request, START);
        chunked.finish(START).unwrap_err();
        ring.open_resumed(request, START).unwrap();
    }
    let (full, _, _) = offer(&ring, Kem::XWing, Aead::Aes256Gcm);
    assert_eq!(ring.open_resumed(full.clone(), START).unwrap_err(), OpenError::UnknownResumption);
    ring.open(full, START).unwrap();
}

#[test]
fn flaw_08_a_reply_sent_back_is_no_request() {
    let ring = ring();
    let resumption = resumption(&ring);
    let request = sealed(&resumption, b"q");
    let reply = ring.open_resumed(request.clone(), START).unwrap().1.seal(&[0; 64], &mut rng()).unwrap();
    assert_eq!(ring.open_resumed(reply.clone(), START).unwrap_err(), OpenError::UnknownResumption);
    // The reply, sent back as a request with the next counter: its nonce stands where the salt would.
    let mut reflected = request[..COUNTER].to_vec();
    reflected[COUNTER - 1] += 1;
    reflected.extend(reply);
    assert_eq!(ring.open_resumed(reflected, START).unwrap_err(), OpenError::Decrypt);
    // A request is no reply to itself.
    let (request, opener) = resumption.seal(&[0; 64], &mut rng()).unwrap();
    opener.open(request[COUNTER..].to_vec()).unwrap_err();
}

#[test]
fn no_bit_of_a_request_can_be_changed() {
    let ring = ring();
    let resumption = resumption(&ring);
    let request = sealed(&resumption, &[0x5a; 40]);
    for bit in 0..request.len() * 8 {
        let mut altered = request.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 | HEADER..ID => OpenError::UnknownResumption,
            _ => OpenError::Decrypt,
        };
        // Keys 17 to 19 are of one epoch, whose resumptions are in one table.
        let found = ring.open_resumed(altered.clone(), START).unwrap_err();
        assert!(
            found == expected || (altered[0] & !3 == 16 && found == OpenError::Decrypt),
            "bit {bit}: {found}"
        );
    }
    for len in 0..request.len() {
        let found = ring.open_resumed(request[..len].to_vec(), START).unwrap_err();
        let expected = if len < SALT + 16 { OpenError::Truncated { len } } else { OpenError::Decrypt };
        assert_eq!(found, expected);
    }
    let trailing = [&request[..], &[0]].concat();
    assert_eq!(ring.open_resumed(trailing, START).unwrap_err(), OpenError::Decrypt);
    ring.open_resumed(request, START).expect("what did not open left no trace");
}

#[test]
fn no_bit_of_a_reply_can_be_changed() {
    let ring = ring();
    let resumption = resumption(&ring);
    for bit in 0..(32 + 24 + 16) * 8 {
        let (request, opener) = resumption.seal(b"q", &mut rng()).unwrap();
        let mut reply = ring.open_resumed(request, START).unwrap().1.seal(&[0x5a; 24], &mut rng()).unwrap();
        reply[bit / 8] ^= 1 << (bit % 8);
        opener.open(reply).unwrap_err();
    }
}

/// (13) Errors told what they should not.
#[test]
fn flaw_13_nothing_shows_a_secret() {
    let ring = ring();
    let (request, _, offer) = offer(&ring, Kem::X25519, Aead::Aes256Gcm);
    let (opened, _) = ring.open(request, START).unwrap();
    let grant = opened.grant_resumption(&mut rng()).unwrap();
    let shown = format!("{offer:?} {opened:?}");
    assert!(
        shown.starts_with("ResumptionOffer Opened { plaintext: Plaintext(6 bytes)")
            && shown.contains("Some(Offered)")
    );
    assert_eq!(format!("{:?}", offer.accept(&grant)), "Resumption");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        let ring = ring_of([7; 32], 17);
        prop_assert!(ring.open_resumed(bytes, START).is_err());
    }

    #[test]
    fn whatever_follows_a_known_start_is_refused(tail: Vec<u8>, counter: u64) {
        let ring = ring_of([7; 32], 17);
        let resumption = resumption(&ring);
        let mut message = sealed(&resumption, b"q");
        message.truncate(COUNTER);
        message[ID..].copy_from_slice(&counter.to_be_bytes());
        message.extend(tail);
        prop_assert!(ring.open_resumed(message, START).is_err());
    }

    #[test]
    fn any_message_comes_out_as_it_went_in(message: Vec<u8>, answer: Vec<u8>) {
        let ring = ring_of([7; 32], 17);
        let resumption = resumption(&ring);
        let (request, opener) = resumption.seal(&message, &mut rng()).unwrap();
        let (opened, reply) = ring.open_resumed(request, START).unwrap();
        prop_assert_eq!(opened.plaintext.expose(), message);
        let reply = opener.open(reply.seal(&answer, &mut rng()).unwrap()).unwrap();
        prop_assert_eq!(reply.expose(), answer);
    }
}

fn id_of(grant: &ResumptionGrant) -> Vec<u8> {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let text = grant.to_string();
    Base64UrlUnpadded::decode_vec(text.split(';').next().unwrap()).unwrap()
}
