use std::borrow::Cow;

use confonnx_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    MAX_TENSORS, OipError,
    wire::{self, Bounded, Encoded, INPUTS, OUTPUTS, TensorIn, TensorOut},
};

/// The body of `POST …/infer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest<'a> {
    /// Returned in the response.
    pub id: Option<String>,
    /// Names and values, in the client's order.
    pub inputs: Vec<(String, Tensor<'a>)>,
    /// The outputs to return; empty for all outputs in the model's order.
    pub outputs: Vec<RequestedOutput>,
    /// Whether outputs that do not say are sent binary (`binary_data_output`).
    pub binary_default: bool,
    /// The sequence of requests that it is one of (`sequence_id` and so on).
    pub sequence: Option<Sequence>,
}

/// Which of a sequence of requests one is, for models that keep something from one to the next. The names are Triton's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The sequence's name (`sequence_id`).
    pub id: SequenceId,
    /// Whether it is the first one (`sequence_start`).
    pub start: bool,
    /// Whether it is the last one (`sequence_end`).
    pub end: bool,
}

/// The name of a sequence, chosen by the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SequenceId {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// An output the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The output's name.
    pub name: String,
    /// `binary_data`: send it binary, or as JSON, whatever the request's default is.
    pub binary: Option<bool>,
}

impl<'a> InferRequest<'a> {
    /// Reads a body; `header_len` is the value of the [`HEADER_LENGTH`](super::HEADER_LENGTH) field. Binary tensors
    /// borrow from the body.
    pub fn decode(body: &'a [u8], header_len: Option<usize>) -> Result<Self, OipError> {
        let (json, binary) = wire::split(body, header_len)?;
        let message: RequestIn<'a> =
            confonnx_attest::json::from_slice(json).map_err(|e| OipError::json(&e))?;
        let outputs = message.outputs.unwrap_or_default();
        let parameters = message.parameters.unwrap_or_default();
        let sequence = parameters.sequence_id.map(|id| Sequence {
            id,
            start: parameters.sequence_start.unwrap_or(false),
            end: parameters.sequence_end.unwrap_or(false),
        });
        OUTPUTS.check(outputs.more, outputs.items.iter().map(|output| output.name.as_ref()))?;
        let outputs = outputs.items.into_iter().map(|output| RequestedOutput {
            name: output.name.into_owned(),
            binary: output.parameters.and_then(|p| p.binary_data),
        });
        Ok(Self {
            id: message.id,
            inputs: wire::tensors(INPUTS, message.inputs, binary)?,
            outputs: outputs.collect(),
            binary_default: parameters.binary_data_output.unwrap_or(false),
            sequence,
        })
    }

    /// Writes the body, all inputs binary.
    pub fn encode(&self) -> Result<Encoded<'_>, OipError> {
        INPUTS.check(false, self.inputs.iter().map(|(name, _)| name.as_str()))?;
        OUTPUTS.check(false, self.outputs.iter().map(|output| output.name.as_str()))?;
        let inputs = self.inputs.iter().map(|(name, tensor)| TensorOut::new(name, tensor, true));
        let outputs = self.outputs.iter().map(|output| OutputOut {
            name: &output.name,
            parameters: output.binary.map(|binary| OutputParameters { binary_data: Some(binary) }),
        });
        let message = RequestOut {
            id: self.id.as_deref(),
            parameters: RequestParameters {
                binary_data_output: Some(self.binary_default),
                sequence_id: self.sequence.as_ref().map(|sequence| sequence.id.clone()),
                sequence_start: self.sequence.as_ref().map(|sequence| sequence.start),
                sequence_end: self.sequence.as_ref().map(|sequence| sequence.end),
            },
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: outputs.collect(),
        };
        wire::encode(&message, &self.inputs, |_| true)
    }

    /// Whether the client wants this output binary.
    pub fn wants_binary(&self, output: &str) -> bool {
        self.outputs
            .iter()
            .find(|requested| requested.name == output)
            .and_then(|requested| requested.binary)
            .unwrap_or(self.binary_default)
    }
}

#[derive(Deserialize)]
struct RequestIn<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<RequestParameters>,
    #[serde(borrow)]
    inputs: Bounded<TensorIn<'a>, MAX_TENSORS>,
    #[serde(borrow, default)]
    outputs: Option<Bounded<OutputIn<'a>, MAX_TENSORS>>,
}

#[derive(Serialize)]
struct RequestOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: RequestParameters,
    inputs: Vec<TensorOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<OutputOut<'a>>,
}

#[derive(Default, Serialize, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_id: Option<SequenceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_start: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence_end: Option<bool>,
}

#[derive(Deserialize)]
struct OutputIn<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}

#[derive(Serialize)]
struct OutputOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
}

#[derive(Serialize, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
}
