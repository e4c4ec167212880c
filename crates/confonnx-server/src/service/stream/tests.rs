use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use confonnx_attest::{
    Claims, Digest, Document, Expectations, Nonce, Policy, UnixTime, merkle::Tree, produce::Attester,
    report_data,
};
use confonnx_protocol::{
    Aead, EpochSecret, KeyConfig,
    bhttp::decode_response,
    client::{ChunkedReplyOpener, SealingKey},
    server::{Epoch, KeyRing, ResumptionLimits, RingConfig},
};
use http_body_util::BodyExt;

use super::*;

const NOW: UnixTime = UnixTime(1_795_426_200);

fn ring() -> KeyRing {
    let config = RingConfig {
        grace: Duration::from_secs(60),
        date_window: Duration::from_secs(300),
        replay_capacity: 100,
        resumption: ResumptionLimits::OFF,
    };
    let ring = KeyRing::new(config, [3; 32], NOW).unwrap();
    let secret = EpochSecret::new([7; 32]);
    ring.install(Epoch { number: 0, secret, not_before: NOW, not_after: UnixTime(NOW.0 + 600) }, NOW)
        .unwrap();
    ring
}

fn sealing_key(ring: &KeyRing) -> SealingKey {
    let (configs, nonce) = (ring.key_configs(), Nonce([5; 32]));
    let tree = Tree::new(vec![nonce]).unwrap();
    let claims = Claims::example(NOW).to_bytes();
    let bound = report_data(&tree.root(), &configs, &claims);
    let evidence = Attester::insecure(Digest([1; 32])).evidence(&bound).unwrap();
    let document = Document::new(configs.clone(), claims, evidence, tree.root(), tree.proof(0));
    let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
    let trusted = document.verify(Some(&nonce), NOW).unwrap().appraise(&policy, NOW).unwrap();
    SealingKey::new(KeyConfig::parse_list(&configs).unwrap().remove(0), &trusted).unwrap()
}

/// What the audit log was told of the answer.
type Told = Arc<Mutex<Option<(&'static str, usize)>>>;

fn stream(reply: ReplyTo) -> (Stream, Body, Told) {
    let told = Told::default();
    let ended = {
        let told = Arc::clone(&told);
        move |outcome, len| *told.lock().unwrap() = Some((outcome, len))
    };
    let mut head = ResponseHead::new(200);
    head.fields.push("content-type", "text/event-stream");
    let (stream, body) = Stream::new(reply, head, Box::new(ended)).unwrap();
    (stream, body, told)
}

fn content(message: &[u8]) -> String {
    let (head, body) = decode_response(message).unwrap();
    assert_eq!((head.status, head.fields.get("content-type")), (200, Some(&b"text/event-stream"[..])));
    String::from_utf8(body.bytes(message).to_vec()).unwrap()
}

#[tokio::test]
async fn chunks_are_opened_while_the_answer_is_made() {
    let ring = ring();
    let mut request = Vec::new();
    let (sealer, mut opener) =
        sealing_key(&ring).seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut request).unwrap();
    sealer.finish(b"a request", &mut request).unwrap();
    let mut opening = ring.chunked_opener(1 << 20);
    opening.push(&request, NOW).unwrap();
    let (_, reply) = opening.finish(NOW).unwrap();

    let (mut stream, mut body, told) = stream(ReplyTo::Chunked(reply));
    assert_eq!(http_body::Body::size_hint(&body).exact(), None);
    let mut sent = 0;
    for piece in ["data: one\n\n", "data: two\n\n"] {
        stream.send(piece.as_bytes()).unwrap();
        // All that was made so far is there, and can be read, before there is more.
        while !opener.opened().ends_with(piece.as_bytes()) {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            sent += frame.len();
            opener.push(&frame).unwrap();
        }
    }
    assert_eq!(*told.lock().unwrap(), None);
    std::thread::spawn(move || stream.finish("ok").unwrap()).join().unwrap();
    let rest = body.collect().await.unwrap().to_bytes();
    opener.push(&rest).unwrap();
    let message = opener.finish().unwrap();
    assert_eq!(content(message.expose()), "data: one\n\ndata: two\n\n");
    assert_eq!(*told.lock().unwrap(), Some(("ok", sent + rest.len())));
}

/// An answer in chunks, and what opens it.
fn chunked(ring: &KeyRing) -> (ReplyTo, ChunkedReplyOpener) {
    let mut request = Vec::new();
    let (sealer, opener) =
        sealing_key(ring).seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut request).unwrap();
    sealer.finish(b"a request", &mut request).unwrap();
    let mut opening = ring.chunked_opener(1 << 20);
    opening.push(&request, NOW).unwrap();
    (ReplyTo::Chunked(opening.finish(NOW).unwrap().1), opener)
}

#[tokio::test]
async fn an_error_stands_in_the_place_of_an_answer_and_never_after_a_part_of_one() {
    let ring = ring();
    let (request, opener) = sealing_key(&ring).seal(Aead::Aes256Gcm, b"a request", &mut rng()).unwrap();
    let (_, reply) = ring.open(request, NOW).unwrap();
    let (whole, body, told) = stream(ReplyTo::Whole(reply));
    whole.fail(500, b"why", "it-failed").unwrap();
    let sealed = body.collect().await.unwrap().to_bytes();
    let message = opener.open(sealed.to_vec()).unwrap();
    let (head, content) = decode_response(message.expose()).unwrap();
    assert_eq!((head.status, content.bytes(message.expose())), (500, &b"why"[..]));
    assert_eq!(told.lock().unwrap().unwrap().0, "it-failed");

    let (reply, mut opener) = chunked(&ring);
    let (made, body, told) = stream(reply);
    assert!(made.is_wanted());
    made.fail(400, b"why", "it-failed").unwrap();
    opener.push(&body.collect().await.unwrap().to_bytes()).unwrap();
    let message = opener.finish().unwrap();
    let (head, content) = decode_response(message.expose()).unwrap();
    assert_eq!((head.status, content.bytes(message.expose())), (400, &b"why"[..]));
    assert_eq!(told.lock().unwrap().unwrap().0, "it-failed");

    let (mut made, body, _) = stream(chunked(&ring).0);
    made.start().unwrap();
    made.fail(400, b"why", "it-failed").unwrap_err();
    body.collect().await.unwrap_err();
}

#[tokio::test]
async fn an_answer_that_is_dropped_is_cut_and_one_to_nobody_ends() {
    let ring = ring();
    let chunked = || chunked(&ring).0;
    let (mut made, body, told) = stream(chunked());
    made.send(b"half").unwrap();
    drop(made);
    body.collect().await.unwrap_err();
    assert_eq!(told.lock().unwrap().unwrap().0, "cut");

    let (mut made, body, told) = stream(chunked());
    drop(body);
    assert!(matches!(made.send(b"more"), Err(NotTaken::Refused(Refused::Gone))));
    made.finish("ok").unwrap_err();
    assert_eq!(told.lock().unwrap().unwrap().0, "cut");

    // Nobody can make the server hold more than its share by not reading.
    let (mut made, _body, _) = stream(chunked());
    let refused = (0..100).find_map(|_| made.send(&[b'x'; 1 << 16]).err()).unwrap();
    assert!(matches!(refused, NotTaken::Refused(Refused::Behind { .. })));
}

#[tokio::test]
async fn a_request_in_one_piece_gets_the_answer_in_one() {
    let ring = ring();
    let (request, opener) = sealing_key(&ring).seal(Aead::Aes256Gcm, b"a request", &mut rng()).unwrap();
    let (_, reply) = ring.open(request, NOW).unwrap();
    let (mut stream, body, told) = stream(ReplyTo::Whole(reply));
    stream.send(b"data: one\n\n").unwrap();
    stream.send(b"data: two\n\n").unwrap();
    stream.finish("ok").unwrap();
    let sealed = body.collect().await.unwrap().to_bytes();
    assert_eq!(*told.lock().unwrap(), Some(("ok", sealed.len())));
    assert_eq!(content(opener.open(sealed.to_vec()).unwrap().expose()), "data: one\n\ndata: two\n\n");
}
