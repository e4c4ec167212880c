//! Resumptions over the wire.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use confonnx_client::{Client, DataType, Options, Shape, Tensor};
use confonnx_protocol::{
    Aead, Kem,
    bhttp::RequestHead,
    client::ReplyOpener,
    resumption::{RESUMPTION_FIELD, RESUMPTION_OFFER, Resumption},
};
use hyper::Response;

use super::harness::*;

const RESUMED: &str = "message/confonnx-session-req";

impl Running {
    /// The answer to a request that offers a resumption, and the resumption, if one is granted.
    async fn offer(&self, mut head: RequestHead, kem: Kem) -> (Answer, Option<Resumption>) {
        head.fields.push(RESUMPTION_FIELD, RESUMPTION_OFFER);
        let key = self.key(kem).await;
        let (sealed, opener, offer) =
            key.seal_offering(Aead::Aes256Gcm, &message(&head, b""), &mut rng()).unwrap();
        let answer = Answer::open(self.post(SEALED, sealed).await, opener);
        let grant =
            answer.head.fields.get(RESUMPTION_FIELD).map(|grant| String::from_utf8(grant.to_vec()).unwrap());
        let resumption = grant.map(|grant| offer.accept(&grant.parse().unwrap()));
        (answer, resumption)
    }

    async fn resumption(&self) -> Resumption {
        self.offer(head("GET", "/v2"), Kem::XWing).await.1.expect("granted")
    }

    fn resumption_metrics(&self) -> (u64, u64) {
        let metrics = self.app.metrics();
        (metrics.resumptions.load(Relaxed), metrics.resumed.load(Relaxed))
    }
}

fn seal_in(resumption: &Resumption, head: &RequestHead) -> (Vec<u8>, ReplyOpener) {
    resumption.seal(&message(head, b""), &mut rng()).unwrap()
}

fn open(response: Response<Bytes>, opener: ReplyOpener) -> Answer {
    assert_eq!(response.headers()["content-type"], "message/confonnx-session-res");
    Answer::parse(&opener.open(response.into_body().to_vec()).unwrap())
}

#[tokio::test]
async fn requests_in_a_resumption_are_answered_and_each_once() {
    let server = start("mlp").await;
    let resumption = server.resumption().await;
    for _ in 0..3 {
        let (sealed, opener) = seal_in(&resumption, &head("GET", "/v2"));
        let answer = open(server.post(RESUMED, sealed.clone()).await, opener);
        assert_eq!((answer.head.status, answer.field("confonnx-key")), (200, "current"));
        assert!(answer.head.fields.get(RESUMPTION_FIELD).is_none());
        let again = server.post(RESUMED, sealed).await;
        assert_eq!((again.status().as_u16(), code(&again)), (409, "request-replayed".to_owned()));
    }
    assert_eq!(server.resumption_metrics(), (1, 3));
    // Errors of resumed requests come inside the seal.
    let (sealed, opener) = seal_in(&resumption, &head("GET", "/nowhere"));
    assert_eq!(open(server.post(RESUMED, sealed).await, opener).head.status, 404);
    let (sealed, opener) = seal_in(&resumption, &RequestHead::new("GET", "/v2"));
    let answer = open(server.post(RESUMED, sealed).await, opener);
    assert_eq!((answer.head.status, answer.json()["code"].as_str()), (400, Some("date-missing")));
}

#[tokio::test]
async fn what_does_not_open_in_a_resumption() {
    let server = start("mlp").await;
    let resumption = server.resumption().await;
    let (sealed, _) = seal_in(&resumption, &head("GET", "/v2"));
    for end in [0, 7, 62, 63, 78] {
        assert_eq!(code(&server.post(RESUMED, sealed[..end].to_vec()).await), "request-invalid", "{end}");
    }
    for (at, expected) in [
        (7, "session-unknown"),
        (22, "session-unknown"),
        (6, "request-invalid"),
        (30, "request-invalid"),
        (31, "request-invalid"),
        (63, "request-invalid"),
        (sealed.len() - 1, "request-invalid"),
    ] {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        let refused = server.post(RESUMED, flipped).await;
        assert_eq!((refused.status().as_u16(), code(&refused)), (400, expected.to_owned()), "{at}");
    }
    for other in [SEALED, "message/ohttp-chunked-req"] {
        assert_eq!(code(&server.post(other, sealed.clone()).await), "request-invalid");
    }
    assert_eq!(server.post(RESUMED, sealed).await.status(), 200);
    // Another server has neither the key nor the resumption.
    let (sealed, _) = seal_in(&resumption, &head("GET", "/v2"));
    assert_eq!(code(&start("mlp").await.post(RESUMED, sealed).await), "session-unknown");
}

#[tokio::test]
async fn whoever_may_not_ask_gets_no_resumption_and_is_asked_again_in_one() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
    let path = keys.path().to_owned();
    let server = start_with(config("mlp", |settings| settings.auth_key_file = Some(path))).await;
    let (answer, resumption) = server.offer(head("GET", "/v2"), Kem::X25519).await;
    assert_eq!((answer.head.status, resumption.is_some()), (401, false));
    let authorized = || {
        let mut head = head("GET", "/v2");
        head.fields.push("authorization", "Bearer 0123456789abcdef0123456789abcdef");
        head
    };
    let (answer, resumption) = server.offer(authorized(), Kem::X25519).await;
    assert_eq!(answer.head.status, 200);
    let resumption = resumption.unwrap();
    for (head, expected) in [(authorized(), 200), (head("GET", "/v2"), 401)] {
        let (sealed, opener) = seal_in(&resumption, &head);
        assert_eq!(open(server.post(RESUMED, sealed).await, opener).head.status, expected);
    }
}

#[tokio::test]
async fn a_resumption_is_as_long_as_the_setting_says_and_the_claims_say_it() {
    let server = start_with(config("mlp", |settings| settings.resumption_lifetime = Some(1))).await;
    let settings = server.attest().await.claims().settings.clone();
    assert_eq!(
        (settings["session_lifetime_s"].as_u64(), settings["max_sessions"].as_u64()),
        (Some(1), Some(65_536))
    );
    let resumption = server.resumption().await;
    loop {
        let (sealed, _) = seal_in(&resumption, &head("GET", "/v2"));
        let answer = server.post(RESUMED, sealed).await;
        if answer.status() != 200 {
            assert_eq!(code(&answer), "session-unknown");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let server = start_with(config("mlp", |settings| settings.max_resumptions = Some(0))).await;
    let (answer, resumption) = server.offer(head("GET", "/v2"), Kem::XWing).await;
    assert_eq!((answer.head.status, resumption.is_some()), (200, false));
}

#[tokio::test]
async fn clients_resume_by_themselves_and_get_the_same_answers() {
    let server = start("mlp").await;
    let (client, full) = (server.client(Options::default()), {
        let mut options = Options::default();
        options.resumption = false;
        server.client(options)
    });
    let expected = infer(&full).await;
    for _ in 0..5 {
        assert_eq!(infer(&client).await, expected);
    }
    assert_eq!(server.resumption_metrics(), (1, 3));
    // The keys change: the client learns it from the resumption's answer, and starts over.
    server.begin_epoch();
    for _ in 0..4 {
        assert_eq!(infer(&client).await, expected);
    }
    assert_eq!(server.resumption_metrics(), (2, 5));
    assert_eq!((client.key_rollover_count(), client.key_invalid_count()), (1, 0));
}

#[tokio::test]
async fn clients_go_on_at_another_server_behind_the_same_address() {
    let (first, second) = (start("mlp").await, start("mlp").await);
    let client = first.client(Options::default());
    for _ in 0..3 {
        infer(&client).await;
    }
    client.set_url(&second.url()).unwrap();
    for _ in 0..3 {
        infer(&client).await;
    }
    assert_eq!((first.resumption_metrics(), second.resumption_metrics()), ((1, 1), (1, 1)));
}

async fn infer(client: &Client) -> Vec<(String, Tensor<'static>)> {
    let x = Tensor::new(DataType::Fp32, Shape::new([1, 4]).unwrap(), vec![0x3f; 16]).unwrap();
    client.infer(None, vec![("x".into(), x)], &[]).await.unwrap()
}
