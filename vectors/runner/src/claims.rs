//! `vectors/claims`, `vectors/called` and `vectors/padding`: what is computed of claims and of lengths.

use confonnx_attest::{Claims, Expectations, Policy};
use confonnx_protocol::padding::padded_len;
use serde_json::{Value, json};

/// What the keys of an epoch are bound to (docs/protocol.md 3.5).
pub(crate) fn binding(case: &Value) -> (Value, Value) {
    let claims = case["claims"].as_str().and_then(|text| serde_json::from_str::<Claims>(text).ok());
    let hex = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
    (case["expected"].clone(), claims.map_or("no claims".into(), |claims| hex(claims.binding()).into()))
}

/// The model that a call goes to (docs/protocol.md 2.5.1).
pub(crate) fn called(case: &Value) -> (Value, Value) {
    let found = || -> Option<Value> {
        let claims: Claims = serde_json::from_str(case["claims"].as_str()?).ok()?;
        let pins = case["model_hashes"].as_array()?;
        let mut expected = Expectations::new().allow_debug(true);
        expected.model_hashes =
            pins.iter().map(|pin| pin.as_str().and_then(|pin| pin.parse().ok())).collect::<Option<_>>()?;
        let policy = Policy::new(expected).ok()?;
        let found = policy.model(&claims, case["model"].as_str(), case["version"].as_str());
        Some(found.map_or("refused".into(), |called| json!([called.name, called.version])))
    };
    (case["expected"].clone(), found().unwrap_or_else(|| "a case that cannot be read".into()))
}

/// Lengths before and after padding (docs/protocol.md 4).
pub(crate) fn padding(case: &Value) -> (Value, Value) {
    let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap_or_default();
    (case["expected"].clone(), lengths.into_iter().map(padded_len).collect::<Vec<_>>().into())
}
