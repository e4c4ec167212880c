//! Open Inference Protocol v2: the server, its health, its models, and inference.

use std::borrow::Cow;

use confonnx_engine::{InferError, LoadedModel};
use confonnx_protocol::{
    bhttp::ResponseHead,
    oip::{HEADER_LENGTH, InferRequest, InferResponse, OipError, ServerMetadata},
};
use confonnx_tensor::Tensor;
use serde_json::json;
use zeroize::Zeroize;

use super::{Answer, Call, LetsIn, Row, Runs, Subject};
use crate::{
    auth::Action,
    service::error::{InnerError, WireError},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "infer",
        method: "POST",
        paths: &["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::Served,
        runs: Runs::Model,
        answer: infer,
    },
    Row {
        name: "metadata",
        method: "GET",
        paths: &["/v2/models/{model}", "/v2/models/{model}/versions/{version}"],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::Served,
        runs: Runs::Briefly,
        answer: |call| {
            let mut metadata = call.served()?.metadata.clone();
            metadata.versions = call.set.versions(&call.model.name);
            call.json(&metadata)
        },
    },
    Row {
        name: "model-ready",
        method: "GET",
        paths: &["/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready"],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::Served,
        runs: Runs::Briefly,
        answer: |call| call.json(&json!({ "name": call.served()?.metadata.name, "ready": true })),
    },
    Row {
        name: "server",
        method: "GET",
        paths: &["/v2"],
        lets_in: LetsIn::Callers,
        subject: Subject::Nothing,
        runs: Runs::Briefly,
        answer: |call| {
            call.json(&ServerMetadata {
                name: "confonnx".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                extensions: vec!["binary_tensor_data".into(), "model_repository".into()],
            })
        },
    },
    Row {
        name: "live",
        method: "GET",
        paths: &["/v2/health/live"],
        lets_in: LetsIn::Callers,
        subject: Subject::Nothing,
        runs: Runs::Briefly,
        answer: |call| call.json(&json!({ "live": true })),
    },
    Row {
        name: "ready",
        method: "GET",
        paths: &["/v2/health/ready"],
        lets_in: LetsIn::Callers,
        subject: Subject::Nothing,
        runs: Runs::Briefly,
        answer: |call| match call.set.lacking() {
            Some(absent) if call.caller.may_see(absent.model()) => Err(absent.clone().into()),
            Some(_) => Err(InnerError::NotReady),
            None => call.json(&json!({ "ready": true })),
        },
    },
];

/// Why a model gives no answer.
#[derive(Debug, thiserror::Error)]
enum NoInference {
    #[error("{HEADER_LENGTH} is not a number of bytes")]
    HeaderLength,
    #[error(transparent)]
    Request(OipError),
    #[error(transparent)]
    Answer(OipError),
    #[error(transparent)]
    Infer(#[from] InferError),
}

impl WireError for NoInference {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::HeaderLength | Self::Request(_) => (400, "inference-invalid"),
            Self::Answer(_) => (400, "answer-not-json"),
            Self::Infer(error) => error.wire(),
        }
    }
}

impl WireError for InferError {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Runtime(_) | Self::BoxedRun(_) | Self::OutputType { .. } | Self::TooLong { .. } => {
                (500, "inference-failed")
            }
            Self::Crashed => (500, "inference-crashed"),
            Self::Timeout { .. } => (504, "inference-timeout"),
            Self::Restarting => (503, "model-unavailable"),
            _ => (400, "input-invalid"),
        }
    }
}

fn infer(call: &Call<'_>) -> Result<Answer, InnerError> {
    let served = call.served()?;
    let json_len = match call.fields.get(HEADER_LENGTH) {
        None => None,
        Some(value) => {
            let digits =
                std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            Some(digits.and_then(|text| text.parse().ok()).ok_or(NoInference::HeaderLength)?)
        }
    };
    let mut request = InferRequest::decode(call.body, json_len).map_err(NoInference::Request)?;
    let inputs = Scrubbed(std::mem::take(&mut request.inputs));
    let wanted: Vec<String> = request.outputs.iter().map(|output| output.name.clone()).collect();
    let run = if call.service.metrics.at_once() > 1 { LoadedModel::run } else { LoadedModel::run_alone };
    let outputs = run(&served.model, &inputs.0, &wanted)?;
    drop(inputs);
    let response = InferResponse {
        model_name: served.metadata.name.clone(),
        model_version: Some(served.claim.version.clone()),
        id: request.id.take(),
        outputs,
    };
    let answer = {
        let encoded = response.encode(|name| request.wants_binary(name)).map_err(NoInference::Answer)?;
        let mut head = ResponseHead::new(200);
        if let Some(len) = encoded.json_len() {
            head.fields.push(HEADER_LENGTH, len.to_string());
        }
        call.reply(head, encoded.content_type(), &encoded.parts())
    };
    drop(Scrubbed(response.outputs));
    answer
}

/// Tensors whose values are erased on drop, where they are not views of a buffer that is.
struct Scrubbed<'a>(Vec<(String, Tensor<'a>)>);

impl Drop for Scrubbed<'_> {
    fn drop(&mut self) {
        for (_, tensor) in self.0.drain(..) {
            if let Cow::Owned(mut data) = tensor.into_data() {
                data.as_mut_slice().zeroize();
            }
        }
    }
}
