//! Clients that are slow, gone, or too many.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use confonnx_protocol::{Aead, Kem, bhttp::RequestHead, client::SealingKey};
use confonnx_server::{budget::Purse, config::Config};
use http_body::Body as _;
use http_body_util::{Empty, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::harness::*;

/// Settings of a server that has little patience and few places, with a model that counts.
fn impatient() -> Config {
    let mut config = config("count", |settings| {
        settings.max_queue = Some(2);
        settings.max_connections = Some(8);
    });
    config.limits.request_timeout = Duration::from_millis(200);
    config.limits.idle_timeout = Duration::from_millis(400);
    config
}

/// The head of a request whose body is to have `len` bytes.
fn request_head(len: usize) -> String {
    format!("POST {GATEWAY} HTTP/1.1\r\nhost: x\r\ncontent-type: {SEALED}\r\ncontent-length: {len}\r\n\r\n")
}

/// A sealed request, whole or in chunks.
fn sealed_as(kind: &str, key: &SealingKey, head: &RequestHead, body: &[u8]) -> Vec<u8> {
    if kind == SEALED {
        return seal(key, head, body).0;
    }
    let mut chunked = Vec::new();
    let (sealer, _) = key.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut chunked).unwrap();
    sealer.finish(&message(head, body), &mut chunked).unwrap();
    chunked
}

const CHUNKED: &str = "message/ohttp-chunked-req";

async fn connect(server: &Running) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// What the server sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends the connection as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server never closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn infer(server: &Running, n: i64) -> http::Response<Bytes> {
    let key = server.key(Kem::X25519).await;
    let sealed = seal(&key, &head("POST", "/v2/models/count/infer"), count_to(n).as_bytes()).0;
    server.post(SEALED, sealed).await
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let server = start_with(impatient()).await;
    let mut stream = connect(&server).await;
    stream.write_all(request_head(1000).as_bytes()).await.unwrap();
    stream.write_all(b"short").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request-timeout"), "{answer}");
    assert_eq!(infer(&server, 3).await.status(), 200);
}

/// A client that sends all of its request before it reads learns why it is refused.
#[tokio::test]
async fn what_is_too_long_is_refused_in_words() {
    let server = start("mlp").await;
    let limit = 64 << 20;
    let body = vec![7; limit + (8 << 20)];
    let chunk = format!("{:x}\r\n", body.len());
    let chunked = "POST /.well-known/ohttp-gateway HTTP/1.1\r\nhost: x\r\ncontent-type: message/ohttp-chunked-req\r\n\
                   transfer-encoding: chunked\r\n\r\n";
    for start in [request_head(body.len()), format!("{chunked}{chunk}")] {
        let mut stream = connect(&server).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        if !start.contains("chunked") {
            assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("request-too-large"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_header_that_never_ends_is_given_up() {
    let server = start_with(impatient()).await;
    for start in
        ["", "P", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nx: y\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = connect(&server).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        rest(&mut stream).await;
    }
    until(|| server.app.metrics().connections.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn half_a_request_and_a_closed_half() {
    let server = start_with(impatient()).await;
    let mut stream = connect(&server).await;
    stream.write_all(request_head(1000).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(infer(&server, 3).await.status(), 200);
}

#[tokio::test]
async fn garbage_is_no_request() {
    let server = start_with(impatient()).await;
    for garbage in
        [&b"\0\0\0\0\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[b'a'; 100_000]]
    {
        let mut stream = connect(&server).await;
        // The server may stop reading before all is sent.
        let _ = stream.write_all(garbage).await;
        assert!(!rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(server.get("/").await.0, 200);
}

#[tokio::test]
async fn a_client_that_vanishes_gives_its_place_back() {
    let server = start_with(impatient()).await;
    let key = server.key(Kem::X25519).await;
    // More clients vanish than there are places, at each of the stages.
    for n in [1, LONG / 20] {
        for cut in [true, false] {
            for _ in 0..3 {
                let sealed = seal(&key, &head("POST", "/v2/models/count/infer"), count_to(n).as_bytes()).0;
                let mut stream = connect(&server).await;
                stream.write_all(request_head(sealed.len()).as_bytes()).await.unwrap();
                let end = if cut { sealed.len() / 2 } else { sealed.len() };
                stream.write_all(&sealed[..end]).await.unwrap();
                drop(stream);
            }
        }
    }
    timeout(PATIENCE, server.app.idle()).await.expect("a place was lost");
    let metrics = server.app.metrics();
    until(|| metrics.connections.load(Relaxed) == 0).await;
    assert_eq!(infer(&server, 3).await.status(), 200);
    until(|| metrics.connections.load(Relaxed) == 0).await;
    assert_eq!((metrics.load.in_flight.load(Relaxed), metrics.load.queued.load(Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_before_it_opens() {
    let server = start_with(impatient()).await;
    let key = server.key(Kem::X25519).await;
    let request = |n| seal(&key, &head("POST", "/v2/models/count/infer"), count_to(n).as_bytes());
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (sealed, opener) = request(LONG);
        let mut stream = connect(&server).await;
        stream.write_all(request_head(sealed.len()).as_bytes()).await.unwrap();
        stream.write_all(&sealed).await.unwrap();
        waiting.push((stream, opener));
    }
    let metrics = server.app.metrics();
    until(|| metrics.load.in_flight.load(Relaxed) + metrics.load.queued.load(Relaxed) == 2).await;
    // One of them waits for the model, and is held meanwhile.
    assert!(server.app.budget().held() >= 512);
    // Both places are taken: even a body that could not be opened is not looked at.
    assert_eq!(code(&server.post(SEALED, b"not sealed at all".to_vec()).await), "queue-full");
    let (sealed, opener) = request(3);
    let refused = server.post(SEALED, sealed.clone()).await;
    assert_eq!((refused.status().as_u16(), code(&refused)), (429, "queue-full".to_owned()));
    assert!(refused.headers().contains_key("retry-after"));
    // Health and attestation need no place.
    assert_eq!(server.get("/").await.0, 200);
    server.attest().await;

    for (mut stream, _) in waiting {
        let mut first = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    timeout(PATIENCE, server.app.idle()).await.unwrap();
    // The request was refused unopened, so sending it again is no replay.
    let response = server.post(SEALED, sealed).await;
    assert_eq!(Answer::open(response, opener).json()["outputs"][0]["data"], serde_json::json!([3.0]));
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let mut config = impatient();
    (config.limits.connections, config.limits.idle_timeout) = (2, PATIENCE);
    config.limits.request_timeout = PATIENCE;
    let server = start_with(config).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&server).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        held.push(stream);
    }
    let mut third = connect(&server).await;
    third.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = rest(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connections-full"), "{answer}");
    drop(held);
    until(|| server.app.metrics().connections.load(Relaxed) == 0).await;
    assert_eq!(server.get("/").await.0, 200);
}

#[tokio::test]
async fn slow_senders_take_no_place_in_the_queue() {
    for kind in [SEALED, CHUNKED] {
        let mut config = impatient();
        (config.limits.request_timeout, config.limits.idle_timeout) = (PATIENCE, PATIENCE);
        let server = start_with(config).await;
        let key = server.key(Kem::X25519).await;
        let mut slow = Vec::new();
        for _ in 0..5 {
            let (head, body) = (head("POST", "/v2/models/count/infer"), count_to(3));
            let sealed = sealed_as(kind, &key, &head, body.as_bytes());
            let mut stream = connect(&server).await;
            stream.write_all(request_head(sealed.len()).replace(SEALED, kind).as_bytes()).await.unwrap();
            stream.write_all(&sealed[..sealed.len() / 2]).await.unwrap();
            slow.push((stream, sealed));
        }
        until(|| server.app.budget().held() >= 5 * (slow[0].1.len() / 2)).await;
        assert_eq!(infer(&server, 3).await.status(), 200);
        // The slow requests are served when they are complete.
        for (mut stream, sealed) in slow {
            stream.write_all(&sealed[sealed.len() / 2..]).await.unwrap();
            let mut first = [0; 12];
            timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
        }
        until(|| server.app.budget().held() == 0).await;
    }
}

#[tokio::test]
async fn who_sends_below_the_least_rate_is_given_up_whatever_a_request_may_take() {
    let mut config = impatient();
    (config.limits.request_timeout, config.limits.idle_timeout) = (10 * PATIENCE, 10 * PATIENCE);
    let server = start_with(config).await;
    let mut stream = connect(&server).await;
    stream.write_all(request_head(1000).as_bytes()).await.unwrap();
    stream.write_all(b"short").await.unwrap();
    let mut first = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("the server still waits").unwrap();
    assert_eq!(&first, b"HTTP/1.1 408");
    until(|| server.app.budget().held() == 0).await;
}

#[tokio::test]
async fn sealed_answers_are_held_until_they_are_written() {
    let server = start_with(impatient()).await;
    let (key, budget) = (server.key(Kem::X25519).await, server.app.budget());
    let purse = budget.purse(&budget.peer());
    let ask = async |kind| {
        let sealed = sealed_as(kind, &key, &head("GET", "/v2"), b"");
        let request = http::Request::post(GATEWAY).header("content-type", kind).extension(purse.clone());
        server.app.answer(request.body(Full::new(Bytes::from(sealed))).unwrap()).await
    };
    for kind in [SEALED, CHUNKED] {
        let answer = ask(kind).await;
        assert_eq!(answer.status(), 200, "{kind}");
        let bytes = answer.body().size_hint().exact().unwrap();
        // The request is erased a moment later.
        until(|| budget.held() as u64 == bytes).await;
        assert_eq!(purse.unsent(), 1, "{kind}");
        drop(answer);
        assert_eq!((budget.held(), purse.unsent()), (0, 0), "{kind}");
    }
}

#[tokio::test]
async fn what_is_received_is_bounded_for_all_connections_together() {
    let mut config = impatient();
    (config.limits.request_timeout, config.limits.idle_timeout) = (PATIENCE, PATIENCE);
    (config.limits.request_bytes, config.limits.held_bytes) = (1 << 20, 1 << 20);
    let server = start_with(config).await;
    let key = server.key(Kem::X25519).await;
    // The request begins as one that can be opened: that it cannot shows at its end.
    let mut junk = seal(&key, &head("GET", "/v2"), b"").0;
    junk.resize(400 << 10, 0);
    let mut held = Vec::new();
    for n in 1..=2 {
        let mut stream = connect(&server).await;
        stream.write_all(request_head(junk.len() + 1).as_bytes()).await.unwrap();
        stream.write_all(&junk).await.unwrap();
        until(|| server.app.budget().held() == n * junk.len()).await;
        held.push(stream);
    }
    let refused = server.post(SEALED, junk.clone()).await;
    assert_eq!((refused.status().as_u16(), code(&refused)), (429, "queue-full".to_owned()));
    assert!(server.app.budget().held() <= server.app.budget().limit());
    assert_eq!(infer(&server, 3).await.status(), 200, "there is room for a short one");
    drop(held);
    until(|| server.app.budget().held() == 0).await;
    assert_eq!(code(&server.post(SEALED, junk).await), "request-invalid");
}

#[tokio::test]
async fn what_nobody_can_open_is_not_received_to_its_end() {
    let server = start_with(impatient()).await;
    let key = server.key(Kem::X25519).await;
    let known = seal(&key, &head("GET", "/v2"), b"").0;
    let ids: Vec<u8> = server.keys.published().claims.keys.iter().map(|key| key.key_id).collect();
    let mut unknown = known.clone();
    unknown[0] = (0..=255).find(|id| !ids.contains(id)).unwrap();
    for (kind, begin, code) in [
        (SEALED, &unknown, "key-unknown"),
        (CHUNKED, &unknown, "key-unknown"),
        // The key identifier is known, the resumption is not.
        ("message/confonnx-session-req", &known, "session-unknown"),
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(request_head(1 << 20).replace(SEALED, kind).as_bytes()).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut answer = vec![0; 4096];
        let len = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(code), "{kind}: {answer}");
    }
    until(|| server.app.budget().held() == 0).await;
}

/// Each long request takes a second to read: the one that would come after five is refused before it is read.
#[tokio::test]
async fn who_sent_garbage_has_its_long_requests_read_one_after_the_other() {
    const LONGEST: usize = 8 << 20;
    for kind in [SEALED, CHUNKED] {
        let mut config = config("count", |settings| {
            settings.max_request_bytes = Some(LONGEST);
            settings.max_peer_percent = Some(50);
        });
        config.limits.request_timeout = PATIENCE;
        let server = start_with(config).await;
        let key = server.key(Kem::X25519).await;
        let mut junk = seal(&key, &head("GET", "/v2"), b"").0;
        junk.resize(400 << 10, 0x5a);
        let bad = [127, 0, 0, 2];
        let mut garbage = connect_from(&server, bad).await;
        garbage.write_all(request_head(junk.len()).replace(SEALED, kind).as_bytes()).await.unwrap();
        // The client may be refused, and cut off, before all is sent.
        let _ = garbage.write_all(&junk).await;
        let mut answer = vec![0; 4096];
        let len = timeout(PATIENCE, garbage.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
        assert!(answer.contains("request-invalid"), "{kind}: {answer}");
        // The client that sent garbage leaves, and comes again.
        drop(garbage);
        until(|| server.app.metrics().connections.load(Relaxed) == 0).await;
        let (said, mut heard) = mpsc::unbounded_channel();
        for _ in 0..16 {
            let mut stream = connect_from(&server, bad).await;
            stream.write_all(request_head(LONGEST).as_bytes()).await.unwrap();
            let said = said.clone();
            // Which of them come too late is for the server's threads to find.
            tokio::spawn(async move {
                let mut answer = [0; 12];
                let _ = stream.read_exact(&mut answer).await;
                let _ = said.send(answer);
            });
        }
        let mut answer = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 429", "{kind}");
        // Clients of another address are not held up.
        let mut stranger = connect_from(&server, [127, 0, 0, 3]).await;
        let (sealed, _) = seal(&key, &head("POST", "/v2/models/count/infer"), count_to(3).as_bytes());
        stranger.write_all(request_head(sealed.len()).as_bytes()).await.unwrap();
        stranger.write_all(&sealed).await.unwrap();
        timeout(PATIENCE, stranger.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

/// Answers that cost a client almost nothing to ask for: documents, refusals.
#[tokio::test]
async fn what_just_anybody_gets_waits_for_its_turn_and_sealed_answers_do_not() {
    let server = start_with(config("count", |settings| settings.max_peer_percent = Some(50))).await;
    let key = server.key(Kem::X25519).await;
    let budget = server.app.budget();
    let (greedy, other) = (budget.purse(&budget.peer()), budget.purse(&budget.peer()));
    // The greedy client's next turn is an hour ahead.
    for _ in 0..500_000 {
        greedy.unsealed(Instant::now());
    }
    let ask = async |purse: &Purse, method: &str, path: &str, body: Vec<u8>| {
        let request = http::Request::builder().method(method).uri(path).header("content-type", SEALED);
        let request = request.extension(purse.clone()).body(Full::new(body.into())).unwrap();
        server.app.answer(request).await.status()
    };
    let quotes = || server.app.metrics().quotes.load(Relaxed);
    let (document, before) = (format!("{ATTESTATION}?nonce={}", "5a".repeat(32)), quotes());
    let waits = timeout(Duration::from_millis(200), ask(&greedy, "GET", &document, Vec::new())).await;
    assert!(waits.is_err() && quotes() == before, "it takes no place in the queue for the device");
    for (method, path) in [("GET", ATTESTATION), ("GET", "/nowhere"), ("POST", GATEWAY)] {
        let waits = timeout(Duration::from_millis(20), ask(&greedy, method, path, vec![7; 100])).await;
        assert!(waits.is_err(), "{path}: {waits:?}");
        timeout(PATIENCE, ask(&other, method, path, vec![7; 100])).await.unwrap();
    }
    let (sealed, _) = seal(&key, &head("POST", "/v2/models/count/infer"), count_to(3).as_bytes());
    assert_eq!(timeout(PATIENCE, ask(&greedy, "POST", GATEWAY, sealed)).await.unwrap(), 200);
    until(|| server.app.budget().held() == 0).await;
}

/// The system buffers some megabytes before a server notices that its client does not read.
#[tokio::test]
async fn who_does_not_read_is_not_waited_for() {
    let mut config = impatient();
    config.limits.idle_timeout = PATIENCE;
    let server = start_with(config).await;
    let stream = connect(&server).await;
    let (_unread, mut asking) = stream.into_split();
    let ask = format!("GET {ATTESTATION} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(100);
    // The loop ends when the server closes the connection.
    let asked = timeout(PATIENCE, async { while asking.write_all(ask.as_bytes()).await.is_ok() {} }).await;
    assert!(asked.is_ok(), "the server still waits for its reader");
    until(|| server.app.metrics().connections.load(Relaxed) == 0).await;
    until(|| server.app.budget().held() == 0).await;
    assert_eq!(infer(&server, 3).await.status(), 200);
}

/// Over HTTP/2 one connection asks for many documents and reads none of them.
#[tokio::test]
async fn documents_that_nobody_reads_have_a_share_of_what_is_held() {
    let mut config = impatient();
    config.limits.request_timeout = PATIENCE;
    (config.limits.request_bytes, config.limits.held_bytes) = (16 << 10, 64 << 10);
    let server = start_with(config).await;
    let io = TokioIo::new(connect(&server).await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(1).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let ask = |mut sender: SendRequest<Empty<Bytes>>| {
        let request =
            http::Request::get(format!("{}{ATTESTATION}", server.url())).body(Empty::new()).unwrap();
        async move { sender.send_request(request).await.unwrap() }
    };
    let mut asked = JoinSet::new();
    for _ in 0..64 {
        asked.spawn(ask(sender.clone()));
    }
    // The answers' bodies are neither read nor dropped.
    let answers = timeout(PATIENCE, asked.join_all()).await.unwrap();
    let refused = answers.iter().filter(|answer| answer.status() == 503).count();
    let held = server.app.budget().held();
    assert!(refused > 0 && refused < 64 && held > 0, "{refused} refused, {held} held");
    assert!(held <= server.app.budget().limit() / 2, "{held}: more than a connection has");
    drop((answers, sender));
    until(|| server.app.budget().held() == 0).await;
}

/// A connection from another address, as of another machine: all of 127.0.0.0/8 is this one.
pub(crate) async fn connect_from(server: &Running, address: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(server.address).await.unwrap()
}

#[tokio::test]
async fn one_address_leaves_connections_and_bytes_to_others() {
    const HALF: usize = 512 << 10;
    let mut config = config("count", |settings| {
        settings.max_connections = Some(8);
        settings.max_request_bytes = Some(HALF);
        settings.max_held_bytes = Some(4 * HALF);
        settings.max_peer_percent = Some(50);
    });
    config.limits.request_timeout = PATIENCE;
    let server = start_with(config).await;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut stream = connect_from(&server, [127, 0, 0, 2]).await;
        stream.write_all(request_head(HALF).as_bytes()).await.unwrap();
        greedy.push(stream);
    }
    until(|| server.app.metrics().connections.load(Relaxed) == 4).await;
    let mut fifth = connect_from(&server, [127, 0, 0, 2]).await;
    fifth.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    fifth.shutdown().await.unwrap();
    let answer = rest(&mut fifth).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connections-full"), "{answer}");

    // Three of the greedy client's four connections send almost all of a request: two find room, the third does not.
    let key = server.key(Kem::X25519).await;
    let mut sealed = seal(&key, &head("GET", "/v2"), b"").0;
    sealed.resize(HALF - 1, 0);
    for (count, stream) in greedy.iter_mut().take(2).enumerate() {
        stream.write_all(&sealed).await.unwrap();
        until(|| server.app.budget().held() == (count + 1) * sealed.len()).await;
    }
    let third = &mut greedy[2];
    // The third is refused as soon as there is no room, and may be cut off then.
    let _ = third.write_all(&sealed).await;
    let answer = rest(third).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(server.app.budget().held() <= 2 * HALF, "half of what there is");
    // Meanwhile other clients are served.
    assert_eq!(infer(&server, 3).await.status(), 200);
}

#[tokio::test]
async fn who_comes_and_goes_all_the_time_is_cut_off_unheard_and_others_are_not() {
    let server = start_with(config("count", |settings| settings.max_peer_percent = Some(50))).await;
    let ask = async |address| {
        let mut stream = connect_from(&server, address).await;
        // The server may have closed the connection before this is sent.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        rest(&mut stream).await
    };
    let mut heard = 0;
    loop {
        for _ in 0..200 {
            drop(connect_from(&server, [127, 0, 0, 2]).await);
        }
        let answer = ask([127, 0, 0, 2]).await;
        if answer.is_empty() {
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        heard += 1;
        assert!(heard < 50, "ten thousand connections, and each was taken");
    }
    assert!(heard > 0, "it had as many as anybody needs");
    assert!(ask([127, 0, 0, 3]).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_connects_many_times_at_once_keeps_nobody_out() {
    let server = start_with(config("count", |settings| settings.max_peer_percent = Some(50))).await;
    // The server accepts on this thread: they wait in the system, which has room for them, and then come all at once.
    for _ in 0..200 {
        drop(std::net::TcpStream::connect(server.address).unwrap());
    }
    let mut other = connect_from(&server, [127, 0, 0, 2]).await;
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut other).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
