//! Open Inference Protocol v2: the server, its health, its models, and inference.

use confonnx_engine::InferError;
use confonnx_protocol::{
    Draft,
    bhttp::ResponseHead,
    oip::{HEADER_LENGTH, InferRequest, InferResponse, OipError, ServerMetadata},
};
use confonnx_tensor::{Erased, Tensor};
use serde_json::json;

use super::{Answer, Call, Content, LetsIn, Notes, Place, Row, Runs, Subject, encode};
use crate::{
    auth::Action,
    sequences::{Going, Sender, SequenceError},
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
    #[error(transparent)]
    Sequence(#[from] SequenceError),
}

impl WireError for NoInference {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::HeaderLength | Self::Request(_) => (400, "inference-invalid"),
            Self::Answer(_) => (400, "answer-not-json"),
            Self::Infer(error) => error.wire(),
            Self::Sequence(SequenceError::Unknown) => (404, "sequence-unknown"),
            Self::Sequence(SequenceError::Busy) => (409, "sequence-busy"),
            Self::Sequence(SequenceError::Repeated) => (409, "sequence-repeated"),
            Self::Sequence(SequenceError::Share) => (429, "sequences-share"),
            Self::Sequence(SequenceError::Full) => (429, "sequences-full"),
            Self::Sequence(_) => (400, "sequence-invalid"),
        }
    }

    fn retry_after(&self) -> Option<u64> {
        matches!(self, Self::Sequence(SequenceError::Full | SequenceError::Share)).then_some(1)
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
            Self::Restarting => (503, "model-restarting"),
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
    let mut inputs = Erased::new(std::mem::take(&mut request.inputs));
    let mut wanted: Vec<String> = request.outputs.iter().map(|output| output.name.clone()).collect();
    let Place { reserved, alone, network } = call.place.take();
    let going = match (&request.sequence, &served.sequences) {
        (None, _) => None,
        (Some(_), None) => return Err(NoInference::from(SequenceError::Stateless).into()),
        (Some(asked), Some(sequences)) => {
            let sender = Sender { caller: call.caller.name(), network };
            let going = sequences.go_on(
                sender,
                asked,
                request.id.as_deref().filter(|id| !id.is_empty()),
                &mut inputs,
                &mut wanted,
            );
            Some(going.map_err(NoInference::from)?)
        }
    };
    let ran = match reserved.transpose()? {
        Some(reserved) => Err(reserved.run(&inputs, &wanted, alone)?),
        None if alone => Ok(served.model.run_alone(&inputs, &wanted)?),
        None => Ok(served.model.run(&inputs, &wanted)?),
    };
    drop(inputs);
    let InferRequest { id, outputs, binary_default, .. } = request;
    let wants = Wants {
        model: (served.metadata.name.clone(), served.claim.version.clone()),
        request: InferRequest { id, outputs, binary_default, ..InferRequest::default() },
        going,
        notes: call.notes,
    };
    match ran {
        Ok(outputs) => Ok(Answer { content: Content::Whole(wants.with(outputs)?), outcome: "ok" }),
        Err(running) => {
            let encode = Box::new(move |answer: Result<_, InferError>| wants.with(answer?));
            Ok(Answer { content: Content::Later(running, encode), outcome: "ok" })
        }
    }
}

/// How a request wants its answer.
struct Wants {
    /// Name and version.
    model: (String, String),
    /// The request without inputs.
    request: InferRequest<'static>,
    /// What goes on with it, if it is one of a sequence.
    going: Option<Going>,
    notes: Notes,
}

impl Wants {
    fn with(self, mut outputs: Vec<(String, Tensor<'static>)>) -> Result<Draft, InnerError> {
        let Self { model: (model_name, version), mut request, going, notes } = self;
        if let Some(going) = going
            && let Err(full) = going.went_on(&mut outputs)
        {
            drop(Erased::new(outputs));
            return Err(NoInference::from(full).into());
        }
        let (model_version, id) = (Some(version), request.id.take());
        let response = InferResponse { model_name, model_version, id, outputs };
        let answer = {
            let encoded = response.encode(|name| request.wants_binary(name)).map_err(NoInference::Answer)?;
            let mut head = ResponseHead::new(200);
            if let Some(len) = encoded.json_len() {
                head.fields.push(HEADER_LENGTH, len.to_string());
            }
            encode(head, encoded.content_type(), &encoded.parts(), notes)
        };
        drop(Erased::new(response.outputs));
        answer
    }
}
