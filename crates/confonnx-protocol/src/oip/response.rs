use confonnx_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    MAX_TENSORS, OipError,
    wire::{self, Bounded, Encoded, OUTPUTS, TensorIn, TensorOut},
};

/// The body of a successful answer to `POST …/infer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse<'a> {
    /// The model that ran.
    pub model_name: String,
    /// The version of the model that answered.
    pub model_version: Option<String>,
    /// The request's.
    pub id: Option<String>,
    /// Names and values, in the order that was asked for.
    pub outputs: Vec<(String, Tensor<'a>)>,
}

impl<'a> InferResponse<'a> {
    /// Reads a body; `header_len` is the value of the [`HEADER_LENGTH`](super::HEADER_LENGTH) field. Binary tensors
    /// borrow from the body.
    pub fn decode(body: &'a [u8], header_len: Option<usize>) -> Result<Self, OipError> {
        let (json, binary) = wire::split(body, header_len)?;
        let message: ResponseIn<'a> =
            confonnx_attest::json::from_slice(json).map_err(|e| OipError::json(&e))?;
        Ok(Self {
            model_name: message.model_name,
            model_version: message.model_version,
            id: message.id,
            outputs: wire::tensors(OUTPUTS, message.outputs, binary)?,
        })
    }

    /// Writes the body; `binary` says which outputs go binary: [`wants_binary`](super::InferRequest::wants_binary) of
    /// the request. Values without a JSON form are an error, not `null`.
    pub fn encode(&self, binary: impl Fn(&str) -> bool) -> Result<Encoded<'_>, OipError> {
        OUTPUTS.check(false, self.outputs.iter().map(|(name, _)| name.as_str()))?;
        let outputs = self.outputs.iter().map(|(name, tensor)| TensorOut::new(name, tensor, binary(name)));
        let message = ResponseOut {
            model_name: &self.model_name,
            model_version: self.model_version.as_deref(),
            id: self.id.as_deref(),
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        wire::encode(&message, &self.outputs, binary)
    }
}

#[derive(Deserialize)]
struct ResponseIn<'a> {
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    outputs: Bounded<TensorIn<'a>, MAX_TENSORS>,
}

#[derive(Serialize)]
struct ResponseOut<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<TensorOut<'a>>,
}
