//! One call, step by step.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use confonnx_client::conversation::{self, Body, Head, Now, Outcome, Step, Wait, Want};
use confonnx_client::{ClientError, Fields, ModelRef, Request, Response, Secret};
use serde_json::json;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::conversation::{Conversation, nonce, proof};
use crate::error;
use crate::random::Platform;
use crate::tensors::{Inputs, Outputs};

/// See `confonnx_client::conversation::Exchange`.
#[wasm_bindgen]
pub struct Exchange {
    inner: conversation::Exchange<'static>,
    /// What the last step asks for.
    asked: Asked,
    body: Option<Body>,
    outcome: Option<Result<Outcome, ClientError>>,
}

#[derive(Default)]
struct Asked {
    url: String,
    accept: &'static str,
    content_type: Option<&'static str>,
    relayed: bool,
    wait: Duration,
}

#[wasm_bindgen]
impl Exchange {
    /// An exchange that gives the server's proof.
    pub fn proof(conversation: &Conversation) -> Self {
        Self::new(conversation, Want::Proof, None)
    }

    /// An exchange that gives the attestation document as it is sent.
    pub fn document(conversation: &Conversation, hex: Option<String>) -> Result<Self, String> {
        let nonce = hex.as_deref().map(nonce).transpose()?;
        Ok(Self::new(conversation, Want::Document(nonce), None))
    }

    /// An exchange that runs a model.
    pub fn infer(
        conversation: &Conversation,
        model: Option<String>,
        version: Option<String>,
        inputs: Inputs,
        outputs: Vec<String>,
        token: Option<String>,
    ) -> Result<Self, String> {
        let model = ModelRef { name: model.as_deref(), version: version.as_deref() };
        let request = Request::infer(model, inputs.0, &outputs).map_err(|err| error::of(&err))?;
        Ok(Self::new(conversation, Want::Call(request.into()), token))
    }

    /// An exchange that gives a model's metadata.
    pub fn metadata(
        conversation: &Conversation,
        model: Option<String>,
        version: Option<String>,
        token: Option<String>,
    ) -> Self {
        let model = ModelRef { name: model.as_deref(), version: version.as_deref() };
        Self::new(conversation, Want::Call(Request::get("").to_model(model).into()), token)
    }

    /// An exchange for any request to the inner API; `fields` are names and values in turn. With `streamed`, the
    /// answer's content is given as it comes.
    pub fn request(
        conversation: &Conversation,
        method: &str,
        path: &str,
        fields: Vec<String>,
        body: Vec<u8>,
        streamed: bool,
        token: Option<String>,
    ) -> Self {
        let mut request = Request::new(method, path).body(body);
        for field in fields.as_chunks::<2>().0 {
            let [name, value] = field;
            request = request.field(name, value);
        }
        let call = conversation::Call::from(request);
        let call = if streamed { call.streamed() } else { call };
        Self::new(conversation, Want::Call(call), token)
    }

    /// What to do next: `get`, `post`, `wait`, `attestation` or `done`. Times are in milliseconds.
    pub fn step(&mut self, clock: f64, elapsed: f64) -> String {
        let word = match self.inner.step(now(clock, elapsed), &mut Platform) {
            Step::Get { url, relayed, accept } => {
                self.asked = Asked { url, accept, relayed, ..Asked::default() };
                "get"
            }
            Step::Post { url, relayed, content_type, accept, body } => {
                let content_type = Some(content_type);
                self.asked = Asked { url, accept, content_type, relayed, wait: Duration::ZERO };
                self.body = Some(body);
                "post"
            }
            Step::Wait(Wait::For(wait)) => {
                self.asked = Asked { wait, ..Asked::default() };
                "wait"
            }
            Step::Wait(Wait::Attestation) => "attestation",
            Step::Done(outcome) => {
                self.outcome = Some(outcome);
                "done"
            }
        };
        word.into()
    }

    /// The URL of the request to send.
    #[wasm_bindgen(getter)]
    pub fn url(&self) -> String {
        self.asked.url.clone()
    }

    /// The request's `accept`.
    #[wasm_bindgen(getter)]
    pub fn accept(&self) -> String {
        self.asked.accept.into()
    }

    /// The request's `content-type`.
    #[wasm_bindgen(getter, js_name = contentType)]
    pub fn content_type(&self) -> Option<String> {
        self.asked.content_type.map(Into::into)
    }

    /// Whether the request goes to a relay, which gets no header fields of the caller's.
    #[wasm_bindgen(getter)]
    pub fn relayed(&self) -> bool {
        self.asked.relayed
    }

    /// Milliseconds to wait before the next step.
    #[wasm_bindgen(getter)]
    pub fn wait(&self) -> f64 {
        self.asked.wait.as_secs_f64() * 1000.0
    }

    /// Bytes of the request's body that are still to be sealed and sent.
    #[wasm_bindgen(getter)]
    pub fn remaining(&self) -> f64 {
        self.body.as_ref().map_or(0, Body::len) as f64
    }

    /// The next bytes of the request's body.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, String> {
        let piece = self.body.as_mut().and_then(Iterator::next).transpose();
        piece.map_err(|err| error::of(&ClientError::Seal { source: err.into() }))
    }

    /// The head of the answer.
    pub fn head(
        &mut self,
        status: u16,
        content_type: Option<String>,
        retry_after: Option<String>,
        content_length: Option<f64>,
    ) {
        let mut head = Head::new(status);
        head.content_type = content_type;
        head.retry_after = retry_after;
        head.content_length = content_length.and_then(crate::options::whole);
        self.inner.head(&head);
    }

    /// The next bytes of the answer; whether more are wanted.
    pub fn data(&mut self, bytes: &[u8]) -> bool {
        self.inner.data(bytes)
    }

    /// The end of the answer.
    pub fn end(&mut self, clock: f64, elapsed: f64) {
        self.inner.end(now(clock, elapsed));
    }

    /// There was no answer, or not all of it. `sent` says whether the server may have got the request.
    pub fn failed(&mut self, problem: String, sent: bool, clock: f64, elapsed: f64) {
        self.inner.failed(problem.into(), sent, now(clock, elapsed));
    }

    /// The head of a streamed answer, as JSON, once it is there.
    #[wasm_bindgen(js_name = streamedHead)]
    pub fn streamed_head(&self) -> Option<String> {
        self.inner.streamed_head().map(|(status, fields)| head_json(status, fields))
    }

    /// What was opened of the streamed answer's content since the last call.
    #[wasm_bindgen(js_name = takeStreamed)]
    pub fn take_streamed(&mut self) -> Vec<u8> {
        self.inner.take_streamed()
    }

    /// The proof that the exchange ended with, as JSON.
    #[wasm_bindgen(js_name = takeProof)]
    pub fn take_proof(&mut self) -> Result<String, String> {
        match self.take()? {
            Outcome::Proof(trusted) => Ok(proof(&trusted)),
            _ => Err(none()),
        }
    }

    /// The document that the exchange ended with.
    #[wasm_bindgen(js_name = takeDocument)]
    pub fn take_document(&mut self) -> Result<Vec<u8>, String> {
        match self.take()? {
            Outcome::Document(document) => Ok(document),
            _ => Err(none()),
        }
    }

    /// The tensors that the exchange ended with.
    #[wasm_bindgen(js_name = takeTensors)]
    pub fn take_tensors(&mut self) -> Result<Outputs, String> {
        let answer = self.take_response()?.success().map_err(|err| error::of(&err))?;
        Ok(Outputs(answer.tensors().map_err(|err| error::of(&err))?.into_iter()))
    }

    /// The body of the answer, if its status is 200.
    #[wasm_bindgen(js_name = takeBody)]
    pub fn take_body(&mut self) -> Result<Vec<u8>, String> {
        Ok(self.take_response()?.success().map_err(|err| error::of(&err))?.body().to_vec())
    }

    /// The answer, whatever its status.
    #[wasm_bindgen(js_name = takeAnswer)]
    pub fn take_answer(&mut self) -> Result<Answer, String> {
        self.take_response().map(Answer)
    }

    fn take_response(&mut self) -> Result<Response, String> {
        match self.take()? {
            Outcome::Answer(answer) => Ok(answer.into()),
            _ => Err(none()),
        }
    }

    fn take(&mut self) -> Result<Outcome, String> {
        self.outcome.take().ok_or_else(none)?.map_err(|err| error::of(&err))
    }

    fn new(conversation: &Conversation, want: Want<'static>, token: Option<String>) -> Self {
        let token = token.map(Secret::from);
        let inner = conversation::Exchange::new(Arc::clone(&conversation.0), want, token);
        Self { inner, asked: Asked::default(), body: None, outcome: None }
    }
}

/// An opened answer.
#[wasm_bindgen]
pub struct Answer(Response);

#[wasm_bindgen]
impl Answer {
    /// Status and fields, as JSON.
    #[wasm_bindgen(getter)]
    pub fn head(&self) -> String {
        head_json(self.0.status(), self.0.fields())
    }

    /// The answer's body.
    #[wasm_bindgen(getter)]
    pub fn body(&self) -> Vec<u8> {
        self.0.body().to_vec()
    }
}

fn head_json(status: u16, fields: &Fields) -> String {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned())).collect();
    json!({ "status": status, "headers": fields }).to_string()
}

fn now(clock: f64, elapsed: f64) -> Now {
    let milliseconds = |time: f64| Duration::try_from_secs_f64(time / 1000.0).unwrap_or_default();
    let clock = UNIX_EPOCH.checked_add(milliseconds(clock)).unwrap_or(UNIX_EPOCH);
    Now { clock, elapsed: milliseconds(elapsed) }
}

fn none() -> String {
    error::of(&ClientError::System { source: "the exchange has no such outcome".into() })
}
