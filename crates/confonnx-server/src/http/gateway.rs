//! Sealed messages in, sealed messages out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use confonnx_protocol::{Code, Incoming};
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{Answered, App, media_type};
use crate::{
    budget::{Purse, Share},
    clock::Later,
    config::Limits,
    metrics::Held,
    service::{Sealed, Step},
    workers::Turn,
};

/// Receives the request, and has it opened, answered and sealed: on this thread if that is likely to be brief, else on a
/// worker.
pub(super) async fn answer<B>(
    app: &Arc<App>,
    request: Request<B>,
    id: &HeaderValue,
    purse: &Purse,
) -> Result<Answered, Code>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Send,
{
    let kind = match media_type(request.headers()).as_deref() {
        Some("message/ohttp-req") => Kind::Whole,
        Some("message/ohttp-chunked-req") => Kind::Chunked,
        Some("message/confonnx-session-req") => Kind::Resumed,
        _ => return Err(Code::MediaTypeUnsupported),
    };
    admit(app)?;
    let (limit, id) = (app.limits.request_bytes, id.clone());
    let announced = request.body().size_hint().lower();
    if announced > limit as u64 {
        return Err(Code::RequestTooLarge);
    }
    // Closed never.
    let receiving = app.receiving.acquire().await;
    let mut arriving = Arriving::new(app, request.into_body(), purse.share());
    let (opened, permit, share) = if kind == Kind::Chunked {
        let mut opening = app.service.receive(limit);
        while let Some(bytes) = arriving.next().await? {
            opening.push(&bytes)?;
        }
        // As a place in the queue is for those that are complete, slow senders take none.
        (opening.finish()?, place(app)?, arriving.share)
    } else {
        // Room for all of it once something came.
        let mut message = None;
        let mut is_known = kind != Kind::Whole;
        while let Some(bytes) = arriving.next().await? {
            let room = usize::try_from(announced).unwrap_or(0);
            let message = message.get_or_insert_with(|| Incoming::with_capacity(room));
            message.push(&bytes);
            // What nobody can open is not received to its end.
            if !is_known && message.len() >= START {
                is_known = app.service.knows_key(message).await;
                if !is_known {
                    return Err(Code::KeyUnknown);
                }
            }
        }
        let (permit, share) = (place(app)?, arriving.share);
        let message = message.unwrap_or_else(|| Incoming::with_capacity(0));
        let len = message.len();
        let open = move |app: &App| match kind {
            Kind::Resumed => app.service.open_resumed(message),
            _ => app.service.open(message),
        };
        if len > SHORT {
            drop(receiving);
            let work = move |app: &App| match open(app) {
                Ok(received) => {
                    let (step, spent) = app.service.answer(received, text(&id), None);
                    (step.wait(&app.service), Some((spent, share)))
                }
                Err(code) => (Err(code), None),
            };
            return reply(app, on_worker(app, permit, Turn::Sealed, work).await?, kind, purse);
        }
        (open(app)?, permit, share)
    };
    drop(receiving);
    let is_brief = opened.bytes() <= SHORT && opened.plan().is_brief();
    let in_place = if is_brief { app.in_place.try_acquire().ok() } else { None };
    let answer = move |app: &App, patience| {
        let (step, spent) = app.service.answer(opened, text(&id), patience);
        (step, (spent, share))
    };
    let sealed = if let Some(place) = in_place {
        let step = here(app, |app| answer(app, Some(PATIENCE)));
        drop(place);
        match step {
            Step::Done(sealed) => sealed?,
            // It takes longer than was likely: others of this thread go on.
            Step::Later(rest) => {
                on_worker(app, permit, Turn::Opened, move |app| (app.service.finish(rest), ())).await?
            }
        }
    } else {
        let work = move |app: &App| {
            let (step, spent) = answer(app, None);
            (step.wait(&app.service), spent)
        };
        on_worker(app, permit, Turn::Opened, work).await?
    };
    reply(app, sealed, kind, purse)
}

/// How a request is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Chunked,
    Resumed,
}

impl Kind {
    fn reply_type(self) -> &'static str {
        match self {
            Self::Whole => "message/ohttp-res",
            Self::Chunked => "message/ohttp-chunked-res",
            Self::Resumed => "message/confonnx-session-res",
        }
    }
}

/// The request's name in the audit log.
fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// The reason for not receiving a request at all, if there is one: before anything is read or opened.
fn admit(app: &App) -> Result<(), Code> {
    if app.is_draining() {
        return Err(Code::ShuttingDown);
    }
    if !app.service.is_ready() {
        return Err(Code::KeysUnavailable);
    }
    if app.queue.available_permits() == 0 { Err(Code::QueueFull) } else { Ok(()) }
}

/// A place in the queue, for a request that is complete.
fn place(app: &App) -> Result<OwnedSemaphorePermit, Code> {
    Arc::clone(&app.queue).try_acquire_owned().map_err(|_| Code::QueueFull)
}

/// A body as it arrives: not too long, not too slowly, and counted.
struct Arriving<B> {
    body: B,
    share: Share,
    begun: Instant,
    longest: Duration,
    received: usize,
    /// Of these, the ones since others of this thread had their turn.
    since: usize,
    limit: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Arriving<B> {
    fn new(app: &App, body: B, share: Share) -> Self {
        let Limits { request_timeout: longest, request_bytes: limit, .. } = app.limits;
        Self { body, share, begun: Instant::now(), longest, received: 0, since: 0, limit }
    }

    /// The next bytes; none at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, Code> {
        if self.since > TURN {
            self.since = 0;
            // Whoever sends much and fast is read for as long as there is something: others of this thread wait.
            yield_now().await;
        }
        loop {
            let earned = Duration::from_secs((self.received / LEAST_RATE) as u64);
            let deadline = self.begun.later(self.longest.min(HEAD_START.saturating_add(earned)));
            match timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(Code::RequestTimeout),
                Ok(None) => return Ok(None),
                // The connection broke, so this goes nowhere; only the count of outcomes sees it.
                Ok(Some(Err(_))) => return Err(Code::RequestInvalid),
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.received = self.received.saturating_add(data.len());
                    self.since = self.since.saturating_add(data.len());
                    if self.received > self.limit {
                        return Err(Code::RequestTooLarge);
                    }
                    self.share.grow(data.len()).map_err(|_| Code::QueueFull)?;
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Runs `work` on this thread, whose other connections wait meanwhile.
fn here<R>(app: &App, work: impl FnOnce(&App) -> (Step, R)) -> Step {
    let _running = Held::new(&app.metrics.in_flight);
    catch_unwind(AssertUnwindSafe(|| work(app).0)).unwrap_or(Step::Done(Err(Code::RequestInvalid)))
}

/// Runs `work` on a worker, which gives the place in the queue back when it is done, whoever still waits.
async fn on_worker<R>(
    app: &Arc<App>,
    permit: OwnedSemaphorePermit,
    turn: Turn,
    work: impl FnOnce(&App) -> (Result<Sealed, Code>, R) + Send + 'static,
) -> Result<Sealed, Code> {
    let shared = Arc::clone(app);
    let queued = Queued::new(app);
    let job = move || {
        let _permit = permit;
        drop(queued);
        let _running = Held::new(&shared.metrics.in_flight);
        work(&shared)
    };
    // The service answers its own panics inside the seal; one outside it loses the keys to do so.
    app.workers.run(turn, job).await.unwrap_or(Err(Code::RequestInvalid))
}

/// Counts a request as waiting until it runs.
struct Queued(Arc<App>);

impl Queued {
    fn new(app: &Arc<App>) -> Self {
        app.metrics.queued.fetch_add(1, Relaxed);
        Self(Arc::clone(app))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.metrics.queued.fetch_sub(1, Relaxed);
    }
}

/// The answer, held until it is written; there may be no room for it.
fn reply(app: &App, sealed: Sealed, kind: Kind, purse: &Purse) -> Result<Answered, Code> {
    let share = purse.reply(sealed.reply.held()).map_err(|_| Code::QueueFull)?;
    let mut response = Response::new(sealed.reply.holding(share));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.reply_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What became of a request is inside the seal: the host reads the counters.
    let outcome = if app.limits.request_metrics { sealed.outcome } else { "ok" };
    Ok(Answered { response, outcome })
}

/// How long an HTTP thread waits for a model that is likely to be brief.
const PATIENCE: Duration = Duration::from_millis(2);

/// Bytes of a request that is opened where it arrives: what a model does with more is hardly brief.
const SHORT: usize = 16 << 10;

/// Bytes of a request that are read before others of its thread have their turn.
const TURN: usize = 64 << 10;

/// Bytes at the start of a request that say which key it is sealed to, and how.
const START: usize = 7;

/// How long a body may take beside what its bytes have earned.
const HEAD_START: Duration = Duration::from_secs(5);

/// Bytes a second of the slowest sender.
const LEAST_RATE: usize = 4 << 10;
