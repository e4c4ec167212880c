//! The OpenAI API's embeddings: vectors of texts, by models that are sentence encoders.

use confonnx_engine::{InferError, LoadedModel};
use confonnx_generate::{
    embed::{EmbedError, Encoding, Request, answer},
    openai::RequestError,
};
use confonnx_protocol::{Draft, bhttp::ResponseHead};
use serde_json::Value;
use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{Answer, Call, Content, LetsIn, Notes, Row, Runs, Series, Subject, encode, openai};
use crate::{
    auth::Action,
    embedding::{self, Tensors},
    service::error::{InnerError, WireError},
};

pub(super) const ROWS: &[Row] = &[Row {
    name: "embed",
    method: "POST",
    paths: &["/v1/embeddings"],
    lets_in: LetsIn::Those(Action::Infer),
    subject: Subject::InBody(openai::model),
    // Its texts are made into tokens by a worker, and nobody waits for its model.
    runs: Runs::Long,
    answer: embed,
}];

/// Why there are no vectors.
#[derive(Debug, thiserror::Error)]
enum NoVectors {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Text(#[from] EmbedError),
    #[error("dimensions: expected {most} at most, found {found}")]
    Dimensions { most: usize, found: usize },
    #[error(
        "the model {model:?} makes no vectors of texts; expected a sentence encoder with its tokenizer and \
         1_Pooling/config.json in it (confonnx annotate --text)"
    )]
    NoEncoder { model: String },
    #[error(transparent)]
    Infer(#[from] InferError),
}

impl WireError for NoVectors {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Request(_) | Self::Dimensions { .. } => (400, "embedding-invalid"),
            Self::Text(EmbedError::TooLong { .. }) => (400, "input-too-long"),
            Self::Text(_) => (400, "embedding-invalid"),
            Self::NoEncoder { .. } => (400, "model-not-embedding"),
            Self::Infer(error) => error.wire(),
        }
    }

    fn body(&self) -> Option<Value> {
        let request = match self {
            Self::Request(request) => request.clone(),
            Self::Text(EmbedError::TooLong { .. }) => {
                RequestError::of("input", "context_length_exceeded", self.to_string())
            }
            Self::Text(EmbedError::Prompt { .. }) => {
                RequestError::of("prompt_name", self.wire().1, self.to_string())
            }
            Self::Text(_) => RequestError::of("input", self.wire().1, self.to_string()),
            Self::Dimensions { .. } => RequestError::of("dimensions", self.wire().1, self.to_string()),
            other => RequestError::new(other.wire().1, other.to_string()),
        };
        let kind = if self.wire().0 < 500 { "invalid_request_error" } else { "api_error" };
        Some(request.body(kind))
    }
}

fn embed(call: &Call<'_>) -> Result<Answer, InnerError> {
    let request = Request::read(call.body).map_err(NoVectors::from)?;
    let served = call.served()?;
    let Some(embedder) = &served.embedder else {
        return Err(NoVectors::NoEncoder { model: request.model }.into());
    };
    let size = embedder.size();
    if let Some(found) = request.dimensions.filter(|dimensions| *dimensions > size) {
        return Err(NoVectors::Dimensions { most: size, found }.into());
    }
    let tokens = embedder.encoder().tokens(&request, embedder.most()).map_err(NoVectors::from)?;
    let metrics = &call.service.metrics;
    if metrics.by_model.load(Relaxed) {
        metrics.count_run(&served.claim.name, &served.claim.version);
    }
    let mut vectors = Vectors {
        model: Arc::clone(&served.model),
        series: embedder.series(tokens, request.dimensions),
        name: request.model,
        encoding: request.encoding,
        notes: call.notes,
    };
    if served.model.is_isolated() {
        return Ok(Answer { content: Content::Series(Box::new(vectors)), outcome: "ok" });
    }
    while let Some((inputs, wanted)) = vectors.next() {
        let answer = served.model.run_alone(&inputs, &wanted).map_err(NoVectors::from)?;
        vectors.take(answer).map_err(NoVectors::from)?;
    }
    Ok(Answer { content: Content::Whole(Box::new(vectors).finish(Ok(()))?), outcome: "ok" })
}

/// Vectors that are being made.
struct Vectors {
    model: Arc<LoadedModel>,
    series: embedding::Series,
    name: String,
    encoding: Encoding,
    notes: Notes,
}

impl Series for Vectors {
    fn model(&self) -> &Arc<LoadedModel> {
        &self.model
    }

    fn next(&self) -> Option<(confonnx_tensor::Erased<Tensors>, Vec<String>)> {
        self.series.next()
    }

    fn take(&mut self, answer: Tensors) -> Result<(), InferError> {
        self.series.take(answer)
    }

    fn bytes(&self) -> u64 {
        let numbers = self.series.vectors().iter().map(|vector| vector.len()).fold(0, usize::saturating_add);
        (numbers as u64).saturating_mul(12)
    }

    fn finish(self: Box<Self>, outcome: Result<(), InferError>) -> Result<Draft, InnerError> {
        outcome.map_err(NoVectors::from)?;
        let body = answer(&self.name, self.series.vectors(), self.encoding, self.series.tokens());
        encode(ResponseHead::new(200), "application/json", &[&body], self.notes)
    }
}
