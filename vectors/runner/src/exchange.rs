//! `vectors/exchange`: a whole exchange, from attestation to answer, as the client's conversation has it.

use std::time::{Duration, UNIX_EPOCH};

use confonnx_client::conversation::{Body, Conversation, Exchange, Head, Now, Outcome, Step, Want};
use confonnx_client::{Expectations, Kem, Options, Policy, Request, Response};
use serde_json::{Value, json};

use crate::case::{Fixed, Hex};

pub(crate) fn run(case: &Value) -> (Value, Value) {
    (case["expected"].clone(), found(case).unwrap_or_else(|why| why.into()))
}

fn found(case: &Value) -> Result<Value, &'static str> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("a member that is no text");
    let now = Now {
        clock: UNIX_EPOCH + Duration::from_secs(case["now"].as_u64().ok_or("no time")?),
        elapsed: Duration::ZERO,
    };
    let mut rng = Fixed([bytes(&case["nonce"])?, bytes(&case["ephemeral"])?].concat());
    let expected = Expectations::new().allow_debug(true);
    let policy = Policy::new(expected).map_err(|_| "the policy")?;
    let options = Options::new().kem(Kem::X25519).auth_key(text(&case["token"])?);
    let conversation = Conversation::new(&text(&case["url"])?, policy, options).map_err(|_| "the URL")?;
    let asked = &case["request"];
    let request = Request::post(text(&asked["path"])?)
        .field("content-type", text(&asked["content_type"])?)
        .body(text(&asked["body"])?);
    let mut exchange = Exchange::new(conversation.into(), Want::Call(request.into()), None);

    let Step::Get { url, .. } = exchange.step(now, &mut rng) else { return Err("no request for a document") };
    same(&url, &text(&case["document_url"])?, "the document's URL")?;
    answer(&mut exchange, "application/json", text(&case["document"])?.as_bytes(), now);
    let Step::Post { url, content_type, body: Body::Whole(body), .. } = exchange.step(now, &mut rng) else {
        return Err("no sealed request: the document was refused");
    };
    same(&url, &text(&case["gateway_url"])?, "the gateway's URL")?;
    same(&content_type, &"message/ohttp-req", "the media type")?;
    same(&body, &bytes(&asked["sealed"])?, "the sealed request")?;
    answer(&mut exchange, "message/ohttp-res", &bytes(&case["reply"]["sealed"])?, now);
    let Step::Done(Ok(Outcome::Answer(answer))) = exchange.step(now, &mut rng) else {
        return Err("no answer");
    };
    let response = Response::from(answer);
    let body = String::from_utf8(response.body().to_vec()).map_err(|_| "an answer that is no text")?;
    Ok(json!({ "status": response.status(), "body": body }))
}

fn answer(exchange: &mut Exchange<'_>, content_type: &str, body: &[u8], now: Now) {
    let mut head = Head::new(200);
    head.content_type = Some(content_type.into());
    exchange.head(&head);
    exchange.data(body);
    exchange.end(now);
}

fn bytes(value: &Value) -> Result<Vec<u8>, &'static str> {
    let digits = value.as_str().ok_or("no hex")?.to_owned();
    Hex::try_from(digits).map(|Hex(bytes)| bytes).map_err(|_| "no hex")
}

fn same<T: PartialEq>(found: &T, expected: &T, what: &'static str) -> Result<(), &'static str> {
    if found == expected { Ok(()) } else { Err(what) }
}
