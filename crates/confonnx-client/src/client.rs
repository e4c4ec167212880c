//! The client: attests, seals, opens, renews keys.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{MAX_DOCUMENT_BYTES, ModelClaim, Nonce, Policy, Trusted, UnixTime};
use confonnx_model::encrypted::{ModelKey, OwnerKey};
use confonnx_protocol::oip::{
    self, InferRequest, InferResponse, ModelMetadata, RequestedOutput, ServerMetadata,
};
use confonnx_protocol::{Draft, Pieces, Plaintext, SealError};
use confonnx_tensor::Tensor;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use serde::de::DeserializeOwned;

use crate::call::{Answer, Call, ClockOffset};
use crate::resumption::{self, Way};
use crate::session::Session;
use crate::transport::{Base, Transport};
use crate::{ClientError, ModelRef, Options, Secret};

/// A client of one server. Cheap to share: all methods take `&self`.
pub struct Client {
    policy: Policy,
    options: Options,
    state: Mutex<State>,
    /// Held while attesting, so that concurrent calls share one attestation.
    attesting: tokio::sync::Mutex<()>,
}

struct State {
    base: Base,
    transport: Arc<Transport>,
    session: Option<Arc<Session>>,
    /// Whose connections these are: a process that was forked must not use them.
    process: u32,
    /// A sealed reply said that the session's key is no longer the current one.
    outdated: bool,
    clock: Option<ClockOffset>,
    rollovers: u64,
    invalid: u64,
}

impl Client {
    /// A client of the server at `url`, which has to be what `policy` says. No network until the first call.
    pub fn new(url: &str, policy: Policy, options: Options) -> Result<Self, ClientError> {
        let base = Base::parse(url)?;
        let transport = Arc::new(transport(&base, &options)?);
        let process = std::process::id();
        let (rollovers, invalid) = (0, 0);
        let state = State {
            base,
            transport,
            session: None,
            process,
            outdated: false,
            clock: None,
            rollovers,
            invalid,
        };
        Ok(Self { policy, options, state: Mutex::new(state), attesting: tokio::sync::Mutex::new(()) })
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        self.state().base.as_str().into()
    }

    /// Talks to another server from now on, which has to satisfy the same policy; keys are forgotten.
    pub fn set_url(&self, url: &str) -> Result<(), ClientError> {
        let base = Base::parse(url)?;
        let transport = Arc::new(transport(&base, &self.options)?);
        let mut state = self.state();
        *state = State { base, transport, session: None, outdated: false, clock: None, ..*state };
        Ok(())
    }

    /// How often the key was renewed because the server changed its own; 0 after the first exchange.
    pub fn key_rollover_count(&self) -> u64 {
        self.state().rollovers
    }

    /// How often the server no longer knew the key, so that a call was repeated with a new one.
    pub fn key_invalid_count(&self) -> u64 {
        self.state().invalid
    }

    /// Whether the last sealed reply said that the key is outdated; the next call then renews it first.
    pub fn key_outdated(&self) -> bool {
        self.state().outdated
    }

    /// The proof on which the current key rests; attests first when there is none.
    pub async fn attest(&self) -> Result<Arc<Trusted>, ClientError> {
        self.bounded(async { Ok(Arc::clone(&self.session(None).await?.trusted)) }).await
    }

    /// The server's attestation document as sent, not verified: for `nonce`, or its latest one.
    pub async fn fetch_document(&self, nonce: Option<&Nonce>) -> Result<Vec<u8>, ClientError> {
        self.bounded(self.document(nonce)).await
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
        let request = InferRequest { id: None, inputs, outputs, binary_default: true };
        let encoded = request.encode().map_err(ClientError::Inputs)?;
        let fields = vec![("content-type", encoded.content_type().into())];
        let model = model.into();
        self.bounded(async {
            let answer = self
                .call(&Call {
                    method: "POST",
                    model: Some(model),
                    path: "/infer".into(),
                    fields,
                    body: encoded.parts(),
                    json_len: encoded.json_len(),
                    token: None,
                })
                .await?;
            let json_len = match answer.field(oip::HEADER_LENGTH).map(str::parse) {
                None => None,
                Some(Ok(len)) => Some(len),
                Some(Err(err)) => return Err(ClientError::reply(err)),
            };
            let response = InferResponse::decode(answer.body(), json_len).map_err(ClientError::reply)?;
            Ok(response.outputs.into_iter().map(|(name, tensor)| (name, tensor.into_owned())).collect())
        })
        .await
    }

    /// Inputs and outputs of `model`, which may be `None` when the server has exactly one.
    pub async fn metadata(&self, model: impl Into<ModelRef<'_>>) -> Result<ModelMetadata, ClientError> {
        let call = Call { model: Some(model.into()), ..Call::get("") };
        self.bounded(self.json(&call)).await
    }

    /// Name, version and extensions of the server.
    pub async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        self.bounded(self.json(&Call::get("/v2"))).await
    }

    /// Whether the server says, sealed, that it is ready to infer.
    pub async fn ready(&self) -> Result<bool, ClientError> {
        self.bounded(async {
            match self.call(&Call::get("/v2/health/ready")).await {
                Ok(_) => Ok(true),
                Err(ClientError::Inner { status: 400 | 503, .. }) => Ok(false),
                Err(err) => Err(err),
            }
        })
        .await
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
        self.bounded(async {
            let mut fields = vec![("content-type", "text/plain".into())];
            if let Some(owner) = owner {
                let signature = self.owner_signature(model, key, owner).await?;
                fields.push((OWNER_SIGNATURE, Base64UrlUnpadded::encode_string(&signature)));
            }
            let text = key.expose();
            let body = vec![text.as_bytes()];
            let path = "/key".into();
            let model = Some(model);
            let call = Call { method: "POST", model, path, fields, body, json_len: None, token: None };
            let answer = self.call(&call).await?;
            // The claims have changed with the model: whoever calls next looks at them again.
            self.state().session = None;
            serde_json::from_slice(answer.body()).map_err(ClientError::reply)
        })
        .await
    }

    async fn owner_signature(
        &self,
        model: ModelRef<'_>,
        key: &ModelKey,
        owner: &OwnerKey,
    ) -> Result<Vec<u8>, ClientError> {
        let trusted = Arc::clone(&self.session(None).await?.trusted);
        let called = self.policy.model(trusted.claims(), model.name, model.version)?;
        // As the server chooses: the highest version that is locked.
        let number =
            |claim: &&ModelClaim| (claim.sha256.is_none(), claim.version.parse::<u64>().unwrap_or_default());
        let is_called = |claim: &&ModelClaim| {
            claim.name == called.name
                && called.version.as_ref().is_none_or(|version| *version == claim.version)
        };
        let claimed = trusted.claims().models.iter().filter(is_called).max_by_key(number);
        let Some(ciphertext) = claimed.and_then(|claim| claim.ciphertext_sha256) else {
            return Err(ClientError::NotEncrypted { model: called.name });
        };
        let failed = || ClientError::System { source: "the cryptographic library failed".into() };
        owner.sign(&ciphertext.0, key).ok_or_else(failed)
    }

    async fn json<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, ClientError> {
        serde_json::from_slice(self.call(call).await?.body()).map_err(ClientError::reply)
    }

    /// The call with the whole path of its model, if it is about one.
    fn address<'a>(&self, call: &Call<'a>, session: &Session) -> Result<Call<'a>, ClientError> {
        let Some(model) = call.model else { return Ok(call.clone()) };
        let called = self.policy.model(session.trusted.claims(), model.name, model.version)?;
        let mut path = format!("/v2/models/{}", percent_encode(&called.name));
        if let Some(version) = called.version {
            path += &format!("/versions/{}", percent_encode(&version));
        }
        Ok(Call { path: path + &call.path, ..call.clone() })
    }

    /// Exchanges sealed messages; attests again and corrects the clock, once each, when the server asks for it.
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ClientError> {
        let call = &Call { token: self.token().await?, ..call.clone() };
        let mut session = self.session(None).await?;
        let (mut renewals, mut corrected, mut looked_again) = (0, false, false);
        loop {
            // Of every session anew: what its claims say of the model decides.
            let addressed = match self.address(call, &session) {
                Err(ClientError::Model(_)) if !looked_again => {
                    // The claims may be of long ago.
                    session = self.session(Some(&session)).await?;
                    looked_again = true;
                    continue;
                }
                addressed => addressed?,
            };
            match self.exchange(&addressed, &session).await {
                Ok(answer) => {
                    if let Some(offset) = answer.date_refused().filter(|_| !corrected) {
                        self.state().clock = Some(offset);
                        corrected = true;
                        continue;
                    }
                    return answer.success();
                }
                Err(ClientError::Refused { status, code })
                    if renewals < MAX_RENEWALS && may_be_the_key(&code) =>
                {
                    let new = self.session(Some(&session)).await?;
                    // With the same keys the request itself is at fault, and sending it again would not help.
                    if (code != "key-unknown" || renewals > 0)
                        && new.trusted.key_configs() == session.trusted.key_configs()
                    {
                        return Err(ClientError::Refused { status, code });
                    }
                    self.state().invalid += 1;
                    (session, renewals) = (new, renewals + 1);
                }
                Err(err) => return Err(err),
            }
        }
    }

    /// A token of the source, if there is one.
    async fn token(&self) -> Result<Option<Secret>, ClientError> {
        let Some(source) = self.options.auth_key_source.clone() else { return Ok(None) };
        let given = tokio::task::spawn_blocking(move || source.token()).await;
        let token = given.unwrap_or_else(|panicked| Err(panicked.into()));
        token.map(Some).map_err(|source| ClientError::Token { source })
    }

    async fn exchange(&self, call: &Call<'_>, session: &Arc<Session>) -> Result<Answer, ClientError> {
        let answer = match self.exchange_in_session(call, session).await? {
            Some(answer) => answer,
            None => self.exchange_full(call, session).await?,
        };
        let mut state = self.state();
        if state.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            state.outdated = answer.key_outdated();
        }
        Ok(answer)
    }

    /// By a request sealed to the session's key.
    async fn exchange_full(&self, call: &Call<'_>, session: &Session) -> Result<Answer, ClientError> {
        if self.options.chunked {
            let message = call.message(&self.options, self.date(), session.key.room(), false)?;
            return Answer::parse(self.exchange_chunked(session, message).await?);
        }
        let way = if self.resumes() { session.resumption.way(Instant::now()) } else { Way::Plain };
        let offering = if let Way::Offer(offering) = way { Some(offering) } else { None };
        let message = call.message(&self.options, self.date(), session.key.room(), offering.is_some())?;
        let (aead, rng) = (self.options.aead, &mut UnwrapErr(SysRng));
        let (request, opener, offer) = session.key.seal_offering(aead, message, rng).map_err(seal_failed)?;
        let reply = self.send(request, ("message/ohttp-req", "message/ohttp-res")).await?;
        let answer = Answer::parse(opener.open(reply).map_err(ClientError::reply)?)?;
        session.resumption.answered();
        if let Some(offering) = offering {
            offering.answered(offer, answer.grant());
        }
        Ok(answer)
    }

    /// By a request in a session that an earlier one opened. `None` when there is none, or it is not known any more.
    async fn exchange_in_session(
        &self,
        call: &Call<'_>,
        session: &Session,
    ) -> Result<Option<Answer>, ClientError> {
        if !self.resumes() {
            return Ok(None);
        }
        let Way::Resume(resumed) = session.resumption.way(Instant::now()) else { return Ok(None) };
        let message =
            call.message(&self.options, self.date(), confonnx_protocol::resumption::Resumption::ROOM, false)?;
        let (request, opener) = resumed.session.seal(message, &mut UnwrapErr(SysRng)).map_err(seal_failed)?;
        match self.send(request, ("message/confonnx-session-req", "message/confonnx-session-res")).await {
            Ok(reply) => {
                let answer = Answer::parse(opener.open(reply).map_err(ClientError::reply)?)?;
                session.resumption.resumed();
                Ok(Some(answer))
            }
            Err(ClientError::Refused { code, .. }) if resumption::ends_session(&code) => {
                session.resumption.refused(&resumed, Instant::now());
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    fn resumes(&self) -> bool {
        // Both would be linked: what a relay hides, and what is sent in chunks, which sessions do not have.
        self.options.sessions && self.options.relay.is_none() && !self.options.chunked
    }

    /// Our time, or the server's when it said that ours is wrong.
    fn date(&self) -> SystemTime {
        let now = SystemTime::now();
        self.state().clock.map_or(now, |offset| offset.apply(now))
    }

    /// Sends a sealed request to the server or the relay; the sealed reply.
    async fn send(
        &self,
        request: Vec<u8>,
        media: (&'static str, &'static str),
    ) -> Result<Vec<u8>, ClientError> {
        let (url, transport) = self.gateway();
        transport.exchange(&url, request, media, self.options.max_reply).await
    }

    /// Where sealed requests go, and how they get there.
    fn gateway(&self) -> (String, Arc<Transport>) {
        let state = self.state();
        let gateway = || format!("{}/.well-known/ohttp-gateway", state.base.as_str());
        (self.options.relay.clone().unwrap_or_else(gateway), Arc::clone(&state.transport))
    }

    /// In chunks, each sealed as it is sent, and opened as it arrives.
    async fn exchange_chunked(&self, session: &Session, message: Draft) -> Result<Plaintext, ClientError> {
        let (aead, limit) = (self.options.aead, self.options.max_reply);
        let mut start = Vec::new();
        let (sealer, mut opener) =
            session.key.seal_chunked(aead, limit, &mut UnwrapErr(SysRng), &mut start).map_err(seal_failed)?;
        let request = Pieces::new(start, sealer, message).into();
        let media = ("message/ohttp-chunked-req", "message/ohttp-chunked-res");
        let (url, transport) = self.gateway();
        let open = |bytes: &[u8]| opener.push(bytes).map_err(ClientError::reply);
        transport.exchange_as_it_comes(&url, request, media, limit, open).await?;
        opener.finish().map_err(ClientError::reply)
    }

    /// The current session, or a new one when there is none, its key is outdated or expired, or it is `refused`.
    async fn session(&self, refused: Option<&Arc<Session>>) -> Result<Arc<Session>, ClientError> {
        let _alone = self.attesting.lock().await;
        let previous = self.state().session.clone();
        let is_refused = match (&previous, refused) {
            (Some(current), Some(refused)) => Arc::ptr_eq(current, refused),
            _ => false,
        };
        if is_refused {
            // Whatever comes of attesting again, nothing more is sealed to that key.
            self.state().session = None;
        }
        if let Some(session) = &previous {
            let usable = !is_refused && !self.state().outdated && session.accepted_until > unix_now();
            if usable {
                return Ok(Arc::clone(session));
            }
        }
        let base = self.url();
        let mut nonce = Nonce([0; 32]);
        getrandom::fill(&mut nonce.0).map_err(|err| ClientError::System { source: err.into() })?;
        let document = self.document(Some(&nonce)).await?;
        let session = Arc::new(Session::open(&document, &nonce, &self.policy, self.options.kem, unix_now())?);
        let mut state = self.state();
        // With another URL set meanwhile these keys are the wrong ones for the next call, though not for this one.
        if state.base.as_str() == base {
            state.session = Some(Arc::clone(&session));
            state.outdated = false;
            if previous.is_some() && !is_refused {
                state.rollovers += 1;
            }
        }
        Ok(session)
    }

    async fn document(&self, nonce: Option<&Nonce>) -> Result<Vec<u8>, ClientError> {
        let (base, transport) = {
            let state = self.state();
            (state.base.clone(), Arc::clone(&state.transport))
        };
        let query = nonce.map(|nonce| format!("?nonce={nonce}")).unwrap_or_default();
        let url = format!("{}/.well-known/confonnx/attestation{query}", base.as_str());
        transport.fetch(&url, MAX_DOCUMENT_BYTES).await
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let after = self.options.timeout;
        match tokio::time::timeout(after, work).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { url: self.url(), after }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and every field is valid at any time.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if state.process != process {
            // A forked copy: connections and the resumed session are its parent's, whom closing them would disturb.
            let fresh = Arc::new(state.transport.afresh());
            std::mem::forget(std::mem::replace(&mut state.transport, fresh));
            state.session = state.session.as_ref().map(|session| Arc::new(session.afresh()));
            state.process = process;
        }
        state
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Carries the owner's signature, inside the seal.
const OWNER_SIGNATURE: &str = "confonnx-owner-signature";

fn transport(base: &Base, options: &Options) -> Result<Transport, ClientError> {
    let relay = options.relay.as_deref().map(Base::parse).transpose()?;
    Transport::new(base, relay.as_ref(), options)
}

fn seal_failed(err: SealError) -> ClientError {
    ClientError::Seal { source: err.into() }
}

/// Whether another key may be all it takes. Keys of another set of models may by chance have the number of an old one, with
/// the same KEM or another.
fn may_be_the_key(code: &str) -> bool {
    matches!(code, "key-unknown" | "request-invalid" | "suite-unsupported")
}

fn unix_now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
}

/// A path segment (RFC 3986 section 2.1).
fn percent_encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// How often a call is repeated because the server's keys changed, each time with other keys: as models change, they may
/// change again meanwhile.
const MAX_RENEWALS: u32 = 4;
