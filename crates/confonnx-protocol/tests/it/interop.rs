//! Requests and replies in both directions against the `ohttp` crate, whose framing, contexts and ciphers are not ours;
//! bodies by the `bhttp` crate.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use confonnx_protocol::{Aead, Kem, bhttp as ours, client::SealingKey};
use futures::{AsyncReadExt, AsyncWrite, AsyncWriteExt, executor::block_on};
use ohttp::{ClientRequest, KeyConfig as PeerConfig, Server, SymmetricSuite, hpke};

use crate::support::{START, ring, rng, sealing_key_of};

const SUITES: [(Kem, hpke::Kem); 3] = [
    (Kem::XWing, hpke::Kem::XWing),
    (Kem::X25519, hpke::Kem::X25519Sha256),
    (Kem::P256, hpke::Kem::P256Sha256),
];
/// The peer has no AES-256-GCM; `backend` tests that one against the `hpke` crate's.
const CIPHERS: [(Aead, hpke::Aead); 2] =
    [(Aead::Aes128Gcm, hpke::Aead::Aes128Gcm), (Aead::ChaCha20Poly1305, hpke::Aead::ChaCha20Poly1305)];

/// Long enough for several chunks.
fn body() -> Vec<u8> {
    (0..50_000_u32).map(|n| (n % 251) as u8).collect()
}

fn peer_request() -> Vec<u8> {
    let mut request =
        bhttp::Message::request(b"POST".into(), b"https".into(), b"a".into(), b"/v2/models/m/infer".into());
    request.put_header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    request.write_content(body());
    let mut out = Vec::new();
    request.write_bhttp(bhttp::Mode::KnownLength, &mut out).unwrap();
    out
}

fn check_our_reading(message: &[u8]) {
    let (head, content) = ours::decode_request(message).unwrap();
    assert_eq!(head.path, "/v2/models/m/infer");
    assert_eq!(content.bytes(message), body());
}

fn peer_server(kem: hpke::Kem, aead: hpke::Aead) -> (Server, Vec<u8>) {
    let suites = vec![SymmetricSuite::new(hpke::Kdf::HkdfSha256, aead)];
    let config = PeerConfig::new(9, kem, suites).unwrap();
    let list = PeerConfig::encode_list(&[&config]).unwrap();
    (Server::new(config).unwrap(), list)
}

/// The `ohttp` client for the key of one KEM and one cipher of our list, which is all that it takes.
fn peer_client(list: &[u8], kem: Kem, aead: Aead) -> ClientRequest {
    let configs = confonnx_protocol::KeyConfig::parse_list(list).unwrap();
    let ours = configs.into_iter().find(|config| config.kem() == kem).unwrap();
    let one = confonnx_protocol::KeyConfig::new(ours.key_id(), kem, ours.public_key().to_vec(), vec![aead]);
    let encoded = confonnx_protocol::KeyConfig::encode_list([&one.unwrap()]);
    ClientRequest::from_encoded_config_list(&encoded).unwrap()
}

fn sealing_key(list: &[u8], kem: Kem) -> SealingKey {
    let key = sealing_key_of(list, kem);
    assert_eq!(key.config().key_id(), 9);
    key
}

#[test]
fn our_client_with_its_server() {
    for (kem, peer_kem) in SUITES {
        for (aead, peer_aead) in CIPHERS {
            let (server, list) = peer_server(peer_kem, peer_aead);
            let (sealed, opener) = sealing_key(&list, kem).seal(aead, &peer_request(), &mut rng()).unwrap();
            let (request, response) = server.decapsulate(&sealed).unwrap();
            assert_eq!(request, peer_request());
            let reply = opener.open(response.encapsulate(&body()).unwrap()).unwrap();
            assert_eq!(reply.expose(), body());
        }
    }
}

#[test]
fn its_client_with_our_server() {
    let ring = ring();
    for (kem, _) in SUITES {
        for (aead, _) in CIPHERS {
            let client = peer_client(&ring.key_configs(), kem, aead);
            let (sealed, response) = client.encapsulate(&peer_request()).unwrap();
            let (opened, reply) = ring.open(sealed, START).unwrap();
            check_our_reading(opened.plaintext.expose());
            let sealed = reply.seal(&body(), &mut rng()).unwrap();
            assert_eq!(response.decapsulate(&sealed).unwrap(), body());
        }
    }
}

#[test]
fn our_client_with_its_server_in_chunks() {
    for (kem, peer_kem) in SUITES {
        for (aead, peer_aead) in CIPHERS {
            let (server, list) = peer_server(peer_kem, peer_aead);
            let mut sealed = Vec::new();
            let (mut sealer, mut opener) =
                sealing_key(&list, kem).seal_chunked(aead, 1 << 20, &mut rng(), &mut sealed).unwrap();
            let request = peer_request();
            let (first, rest) = request.split_at(20_000);
            sealer.chunk(first, &mut sealed).unwrap();
            sealer.finish(rest, &mut sealed).unwrap();

            block_on(async {
                let mut incoming = server.decapsulate_stream(&sealed[..]);
                let mut found = Vec::new();
                incoming.read_to_end(&mut found).await.unwrap();
                assert_eq!(found, request);
                let reply = Shared::default();
                let mut outgoing = incoming.response(reply.clone()).unwrap();
                outgoing.write_all(&body()).await.unwrap();
                outgoing.close().await.unwrap();
                opener.push(&reply.take()).unwrap();
            });
            assert_eq!(opener.finish().unwrap().expose(), body());
        }
    }
}

#[test]
fn its_client_with_our_server_in_chunks() {
    let ring = ring();
    for (kem, _) in SUITES {
        for (aead, _) in CIPHERS {
            let client = peer_client(&ring.key_configs(), kem, aead);
            let sealed = Shared::default();
            let mut outgoing = client.encapsulate_stream(sealed.clone()).unwrap();
            block_on(async {
                outgoing.write_all(&peer_request()).await.unwrap();
                outgoing.close().await.unwrap();
            });

            let mut opener = ring.chunked_opener(1 << 20);
            for piece in sealed.take().chunks(1_000) {
                opener.push(piece, START).unwrap();
            }
            let (opened, reply) = opener.finish(START).unwrap();
            check_our_reading(opened.plaintext.expose());
            let mut sealed = Vec::new();
            reply.start(&mut rng(), &mut sealed).unwrap().finish(&body(), &mut sealed).unwrap();

            // The `ohttp` client has room for a nonce of 16 bytes only, and panics on one of 32.
            if aead.reply_nonce_len() > 16 {
                continue;
            }
            let mut found = Vec::new();
            let mut incoming = outgoing.response(&sealed[..]).unwrap();
            block_on(incoming.read_to_end(&mut found)).unwrap();
            assert_eq!(found, body());
        }
    }
}

/// What a peer writes, for us to read while the peer keeps its end.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
