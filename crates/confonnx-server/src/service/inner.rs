//! The inner API: Open Inference Protocol v2, as `docs/protocol.md` section 5 says.

use std::{
    borrow::Cow,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, UNIX_EPOCH},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{ModelClaim, UnixTime};
use confonnx_model::encrypted::KeyError;
use confonnx_protocol::{
    Draft,
    bhttp::{self, Fields, RequestHead, ResponseHead},
    oip::{ErrorBody, HEADER_LENGTH, InferRequest, InferResponse, ServerMetadata},
    server::Opened,
    session::{SESSION_FIELD, SESSION_OFFER, SessionGrant},
};
use confonnx_tensor::Tensor;
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroize;

use super::{Service, error::InnerError};
use crate::{
    audit::Trail,
    auth::{Action, Caller},
    keys::rng,
    models::{Served, VERSION},
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
    session: Option<SessionGrant>,
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
        if fields.get(SESSION_FIELD) != Some(SESSION_OFFER.as_bytes()) {
            return self;
        }
        let session = opened.grant_session(&mut rng());
        service.metrics.sessions.fetch_add(u64::from(session.is_some()), Relaxed);
        Self { session, ..self }
    }
}

/// Answers the request in `message`; errors are answers too. What may be written of it is left in `trail`.
pub(super) fn answer(service: &Service, opened: &Opened, trail: &mut Trail) -> Answer {
    respond(service, opened, trail).unwrap_or_else(|err| failure(&err, Notes::of(opened)))
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

fn respond(service: &Service, opened: &Opened, trail: &mut Trail) -> Result<Answer, InnerError> {
    let message = opened.plaintext.expose();
    let (head, body) = bhttp::decode_request(message)?;
    check_date(opened, &head.fields)?;
    let caller = service.auth.identify(head.fields.get("authorization"), opened.received())?;
    let caller = &*trail.caller.insert(caller);
    service.auth.admit(caller, Instant::now())?;
    let notes = Notes::of(opened).and_session(service, opened, &head.fields);
    let model = || {
        let locked = || InnerError::Locked { model: service.slot.name().into() };
        service.slot.served().ok_or_else(locked)
    };
    let resource = route(service, caller, &head)?;
    trail.action = Some(resource.name());
    if resource.is_of_a_model() {
        trail.model = Some((service.slot.name().into(), VERSION.into()));
    }
    let message = match resource {
        Resource::Server => json_answer(&server_metadata(), notes),
        Resource::Live => json_answer(&json!({ "live": true }), notes),
        Resource::Ready => model().and_then(|_| json_answer(&json!({ "ready": true }), notes)),
        Resource::Model => json_answer(&model()?.metadata, notes),
        Resource::ModelReady => json_answer(&json!({ "name": model()?.metadata.name, "ready": true }), notes),
        Resource::Infer => infer(model()?.as_ref(), &head.fields, body.bytes(message), notes),
        Resource::ModelKey => json_answer(&unlock(service, &head.fields, body.bytes(message))?, notes),
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

enum Resource {
    Server,
    Live,
    Ready,
    Model,
    ModelReady,
    Infer,
    ModelKey,
}

impl Resource {
    /// A fixed word for the log.
    fn name(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Model => "metadata",
            Self::ModelReady => "model-ready",
            Self::Infer => "infer",
            Self::ModelKey => "unlock",
        }
    }

    fn is_of_a_model(&self) -> bool {
        matches!(self, Self::Model | Self::ModelReady | Self::Infer | Self::ModelKey)
    }
}

fn route(service: &Service, caller: &Caller, head: &RequestHead) -> Result<Resource, InnerError> {
    let path = head.path.split('?').next().unwrap_or_default();
    let mut segments: Vec<&str> = path.split('/').skip(1).collect();
    let model = service.slot.name();
    if let ["v2", "models", name, rest @ ..] = segments.as_slice() {
        let (version, rest) = match rest {
            ["versions", version, rest @ ..] => (*version, rest),
            rest => (VERSION, rest),
        };
        // Before looking whether it is there: who may not use it does not learn that.
        let action = if rest == ["key"] { Action::Unlock } else { Action::Infer };
        caller.permit(action, name)?;
        if *name != model || version != VERSION {
            let (name, version) = ((*name).into(), version.into());
            let there = caller.may_see(model).then(|| model.into());
            return Err(InnerError::Model { name, version, there, expected: VERSION });
        }
        let rest = rest.to_vec();
        segments = vec!["v2", "models", ""];
        segments.extend(rest);
    }
    let (resource, method) = match segments.as_slice() {
        ["v2"] => (Resource::Server, "GET"),
        ["v2", "health", "live"] => (Resource::Live, "GET"),
        ["v2", "health", "ready"] => (Resource::Ready, "GET"),
        ["v2", "models", ""] => (Resource::Model, "GET"),
        ["v2", "models", "", "ready"] => (Resource::ModelReady, "GET"),
        ["v2", "models", "", "infer"] => (Resource::Infer, "POST"),
        ["v2", "models", "", "key"] => (Resource::ModelKey, "POST"),
        _ => {
            let model = if caller.may_see(model) { model } else { "{model}" };
            return Err(InnerError::NotFound { path: path.into(), model: model.into() });
        }
    };
    if head.method != method {
        return Err(InnerError::Method { path: path.into(), expected: method, found: head.method.clone() });
    }
    Ok(resource)
}

fn infer(served: &Served, fields: &Fields, body: &[u8], notes: Notes) -> Result<Draft, InnerError> {
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
    let outputs = served.model.run(&inputs.0, &wanted)?;
    drop(inputs);
    let response = InferResponse {
        model_name: served.metadata.name.clone(),
        model_version: Some(VERSION.into()),
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
fn unlock(service: &Service, fields: &Fields, body: &[u8]) -> Result<ModelClaim, InnerError> {
    let key = std::str::from_utf8(body).map_err(|_| KeyError::NoKey).and_then(str::parse)?;
    let signature = fields.get(OWNER_SIGNATURE).and_then(|value| std::str::from_utf8(value).ok());
    // What is no signature verifies as none.
    let signature = signature.and_then(|text| Base64UrlUnpadded::decode_vec(text).ok()).unwrap_or_default();
    Ok(service.unlock(&key, &signature)?)
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
        extensions: vec!["binary_tensor_data".into()],
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
        head.fields.push(SESSION_FIELD, grant.to_string());
    }
    head.fields.push("content-type", content_type);
    Draft::response(&head, parts).map_err(InnerError::Unsendable)
}
