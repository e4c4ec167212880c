//! `vectors/binary-http` and `vectors/inference`: what the decoders read from bytes.

use confonnx_protocol::bhttp::{self, BhttpError};
use confonnx_protocol::oip::{InferRequest, InferResponse, OipError};
use serde_json::Value;

use crate::case::Hex;

pub(crate) fn binary_http(case: &Value) -> (Value, Value) {
    let Some(message) = hex(&case["message"]) else { return unreadable(case) };
    let result = match case["kind"].as_str() {
        Some("request") => bhttp::decode_request(&message).map(drop),
        Some("response") => bhttp::decode_response(&message).map(drop),
        _ => return unreadable(case),
    };
    (case["expected"].clone(), result.as_ref().map_or_else(BhttpError::reason, |()| "accepted").into())
}

pub(crate) fn inference(case: &Value) -> (Value, Value) {
    let (Some(json), Some(binary)) = (case["json"].as_str(), hex(&case["binary"])) else {
        return unreadable(case);
    };
    let body = [json.as_bytes(), &binary].concat();
    let header = case["header"].as_u64().and_then(|len| usize::try_from(len).ok());
    let result = match case["kind"].as_str() {
        Some("request") => InferRequest::decode(&body, header).map(drop),
        Some("response") => InferResponse::decode(&body, header).map(drop),
        _ => return unreadable(case),
    };
    (case["expected"].clone(), result.as_ref().map_or_else(OipError::reason, |()| "accepted").into())
}

fn hex(value: &Value) -> Option<Vec<u8>> {
    Hex::try_from(value.as_str()?.to_owned()).ok().map(|Hex(bytes)| bytes)
}

fn unreadable(case: &Value) -> (Value, Value) {
    (case["expected"].clone(), "a case that cannot be read".into())
}
