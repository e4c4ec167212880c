//! The client: runs exchanges over sockets.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{ModelClaim, Nonce, Policy, Trusted};
use confonnx_model::encrypted::{ModelKey, OwnerKey};
use confonnx_protocol::oip::{
    self, InferRequest, InferResponse, ModelMetadata, RequestedOutput, ServerMetadata,
};
use confonnx_tensor::Tensor;
use serde::de::DeserializeOwned;

use super::drive::{Drive, Stream, no_answer};
use super::host::Native;
use crate::conversation::{Answer, Call, Conversation, Exchange, Outcome, Want, percent_encode};
use crate::repository::ModelState;
use crate::{ClientError, ModelRef, Options, Request, Response, Secret};

/// A client of one server. Cheap to share: all methods take `&self`.
pub struct Client(Native);

impl Client {
    /// A client of the server at `url`, which has to be what `policy` says. No network until the first call.
    pub fn new(url: &str, policy: Policy, options: Options) -> Result<Self, ClientError> {
        let conversation = Arc::new(Conversation::new(url, policy, options)?);
        Ok(Self(Native::new(conversation)?))
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        self.0.conversation.url()
    }

    /// Talks to another server from now on, which has to satisfy the same policy; keys are forgotten.
    pub fn set_url(&self, url: &str) -> Result<(), ClientError> {
        self.0.conversation.set_url(url)
    }

    /// How often the key was renewed because the server changed its own; 0 after the first exchange.
    pub fn key_rollover_count(&self) -> u64 {
        self.0.conversation.key_rollover_count()
    }

    /// How often the server no longer knew the key, so that a call was repeated with a new one.
    pub fn key_invalid_count(&self) -> u64 {
        self.0.conversation.key_invalid_count()
    }

    /// Whether the last sealed reply said that the key is outdated; the next call then renews it first.
    pub fn key_outdated(&self) -> bool {
        self.0.conversation.key_outdated()
    }

    pub(super) fn policy(&self) -> &Policy {
        self.0.conversation.policy()
    }

    /// The proof on which the current key rests, if there is one. No network.
    pub fn proof(&self) -> Option<Arc<Trusted>> {
        self.0.conversation.proof()
    }

    /// The proof on which the current key rests; attests first when there is none.
    pub async fn attest(&self) -> Result<Arc<Trusted>, ClientError> {
        match self.run(Want::Proof, None).await? {
            Outcome::Proof(trusted) => Ok(trusted),
            Outcome::Document(_) | Outcome::Answer(_) => Err(no_answer()),
        }
    }

    /// Forgets the key: the next call attests first.
    pub fn forget(&self) {
        self.0.conversation.forget();
    }

    /// The server's attestation document as sent, not verified: for `nonce`, or its latest one.
    pub async fn fetch_document(&self, nonce: Option<&Nonce>) -> Result<Vec<u8>, ClientError> {
        match self.run(Want::Document(nonce.copied()), None).await? {
            Outcome::Document(document) => Ok(document),
            Outcome::Proof(_) | Outcome::Answer(_) => Err(no_answer()),
        }
    }

    /// Sends a request that this crate has no method for to the inner API, and gives the answer whatever its status.
    ///
    /// ```no_run
    /// # async fn example(client: confonnx_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use confonnx_client::Request;
    ///
    /// let request = Request::post("/v1/embeddings")
    ///     .field("content-type", "application/json")
    ///     .body(r#"{"model": "m", "input": "hello"}"#);
    /// let response = client.request(request).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request(&self, request: Request) -> Result<Response, ClientError> {
        Ok(Response(self.answer(request.into()).await?))
    }

    /// As [`request`](Self::request), with the answer's content as it comes. Sealed in chunks, whatever the options say.
    pub async fn stream(&self, request: Request) -> Result<Stream<'_>, ClientError> {
        let timeout = self.0.conversation.options().timeout;
        let call = Call { streamed: true, ..request.into() };
        self.bounded(async {
            let exchange = self.exchange(Want::Call(call)).await?;
            Stream::start(Drive::new(&self.0, exchange), timeout).await
        })
        .await
    }

    /// The models of the server that the caller may use, as OIP's repository extension lists them.
    pub async fn models(&self) -> Result<Vec<ModelState>, ClientError> {
        self.json(Call { body: vec![b"{}".into()], ..Call::new("POST", "/v2/repository/index") }).await
    }

    /// Loads the model `name`, or looks again what of it there is. The claims change with it: the next call attests anew.
    pub async fn load(&self, name: &str) -> Result<(), ClientError> {
        self.control(name, "load").await
    }

    /// Unloads the model `name`. The claims change with it: the next call attests anew.
    pub async fn unload(&self, name: &str) -> Result<(), ClientError> {
        self.control(name, "unload").await
    }

    async fn control(&self, name: &str, what: &str) -> Result<(), ClientError> {
        let path = format!("/v2/repository/models/{}/{what}", percent_encode(name));
        let done = self.call(Call::new("POST", path)).await;
        self.0.conversation.forget();
        done.map(drop)
    }

    /// Runs `model` on `inputs`; the outputs named, or all when none is.
    ///
    /// `model` may be `None` when the server has exactly one. Names, types and shapes are those of
    /// [`metadata`](Self::metadata). With a model hash in the policy, the model that is called has to have it, whatever else
    /// is served: of several versions the highest that has it is called.
    pub async fn infer(
        &self,
        model: impl Into<ModelRef<'_>>,
        inputs: Vec<(String, Tensor<'_>)>,
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, ClientError> {
        let outputs =
            outputs.iter().map(|name| RequestedOutput { name: name.clone(), binary: None }).collect();
        let request = InferRequest { inputs, outputs, binary_default: true, ..InferRequest::default() };
        let encoded = request.encode().map_err(ClientError::Inputs)?;
        let call = Call {
            model: Some(model.into().into()),
            fields: vec![("content-type".into(), encoded.content_type().into())],
            body: encoded.parts().into_iter().map(Into::into).collect(),
            json_len: encoded.json_len(),
            ..Call::new("POST", "/infer")
        };
        let answer = self.call(call).await?;
        let json_len = match answer.field(oip::HEADER_LENGTH).map(str::parse) {
            None => None,
            Some(Ok(len)) => Some(len),
            Some(Err(err)) => return Err(ClientError::reply(err)),
        };
        let response = InferResponse::decode(answer.body(), json_len).map_err(ClientError::reply)?;
        Ok(response.outputs.into_iter().map(|(name, tensor)| (name, tensor.into_owned())).collect())
    }

    /// Inputs and outputs of `model`, which may be `None` when the server has exactly one.
    pub async fn metadata(&self, model: impl Into<ModelRef<'_>>) -> Result<ModelMetadata, ClientError> {
        self.json(Call { model: Some(model.into().into()), ..Call::get("") }).await
    }

    /// Name, version and extensions of the server.
    pub async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        self.json(Call::get("/v2")).await
    }

    /// Whether the server says, sealed, that it is ready to infer.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        match self.call(Call::get("/v2/health/ready")).await {
            Ok(_) => Ok(true),
            Err(ClientError::Inner { status: 400 | 503, .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Gives an encrypted `model` its key; `model` may be `None` when the server has exactly one. A server that was told
    /// who owns the model wants the `owner`'s signature too. Returns what the claims say of the model from now on.
    ///
    /// The key goes to whatever the policy accepts, sealed: the policy should name the program, and the model by the
    /// hash of its encrypted form.
    pub async fn provision_model_key(
        &self,
        model: impl Into<ModelRef<'_>>,
        key: &ModelKey,
        owner: Option<&OwnerKey>,
    ) -> Result<ModelClaim, ClientError> {
        let model = model.into();
        let mut fields = vec![("content-type".into(), "text/plain".into())];
        if let Some(owner) = owner {
            let trusted = self.attest().await?;
            let signature = Exchange::owner_signature(&self.0.conversation, &trusted, model, key, owner)?;
            fields.push((OWNER_SIGNATURE.into(), Base64UrlUnpadded::encode_string(&signature)));
        }
        let text = key.expose();
        let body = vec![text.as_bytes().into()];
        let call = Call { model: Some(model.into()), fields, body, ..Call::new("POST", "/key") };
        let answer = self.call(call).await?;
        // The claims have changed with the model: whoever calls next looks at them again.
        self.0.conversation.forget();
        confonnx_attest::json::from_slice(answer.body()).map_err(ClientError::reply)
    }

    async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        confonnx_attest::json::from_slice(self.call(call).await?.body()).map_err(ClientError::reply)
    }

    /// The answer, if its status is 200.
    async fn call(&self, call: Call<'_>) -> Result<Answer, ClientError> {
        self.answer(call).await?.success()
    }

    async fn answer(&self, call: Call<'_>) -> Result<Answer, ClientError> {
        self.bounded(async {
            let exchange = self.exchange(Want::Call(call)).await?;
            match Drive::new(&self.0, exchange).finish().await? {
                Outcome::Answer(answer) => Ok(answer),
                Outcome::Proof(_) | Outcome::Document(_) => Err(no_answer()),
            }
        })
        .await
    }

    async fn run(&self, want: Want<'_>, token: Option<Secret>) -> Result<Outcome, ClientError> {
        self.0.look_for_fork();
        let exchange = Exchange::new(Arc::clone(&self.0.conversation), want, token);
        self.bounded(Drive::new(&self.0, exchange).finish()).await
    }

    /// An exchange, with a token of the options' source if there is one.
    async fn exchange<'a>(&self, want: Want<'a>) -> Result<Exchange<'a>, ClientError> {
        self.0.look_for_fork();
        let conversation = Arc::clone(&self.0.conversation);
        let Some(source) = conversation.options().auth_key_source.clone() else {
            return Ok(Exchange::new(conversation, want, None));
        };
        let given = tokio::task::spawn_blocking(move || source.token()).await;
        let token = given.unwrap_or_else(|panicked| Err(panicked.into()));
        let token = token.map_err(|source| ClientError::Token { source })?;
        Ok(Exchange::new(conversation, want, Some(token)))
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let after = self.0.conversation.options().timeout;
        match tokio::time::timeout(after, work).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { url: self.url(), after }),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.conversation).finish()
    }
}

/// Carries the owner's signature, inside the seal.
const OWNER_SIGNATURE: &str = "confonnx-owner-signature";
