//! `vectors/sealing` and `vectors/session`: both ends of every exchange.

use confonnx_protocol::{
    Aead, KeyConfig,
    client::{ChunkedReplyOpener, ReplyOpener, SealingKey},
    resumption::Resumption,
    server::{KeyRing, OpenError},
};
use serde_json::{Value, json};

use crate::case::{Case, FIRST_CHUNK, Fixed, Hex, Input, NOW, Opening, Resumed, Server};
use crate::support::sealing_key;

/// Why a case does not end as it says: what differs, in a few words.
type Differs = &'static str;

pub(crate) fn run(case: Value) -> (Value, Value) {
    let expected = case.get("expected").cloned().unwrap_or_else(|| "the same bytes".into());
    let found = match serde_json::from_value::<Case>(case) {
        Ok(case) => check(case.input).unwrap_or_else(Value::from),
        Err(err) => format!("a case that cannot be read: {err}").into(),
    };
    (expected, found)
}

fn check(input: Input) -> Result<Value, Differs> {
    Ok(match input {
        Input::KeyConfigs { list, usable, .. } => {
            let found = KeyConfig::parse_list(&list.0);
            let outcome = if found.is_ok() { "accepted" } else { "refused" };
            let described = |config: &KeyConfig| {
                json!({
                    "key_id": config.key_id(),
                    "kem": config.kem().name(),
                    "aeads": config.aeads().iter().map(|aead| aead.name()).collect::<Vec<_>>(),
                })
            };
            let found: Vec<_> = found.unwrap_or_default().iter().map(described).collect();
            same(&json!(found), &json!(usable), "the usable keys")?;
            outcome.into()
        }
        Input::Exchange { server, kem, aead, chunked, ephemeral, request, reply_nonce, reply } => {
            let ring = ring(&server)?;
            let opener = match sealed_here(&kem) {
                true => {
                    let (sealed, opener) =
                        seal(&server, &kem, &aead, chunked, ephemeral, &request.plaintext.0)?;
                    same(&Hex(sealed), &request.sealed, "the sealed request")?;
                    Some(opener)
                }
                false => None,
            };
            let (plaintext, sealed) =
                serve(&ring, chunked, &request.sealed.0, reply_nonce, &reply.plaintext.0)
                    .map_err(|err| err.code().name())?;
            same(&Hex(plaintext), &request.plaintext, "the request")?;
            same(&Hex(sealed), &reply.sealed, "the sealed reply")?;
            if let Some(opener) = opener {
                same(&open(opener, &reply.sealed.0), &Some(reply.plaintext.0), "the reply")?;
            }
            "the same bytes".into()
        }
        Input::Request { server, chunked, received_before, sealed, .. } => {
            let ring = ring(&server)?;
            let serve = |sealed: &Hex| serve(&ring, chunked, &sealed.0, Hex(vec![0; 32]), b"");
            for sealed in &received_before {
                serve(sealed).map_err(|_| "a request received before")?;
            }
            serve(&sealed).map_or_else(|err| err.code().name(), |_| "opened").into()
        }
        Input::Reply { server, kem, aead, chunked, ephemeral, sealed, .. } => {
            let (_, opener) = seal(&server, &kem, &aead, chunked, ephemeral, b"")?;
            if open(opener, &sealed.0).is_some() { "opened" } else { "refused" }.into()
        }
        Input::Resumption { server, resumption, messages, .. } => {
            let ring = ring(&server)?;
            let client = client_resumption(&server, &resumption)?;
            grant(&ring, &resumption)?;
            for (counter, message) in (0..).zip(messages) {
                same(&message.counter, &counter, "the counter")?;
                resumed(&ring, client.as_ref(), message)?;
            }
            "the same bytes".into()
        }
        Input::ResumptionRequest { server, resumption, received_before, sealed, .. } => {
            let ring = ring(&server)?;
            grant(&ring, &resumption)?;
            for sealed in received_before {
                ring.open_resumed(sealed.0, NOW).map_err(|_| "a request received before")?;
            }
            ring.open_resumed(sealed.0, NOW).map_or_else(|err| err.code().name(), |_| "opened").into()
        }
        Input::ResumptionReply { server, resumption, salt, sealed, .. } => {
            let client = client_resumption(&server, &resumption)?.ok_or("a KEM that is not sealed here")?;
            let (_, opener) = client.seal(b"", &mut Fixed(salt.0)).map_err(|_| "sealing")?;
            if opener.open(sealed.0).is_ok() { "opened" } else { "refused" }.into()
        }
    })
}

/// Whether requests for that KEM are the same each time: aws-lc draws the randomness of X-Wing itself.
fn sealed_here(kem: &str) -> bool {
    kem != "x-wing" || cfg!(all(feature = "rust-crypto", not(feature = "aws-lc")))
}

fn same<T: PartialEq>(found: &T, expected: &T, what: Differs) -> Result<(), Differs> {
    if found == expected { Ok(()) } else { Err(what) }
}

fn ring(server: &Server) -> Result<KeyRing, Differs> {
    let ring = server.ring();
    same(&Hex(ring.key_configs()), &server.key_configs, "the key configurations")?;
    Ok(ring)
}

fn key(server: &Server, kem: &str) -> Result<SealingKey, Differs> {
    sealing_key(&server.key_configs.0, kem).ok_or("no key of that KEM")
}

/// The client's end of the resumption; none where requests are not the same each time.
fn client_resumption(server: &Server, opening: &Opening) -> Result<Option<Resumption>, Differs> {
    if !sealed_here(&opening.kem) {
        return Ok(None);
    }
    let aead = Aead::from_name(&opening.aead).ok_or("an unknown cipher")?;
    let (sealed, _, offer) = key(server, &opening.kem)?
        .seal_offering(aead, &opening.request.plaintext.0, &mut Fixed(opening.ephemeral.0.clone()))
        .map_err(|_| "sealing")?;
    same(&Hex(sealed), &opening.request.sealed, "the request that opens the session")?;
    Ok(Some(offer.accept(&opening.grant.parse().map_err(|_| "the grant")?)))
}

fn grant(ring: &KeyRing, opening: &Opening) -> Result<(), Differs> {
    let (opened, _) = ring.open(opening.request.sealed.0.clone(), NOW).map_err(|err| err.code().name())?;
    same(&opened.plaintext.expose(), &opening.request.plaintext.0.as_slice(), "the opening request")?;
    let grant = opened.grant_resumption(&mut Fixed(opening.id.0.clone())).ok_or("no grant")?;
    same(&grant.to_string(), &opening.grant, "the grant")
}

fn resumed(ring: &KeyRing, client: Option<&Resumption>, message: Resumed) -> Result<(), Differs> {
    let (opened, reply) =
        ring.open_resumed(message.request.sealed.0.clone(), NOW).map_err(|err| err.code().name())?;
    same(&opened.plaintext.expose(), &message.request.plaintext.0.as_slice(), "the request")?;
    let reply = reply
        .seal(&message.reply.plaintext.0, &mut Fixed(message.reply_nonce.0))
        .map_err(|_| "sealing the reply")?;
    same(&reply, &message.reply.sealed.0, "the sealed reply")?;
    let Some(client) = client else { return Ok(()) };
    let (sealed, opener) =
        client.seal(&message.request.plaintext.0, &mut Fixed(message.salt.0)).map_err(|_| "sealing")?;
    same(&sealed, &message.request.sealed.0, "the sealed request")?;
    let opened = opener.open(reply).map_err(|_| "opening the reply")?;
    same(&opened.expose(), &message.reply.plaintext.0.as_slice(), "the reply")
}

enum Opener {
    Whole(ReplyOpener),
    Chunked(ChunkedReplyOpener),
}

fn seal(
    server: &Server,
    kem: &str,
    aead: &str,
    chunked: bool,
    ephemeral: Hex,
    message: &[u8],
) -> Result<(Vec<u8>, Opener), Differs> {
    let key = key(server, kem)?;
    let aead = Aead::from_name(aead).ok_or("an unknown cipher")?;
    let mut rng = Fixed(ephemeral.0);
    if !chunked {
        let (sealed, opener) = key.seal(aead, message, &mut rng).map_err(|_| "sealing")?;
        return Ok((sealed, Opener::Whole(opener)));
    }
    let mut sealed = Vec::new();
    let (mut sealer, opener) =
        key.seal_chunked(aead, 1 << 20, &mut rng, &mut sealed).map_err(|_| "sealing")?;
    let (first, last) = message.split_at(FIRST_CHUNK.min(message.len()));
    sealer.chunk(first, &mut sealed).map_err(|_| "sealing")?;
    sealer.finish(last, &mut sealed).map_err(|_| "sealing")?;
    Ok((sealed, Opener::Chunked(opener)))
}

/// The plaintext of the request, and the sealed reply.
fn serve(
    ring: &KeyRing,
    chunked: bool,
    sealed: &[u8],
    nonce: Hex,
    answer: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), OpenError> {
    let mut rng = Fixed(nonce.0);
    let mut reply_bytes = Vec::new();
    if !chunked {
        let (opened, reply) = ring.open(sealed.to_vec(), NOW)?;
        if let Ok(sealed) = reply.seal(answer, &mut rng) {
            reply_bytes = sealed;
        }
        return Ok((opened.plaintext.expose().to_vec(), reply_bytes));
    }
    let mut opener = ring.chunked_opener(1 << 20);
    opener.push(sealed, NOW)?;
    let (opened, reply) = opener.finish(NOW)?;
    if let Ok(mut sealer) = reply.start(&mut rng, &mut reply_bytes) {
        let (first, last) = answer.split_at(FIRST_CHUNK.min(answer.len()));
        // An error shows: a reply that is not sealed differs from the expected one.
        let _ = sealer.chunk(first, &mut reply_bytes).and_then(|()| sealer.finish(last, &mut reply_bytes));
    }
    Ok((opened.plaintext.expose().to_vec(), reply_bytes))
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
