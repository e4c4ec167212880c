//! What happens between open and seal; the only module that sees plaintext.

mod error;
mod inner;
mod stream;

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, PoisonError, RwLock, atomic::Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use confonnx_attest::{ModelClaim, UnixTime};
use confonnx_engine::{Answered, InferError, Running};
use confonnx_model::encrypted::ModelKey;
use confonnx_protocol::{
    Code, Draft, Incoming,
    bhttp::ResponseHead,
    server::{Authentic, ChunkedOpener, ChunkedReply, KeyRing, OpenError, Opened, Reply},
};

use crate::{
    audit::{Audit, Trail, Wire},
    auth::{Auth, Caller},
    body::Body,
    clock,
    group::Group,
    keys::{Keys, expiry},
    metrics::{Family, Metrics},
    models::{Models, Set, UnlockError},
    random::rng,
};
use error::InnerError;
use inner::{Answer, Content, Encode, Notes, Plan, Series};
use stream::{NotTaken, Stream};

pub use inner::Place;

/// Opens requests, answers them, seals the answers.
pub struct Service {
    keys: Arc<Keys>,
    models: Arc<Models>,
    auth: RwLock<Arc<Auth>>,
    audit: Option<Arc<Audit>>,
    /// Whom others join by this server.
    group: Option<Arc<Group>>,
    metrics: Arc<Metrics>,
}

/// A sealed reply, and how to count it: the inner error code, or `ok`.
pub struct Sealed {
    /// What to send.
    pub reply: Body,
    /// A fixed word.
    pub outcome: &'static str,
}

/// How far a request is.
#[expect(clippy::large_enum_variant, reason = "one for each request, and none is kept")]
pub enum Step {
    /// The request's reply, which carries all errors but one: that nothing could be sealed.
    Done(Result<Sealed, Code>),
    /// The request's model runs.
    Later(Going),
}

/// A request whose model runs. Dropped, the model is told to stop.
pub struct Going {
    work: Work,
    /// Whether no other request is there.
    alone: bool,
    rest: Rest,
}

#[expect(clippy::large_enum_variant, reason = "one for each request, and none is kept")]
enum Work {
    Once(Running, Encode),
    Series(Box<dyn Series>),
}

/// A request whose model has run.
pub struct Ran {
    done: Done,
    rest: Rest,
}

enum Done {
    Once(Answered, Encode),
    Series(Box<dyn Series>, Result<(), InferError>),
}

/// The rest of the work, when the model has run.
struct Rest {
    reply: ReplyTo,
    record: Option<Record>,
    notes: Notes,
    start: Instant,
}

impl Going {
    /// Waits until the model has run, or it is known that it will not.
    pub async fn answered(self) -> Ran {
        let Self { work, alone, rest } = self;
        let done = match work {
            Work::Once(running, encode) => Done::Once(running.answered().await, encode),
            Work::Series(mut series) => {
                let outcome = each(&mut *series, alone).await;
                Done::Series(series, outcome)
            }
        };
        Ran { done, rest }
    }
}

impl Ran {
    /// How many bytes the answer's tensors have.
    pub fn bytes(&self) -> u64 {
        match &self.done {
            Done::Once(answered, _) => answered.bytes(),
            Done::Series(series, _) => series.bytes(),
        }
    }
}

/// Runs all of them. A lane of the model is held for one run, so that others have theirs in between.
async fn each(series: &mut dyn Series, alone: bool) -> Result<(), InferError> {
    while let Some((inputs, wanted)) = series.next() {
        let Some(reserved) = series.model().reserve().await? else { return Err(InferError::Restarting) };
        let running = reserved.run(&inputs, &wanted, alone)?;
        drop(inputs);
        let answer = running.answered().await.read()?;
        series.take(answer)?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A chunked request that is still arriving.
pub struct Receiving {
    opener: ChunkedOpener<Ring>,
    /// How many bytes were received so far.
    received: usize,
    service: Arc<Service>,
}

/// The ring, for what outlives a borrow of the service.
struct Ring(Arc<Keys>);

impl Deref for Ring {
    type Target = KeyRing;

    fn deref(&self) -> &KeyRing {
        self.0.ring()
    }
}

/// A request that was received whole, and opened.
pub struct Received {
    asked: Asked,
    reply: ReplyTo,
    received: usize,
    plan: Plan,
}

/// Who asked for something.
enum Asked {
    /// A caller who was let in, and who may; the request is remembered.
    By(Caller, Opened),
    /// A caller who was let in and may not, or not now; the request is remembered.
    Refused(InnerError, Caller, Opened),
    /// Somebody who was not let in. The request takes no place that a caller's could have.
    ByNobody(InnerError, Authentic),
    /// Somebody who was not let in, in a request that was resumed.
    ByNobodyAgain(InnerError, Opened),
}

/// A request that was answered. Dropping erases it, for which its caller need not wait.
pub struct Spent {
    _asked: Asked,
}

/// What is to be written down of a request, once its answer is there.
struct Record {
    audit: Arc<Audit>,
    trail: Trail,
    id: String,
    received: usize,
    time: UnixTime,
}

enum ReplyTo {
    Whole(Reply),
    Chunked(ChunkedReply),
}

impl Service {
    /// A service for those models.
    pub fn new(
        keys: Arc<Keys>,
        models: Arc<Models>,
        auth: Auth,
        audit: Option<Arc<Audit>>,
        group: Option<Arc<Group>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let auth = RwLock::new(Arc::new(auth));
        Self { keys, models, auth, audit, group, metrics }
    }

    /// From now on `auth` says who may ask. Requests that were opened go by what was said before.
    pub fn admit_by(&self, auth: Auth) {
        let auth = Arc::new(auth);
        self.keys.admit_by(auth.claim(), || {
            *self.auth.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&auth);
        });
    }

    fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.auth.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Unlocks with `key` every model that is locked. Blocks while they load.
    ///
    /// # Errors
    /// Why one of them still is.
    pub fn unlock_all(&self, key: &ModelKey) -> Result<(), UnlockError> {
        let locked = self.models.current().claims().into_iter().filter(|claim| claim.sha256.is_none());
        let unlock = |ModelClaim { name, version, .. }| self.models.unlock_patiently(&name, &version, key);
        // Every model is tried, whatever becomes of the others.
        let results: Vec<_> = locked.map(unlock).collect();
        results.into_iter().collect()
    }

    /// Whether there are keys to open requests with.
    pub fn is_ready(&self) -> bool {
        self.keys.are_there()
    }

    /// The counters of what became of models, their processes and the keys.
    pub fn samples(&self) -> Vec<Family> {
        let mut samples = self.keys.set().samples();
        samples.push(expiry(self.keys.ring().current().map(|epoch| epoch.not_after)));
        samples
    }

    /// Whether the key of that identifier can open requests; looks where keys come from if it is not known.
    pub async fn knows_key(&self, id: u8) -> bool {
        let known = || self.keys.ring().knows(id, clock::now());
        if known() {
            return true;
        }
        self.keys.catch_up().await;
        known()
    }

    /// Whether the resumption that a request names, which begins so, is known; `None` while that cannot be said yet.
    pub fn knows_resumption(&self, begin: &[u8]) -> Option<bool> {
        self.keys.ring().knows_resumption(begin, clock::now())
    }

    /// Why there are no new keys.
    pub fn trouble(&self) -> Option<String> {
        self.keys.trouble()
    }

    /// What keeps models from being served that should be.
    pub fn lacking(&self) -> Option<String> {
        self.models.trouble()
    }

    /// Opens a sealed request.
    ///
    /// # Errors
    /// The code of the answer when it cannot be opened.
    pub fn open(&self, sealed: Incoming) -> Result<Received, Code> {
        self.open_by(sealed, |ring, sealed, set| {
            let now = clock::now();
            let (authentic, reply) = ring.open_unremembered(sealed, now)?;
            let (plan, asked) = self.let_in(authentic, set, now)?;
            Ok((plan, asked, reply))
        })
    }

    /// Opens a request that is sealed by what an earlier one resumed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_resumed(&self, sealed: Incoming) -> Result<Received, Code> {
        let received = self.open_by(sealed, |ring, sealed, set| {
            let (opened, reply) = ring.open_resumed(sealed, clock::now())?;
            let plan = Plan::of(self, opened.plaintext.expose(), set);
            let asked = match inner::let_in(self, &plan, opened.received(), |date| opened.check_date(date)) {
                Ok(caller) => self.permitted(caller, opened, &plan),
                Err(why) => Asked::ByNobodyAgain(why, opened),
            };
            Ok((plan, asked, reply))
        })?;
        self.metrics.resumed.fetch_add(1, Relaxed);
        Ok(received)
    }

    fn open_by(
        &self,
        sealed: Incoming,
        open: impl FnOnce(&KeyRing, Incoming, Arc<Set>) -> Result<(Plan, Asked, Reply), OpenError>,
    ) -> Result<Received, Code> {
        let (start, received) = (Instant::now(), sealed.len());
        self.metrics.received_bytes.fetch_add(received as u64, Relaxed);
        let steady = self.keys.steady();
        let (plan, asked, reply) = open(self.keys.ring(), sealed, steady.set()).map_err(|err| err.code())?;
        drop(steady);
        self.metrics.open.record(start.elapsed());
        Ok(Received { asked, reply: ReplyTo::Whole(reply), received, plan })
    }

    /// What an authentic request asks and who does. It is remembered if that is a caller: else nothing will come of it,
    /// however often it is sent.
    fn let_in(&self, authentic: Authentic, set: Arc<Set>, now: UnixTime) -> Result<(Plan, Asked), OpenError> {
        let plan = Plan::of(self, authentic.plaintext().expose(), set);
        let caller = inner::let_in(self, &plan, authentic.received(), |date| authentic.check_date(date));
        let asked = match caller {
            Ok(caller) => {
                let opened = authentic.remember(self.keys.ring(), now)?;
                self.permitted(caller, opened, &plan)
            }
            Err(why) => Asked::ByNobody(why, authentic),
        };
        Ok((plan, asked))
    }

    /// Whether `caller` may do what `plan` says, as often as that. It is asked before anything is waited for: who may not
    /// takes no lane of a model that others could have.
    fn permitted(&self, caller: Caller, opened: Opened, plan: &Plan) -> Asked {
        match inner::permit(self, &caller, plan) {
            Ok(()) => Asked::By(caller, opened),
            Err(why) => Asked::Refused(why, caller, opened),
        }
    }

    /// Begins a chunked request of at most `limit` bytes, sealed.
    pub fn receive(self: &Arc<Self>, limit: usize) -> Receiving {
        let opener = ChunkedOpener::new(Ring(Arc::clone(&self.keys)), limit);
        Receiving { opener, received: 0, service: Arc::clone(self) }
    }

    /// The sealed reply to a request, called `id` in the audit log, and what is left of the request. Its model runs at
    /// `place`; if there is none, and in this process, this blocks meanwhile.
    pub fn answer(&self, received: Received, id: &str, place: Place) -> (Step, Spent) {
        let Received { asked, reply, received, plan } = received;
        let (start, mut trail, alone) = (Instant::now(), Trail::default(), place.alone);
        let notes = Notes::of(asked.is_outdated());
        let Answer { content, outcome } = match &asked {
            Asked::By(caller, opened) => {
                guarded(notes, || inner::answer(self, caller, opened, &plan, place, &mut trail))
            }
            Asked::Refused(why, caller, _) => {
                trail.caller = Some(caller.clone());
                inner::failure(why, notes)
            }
            Asked::ByNobody(why, _) | Asked::ByNobodyAgain(why, _) => inner::failure(why, notes),
        };
        let record = self.audit.as_ref().map(|audit| Record {
            audit: Arc::clone(audit),
            trail,
            id: id.into(),
            received,
            time: asked.received(),
        });
        let spent = Spent { _asked: asked };
        let content = match content {
            Content::Later(running, encode) => Ok(Work::Once(running, encode)),
            Content::Series(series) => Ok(Work::Series(series)),
            content => Err(content),
        };
        let content = match content {
            Ok(work) => {
                let rest = Rest { reply, record, notes, start };
                return (Step::Later(Going { work, alone, rest }), spent);
            }
            Err(content) => content,
        };
        self.metrics.infer.record(start.elapsed());
        (Step::Done(self.finished(Answer { content, outcome }, reply, record)), spent)
    }

    /// The reply to a request whose model has run.
    ///
    /// # Errors
    /// As [`Step::Done`].
    pub fn finish(&self, ran: Ran) -> Result<Sealed, Code> {
        let Ran { done, rest: Rest { reply, record, notes, start } } = ran;
        let made = || match done {
            Done::Once(answered, encode) => encode(answered.read()),
            Done::Series(series, outcome) => series.finish(outcome),
        };
        let answer = guarded(notes, || match made() {
            Ok(message) => Answer { content: Content::Whole(message), outcome: "ok" },
            Err(err) => inner::failure(&err, notes),
        });
        self.metrics.infer.record(start.elapsed());
        self.finished(answer, reply, record)
    }

    fn finished(&self, answer: Answer, reply: ReplyTo, record: Option<Record>) -> Result<Sealed, Code> {
        let Answer { content, outcome } = answer;
        // An answer of 64 GiB cannot be sealed, and so cannot be explained in a sealed one either.
        let sealed = match content {
            Content::Whole(message) => self.seal(reply, message, outcome, record),
            Content::Made(head, make) => self.stream(reply, head, record).map(|(stream, body)| {
                make(stream);
                body
            }),
            Content::Later(..) | Content::Series(_) => return Err(Code::RequestInvalid),
        };
        sealed.map(|reply| Sealed { reply, outcome }).map_err(|_| Code::RequestInvalid)
    }

    fn seal(
        &self,
        reply: ReplyTo,
        message: Draft,
        outcome: &'static str,
        record: Option<Record>,
    ) -> Result<Body, NotTaken> {
        let start = Instant::now();
        let body = match reply {
            ReplyTo::Whole(reply) => Body::from(Bytes::from(reply.seal(message, &mut rng())?)),
            ReplyTo::Chunked(reply) => reply.pieces(message, &mut rng())?.into(),
        };
        self.metrics.seal.record(start.elapsed());
        let sent = body.held();
        self.metrics.sent_bytes.fetch_add(sent as u64, Relaxed);
        if let Some(record) = record {
            record.write(outcome, sent);
        }
        Ok(body)
    }

    /// An answer that is yet to be made: counted and written down when it ends.
    fn stream(
        &self,
        reply: ReplyTo,
        head: ResponseHead,
        record: Option<Record>,
    ) -> Result<(Stream, Body), NotTaken> {
        let metrics = Arc::clone(&self.metrics);
        let ended = move |outcome, sent: usize| {
            metrics.sent_bytes.fetch_add(sent as u64, Relaxed);
            if let Some(record) = record {
                record.write(outcome, sent);
            }
        };
        Stream::new(reply, head, Box::new(ended))
    }
}

impl Asked {
    fn is_outdated(&self) -> bool {
        match self {
            Self::By(_, opened) | Self::Refused(_, _, opened) | Self::ByNobodyAgain(_, opened) => {
                opened.outdated
            }
            Self::ByNobody(_, authentic) => authentic.is_outdated(),
        }
    }

    fn received(&self) -> UnixTime {
        match self {
            Self::By(_, opened) | Self::Refused(_, _, opened) | Self::ByNobodyAgain(_, opened) => {
                opened.received()
            }
            Self::ByNobody(_, authentic) => authentic.received(),
        }
    }
}

impl Record {
    fn write(self, outcome: &'static str, sent: usize) {
        let Self { audit, trail, id, received, time } = self;
        audit.record(&trail, outcome, Wire { request: &id, received, sent }, time);
    }
}

impl Received {
    /// Bytes of it, sealed.
    pub fn bytes(&self) -> u64 {
        self.received as u64
    }

    /// Whether answering it takes a thread long.
    pub fn is_long(&self) -> bool {
        self.plan.is_long()
    }

    /// Where its model can run, once there is room, if one will run and its caller may have it run.
    pub async fn place(&self) -> Place {
        match &self.asked {
            Asked::By(..) => self.plan.place().await,
            Asked::Refused(..) | Asked::ByNobody(..) | Asked::ByNobodyAgain(..) => Place::default(),
        }
    }

    /// As [`place`](Self::place), if there is room now.
    pub fn place_now(&self) -> Option<Place> {
        match pin!(self.place()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }
}

impl Receiving {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The code of the answer when they cannot be opened.
    pub fn push(&mut self, sealed: &[u8]) -> Result<(), Code> {
        let start = Instant::now();
        self.received = self.received.saturating_add(sealed.len());
        self.service.metrics.received_bytes.fetch_add(sealed.len() as u64, Relaxed);
        self.opener.push(sealed, clock::now()).map_err(|err| err.code())?;
        self.service.metrics.open.record(start.elapsed());
        Ok(())
    }

    /// The request, when all bytes were taken.
    ///
    /// # Errors
    /// The code of the answer when the last chunk is missing, or the request came before.
    pub fn finish(self) -> Result<Received, Code> {
        let Self { opener, received, service } = self;
        let now = clock::now();
        let steady = service.keys.steady();
        let (authentic, reply) = opener.finish_unremembered(now).map_err(|err| err.code())?;
        let (plan, asked) = service.let_in(authentic, steady.set(), now).map_err(|err| err.code())?;
        drop(steady);
        Ok(Received { asked, reply: ReplyTo::Chunked(reply), received, plan })
    }
}

/// The answer that `work` gives, or one that says it panicked: a bug that one request meets is that request's failure.
fn guarded(notes: Notes, work: impl FnOnce() -> Answer) -> Answer {
    // Shared are only atomics and pools that give back while unwinding, so a panic leaves nothing half-changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| inner::failure(&InnerError::Panicked, notes))
}

#[cfg(test)]
mod tests {
    use confonnx_protocol::bhttp;

    use super::*;

    #[test]
    fn a_panic_is_an_answer_without_its_message() {
        let answer = guarded(Notes::of(true), || panic!("with a tensor value: 7654321"));
        assert_eq!(answer.outcome, "internal");
        let Content::Whole(message) = answer.content else { panic!("no message") };
        let (head, body) = bhttp::decode_response(message.message()).unwrap();
        assert_eq!((head.status, head.fields.get("confonnx-key")), (500, Some(&b"outdated"[..])));
        assert!(!String::from_utf8_lossy(body.bytes(message.message())).contains("7654321"));
    }
}
