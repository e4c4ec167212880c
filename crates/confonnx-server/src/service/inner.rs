//! The inner API (`docs/protocol.md`, section 5): resources are rows of one table, each with what it takes to be let in.
//!
//! A family of resources is a file or folder of this one: its rows, what they do, and how their errors travel. To add one
//! is to write it and to name its rows in [`FAMILIES`].

mod embeddings;
mod group;
mod oip;
mod openai;
mod plan;
mod repository;
mod unlock;

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, UNIX_EPOCH},
};

use confonnx_attest::UnixTime;
use confonnx_engine::{InferError, LoadedModel, Running};
use confonnx_protocol::{
    Draft,
    bhttp::{Fields, RequestHead, ResponseHead},
    oip::ErrorBody,
    resumption::{RESUMPTION_FIELD, RESUMPTION_OFFER, ResumptionGrant},
    server::{DateOutOfWindow, Opened},
};
use confonnx_tensor::{Erased, Tensor};
use serde::Serialize;

use super::{Service, error::InnerError, stream::Stream};
use crate::{
    audit::Trail,
    auth::{Action, Caller},
    embedding::Tensors,
    models::{Absent, Served, Set},
    random::rng,
};
use plan::Asked;

pub use plan::Place;
pub(super) use plan::Plan;

/// Every resource, the most wanted first.
const FAMILIES: [&[Row]; 6] =
    [oip::ROWS, openai::ROWS, embeddings::ROWS, repository::ROWS, unlock::ROWS, group::ROWS];

/// A resource: where it is, who may use it, what it is about and what it does.
pub(super) struct Row {
    /// A fixed word: the action in the audit log.
    name: &'static str,
    method: &'static str,
    /// `{model}` and `{version}` stand for one segment each.
    paths: &'static [&'static str],
    lets_in: LetsIn,
    pub(super) subject: Subject,
    pub(super) runs: Runs,
    answer: fn(&Call<'_>) -> Result<Answer, InnerError>,
}

/// Whom a resource is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LetsIn {
    /// Every caller, known by a token where that is demanded.
    Callers,
    /// Those who may do this, with the model that is named. Asked before looking whether the model is there: who may not
    /// use it does not learn that.
    Those(Action),
    /// Other servers of a group, which prove by evidence what they are and have no token. There only where a group is.
    Peers,
}

/// Which model a resource is about.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    /// The resource is about no model.
    Nothing,
    /// The path names one that may be there or not.
    Name,
    /// The one that the path names and that is served.
    Served,
    /// The one that the path names and that is locked.
    Locked,
    /// The one that the body names.
    InBody(fn(&[u8]) -> Option<String>),
}

/// How long answering takes, for whoever has to find a thread for it.
#[derive(Clone, Copy)]
pub(super) enum Runs {
    /// Too brief to be worth a thread of its own.
    Briefly,
    /// As long as the model's run.
    Model,
    /// Long, or waits for others.
    Long,
}

/// A request that was let in, and what is there to answer it with.
struct Call<'c> {
    service: &'c Service,
    set: &'c Set,
    caller: &'c Caller,
    fields: &'c Fields,
    /// The path without its query.
    path: &'c str,
    body: &'c [u8],
    model: &'c Asked,
    /// When the request was received.
    received: UnixTime,
    /// The model, if it is there and runs.
    served: Option<&'c Served>,
    /// Where the model runs.
    place: Cell<Place>,
    notes: Notes,
}

/// An answer, and how to count it.
pub(super) struct Answer {
    pub(super) content: Content,
    pub(super) outcome: &'static str,
}

/// The content that is to be sealed.
pub(super) enum Content {
    /// Padded binary HTTP.
    Whole(Draft),
    /// Its content is made by what is called with the stream that takes it, and that may hand it to another thread.
    Made(ResponseHead, Box<dyn FnOnce(Stream) + Send>),
    /// As `Whole`, of what the model that runs will answer.
    Later(Running, Encode),
    /// As `Later`, of several runs.
    Series(Box<dyn Series>),
}

/// Runs of a model in its own process, one after another, for one answer. Nobody has a thread while they run.
pub(super) trait Series: Send {
    /// The model that runs.
    fn model(&self) -> &Arc<LoadedModel>;
    /// The tensors of the next run and the outputs that are wanted; none after the last run.
    fn next(&self) -> Option<(Erased<Tensors>, Vec<String>)>;
    /// What the model gave.
    ///
    /// # Errors
    /// [`InferError`]: this ends it.
    fn take(&mut self, answer: Tensors) -> Result<(), InferError>;
    /// About how many bytes the answer has.
    fn bytes(&self) -> u64;
    /// The answer.
    ///
    /// # Errors
    /// Why there is none.
    fn finish(self: Box<Self>, outcome: Result<(), InferError>) -> Result<Draft, InnerError>;
}

/// Makes an answer of what a model's is.
pub(super) type Encode =
    Box<dyn FnOnce(Result<Vec<(String, Tensor<'static>)>, InferError>) -> Result<Draft, InnerError> + Send>;

/// What an answer says of keys beside its content.
#[derive(Clone, Copy)]
pub(super) struct Notes {
    outdated: bool,
    resumption: Option<ResumptionGrant>,
}

impl Notes {
    pub(super) fn of(outdated: bool) -> Self {
        Self { outdated, resumption: None }
    }

    /// Opens the resumption that the request offers, if it does.
    fn and_resumption(self, service: &Service, opened: &Opened, fields: &Fields) -> Self {
        if fields.get(RESUMPTION_FIELD) != Some(RESUMPTION_OFFER.as_bytes()) {
            return self;
        }
        let resumption = opened.grant_resumption(&mut rng());
        service.metrics.resumptions.fetch_add(u64::from(resumption.is_some()), Relaxed);
        Self { resumption, ..self }
    }
}

/// The row for a request, and the model that its path names.
pub(super) fn route(service: &Service, head: &RequestHead) -> Option<(&'static Row, Asked)> {
    let path = without_query(&head.path);
    let mut other = None;
    for row in FAMILIES.iter().copied().flatten() {
        let Some(asked) = row.paths.iter().find_map(|pattern| matched(pattern, path)) else { continue };
        if row.method == head.method {
            return (row.lets_in != LetsIn::Peers || service.group.is_some()).then_some((row, asked));
        }
        // Resources that are only for peers are not there for others.
        if row.lets_in != LetsIn::Peers {
            other.get_or_insert((row, asked));
        }
    }
    other
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

fn matched(pattern: &str, path: &str) -> Option<Asked> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut asked = Asked::default();
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(asked),
            (Some("{model}"), Some(name)) if !name.is_empty() => asked.name = name.into(),
            (Some("{version}"), Some(version)) => asked.version = Some(version.into()),
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return None,
        }
    }
}

/// Who asks what `plan` says, in a request that was received at `received` and whose `date` is for `in_time` to judge.
///
/// # Errors
/// Nobody who is served, or not now: nothing may come of it.
pub(super) fn let_in(
    service: &Service,
    plan: &Plan,
    received: UnixTime,
    in_time: impl FnOnce(UnixTime) -> Result<(), DateOutOfWindow>,
) -> Result<Caller, InnerError> {
    let asks = plan.asks.as_ref().map_err(|err| InnerError::Message(err.clone()))?;
    let fields = &asks.head.fields;
    in_time(date(fields)?)
        .map_err(|refused| InnerError::DateOutOfWindow { window_s: refused.window, now: refused.now })?;
    if asks.row.is_some_and(|row| row.lets_in == LetsIn::Peers) {
        return Ok(Caller::peer());
    }
    Ok(service.auth().identify(fields.get("authorization"), received)?)
}

/// Whether `caller` may do what `plan` says, and not too often. This counts.
///
/// # Errors
/// Why not.
pub(super) fn permit(service: &Service, caller: &Caller, plan: &Plan) -> Result<(), InnerError> {
    let Some((asks, row)) = plan.asks.as_ref().ok().map(|asks| (asks, asks.row)) else { return Ok(()) };
    if row.is_none_or(|row| row.lets_in != LetsIn::Peers) {
        service.auth().admit(caller, Instant::now())?;
    }
    if let Some(LetsIn::Those(action)) = row.map(|row| row.lets_in) {
        caller.permit(action, &asks.model.name)?;
    }
    Ok(())
}

/// Answers the request that `plan` is of, by a caller who may; errors are answers too. What may be written of it is left in
/// `trail`.
pub(super) fn answer(
    service: &Service,
    caller: &Caller,
    opened: &Opened,
    plan: &Plan,
    place: Place,
    trail: &mut Trail,
) -> Answer {
    respond(service, caller, opened, plan, place, trail)
        .unwrap_or_else(|err| failure(&err, Notes::of(opened.outdated)))
}

fn respond(
    service: &Service,
    caller: &Caller,
    opened: &Opened,
    plan: &Plan,
    place: Place,
    trail: &mut Trail,
) -> Result<Answer, InnerError> {
    let asks = plan.asks.as_ref().map_err(|err| InnerError::Message(err.clone()))?;
    let (head, path) = (&asks.head, without_query(&asks.head.path));
    let caller = &*trail.caller.insert(caller.clone());
    let mut notes = Notes::of(opened.outdated);
    if asks.row.is_none_or(|row| row.lets_in != LetsIn::Peers) {
        notes = notes.and_resumption(service, opened, &head.fields);
    }
    let row = asks.row.ok_or_else(|| InnerError::NotFound { path: path.into() })?;
    if head.method != row.method {
        let (expected, found) = (row.method, head.method.clone());
        return Err(InnerError::Method { path: path.into(), expected, found });
    }
    trail.action = Some(row.name);
    if let Some(Served { claim, .. }) = plan.model()
        && service.metrics.by_model.load(Relaxed)
    {
        service.metrics.count_run(&claim.name, &claim.version);
    }
    trail.model = match row.subject {
        Subject::Nothing => None,
        Subject::Name => plan.set.knows(&asks.model.name).then(|| (asks.model.name.clone(), String::new())),
        _ => asks.slot.as_ref().map(|slot| slot.claim()).map(|claim| (claim.name, claim.version)),
    };
    (row.answer)(&Call {
        service,
        set: &plan.set,
        caller,
        fields: &head.fields,
        path,
        body: asks.body.bytes(opened.plaintext.expose()),
        model: &asks.model,
        received: opened.received(),
        served: asks.slot.as_ref().and_then(|slot| slot.served()),
        place: Cell::new(place),
        notes,
    })
}

fn date(fields: &Fields) -> Result<UnixTime, InnerError> {
    fields
        .get("date")
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|text| httpdate::parse_http_date(text).ok())
        .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
        .map(|since| UnixTime(since.as_secs()))
        .ok_or(InnerError::DateMissing)
}

impl<'c> Call<'c> {
    /// The model to run.
    ///
    /// # Errors
    /// [`Absent`], which names no models that the caller may not see.
    fn served(&self) -> Result<&'c Served, InnerError> {
        self.served.ok_or_else(|| {
            let absent = match self.set.find(&self.model.name, self.model.version.as_deref()) {
                Err(absent) => absent.among(|name| self.caller.may_see(name)),
                Ok(locked) => {
                    let claim = locked.claim();
                    Absent::Locked { model: claim.name, version: claim.version }
                }
            };
            absent.into()
        })
    }

    /// An answer of JSON.
    fn json(&self, body: &impl Serialize) -> Result<Answer, InnerError> {
        // Strings, numbers and string-keyed maps only: serializing them cannot fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.reply(ResponseHead::new(200), "application/json", &[&body])
    }

    /// An answer of any type, its body joined from `parts`.
    fn reply(&self, head: ResponseHead, content_type: &str, parts: &[&[u8]]) -> Result<Answer, InnerError> {
        let content = Content::Whole(encode(head, content_type, parts, self.notes)?);
        Ok(Answer { content, outcome: "ok" })
    }

    /// An answer that `make` makes piece by piece, once this has returned: it gets the stream to keep and to finish.
    fn stream(&self, content_type: &str, make: impl FnOnce(Stream) + Send + 'static) -> Answer {
        let head = with_notes(ResponseHead::new(200), content_type, self.notes);
        Answer { content: Content::Made(head, Box::new(make)), outcome: "ok" }
    }
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
        }
        _ => {}
    }
    let retry_after = match error {
        InnerError::Refused(refused) => refused.retry_after(),
        InnerError::Resource(error) => error.retry_after(),
        _ => None,
    };
    if let Some(seconds) = retry_after {
        head.fields.push("retry-after", seconds.to_string());
    }
    let own = match error {
        InnerError::Resource(error) => error.body().map(|body| body.to_string().into_bytes()),
        _ => None,
    };
    let plain = || serde_json::to_vec(&ErrorBody { error: error.to_string(), code: code.into() });
    let body = own.unwrap_or_else(|| plain().unwrap_or_default());
    // This message is all ours and always valid, so encoding it cannot fail.
    let message = encode(head, "application/json", &[&body], notes).unwrap_or_else(|_| Draft::from(b""));
    Answer { content: Content::Whole(message), outcome: code }
}

fn encode(
    head: ResponseHead,
    content_type: &str,
    parts: &[&[u8]],
    notes: Notes,
) -> Result<Draft, InnerError> {
    Draft::response(&with_notes(head, content_type, notes), parts).map_err(InnerError::Unsendable)
}

fn with_notes(mut head: ResponseHead, content_type: &str, notes: Notes) -> ResponseHead {
    head.fields.push("confonnx-key", if notes.outdated { "outdated" } else { "current" });
    if let Some(grant) = notes.resumption {
        head.fields.push(RESUMPTION_FIELD, grant.to_string());
    }
    head.fields.push("content-type", content_type);
    head
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn asked(name: &str, version: Option<&str>) -> Asked {
        Asked { name: name.into(), version: version.map(Into::into) }
    }

    #[test]
    fn patterns_stand_for_whole_segments() {
        let with_version = "/v2/models/{model}/versions/{version}/infer";
        assert_eq!(matched(with_version, "/v2/models/a/versions/3/infer"), Some(asked("a", Some("3"))));
        assert_eq!(matched("/v2/models/{model}", "/v2/models/versions"), Some(asked("versions", None)));
        assert_eq!(matched("/v2", "/v2"), Some(asked("", None)));
        for path in
            ["/v2/models/", "/v2/models/a/", "/v2/models/a/b", "v2/models/a", "/v2/models", "//v2", ""]
        {
            assert_eq!(matched("/v2/models/{model}", path), None, "{path}");
        }
    }

    #[test]
    fn no_two_rows_have_a_name_or_a_place_in_common() {
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for row in FAMILIES.iter().copied().flatten() {
            assert!(names.insert(row.name), "{}", row.name);
            assert!(!row.paths.is_empty(), "{}", row.name);
            for path in row.paths {
                assert!(places.insert((row.method, *path)), "{path}");
            }
        }
    }
}
