//! Tensors in a request, and in its answer: for hosts that stand on [`conversation`](crate::conversation) themselves.

use confonnx_protocol::oip::{self, InferRequest, InferResponse, RequestedOutput, Sequence};
use confonnx_tensor::Tensor;

use crate::conversation::Answer;
use crate::{ClientError, ModelRef, Request, Response};

/// The body of an inference request: names and values of inputs, names of outputs, of which none means all.
pub(crate) fn request<'t>(inputs: Vec<(String, Tensor<'t>)>, outputs: &[String]) -> InferRequest<'t> {
    let outputs = outputs.iter().map(|name| RequestedOutput { name: name.clone(), binary: None }).collect();
    InferRequest { inputs, outputs, binary_default: true, ..InferRequest::default() }
}

impl Request {
    /// Runs `model` on `inputs`, which are copied; the outputs named, or all when none is.
    ///
    /// # Errors
    /// [`ClientError::Inputs`].
    pub fn infer<'m>(
        model: impl Into<ModelRef<'m>>,
        inputs: Vec<(String, Tensor<'_>)>,
        outputs: &[String],
    ) -> Result<Self, ClientError> {
        Self::of(model.into(), &request(inputs, outputs))
    }

    /// As [`infer`](Self::infer), with what `model` keeps of the requests of `sequence` before this one. Only who knows its name
    /// goes on with it: take one at random.
    ///
    /// # Errors
    /// [`ClientError::Inputs`].
    pub fn infer_in<'m>(
        sequence: Sequence,
        model: impl Into<ModelRef<'m>>,
        inputs: Vec<(String, Tensor<'_>)>,
        outputs: &[String],
    ) -> Result<Self, ClientError> {
        let request = InferRequest { sequence: Some(sequence), ..request(inputs, outputs) };
        Self::of(model.into(), &request)
    }

    fn of(model: ModelRef<'_>, request: &InferRequest<'_>) -> Result<Self, ClientError> {
        let encoded = request.encode().map_err(ClientError::Inputs)?;
        let parts = encoded.parts();
        let (json, tensors) = parts.split_first().map_or((&[][..], &[][..]), |(json, rest)| (*json, rest));
        let request = Self::post("/infer").to_model(model).field("content-type", encoded.content_type());
        Ok(match encoded.json_len() {
            Some(_) => request.tensor_body(json, tensors.concat()),
            None => request.body(json),
        })
    }
}

impl Answer {
    /// The outputs, by name.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, Tensor<'static>)>, ClientError> {
        let json_len = match self.field(oip::HEADER_LENGTH).map(str::parse) {
            None => None,
            Some(Ok(len)) => Some(len),
            Some(Err(err)) => return Err(ClientError::reply(err)),
        };
        let response = InferResponse::decode(self.body(), json_len).map_err(ClientError::reply)?;
        Ok(response.outputs.into_iter().map(|(name, tensor)| (name, tensor.into_owned())).collect())
    }
}

impl Response {
    /// The answer itself, if its status is 200.
    ///
    /// # Errors
    /// [`ClientError::Inner`]: what the server says went wrong.
    pub fn success(self) -> Result<Self, ClientError> {
        self.0.success().map(Self)
    }

    /// The outputs of [`Request::infer`], by name.
    ///
    /// # Errors
    /// [`ClientError::ReplyInvalid`].
    pub fn tensors(&self) -> Result<Vec<(String, Tensor<'static>)>, ClientError> {
        self.0.tensors()
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        Self(answer)
    }
}
