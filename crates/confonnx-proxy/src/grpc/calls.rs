//! What calls have in common: which server, what is sealed, what its answer is.

use std::sync::Arc;

use confonnx_client::{ModelMetadata, ModelRef, Request as Sealed, Response as Opened};
use confonnx_protocol::oip::{HEADER_LENGTH, InferResponse};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::{Status, metadata::MetadataMap};

use super::{
    convert,
    inference::{ModelInferRequest, ModelInferResponse},
    refused,
};
use crate::{Proxy, Upstream, rest::encoded};

#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Proxy>);

impl Service {
    /// The upstreams without a path of their own: calls of gRPC have none.
    pub(super) fn among(&self) -> Vec<usize> {
        self.0.reached("/").0
    }

    pub(super) fn upstream(&self, model: &str) -> Result<&Upstream, Status> {
        let found = self.0.upstream_for(&self.among(), model);
        found.ok_or_else(|| Status::not_found(format!("no server of this proxy is for model {model}")))
    }

    pub(super) async fn ask(
        &self,
        upstream: &Upstream,
        metadata: &MetadataMap,
        request: Sealed,
    ) -> Result<Opened, Status> {
        let request = self.with_token(upstream, metadata, request);
        let answer = upstream.ask(request).await.map_err(|fault| refused::fault(&fault))?;
        if answer.status() == 200 { Ok(answer) } else { Err(refused::inner(&answer)) }
    }

    /// Adds the token that the program sends, if it is to be sent on.
    pub(super) fn with_token(&self, upstream: &Upstream, metadata: &MetadataMap, request: Sealed) -> Sealed {
        let token = metadata.get("authorization").filter(|_| upstream.passes_token);
        match token.and_then(|token| token.to_str().ok()) {
            Some(token) => request.field("authorization", token),
            None => request,
        }
    }

    pub(super) async fn model(
        &self,
        metadata: &MetadataMap,
        name: &str,
        version: &str,
    ) -> Result<ModelMetadata, Status> {
        let request = Sealed::get("").to_model(reference(name, version));
        read(&self.ask(self.upstream(name)?, metadata, request).await?)
    }

    pub(super) async fn infer(
        &self,
        metadata: &MetadataMap,
        request: ModelInferRequest,
    ) -> Result<ModelInferResponse, Status> {
        let upstream = self.upstream(&request.model_name)?;
        let model = reference(&request.model_name, &request.model_version);
        let running = self.0.stats.begin(&upstream.counted(model));
        let (json, tensors) = convert::sealed(&request)?;
        let sealed = Sealed::post("/infer").field("content-type", "application/octet-stream");
        let sealed =
            if request.inputs.is_empty() { sealed.body(json) } else { sealed.tensor_body(json, tensors) };
        let answer = self.ask(upstream, metadata, sealed.to_model(model)).await?;
        let length = answer.fields().get(HEADER_LENGTH).and_then(|text| std::str::from_utf8(text).ok());
        let length = length.and_then(|text| text.parse().ok());
        let response = InferResponse::decode(answer.body(), length).map_err(|err| unreadable(&err))?;
        running.succeeded();
        Ok(convert::inferred(response))
    }

    pub(super) async fn control(
        &self,
        metadata: &MetadataMap,
        model: &str,
        what: &str,
        body: &Value,
    ) -> Result<(), Status> {
        let upstream = self.upstream(model)?;
        let path = format!("/v2/repository/models/{}/{what}", encoded(model));
        let request = Sealed::post(path).field("content-type", "application/json").body(body.to_string());
        let done = self.ask(upstream, metadata, request).await;
        // The claims change with the model: whoever calls next looks at them again.
        upstream.client.forget();
        done.map(drop)
    }
}

pub(super) fn reference<'a>(name: &'a str, version: &'a str) -> ModelRef<'a> {
    ModelRef { name: Some(name), version: (!version.is_empty()).then_some(version) }
}

pub(super) fn read<T: DeserializeOwned>(answer: &Opened) -> Result<T, Status> {
    serde_json::from_slice(answer.body()).map_err(|err| unreadable(&err))
}

fn unreadable(err: &dyn std::error::Error) -> Status {
    Status::internal(format!("the server's answer cannot be read: {err}"))
}
