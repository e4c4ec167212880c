//! Writes `vectors/sealing` and `vectors/session`: `cargo run -p confonnx-protocol --example make-vectors`.

#![allow(clippy::restriction, reason = "a tool for this repository, which may panic")]
#![allow(
    dead_code,
    unused_imports,
    reason = "shares modules with the integration tests, and uses parts of them"
)]

#[path = "../tests/it/case.rs"]
mod case;
#[path = "make-vectors/sessions.rs"]
mod resumptions;
#[path = "../tests/it/support.rs"]
mod support;
#[path = "../tests/it/theirs.rs"]
mod theirs;
#[path = "../tests/it/vectors.rs"]
mod vectors;

use std::{fs, path::Path};

use case::{Case, Hex, Input, Message, Server, Usable};
use confonnx_protocol::{Aead, Kem, KeyConfig, MAX_CHUNK};
use theirs::seal;
use vectors::serve;

const HEADER: usize = 7;
const X25519_HEAD: usize = HEADER + 32;
const QUESTION: &[u8] = b"the request, padded binary HTTP in earnest";
const ANSWER: &[u8] = b"the reply";

fn main() {
    key_configs();
    for kem in Kem::ALL {
        for aead in Aead::ALL {
            for chunked in [false, true] {
                let (_, _, input) = exchange(kem, aead, chunked);
                let framing = if chunked { "-chunked" } else { "" };
                let clause = if chunked { CHUNKED } else { WHOLE };
                let description =
                    format!("A request and its reply by {kem} and {aead}; deterministic encapsulation");
                write(&format!("exchange-{kem}-{aead}{framing}"), &description, clause, input);
            }
        }
    }
    whole_requests();
    chunked_requests();
    replies();
    resumptions::write_all();
}

const WHOLE: &str = "docs/protocol.md 4, RFC 9458 4.3 and 4.4";
const CHUNKED: &str = "docs/protocol.md 4, draft-ietf-ohai-chunked-ohttp 6";
const KEYS: &str = "docs/protocol.md 3, RFC 9458 3";

fn key_configs() {
    let list = server().key_configs.0;
    let len = list.len();
    let x25519 = list[1235..1235 + 2 + 49].to_vec();
    let case = |name: &str, description: &str, list: Vec<u8>, ids: &[u8]| {
        let expected = if ids.is_empty() { "refused" } else { "accepted" };
        let usable: Vec<_> = KeyConfig::parse_list(&list).unwrap_or_default().iter().map(described).collect();
        assert!(usable.iter().map(|key| key.key_id).eq(ids.iter().copied()), "{name}: {usable:?}");
        let input = Input::KeyConfigs { list: Hex(list), expected: expected.into(), usable };
        write(&format!("key-configs-{name}"), description, KEYS, input);
    };
    case("good", "The three keys of an epoch", list.clone(), &[17, 18, 19]);
    case("empty", "No keys", vec![], &[]);
    case("cut-in-length", "Ends inside the length of an entry", list[..1].to_vec(), &[]);
    case("cut-in-key", "Ends inside a public key", list[..600].to_vec(), &[]);
    case("cut-in-suites", "Ends inside the last cipher", list[..len - 1].to_vec(), &[]);
    case(
        "unknown-kem",
        "Only a key of an unknown KEM",
        [&[0, 49, 1, 0x12, 0x34], &x25519[5..]].concat(),
        &[],
    );
    case(
        "unknown-kem-skipped",
        "A key of an unknown KEM first",
        [&[0, 3, 1, 0x12, 0x34], &list[..]].concat(),
        &[17, 18, 19],
    );
    let altered = |at: usize, octets: &[u8]| {
        let mut altered = x25519.clone();
        altered[at..at + octets.len()].copy_from_slice(octets);
        altered
    };
    case(
        "unknown-kdf",
        "HKDF-SHA384 with one of three ciphers, which is skipped",
        altered(39, &[0, 2]),
        &[18],
    );
    case(
        "unknown-aead",
        "Export-only as one of three ciphers, which is skipped",
        altered(41, &[0xff, 0xff]),
        &[18],
    );
    case("suites-odd", "Cipher list of 10 octets", [&[0, 47], &altered(37, &[0, 10])[2..49]].concat(), &[]);
    case("suites-none", "Empty cipher list", [&[0, 37], &altered(37, &[0, 0])[2..39]].concat(), &[]);
    case(
        "entry-trailing",
        "An octet after the ciphers of an entry",
        [&[0, 50], &x25519[2..], &[0]].concat(),
        &[],
    );
    case("duplicate-id", "Two keys with one identifier", [&x25519[..], &x25519].concat(), &[]);
    let mut off_curve = list.clone();
    off_curve[len - 20] ^= 1;
    case("p-256-off-curve", "A P-256 public key that is not on the curve", off_curve, &[]);
}

fn whole_requests() {
    let (good, server, _) = exchange(Kem::X25519, Aead::Aes256Gcm, false);
    let (x_wing, _, _) = exchange(Kem::XWing, Aead::Aes256Gcm, false);
    let case = |name: &str, description: &str, before: &[&[u8]], sealed: Vec<u8>, expected: &str| {
        let received_before = before.iter().map(|sealed| Hex(sealed.to_vec())).collect();
        let (server, sealed, expected) = (server.clone(), Hex(sealed), expected.into());
        let input = Input::Request { server, chunked: false, received_before, sealed, expected };
        write(&format!("request-{name}"), description, "docs/protocol.md 4 and 6", input);
    };
    let cut = |len: usize| good[..len].to_vec();
    let with = |sealed: &[u8], at: usize, octets: &[u8]| {
        let mut altered = sealed.to_vec();
        altered[at..at + octets.len()].copy_from_slice(octets);
        altered
    };
    let flipped = |sealed: &[u8], at: usize| with(sealed, at, &[sealed[at] ^ 1]);
    let invalid = "request-invalid";
    for (name, len) in [
        ("empty", 0),
        ("cut-after-key-id", 1),
        ("cut-after-kem", 3),
        ("cut-after-kdf", 5),
        ("cut-after-header", HEADER),
        ("cut-in-encapsulated-key", X25519_HEAD - 1),
        ("cut-after-encapsulated-key", X25519_HEAD),
        ("cut-before-tag", X25519_HEAD + 15),
        ("cut-in-tag", good.len() - 1),
    ] {
        case(name, &format!("The first {len} octets of a request"), &[], cut(len), invalid);
    }
    case("trailing", "An octet after the tag", &[], [&good[..], &[0]].concat(), invalid);
    case("flip-encapsulated-key", "A bit of the encapsulated key", &[], flipped(&good, HEADER + 5), invalid);
    case("flip-ciphertext", "A bit of the ciphertext", &[], flipped(&good, X25519_HEAD + 3), invalid);
    case("flip-tag", "A bit of the tag", &[], flipped(&good, good.len() - 1), invalid);
    case("flip-ml-kem", "A bit of X-Wing's ML-KEM ciphertext", &[], flipped(&x_wing, HEADER + 100), invalid);
    case("flip-x25519", "A bit of X-Wing's X25519 share", &[], flipped(&x_wing, HEADER + 1100), invalid);
    case("small-order", "An encapsulated key of small order", &[], with(&good, HEADER, &[0; 32]), invalid);
    case("aead-other", "A cipher of the key, but another one", &[], with(&good, 5, &[0, 3]), invalid);
    case("key-other", "The key of another KEM", &[], with(&good, 0, &[17]), "suite-unsupported");
    case(
        "key-unknown",
        "A key identifier the server does not have",
        &[],
        with(&good, 0, &[99]),
        "key-unknown",
    );
    case(
        "kem-other",
        "A KEM the server has, but not this key",
        &[],
        with(&good, 1, &[0x64, 0x7a]),
        "suite-unsupported",
    );
    case("kem-unknown", "An unknown KEM", &[], with(&good, 1, &[0x12, 0x34]), "suite-unsupported");
    case("kdf-unknown", "HKDF-SHA384", &[], with(&good, 3, &[0, 2]), "suite-unsupported");
    case("aead-unknown", "Export-only", &[], with(&good, 5, &[0xff, 0xff]), "suite-unsupported");
    case("replayed", "The same request again", &[&good], good.clone(), "request-replayed");
    let altered = flipped(&good, good.len() - 1);
    case(
        "replayed-altered",
        "The same encapsulated key with another body",
        &[&good],
        altered,
        "request-replayed",
    );
}

fn chunked_requests() {
    let (good, server, _) = exchange(Kem::X25519, Aead::Aes256Gcm, true);
    let case = |name: &str, description: &str, sealed: Vec<u8>, expected: &str| {
        let (server, sealed, expected) = (server.clone(), Hex(sealed), expected.into());
        let input = Input::Request { server, chunked: true, received_before: vec![], sealed, expected };
        write(&format!("chunked-{name}"), description, CHUNKED, input);
    };
    let first = 1 + case::FIRST_CHUNK + 16;
    let (head, chunks) = good.split_at(X25519_HEAD);
    let (chunk, end) = chunks.split_at(first);
    let invalid = "request-invalid";
    case("no-final", "The final chunk is missing", [head, chunk].concat(), invalid);
    case("final-empty", "Nothing after the mark of the final chunk", [head, chunk, &[0]].concat(), invalid);
    case("final-cut", "The final chunk is cut", good[..good.len() - 1].to_vec(), invalid);
    case("final-trailing", "An octet after the final chunk", [&good[..], &[0]].concat(), invalid);
    case("chunk-absent", "A chunk is missing", [head, end].concat(), invalid);
    case("chunk-twice", "A chunk occurs twice", [head, chunk, chunk, end].concat(), invalid);
    case("chunk-as-final", "A chunk is marked as the final one", [head, &[0], &chunk[1..]].concat(), invalid);
    case("chunk-short", "A chunk shorter than a tag", [head, &[15], &[0; 15], end].concat(), invalid);
    let long = u32::try_from(MAX_CHUNK + 17).unwrap() | 0x8000_0000;
    case(
        "chunk-long",
        "A chunk of 16,385 octets is announced",
        [head, &long.to_be_bytes()[..]].concat(),
        invalid,
    );
    let (whole, _, _) = exchange(Kem::X25519, Aead::Aes256Gcm, false);
    let (whole_head, body) = whole.split_at(X25519_HEAD);
    case("sealed-whole", "A request that was sealed as a whole", [whole_head, &[0], body].concat(), invalid);
}

fn replies() {
    let case = |name: &str, description: &str, chunked: bool, alter: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let (_, _, input) = exchange(Kem::X25519, Aead::Aes256Gcm, chunked);
        let Input::Exchange { server, kem, aead, ephemeral, reply, .. } = input else { unreachable!() };
        let sealed = Hex(alter(reply.sealed.0));
        let input =
            Input::Reply { server, kem, aead, chunked, ephemeral, sealed, expected: "refused".into() };
        write(&format!("reply-{name}"), description, if chunked { CHUNKED } else { WHOLE }, input);
    };
    let flip = |at: usize| {
        move |mut sealed: Vec<u8>| {
            sealed[at] ^= 1;
            sealed
        }
    };
    case("empty", "Nothing", false, &|_| vec![]);
    case("cut-in-nonce", "Ends inside the nonce", false, &|sealed| sealed[..31].to_vec());
    case("cut-in-tag", "Ends inside the tag", false, &|sealed| sealed[..sealed.len() - 1].to_vec());
    case("flip-nonce", "A bit of the nonce", false, &flip(0));
    case("flip-ciphertext", "A bit of the ciphertext", false, &flip(33));
    case("of-another-request", "The reply to another request", false, &|_| {
        let Input::Exchange { reply, .. } = exchange_with(Kem::X25519, Aead::Aes256Gcm, false, 0x99).2 else {
            unreachable!()
        };
        reply.sealed.0
    });
    case("chunked-no-final", "The final chunk is missing", true, &|sealed| {
        sealed[..32 + 1 + 8 + 16].to_vec()
    });
    case("chunked-final-cut", "The final chunk is cut", true, &|sealed| sealed[..sealed.len() - 1].to_vec());
    case("chunked-flip-chunk", "A bit of the first chunk", true, &flip(35));
}

fn exchange(kem: Kem, aead: Aead, chunked: bool) -> (Vec<u8>, Server, Input) {
    exchange_with(kem, aead, chunked, 0xe0)
}

/// The sealed request, the server, and all of it.
fn exchange_with(kem: Kem, aead: Aead, chunked: bool, first: u8) -> (Vec<u8>, Server, Input) {
    let server = server();
    let ring = server.ring();
    let ephemeral_len = if kem == Kem::XWing { 64 } else { 32 };
    let ephemeral = Hex((0..ephemeral_len).map(|n| first.wrapping_add(n)).collect());
    let nonce = Hex((0..aead.reply_nonce_len()).map(|n| 0x40 + n as u8).collect());
    // By others: our X-Wing takes no randomness from outside. What ours is not to make here, it has to read.
    let question = Hex(QUESTION.to_vec());
    let sealed = seal(&server, [kem.name(), aead.name()], chunked, &ephemeral, &question).sealed.0;
    let (_, reply) = serve(&ring, chunked, &sealed, nonce.clone(), ANSWER).unwrap();
    let message = |plaintext: &[u8], sealed: &[u8]| Message {
        plaintext: Hex(plaintext.to_vec()),
        sealed: Hex(sealed.to_vec()),
    };
    let input = Input::Exchange {
        server: server.clone(),
        kem: kem.name().into(),
        aead: aead.name().into(),
        chunked,
        ephemeral,
        request: message(QUESTION, &sealed),
        reply_nonce: nonce,
        reply: message(ANSWER, &reply),
    };
    (sealed, server, input)
}

fn server() -> Server {
    let mut server = Server {
        epoch_secret: Hex((0..32).collect()),
        // With 3 × 300 ≡ 132, the first key is 17.
        epoch_number: 300,
        binding: Hex((0..32).map(|n| 141_u8.wrapping_add(n)).collect()),
        key_configs: Hex(vec![]),
    };
    server.key_configs = Hex(server.ring().key_configs());
    server
}

fn described(config: &KeyConfig) -> Usable {
    Usable {
        key_id: config.key_id(),
        kem: config.kem().name().into(),
        aeads: config.aeads().iter().map(|aead| aead.name().into()).collect(),
    }
}

fn write(name: &str, description: &str, clause: &str, input: Input) {
    write_to("sealing", name, description, clause, input);
}

fn write_to(folder: &str, name: &str, description: &str, clause: &str, input: Input) {
    let case = Case { description: description.into(), clause: clause.into(), input };
    let vectors = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    let folder = vectors.join(folder).join(name);
    fs::create_dir_all(&folder).unwrap();
    let mut json = serde_json::to_string_pretty(&case).unwrap();
    json.push('\n');
    fs::write(folder.join("case.json"), json).unwrap();
}
