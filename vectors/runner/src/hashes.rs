//! Models and their hashes.

use base64ct::{Base64, Encoding};
use confonnx_model::{ModelInfo, ValueInfo};
use serde_json::{Value, json};

/// A model's hash, inputs and outputs, as its file says them.
pub(crate) fn run(file: &str) -> Value {
    let Ok(bytes) = Base64::decode_vec(file) else { return "not base64".into() };
    let names = |values: &[ValueInfo]| values.iter().map(|value| value.name.clone()).collect::<Vec<_>>();
    match (confonnx_model::hash_bytes(&bytes), ModelInfo::parse(&bytes)) {
        (Ok(hash), Ok(info)) => json!({
            "sha256": hash.map(|byte| format!("{byte:02x}")).concat(),
            "inputs": names(&info.inputs),
            "outputs": names(&info.outputs),
        }),
        _ => "no model".into(),
    }
}
