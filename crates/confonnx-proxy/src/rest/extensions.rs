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
pub(crate) const ADDED: [&str; 2] = ["model_configuration", "statistics"];
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

pub(crate) fn no_classes(output: &str) -> String {
    format!("output '{output}': the classification extension is not supported; ask for the values")
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
        // Triton answers the same for regions that are not there.
        (Region::Unregister, _) => with_body(StatusCode::OK, crate::answer::JSON, ""),
    }
}

/// Refuses what would otherwise be passed over: tensors in memory that is shared with Triton, and labels in place of values.
pub(super) fn refuse_what_is_absent(json: &[u8]) -> Result<(), Answer> {
    const NAMES: [&str; 2] = ["shared_memory_region", "classification"];
    let named = |name: &str| json.windows(name.len()).any(|window| window == name.as_bytes());
    if !NAMES.into_iter().any(named) {
        return Ok(());
    }
    // A body that cannot be read is the server's to refuse.
    let body: Value = serde_json::from_slice(json).unwrap_or_default();
    let tensors = ["inputs", "outputs"].into_iter().filter_map(|list| body.get(list)?.as_array()).flatten();
    for tensor in tensors {
        let parameter = |name: &str| tensor.get("parameters").and_then(|parameters| parameters.get(name));
        if let Some(region) = parameter("shared_memory_region").and_then(Value::as_str) {
            return Err(refusal(StatusCode::NOT_FOUND, &no_region(region)));
        }
        if parameter("classification").is_some_and(|count| count.as_u64() != Some(0)) {
            let name = tensor.get("name").and_then(Value::as_str).unwrap_or_default();
            return Err(refusal(StatusCode::NOT_IMPLEMENTED, &no_classes(name)));
        }
    }
    Ok(())
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

/// The numbers of a model, as this proxy counted them.
pub(crate) struct Statistics {
    pub(crate) model: Key,
    pub(crate) last_ms: u64,
    /// Number and nanoseconds.
    pub(crate) success: (u64, u64),
    pub(crate) fail: (u64, u64),
}

/// The numbers of one model, or of all that the servers prove to have.
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
        // Each request had its turn in all stages, and only the whole is seen from here: clients take the counts for
        // requests.
        let unseen = || duration((self.success.0, 0));
        json!({
            "name": self.model.0,
            "version": self.model.1,
            "last_inference": self.last_ms,
            "inference_count": self.success.0,
            "execution_count": self.success.0,
            "inference_stats": {
                "success": duration(self.success),
                "fail": duration(self.fail),
                "queue": unseen(),
                "compute_input": unseen(),
                "compute_infer": duration(self.success),
                "compute_output": unseen(),
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
    fn what_is_absent_is_refused_where_it_is_a_parameter_and_nowhere_else() {
        let status =
            |json: &str| refuse_what_is_absent(json.as_bytes()).map_err(|answer| answer.status().as_u16());
        let output = |parameter: &str| {
            format!(
                r#"{{"inputs": [{{"name": "x"}}], "outputs": [{{"name": "y", "parameters": {{{parameter}}}}}]}}"#
            )
        };
        assert_eq!(status(&output(r#""shared_memory_region": "r""#)), Err(404));
        assert_eq!(status(&output(r#""classification": 3"#)), Err(501));
        assert_eq!(status(&output(r#""classification": 0, "binary_data": true"#)), Ok(()));
        for none in [r#"{"id": "shared_memory_region", "inputs": []}"#, r#"{"inputs": []}"#, "classification"]
        {
            assert_eq!(status(none), Ok(()), "{none}");
        }
    }
}
