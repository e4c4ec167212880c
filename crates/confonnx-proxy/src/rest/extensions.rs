//! What only Triton has: answered from what the server proves and says of itself, or refused as Triton refuses it.

use confonnx_client::{DataType, ModelMetadata, ModelRef, TensorMetadata};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

use super::{
    receive::Content,
    route::{Memory, Region},
};
use crate::{
    Proxy,
    answer::{Answer, json_answer, refusal, with_body},
    fault::Fault,
    stats::Key,
};

/// Names of the extensions that the proxy adds to those of its servers.
pub(super) const ADDED: [&str; 2] = ["model_configuration", "statistics"];
pub(crate) const NO_TRACING: &str = "the server does not support tracing";
pub(crate) const NO_LOGGING: &str = "the server does not support dynamic logging";

pub(crate) fn unknown_model(name: &str) -> String {
    format!("Request for unknown model: '{name}' is not found")
}

pub(crate) fn no_region(name: &str) -> String {
    format!("Unable to find shared memory region: '{name}'")
}

pub(crate) fn no_cuda(name: &str) -> String {
    format!("failed to register CUDA shared memory region: '{name}', GPUs not supported")
}

pub(crate) fn no_system_memory(key: &str) -> String {
    format!("Unable to open shared memory region: '{key}'")
}

/// Calls about memory that programs share with Triton. There is none to share with a TEE, so no region is ever there.
pub(super) fn shared_memory(memory: Memory, region: &str, what: Region, content: &Content) -> Answer {
    match (what, memory) {
        (Region::Status, _) if region.is_empty() => json_answer(&json!([])),
        (Region::Status, _) => refusal(StatusCode::NOT_FOUND, &no_region(region)),
        (Region::Register, Memory::Cuda) => refusal(StatusCode::BAD_REQUEST, &no_cuda(region)),
        (Region::Register, Memory::System) => {
            let body: Value = serde_json::from_slice(&content.json).unwrap_or_default();
            let key = body.get("key").and_then(Value::as_str).unwrap_or_default();
            refusal(StatusCode::BAD_REQUEST, &no_system_memory(key))
        }
        // As Triton does of regions that are not there.
        (Region::Unregister, _) => with_body(StatusCode::OK, crate::answer::JSON, ""),
    }
}

/// The region that an inference request wants its tensors taken from or put into.
pub(super) fn region_in(json: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"shared_memory_region";
    if !json.windows(NAME.len()).any(|window| window == NAME) {
        return None;
    }
    let body: Value = serde_json::from_slice(json).ok()?;
    let tensors = ["inputs", "outputs"].into_iter().filter_map(|list| body.get(list)?.as_array()).flatten();
    tensors
        .filter_map(|tensor| tensor.get("parameters")?.get("shared_memory_region")?.as_str())
        .next()
        .map(Into::into)
}

/// Triton's name for a type.
pub(crate) fn type_name(dtype: DataType) -> String {
    match dtype {
        DataType::Bytes => "TYPE_STRING".into(),
        other => format!("TYPE_{}", other.name()),
    }
}

/// As much of Triton's model configuration as the metadata tells.
pub(super) fn config_json(metadata: &ModelMetadata) -> Value {
    let tensor = |tensor: &TensorMetadata| json!({ "name": tensor.name, "data_type": type_name(tensor.datatype), "dims": tensor.shape });
    json!({
        "name": metadata.name,
        "platform": metadata.platform,
        "backend": BACKEND,
        "version_policy": { "latest": { "num_versions": 1 } },
        "max_batch_size": 0,
        "input": metadata.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "output": metadata.outputs.iter().map(tensor).collect::<Vec<_>>(),
        "model_transaction_policy": { "decoupled": false },
    })
}

pub(crate) const BACKEND: &str = "onnxruntime";

/// Numbers of a model, as this proxy counted them.
pub(crate) struct Statistics {
    pub(crate) model: Key,
    pub(crate) last_ms: u64,
    /// Number and nanoseconds.
    pub(crate) success: (u64, u64),
    pub(crate) fail: (u64, u64),
}

/// Of one model or of all that the servers prove to have.
pub(crate) async fn statistics(
    proxy: &Proxy,
    among: &[usize],
    model: Option<ModelRef<'_>>,
) -> Result<Vec<Statistics>, Fault> {
    let mut found = Vec::new();
    for upstream in proxy.among(among) {
        let wanted = |name: &str, version: &str| {
            upstream.has(name)
                && model.is_none_or(|model| {
                    model.name == Some(name) && model.version.is_none_or(|asked| asked == version)
                })
        };
        if model.and_then(|model| model.name).is_some_and(|name| !upstream.has(name)) {
            continue;
        }
        let proof = upstream.attested().await?;
        for claim in proof.claims().models.iter().filter(|claim| wanted(&claim.name, &claim.version)) {
            let model = (claim.name.clone(), claim.version.clone());
            let counts = proxy.stats.of(&model);
            let (success, fail) = (counts.success.get(), counts.fail.get());
            found.push(Statistics { model, last_ms: counts.last_ms.load(Relaxed), success, fail });
        }
    }
    Ok(found)
}

impl Statistics {
    pub(super) fn json(&self) -> Value {
        let duration = |(count, ns): (u64, u64)| json!({ "count": count, "ns": ns });
        let none = || duration((0, 0));
        json!({
            "name": self.model.0,
            "version": self.model.1,
            "last_inference": self.last_ms,
            "inference_count": self.success.0,
            "execution_count": self.success.0,
            "inference_stats": {
                "success": duration(self.success),
                "fail": duration(self.fail),
                "queue": none(),
                "compute_input": none(),
                "compute_infer": none(),
                "compute_output": none(),
                "cache_hit": none(),
                "cache_miss": none(),
            },
            "batch_stats": [],
            "memory_usage": [],
            "response_stats": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_found_where_it_is_a_parameter_and_nowhere_else() {
        let region = |json: &str| region_in(json.as_bytes());
        let wanted = r#"{"inputs": [{"name": "x"}], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}"#;
        assert_eq!(region(wanted), Some("r".into()));
        for none in
            [r#"{"id": "shared_memory_region", "inputs": []}"#, r#"{"inputs": []}"#, "shared_memory_region"]
        {
            assert_eq!(region(none), None, "{none}");
        }
    }
}
