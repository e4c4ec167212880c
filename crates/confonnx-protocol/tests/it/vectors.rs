//! Every folder of `vectors/sealing` and `vectors/session`.

use std::{fs, path::Path};

use confonnx_protocol::{
    Aead, Kem, KeyConfig,
    client::{ChunkedReplyOpener, ReplyOpener, SealingKey},
    resumption::Resumption,
    server::{KeyRing, OpenError},
};

use crate::{
    case::{Case, FIRST_CHUNK, Fixed, Hex, Input, NOW, Opening, Server, Usable},
    support::sealing_key,
};

#[test]
fn every_vector_is_accepted_or_refused_as_it_says() {
    assert_eq!(check_folder("sealing"), 76);
    assert_eq!(check_folder("session"), 28);
}

/// Checks all cases of a folder, and says how many there are.
fn check_folder(name: &str) -> usize {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors")).join(name);
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path().join("case.json");
        let Ok(file) = fs::read(&path) else { continue };
        let case: Case = serde_json::from_slice(&file).unwrap();
        let name = format!("{}: {}", path.display(), case.description);
        check(&name, case.input);
        cases += 1;
    }
    cases
}

fn check(name: &str, input: Input) {
    match input {
        Input::KeyConfigs { list, expected, usable } => {
            let found = KeyConfig::parse_list(&list.0);
            assert_eq!(if found.is_ok() { "accepted" } else { "refused" }, expected, "{name}");
            assert_eq!(found.unwrap_or_default().iter().map(described).collect::<Vec<_>>(), usable, "{name}");
        }
        Input::Exchange { server, kem, aead, chunked, ephemeral, request, reply_nonce, reply } => {
            let ring = ring(&server);
            let (key, aead) =
                (sealing_key(&ring, Kem::from_name(&kem).unwrap()), Aead::from_name(&aead).unwrap());
            // Our X-Wing takes no randomness from outside, so only `theirs` makes requests to it again.
            let opener = (key.config().kem() != Kem::XWing).then(|| {
                let (sealed, opener) = seal(&key, aead, chunked, ephemeral, &request.plaintext.0);
                assert_eq!(Hex(sealed), request.sealed, "{name}");
                opener
            });
            let (plaintext, sealed) =
                serve(&ring, chunked, &request.sealed.0, reply_nonce, &reply.plaintext.0).unwrap();
            assert_eq!(Hex(plaintext), request.plaintext, "{name}");
            assert_eq!(Hex(sealed), reply.sealed, "{name}");
            if let Some(opener) = opener {
                assert_eq!(open(opener, &reply.sealed.0), Some(reply.plaintext.0), "{name}");
            }
        }
        Input::Request { server, chunked, received_before, sealed, expected } => {
            let ring = ring(&server);
            let serve = |sealed: &Hex| serve(&ring, chunked, &sealed.0, Hex(vec![0; 32]), b"");
            for sealed in &received_before {
                serve(sealed).unwrap();
            }
            let found = serve(&sealed).map_or_else(|err| err.code().name(), |_| "opened");
            assert_eq!(found, expected, "{name}");
        }
        Input::Reply { server, kem, aead, chunked, ephemeral, sealed, expected } => {
            let ring = ring(&server);
            let (key, aead) =
                (sealing_key(&ring, Kem::from_name(&kem).unwrap()), Aead::from_name(&aead).unwrap());
            let (_, opener) = seal(&key, aead, chunked, ephemeral, b"");
            let found = if open(opener, &sealed.0).is_some() { "opened" } else { "refused" };
            assert_eq!(found, expected, "{name}");
        }
        Input::Resumption { server, resumption, messages, .. } => {
            let ring = ring(&server);
            let client = client_resumption(&ring, &resumption, name);
            serve_opening(&ring, &resumption, name);
            for (counter, message) in (0..).zip(messages) {
                assert_eq!(message.counter, counter, "{name}");
                let (opened, reply) = ring.open_resumed(message.request.sealed.0.clone(), NOW).unwrap();
                assert_eq!(Hex(opened.plaintext.expose().to_vec()), message.request.plaintext, "{name}");
                let reply =
                    reply.seal(&message.reply.plaintext.0, &mut Fixed(message.reply_nonce.0)).unwrap();
                assert_eq!(Hex(reply.clone()), message.reply.sealed, "{name}");
                let Some(client) = &client else { continue };
                let (sealed, opener) =
                    client.seal(&message.request.plaintext.0, &mut Fixed(message.salt.0)).unwrap();
                assert_eq!(Hex(sealed), message.request.sealed, "{name}");
                assert_eq!(opener.open(reply).unwrap().expose(), message.reply.plaintext.0, "{name}");
            }
        }
        Input::ResumptionRequest { server, resumption, received_before, sealed, expected } => {
            let ring = ring(&server);
            serve_opening(&ring, &resumption, name);
            for sealed in received_before {
                ring.open_resumed(sealed.0, NOW).unwrap();
            }
            let found = ring.open_resumed(sealed.0, NOW).map_or_else(|err| err.code().name(), |_| "opened");
            assert_eq!(found, expected, "{name}");
        }
        Input::ResumptionReply { server, resumption, salt, sealed, expected } => {
            let client = client_resumption(&ring(&server), &resumption, name).unwrap();
            let (_, opener) = client.seal(b"", &mut Fixed(salt.0)).unwrap();
            let found = if opener.open(sealed.0).is_ok() { "opened" } else { "refused" };
            assert_eq!(found, expected, "{name}");
        }
    }
}

/// The client's end of the resumption; none for X-Wing, whose requests only `theirs` makes again.
fn client_resumption(ring: &KeyRing, opening: &Opening, name: &str) -> Option<Resumption> {
    let (kem, aead) = (Kem::from_name(&opening.kem).unwrap(), Aead::from_name(&opening.aead).unwrap());
    if kem == Kem::XWing {
        return None;
    }
    let (sealed, _, offer) = sealing_key(ring, kem)
        .seal_offering(aead, &opening.request.plaintext.0, &mut Fixed(opening.ephemeral.0.clone()))
        .unwrap();
    assert_eq!(Hex(sealed), opening.request.sealed, "{name}");
    Some(offer.accept(&opening.grant.parse().unwrap()))
}

fn serve_opening(ring: &KeyRing, opening: &Opening, name: &str) {
    let (opened, _) = ring.open(opening.request.sealed.0.clone(), NOW).unwrap();
    assert_eq!(Hex(opened.plaintext.expose().to_vec()), opening.request.plaintext, "{name}");
    let grant = opened.grant_resumption(&mut Fixed(opening.id.0.clone())).unwrap();
    assert_eq!(grant.to_string(), opening.grant, "{name}");
}

fn ring(server: &Server) -> KeyRing {
    let ring = server.ring();
    assert_eq!(Hex(ring.key_configs()), server.key_configs);
    ring
}

fn described(config: &KeyConfig) -> Usable {
    Usable {
        key_id: config.key_id(),
        kem: config.kem().name().into(),
        aeads: config.aeads().iter().map(|aead| aead.name().into()).collect(),
    }
}

pub(crate) enum Opener {
    Whole(ReplyOpener),
    Chunked(ChunkedReplyOpener),
}

pub(crate) fn seal(
    key: &SealingKey,
    aead: Aead,
    chunked: bool,
    ephemeral: Hex,
    message: &[u8],
) -> (Vec<u8>, Opener) {
    let mut rng = Fixed(ephemeral.0);
    if !chunked {
        let (sealed, opener) = key.seal(aead, message, &mut rng).unwrap();
        return (sealed, Opener::Whole(opener));
    }
    let mut sealed = Vec::new();
    let (mut sealer, opener) = key.seal_chunked(aead, 1 << 20, &mut rng, &mut sealed).unwrap();
    let (first, last) = message.split_at(FIRST_CHUNK.min(message.len()));
    sealer.chunk(first, &mut sealed).unwrap();
    sealer.finish(last, &mut sealed).unwrap();
    (sealed, Opener::Chunked(opener))
}

/// The plaintext of the request, and the sealed reply.
pub(crate) fn serve(
    ring: &KeyRing,
    chunked: bool,
    sealed: &[u8],
    nonce: Hex,
    answer: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), OpenError> {
    let mut rng = Fixed(nonce.0);
    if !chunked {
        let (opened, reply) = ring.open(sealed.to_vec(), NOW)?;
        return Ok((opened.plaintext.expose().to_vec(), reply.seal(answer, &mut rng).unwrap()));
    }
    let mut opener = ring.chunked_opener(1 << 20);
    opener.push(sealed, NOW)?;
    let (opened, reply) = opener.finish(NOW)?;
    let mut sealed = Vec::new();
    let mut sealer = reply.start(&mut rng, &mut sealed).unwrap();
    let (first, last) = answer.split_at(FIRST_CHUNK.min(answer.len()));
    sealer.chunk(first, &mut sealed).unwrap();
    sealer.finish(last, &mut sealed).unwrap();
    Ok((opened.plaintext.expose().to_vec(), sealed))
}

fn open(opener: Opener, sealed: &[u8]) -> Option<Vec<u8>> {
    match opener {
        Opener::Whole(opener) => opener.open(sealed.to_vec()).ok().map(|reply| reply.expose().to_vec()),
        Opener::Chunked(mut opener) => {
            opener.push(sealed).ok()?;
            opener.finish().ok().map(|reply| reply.expose().to_vec())
        }
    }
}
