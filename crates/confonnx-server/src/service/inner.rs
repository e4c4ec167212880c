//! The inner API: Open Inference Protocol v2, as `docs/protocol.md` section 5 says.

use std::{
    borrow::Cow,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, UNIX_EPOCH},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{ModelClaim, UnixTime};
use confonnx_engine::LoadedModel;
use confonnx_model::encrypted::KeyError;
use confonnx_protocol::{
    Draft,
    bhttp::{self, Fields, ResponseHead},
    oip::{ErrorBody, HEADER_LENGTH, InferRequest, InferResponse, ServerMetadata},
    resumption::{RESUMPTION_FIELD, RESUMPTION_OFFER, ResumptionGrant},
    server::Opened,
};
use confonnx_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroize;

use super::{Service, error::InnerError};
use crate::{
    audit::Trail,
    auth::{Action, Caller},
    group::JoinRequest,
    models::{Absent, Entry, Served, Set, UnlockError},
    random::rng,
};

/// A padded binary HTTP response, and how to count it.
pub(super) struct Answer {
    pub(super) message: Draft,
    pub(super) outcome: &'static str,
}

/// What an answer says of keys beside its content.
#[derive(Clone, Copy)]
pub(super) struct Notes {
    outdated: bool,
    session: Option<ResumptionGrant>,
}

impl Notes {
    pub(super) fn of(opened: &Opened) -> Self {
        Self { outdated: opened.outdated, session: None }
    }

    #[cfg(test)]
    pub(super) fn outdated() -> Self {
        Self { outdated: true, session: None }
    }

    /// Opens the session that the request offers, if it does.
    fn and_session(self, service: &Service, opened: &Opened, fields: &Fields) -> Self {
        if fields.get(RESUMPTION_FIELD) != Some(RESUMPTION_OFFER.as_bytes()) {
            return self;
        }
        let session = opened.grant_resumption(&mut rng());
        service.metrics.sessions.fetch_add(u64::from(session.is_some()), Relaxed);
        Self { session, ..self }
    }
}

/// Answers the request in `message`; errors are answers too. What may be written of it is left in `trail`.
pub(super) fn answer(service: &Service, opened: &Opened, set: &Set, trail: &mut Trail) -> Answer {
    respond(service, opened, set, trail).unwrap_or_else(|err| failure(&err, Notes::of(opened)))
}

/// The answer for `error`.
pub(super) fn failure(error: &InnerError, notes: Notes) -> Answer {
    let (status, code) = error.wire();
    let mut head = ResponseHead::new(status);
    match error {
        InnerError::DateOutOfWindow { now, .. } => {
            let date = UNIX_EPOCH.checked_add(Duration::from_secs(now.0)).unwrap_or(UNIX_EPOCH);
            head.fields.push("date", httpdate::fmt_http_date(date));
        }
        InnerError::Refused(refused) => {
            if let Some(challenge) = refused.challenge() {
                head.fields.push("www-authenticate", challenge);
            }
            if let Some(seconds) = refused.retry_after() {
                head.fields.push("retry-after", seconds.to_string());
            }
        }
        _ => {}
    }
    let body =
        serde_json::to_vec(&ErrorBody { error: error.to_string(), code: code.into() }).unwrap_or_default();
    // What is encoded here is all ours and always valid.
    let message = encode(head, "application/json", &[&body], notes).unwrap_or_else(|_| Draft::from(b""));
    Answer { message, outcome: code }
}

fn respond(service: &Service, opened: &Opened, set: &Set, trail: &mut Trail) -> Result<Answer, InnerError> {
    let message = opened.plaintext.expose();
    let (head, body) = bhttp::decode_request(message)?;
    check_date(opened, &head.fields)?;
    if let (Some(group), Some(asked)) = (&service.group, JoinRequest::of(&head.method, &head.path)) {
        // Whoever asks proves what it is by evidence, not by a token.
        trail.action = Some(asked.name());
        let answer = group.answer(asked, body.bytes(message))?;
        let head = ResponseHead::new(200);
        let message = encode(head, "application/octet-stream", &[&answer], Notes::of(opened))?;
        return Ok(Answer { message, outcome: "ok" });
    }
    let caller = service.auth.identify(head.fields.get("authorization"), opened.received())?;
    let caller = &*trail.caller.insert(caller);
    service.auth.admit(caller, Instant::now())?;
    let notes = Notes::of(opened).and_session(service, opened, &head.fields);
    let path = head.path.split('?').next().unwrap_or_default();
    let body = body.bytes(message);
    let resource = route(caller, path, &head.method)?;
    trail.action = Some(resource.name());
    trail.model = resource.model(set);
    let message = match resource {
        Resource::Server => json_answer(&server_metadata(), notes),
        Resource::Live => json_answer(&json!({ "live": true }), notes),
        Resource::Ready => match set.lacking() {
            Some(absent) if caller.may_see(absent.model()) => return Err(absent.clone().into()),
            Some(_) => return Err(InnerError::NotReady),
            None => json_answer(&json!({ "ready": true }), notes),
        },
        Resource::Index => json_answer(&index(set, caller, path, body)?, notes),
        Resource::Load(name) => {
            no_parameters(path, body, &[])?;
            service.models.load(name)?;
            json_answer(&json!({}), notes)
        }
        Resource::Unload(name) => {
            no_parameters(path, body, &["unload_dependents"])?;
            service.models.unload(name)?;
            json_answer(&json!({}), notes)
        }
        Resource::Model(asked) => {
            let mut metadata = served(set, caller, asked)?.metadata.clone();
            metadata.versions = set.versions(asked.name);
            json_answer(&metadata, notes)
        }
        Resource::ModelReady(asked) => {
            json_answer(&json!({ "name": served(set, caller, asked)?.metadata.name, "ready": true }), notes)
        }
        Resource::Infer(asked) => infer(service, served(set, caller, asked)?, &head.fields, body, notes),
        Resource::ModelKey(asked) => json_answer(&unlock(service, caller, asked, &head.fields, body)?, notes),
    }?;
    Ok(Answer { message, outcome: "ok" })
}

fn check_date(opened: &Opened, fields: &Fields) -> Result<(), InnerError> {
    let date = fields
        .get("date")
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|text| httpdate::parse_http_date(text).ok())
        .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
        .ok_or(InnerError::DateMissing)?;
    opened
        .check_date(UnixTime(date.as_secs()))
        .map_err(|refused| InnerError::DateOutOfWindow { window_s: refused.window, now: refused.now })
}

enum Resource<'p> {
    Server,
    Live,
    Ready,
    Index,
    Load(&'p str),
    Unload(&'p str),
    Model(Asked<'p>),
    ModelReady(Asked<'p>),
    Infer(Asked<'p>),
    ModelKey(Asked<'p>),
}

impl Resource<'_> {
    /// A fixed word for the log.
    fn name(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Index => "index",
            Self::Load(_) => "load",
            Self::Unload(_) => "unload",
            Self::Model(_) => "metadata",
            Self::ModelReady(_) => "model-ready",
            Self::Infer(_) => "infer",
            Self::ModelKey(_) => "unlock",
        }
    }

    /// Name and version of the model it is about, if that is there.
    fn model(&self, set: &Set) -> Option<(String, String)> {
        match *self {
            Self::Server | Self::Live | Self::Ready | Self::Index => None,
            Self::Load(name) | Self::Unload(name) => set.knows(name).then(|| (name.into(), String::new())),
            Self::Model(asked) | Self::ModelReady(asked) | Self::Infer(asked) => {
                let claim = set.find(asked.name, asked.version).ok()?.claim();
                Some((claim.name, claim.version))
            }
            Self::ModelKey(asked) => {
                let claim = set.find_locked(asked.name, asked.version).ok()?.claim();
                Some((claim.name, claim.version))
            }
        }
    }
}

/// The model that a path names.
#[derive(Clone, Copy)]
struct Asked<'p> {
    name: &'p str,
    version: Option<&'p str>,
}

/// Whether answering the request is likely to be brief, and waits for no other request.
pub(super) fn is_brief(opened: &Opened, set: &Set) -> bool {
    let Ok((head, _)) = bhttp::decode_request(opened.plaintext.expose()) else { return true };
    match resource(&head.path) {
        Some((Resource::Infer(asked), _)) => {
            match set.find(asked.name, asked.version).map(|slot| slot.served()) {
                Ok(Some(served)) => served.model.is_brief() && !served.puts_together(),
                _ => true,
            }
        }
        Some((Resource::Load(_) | Resource::Unload(_) | Resource::ModelKey(_), _)) => false,
        Some(_) => true,
        // Other servers join by paths that are no resources, with evidence to verify.
        None => false,
    }
}

fn route<'p>(caller: &Caller, path: &'p str, found: &str) -> Result<Resource<'p>, InnerError> {
    let (resource, method) = resource(path).ok_or_else(|| InnerError::NotFound { path: path.into() })?;
    // Before looking whether it is there: who may not use it does not learn that.
    match resource {
        Resource::Model(asked) | Resource::ModelReady(asked) | Resource::Infer(asked) => {
            caller.permit(Action::Infer, asked.name)?;
        }
        Resource::ModelKey(asked) => caller.permit(Action::Unlock, asked.name)?,
        Resource::Load(name) | Resource::Unload(name) => caller.permit(Action::Manage, name)?,
        Resource::Server | Resource::Live | Resource::Ready | Resource::Index => {}
    }
    if found != method {
        return Err(InnerError::Method { path: path.into(), expected: method, found: found.into() });
    }
    Ok(resource)
}

/// What is at `path`, and the method it takes.
fn resource(path: &str) -> Option<(Resource<'_>, &'static str)> {
    let path = path.split('?').next().unwrap_or_default();
    let mut segments: Vec<&str> = path.split('/').skip(1).collect();
    let mut asked = Asked { name: "", version: None };
    if let ["v2", "models", name, ..] = *segments.as_slice() {
        asked.name = name;
        segments.remove(2);
        if let ["v2", "models", "versions", version, ..] = *segments.as_slice() {
            asked.version = Some(version);
            segments.drain(2..4);
        }
    }
    Some(match segments.as_slice() {
        ["v2"] => (Resource::Server, "GET"),
        ["v2", "health", "live"] => (Resource::Live, "GET"),
        ["v2", "health", "ready"] => (Resource::Ready, "GET"),
        ["v2", "repository", "index"] => (Resource::Index, "POST"),
        ["v2", "repository", "models", name, "load"] => (Resource::Load(name), "POST"),
        ["v2", "repository", "models", name, "unload"] => (Resource::Unload(name), "POST"),
        ["v2", "models"] if !asked.name.is_empty() => (Resource::Model(asked), "GET"),
        ["v2", "models", "ready"] => (Resource::ModelReady(asked), "GET"),
        ["v2", "models", "infer"] => (Resource::Infer(asked), "POST"),
        ["v2", "models", "key"] => (Resource::ModelKey(asked), "POST"),
        _ => return None,
    })
}

fn served<'s>(set: &'s Set, caller: &Caller, asked: Asked<'_>) -> Result<&'s Served, InnerError> {
    let slot =
        set.find(asked.name, asked.version).map_err(|absent| absent.among(|name| caller.may_see(name)))?;
    slot.served().ok_or_else(|| {
        let ModelClaim { name: model, version, .. } = slot.claim();
        Absent::Locked { model, version }.into()
    })
}

/// Whether only what runs is to be listed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Filter {
    ready: bool,
}

fn index<'s>(set: &'s Set, caller: &Caller, path: &str, body: &[u8]) -> Result<Vec<&'s Entry>, InnerError> {
    let filter: Filter = match body {
        [] => Filter::default(),
        body => serde_json::from_slice(body)
            .map_err(|_| InnerError::Body { path: path.into(), expected: "{\"ready\": true or false}" })?,
    };
    let listed = |entry: &&Entry| caller.may_see(&entry.name) && (entry.is_ready() || !filter.ready);
    Ok(set.index().iter().filter(listed).collect())
}

/// Parameters change nothing here, so none may be given but those that are `harmless`.
fn no_parameters(path: &str, body: &[u8], harmless: &[&str]) -> Result<(), InnerError> {
    let wrong = |expected| InnerError::Body { path: path.into(), expected };
    if body.is_empty() {
        return Ok(());
    }
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| wrong("a JSON object"))?;
    match body.get("parameters") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(given)) if given.keys().all(|name| harmless.contains(&name.as_str())) => Ok(()),
        Some(_) => Err(wrong("no parameters: a model is loaded as it is in the repository")),
    }
}

fn infer(
    service: &Service,
    served: &Served,
    fields: &Fields,
    body: &[u8],
    notes: Notes,
) -> Result<Draft, InnerError> {
    let json_len = match fields.get(HEADER_LENGTH) {
        None => None,
        Some(value) => {
            let digits =
                std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            Some(digits.and_then(|text| text.parse().ok()).ok_or(InnerError::HeaderLength)?)
        }
    };
    let mut request = InferRequest::decode(body, json_len).map_err(InnerError::Request)?;
    let inputs = Scrubbed(std::mem::take(&mut request.inputs));
    let wanted: Vec<String> = request.outputs.iter().map(|output| output.name.clone()).collect();
    let run = if service.metrics.at_once() > 1 { LoadedModel::run } else { LoadedModel::run_alone };
    let outputs = run(&served.model, &inputs.0, &wanted)?;
    drop(inputs);
    let response = InferResponse {
        model_name: served.metadata.name.clone(),
        model_version: Some(served.claim.version.clone()),
        id: request.id.take(),
        outputs,
    };
    let message = {
        let encoded = response.encode(|name| request.wants_binary(name)).map_err(InnerError::Answer)?;
        let mut head = ResponseHead::new(200);
        if let Some(len) = encoded.json_len() {
            head.fields.push(HEADER_LENGTH, len.to_string());
        }
        encode(head, encoded.content_type(), &encoded.parts(), notes)
    };
    drop(Scrubbed(response.outputs));
    message
}

/// Opens the model with the key in `body`, as a key file holds it; the claim it then has.
fn unlock(
    service: &Service,
    caller: &Caller,
    asked: Asked<'_>,
    fields: &Fields,
    body: &[u8],
) -> Result<ModelClaim, InnerError> {
    let key = std::str::from_utf8(body).map_err(|_| KeyError::NoKey).and_then(str::parse)?;
    let signature = fields.get(OWNER_SIGNATURE).and_then(|value| std::str::from_utf8(value).ok());
    // What is no signature verifies as none.
    let signature = signature.and_then(|text| Base64UrlUnpadded::decode_vec(text).ok()).unwrap_or_default();
    service.models.unlock(asked.name, asked.version, &key, &signature).map_err(|err| match err {
        UnlockError::Absent(absent) => absent.among(|name| caller.may_see(name)).into(),
        err => err.into(),
    })
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

/// Carries the signature of the model's owner, base64url.
const OWNER_SIGNATURE: &str = "confonnx-owner-signature";

fn server_metadata() -> ServerMetadata {
    ServerMetadata {
        name: "confonnx".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        extensions: vec!["binary_tensor_data".into(), "model_repository".into()],
    }
}

fn json_answer(body: &impl Serialize, notes: Notes) -> Result<Draft, InnerError> {
    // Strings, numbers and string-keyed maps only: serializing them cannot fail.
    let body = serde_json::to_vec(body).unwrap_or_default();
    encode(ResponseHead::new(200), "application/json", &[&body], notes)
}

fn encode(
    mut head: ResponseHead,
    content_type: &str,
    parts: &[&[u8]],
    notes: Notes,
) -> Result<Draft, InnerError> {
    head.fields.push("confonnx-key", if notes.outdated { "outdated" } else { "current" });
    if let Some(grant) = notes.session {
        head.fields.push(RESUMPTION_FIELD, grant.to_string());
    }
    head.fields.push("content-type", content_type);
    Draft::response(&head, parts).map_err(InnerError::Unsendable)
}
