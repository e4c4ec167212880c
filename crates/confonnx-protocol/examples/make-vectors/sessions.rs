//! Writes `vectors/session`.

use confonnx_protocol::{Aead, Kem, server::KeyRing};

use super::{
    ANSWER, QUESTION,
    case::{Fixed, Hex, Input, Message, NOW, Opening, Resumed, Server},
    server,
    theirs::{Sent, seal},
    write_to,
};

const CLAUSE: &str = "docs/protocol.md 4.1";
const HEADER: usize = 7;
const ID: usize = HEADER + 16;
const COUNTER: usize = ID + 8;
const SALT: usize = COUNTER + 32;

pub(crate) fn write_all() {
    for kem in Kem::ALL {
        for aead in Aead::ALL {
            let description =
                format!("A session by {kem} and {aead}: the request that opens it, then two in it");
            let input = exchange(kem, aead, 0xe0).1;
            write_to("session", &format!("exchange-{kem}-{aead}"), &description, CLAUSE, input);
        }
    }
    requests();
    replies();
}

fn requests() {
    let (mut messages, input) = exchange(Kem::X25519, Aead::Aes256Gcm, 0xe0);
    let Input::Resumption { server, resumption, .. } = input else { unreachable!() };
    let (second, first) = (messages.pop().unwrap().sealed.0, messages.pop().unwrap().sealed.0);
    let case = |name: &str, description: &str, before: &[&[u8]], sealed: Vec<u8>, expected: &str| {
        let (server, resumption, sealed) = (server.clone(), resumption.clone(), Hex(sealed));
        let received_before = before.iter().map(|sealed| Hex(sealed.to_vec())).collect();
        let expected = expected.into();
        let input = Input::ResumptionRequest { server, resumption, received_before, sealed, expected };
        write_to("session", &format!("request-{name}"), description, CLAUSE, input);
    };
    let flipped = |at: usize| {
        let mut sealed = first.clone();
        sealed[at] ^= 1;
        sealed
    };
    let (invalid, unknown) = ("request-invalid", "session-unknown");
    case("second-first", "The second request before the first", &[], second.clone(), "opened");
    case("overtaken", "The first request after the second", &[&second], first.clone(), "opened");
    case("empty", "Nothing", &[], vec![], invalid);
    case("cut-in-salt", "Ends inside the salt", &[], first[..SALT - 1].to_vec(), invalid);
    case("cut-before-tag", "No room for a tag", &[], first[..SALT + 15].to_vec(), invalid);
    case("cut-in-tag", "Ends inside the tag", &[], first[..first.len() - 1].to_vec(), invalid);
    case("trailing", "An octet too many", &[], [&first[..], &[0]].concat(), invalid);
    case("key-unknown", "A key identifier the server does not have", &[], with(&first, 0, &[99]), unknown);
    case("aead-other", "The header names another cipher", &[], with(&first, 5, &[0, 1]), invalid);
    case("id-unknown", "A bit of the session's identifier", &[], flipped(HEADER), unknown);
    case("flip-counter", "A bit of the counter", &[], flipped(COUNTER - 1), invalid);
    case("flip-salt", "A bit of the salt", &[], flipped(COUNTER), invalid);
    case("flip-ciphertext", "A bit of the ciphertext", &[], flipped(SALT), invalid);
    case("replayed", "The same request again", &[&first], first.clone(), "request-replayed");
    let altered = flipped(first.len() - 1);
    case("replayed-altered", "The same counter with another tag", &[&first], altered, "request-replayed");
}

fn replies() {
    let case = |name: &str, description: &str, alter: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let (_, input) = exchange(Kem::X25519, Aead::Aes256Gcm, 0xe0);
        let Input::Resumption { server, resumption, mut messages, .. } = input else { unreachable!() };
        let Resumed { salt, reply, .. } = messages.swap_remove(0);
        let (sealed, expected) = (Hex(alter(reply.sealed.0)), "refused".into());
        let input = Input::ResumptionReply { server, resumption, salt, sealed, expected };
        write_to("session", &format!("reply-{name}"), description, CLAUSE, input);
    };
    case("cut-in-nonce", "Ends inside the nonce", &|sealed| sealed[..31].to_vec());
    case("flip-nonce", "A bit of the nonce", &|sealed| with(&sealed, 0, &[sealed[0] ^ 1]));
    case("flip-ciphertext", "A bit of the ciphertext", &|sealed| with(&sealed, 33, &[sealed[33] ^ 1]));
    case("of-another-request", "The reply to the second request", &|_| {
        let Input::Resumption { mut messages, .. } = exchange(Kem::X25519, Aead::Aes256Gcm, 0xe0).1 else {
            unreachable!()
        };
        messages.swap_remove(1).reply.sealed.0
    });
}

/// The two requests by the resumption, and all of it.
fn exchange(kem: Kem, aead: Aead, first: u8) -> (Vec<Message>, Input) {
    let server = server();
    let ring = server.ring();
    let (resumption, sent) = open(&server, &ring, kem, aead, first);
    let messages: Vec<_> =
        (0..2).map(|counter| resumed(&ring, &sent, &resumption.id, aead, counter)).collect();
    (
        messages.iter().map(|message| message.request.clone()).collect(),
        Input::Resumption { server, resumption, resumption_secret: sent.resumption_secret, messages },
    )
}

fn open(server: &Server, ring: &KeyRing, kem: Kem, aead: Aead, first: u8) -> (Opening, Sent) {
    let ephemeral_len = if kem == Kem::XWing { 64 } else { 32 };
    let ephemeral = Hex((0..ephemeral_len).map(|n| first.wrapping_add(n)).collect());
    let plaintext = Hex(QUESTION.to_vec());
    let sent = seal(server, [kem.name(), aead.name()], false, &ephemeral, &plaintext);
    let id = Hex((0..16).map(|n| 0xa0 + n).collect());
    let (opened, _) = ring.open(sent.sealed.0.clone(), NOW).unwrap();
    let grant = opened.grant_resumption(&mut Fixed(id.0.clone())).unwrap();
    let request = Message { plaintext, sealed: sent.sealed.clone() };
    let (kem, aead) = (kem.name().into(), aead.name().into());
    (Opening { kem, aead, ephemeral, request, id, grant: grant.to_string() }, sent)
}

fn resumed(ring: &KeyRing, sent: &Sent, id: &Hex, aead: Aead, counter: u8) -> Resumed {
    let salt = Hex((0..32).map(|n| 0x10 + 0x40 * counter + n).collect());
    let reply_nonce = Hex((0..aead.reply_nonce_len()).map(|n| 0x30 + 0x40 * counter + n as u8).collect());
    let (question, answer) = ([QUESTION, b", again"].concat(), [ANSWER, &[counter]].concat());
    let request = sent.resumed(id, counter.into(), &salt, &Hex(question.clone())).0.0;
    let (_, reply) = ring.open_resumed(request.clone(), NOW).unwrap();
    let reply = reply.seal(&answer, &mut Fixed(reply_nonce.0.clone())).unwrap();
    let message = |plaintext, sealed| Message { plaintext: Hex(plaintext), sealed: Hex(sealed) };
    let (request, reply) = (message(question, request), message(answer, reply));
    Resumed { counter: counter.into(), salt, request, reply_nonce, reply }
}

fn with(sealed: &[u8], at: usize, octets: &[u8]) -> Vec<u8> {
    let mut sealed = sealed.to_vec();
    sealed[at..at + octets.len()].copy_from_slice(octets);
    sealed
}
