//! The clients and the server of the vectors once more, by other libraries: contexts and KEMs are the `hpke` crate's
//! (X-Wing that of `x-wing`), HKDF and ciphers aws-lc's, and the rest is docs/protocol.md written down again. Nothing
//! of this crate is used. Unlike ours, that X-Wing takes its randomness from outside.

use std::{fs, path::Path};

use aws_lc_rs::{
    aead::{self, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use hpke::{
    Kem, OpModeS, Serializable,
    aead::{Aead, AesGcm128, AesGcm256, ChaCha20Poly1305},
    kdf::HkdfSha256,
    kem::{DhP256HkdfSha256, X25519HkdfSha256, XWing},
    setup_sender_with_rng,
};

use crate::case::{Case, FIRST_CHUNK, Fixed, Hex, Input, Opening, Resumed, Server};

#[test]
fn every_exchange_follows_from_its_inputs() {
    let (mut exchanges, mut resumptions) = (0, 0);
    for folder in ["sealing", "session"] {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors")).join(folder);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path().join("case.json");
            let Ok(file) = fs::read(&path) else { continue };
            let same = |ours: &Hex, file: &Hex| assert!(ours == file, "{}: other bytes", path.display());
            match serde_json::from_slice::<Case>(&file).unwrap().input {
                Input::Exchange { server, kem, aead, chunked, ephemeral, request, reply_nonce, reply } => {
                    let sent = seal(&server, [&kem, &aead], chunked, &ephemeral, &request.plaintext);
                    same(&sent.sealed, &request.sealed);
                    same(&sent.reply.seal(&reply_nonce, &reply.plaintext), &reply.sealed);
                    exchanges += 1;
                }
                Input::Resumption { server, resumption, resumption_secret, messages } => {
                    let Opening { kem, aead, ephemeral, request, id, .. } = &resumption;
                    let sent = seal(&server, [kem, aead], false, ephemeral, &request.plaintext);
                    same(&sent.sealed, &request.sealed);
                    same(&sent.resumption_secret, &resumption_secret);
                    for Resumed { counter, salt, request, reply_nonce, reply } in messages {
                        let (sealed, theirs) = sent.resumed(id, counter, &salt, &request.plaintext);
                        same(&sealed, &request.sealed);
                        same(&theirs.seal(&reply_nonce, &reply.plaintext), &reply.sealed);
                    }
                    resumptions += 1;
                }
                _ => {}
            }
        }
    }
    assert_eq!((exchanges, resumptions), (18, 9));
}

/// A full request.
pub(crate) struct Sent {
    pub(crate) sealed: Hex,
    pub(crate) reply: Reply,
    pub(crate) resumption_secret: Hex,
}

/// What a reply is sealed with, but for its nonce.
pub(crate) struct Reply {
    cipher: &'static aead::Algorithm,
    chunked: bool,
    secret: Vec<u8>,
    /// What of the request goes into the salt.
    request: Vec<u8>,
}

/// Seals `message` as the client of the vector does, to the key that `server` derives for the KEM of that name.
pub(crate) fn seal(
    server: &Server,
    [kem, aead]: [&str; 2],
    chunked: bool,
    ephemeral: &Hex,
    message: &Hex,
) -> Sent {
    let seal = match (kem, aead) {
        ("x-wing", "aes-256-gcm") => sealed_by::<XWing, AesGcm256>,
        ("x-wing", "aes-128-gcm") => sealed_by::<XWing, AesGcm128>,
        ("x-wing", "chacha20-poly1305") => sealed_by::<XWing, ChaCha20Poly1305>,
        ("x25519", "aes-256-gcm") => sealed_by::<X25519HkdfSha256, AesGcm256>,
        ("x25519", "aes-128-gcm") => sealed_by::<X25519HkdfSha256, AesGcm128>,
        ("x25519", "chacha20-poly1305") => sealed_by::<X25519HkdfSha256, ChaCha20Poly1305>,
        ("p-256", "aes-256-gcm") => sealed_by::<DhP256HkdfSha256, AesGcm256>,
        ("p-256", "aes-128-gcm") => sealed_by::<DhP256HkdfSha256, AesGcm128>,
        ("p-256", "chacha20-poly1305") => sealed_by::<DhP256HkdfSha256, ChaCha20Poly1305>,
        other => panic!("{other:?}"),
    };
    seal(server, chunked, ephemeral, message)
}

fn sealed_by<K: Kem, A: Aead>(server: &Server, chunked: bool, ephemeral: &Hex, message: &Hex) -> Sent {
    let kem_id = K::KEM_ID.to_be_bytes();
    let ikm = derive(&server.epoch_secret.0, b"confonnx keys v1", &[b"kem", &kem_id, &server.binding.0], 32);
    let (_, public) = K::derive_keypair(&ikm);
    let place = [0x647a, 0x0020, 0x0010].iter().position(|id| *id == K::KEM_ID).unwrap() as u64;
    let key_id = u64::from(server.binding.0[0]) + 3 * server.epoch_number + place;
    let header = [&[key_id as u8][..], &kem_id, &[0, 1], &A::AEAD_ID.to_be_bytes()].concat();

    let kind = if chunked { "bhttp chunked" } else { "bhttp" };
    let info = [format!("message/{kind} request").as_bytes(), &[0], &header].concat();
    let rng = &mut Fixed(ephemeral.0.clone());
    let (encapsulated, mut context) =
        setup_sender_with_rng::<A, HkdfSha256, K>(&OpModeS::Base, &public, &info, rng).unwrap();
    assert!(rng.0.is_empty(), "all of the randomness is used");
    let encapsulated = encapsulated.to_bytes().to_vec();

    let body = framed(chunked, &message.0, |_, aad, part| context.seal(part, aad).unwrap());
    let cipher = match A::AEAD_ID {
        1 => &aead::AES_128_GCM,
        2 => &aead::AES_256_GCM,
        _ => &aead::CHACHA20_POLY1305,
    };
    let mut secret = vec![0; longer(cipher)];
    context.export(format!("message/{kind} response").as_bytes(), &mut secret).unwrap();
    let mut resumption_secret = vec![0; 32];
    context.export(b"confonnx session v1", &mut resumption_secret).unwrap();
    Sent {
        sealed: Hex([header, encapsulated.clone(), body].concat()),
        reply: Reply { cipher, chunked, secret, request: encapsulated },
        resumption_secret: Hex(resumption_secret),
    }
}

impl Sent {
    /// A request by the resumption that this request opened, and its reply.
    pub(crate) fn resumed(&self, id: &Hex, counter: u64, salt: &Hex, message: &Hex) -> (Hex, Reply) {
        let cipher = self.reply.cipher;
        let head = [&self.sealed.0[..7], &id.0, &counter.to_be_bytes()].concat();
        let derived = |what: &[u8], len| {
            let info = [b"confonnx session v1 ", what, &[0], &head];
            derive(&self.resumption_secret.0, &salt.0, &info, len)
        };
        let nonce = derived(b"request nonce", aead::NONCE_LEN);
        let body = encrypt(cipher, &derived(b"request key", cipher.key_len()), &nonce, b"", &message.0);
        let request = [&head[..], &salt.0, &body[body.len() - cipher.tag_len()..]].concat();
        let secret = derived(b"reply", longer(cipher));
        (Hex([head, salt.0.clone(), body].concat()), Reply { cipher, chunked: false, secret, request })
    }
}

impl Reply {
    pub(crate) fn seal(&self, nonce: &Hex, message: &Hex) -> Hex {
        let salt = [&self.request[..], &nonce.0].concat();
        let key = derive(&self.secret, &salt, &[b"key"], self.cipher.key_len());
        let base = derive(&self.secret, &salt, &[b"nonce"], aead::NONCE_LEN);
        let body = framed(self.chunked, &message.0, |count, aad, part| {
            let mut nonce = base.clone();
            *nonce.last_mut().unwrap() ^= count;
            encrypt(self.cipher, &key, &nonce, aad, part)
        });
        Hex([nonce.0.clone(), body].concat())
    }
}

/// The message as one sealed part, or as a short first chunk and the final one. `seal` gets each part's number, its
/// associated data and its bytes.
fn framed(chunked: bool, message: &[u8], mut seal: impl FnMut(u8, &[u8], &[u8]) -> Vec<u8>) -> Vec<u8> {
    if !chunked {
        return seal(0, b"", message);
    }
    let (first, last) = message.split_at(FIRST_CHUNK);
    let first = seal(0, b"", first);
    let length = u8::try_from(first.len()).ok().filter(|len| *len < 64).unwrap();
    [vec![length], first, vec![0], seal(1, b"final", last)].concat()
}

fn encrypt(cipher: &'static aead::Algorithm, key: &[u8], nonce: &[u8], aad: &[u8], part: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(cipher, key).unwrap());
    let mut sealed = part.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).unwrap();
    sealed
}

/// max(Nn, Nk)
fn longer(cipher: &aead::Algorithm) -> usize {
    cipher.key_len().max(aead::NONCE_LEN)
}

/// Expand(Extract(salt, ikm), info, len)
fn derive(ikm: &[u8], salt: &[u8], info: &[&[u8]], len: usize) -> Vec<u8> {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = vec![0; len];
    let prk = Salt::new(HKDF_SHA256, salt).extract(ikm);
    prk.expand(info, Len(len)).unwrap().fill(&mut out).unwrap();
    out
}
