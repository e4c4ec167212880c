//! Sealed messages in, sealed messages out.

use std::{mem, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use confonnx_protocol::{Code, Incoming};
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    runtime::Handle,
    task::yield_now,
    time::{Instant, sleep_until, timeout_at},
};

use super::{Answered, App, media_type};
use crate::{
    budget::{Purse, Share},
    clock::Later,
    config::Limits,
    scheduling::{Peer, Place, Thread, Turn},
    service::{self, Received, Sealed, Spent, Step},
};

/// Answers the request; a long one when it is its peer's turn.
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
    let bytes = request.body().size_hint().exact().unwrap_or(UNKNOWN);
    if bytes > SHORT {
        let now = Instant::now();
        let turn = purse.turn(bytes, now).map_err(|_| Code::QueueFull)?;
        // A timer takes a millisecond at least.
        if turn > now {
            sleep_until(turn).await;
        }
    }
    receive(app, request, id, purse).await
}

/// Receives the request, and has it opened, answered and sealed: on this thread if it is short, else on a worker.
async fn receive<B>(
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
    let id = id.clone();
    let announced = request.body().size_hint().lower();
    if announced > app.limits.request_bytes as u64 {
        return Err(Code::RequestTooLarge);
    }
    let receiving = app.scheduling.receive().await;
    let mut arriving = Arriving::new(app, request.into_body(), purse.share());
    let begun = match kind {
        Kind::Chunked => chunked(app, &mut arriving, &id, purse).await,
        Kind::Whole | Kind::Resumed => whole(app, &mut arriving, &id, (kind, announced), purse).await,
    };
    drop(receiving);
    let (step, place) = match begun? {
        Begun::Waits(waiting) => answered(app, waiting, id).await?,
        Begun::Stepped(step, place) => (step, place),
    };
    let sealed = finished(app, step, place, purse.network()).await?;
    reply(app, sealed, kind, purse)
}

/// How far a request is that was opened.
enum Begun {
    /// The request waits for its model, or for its turn.
    Waits(Waiting),
    Stepped(Step, Place),
}

/// A request that was opened and is not answered yet, with what it holds.
struct Waiting {
    received: Received,
    place: Place,
    share: Share,
    /// Where it came from.
    network: Option<IpAddr>,
}

impl Waiting {
    /// Goes on with it where it was opened, if there is nothing to wait for: each change of threads takes its time.
    fn begin(self, app: &App, id: &HeaderValue) -> (Begun, Option<(Spent, Share)>) {
        if self.received.is_long() {
            return (Begun::Waits(self), None);
        }
        match self.received.place_now() {
            Some(at) => {
                let ((step, place), rest) = self.answer(app, at, id);
                (Begun::Stepped(step, place), Some(rest))
            }
            None => (Begun::Waits(self), None),
        }
    }

    /// Has it answered, or its model run.
    fn answer(self, app: &App, mut at: service::Place, id: &HeaderValue) -> ((Step, Place), (Spent, Share)) {
        let Self { received, mut place, share, network } = self;
        (at.alone, at.network) = (app.scheduling.has_one(), network);
        place.runs();
        let (step, spent) = app.service.answer(received, text(id), at);
        ((step, place), (spent, share))
    }
}

/// Receives a request that is sealed in one, and opens it once it is there.
async fn whole<B>(
    app: &Arc<App>,
    arriving: &mut Arriving<B>,
    id: &HeaderValue,
    (kind, announced): (Kind, u64),
    purse: &Purse,
) -> Result<Begun, Code>
where
    B: Body<Data = Bytes> + Unpin,
{
    // Room for all of it once something came.
    let mut message = None;
    let mut is_known = false;
    while let Some(bytes) = arriving.next().await? {
        let room = usize::try_from(announced).unwrap_or(0);
        let message = message.get_or_insert_with(|| Incoming::with_capacity(room));
        message.push(&bytes);
        if !is_known {
            is_known = may_open(app, kind, message.received()).await?;
        }
    }
    let place = app.scheduling.place()?;
    let message = message.unwrap_or_else(|| Incoming::with_capacity(0));
    let thread = thread(message.len() as u64, Turn::Sealed, purse.network());
    let open = move |app: &App| match kind {
        Kind::Resumed => app.service.open_resumed(message),
        Kind::Whole | Kind::Chunked => app.service.open(message),
    };
    begin(app, thread, arriving, id, place, open, purse).await
}

/// Has the request opened, and goes on with it.
async fn begin<B>(
    app: &Arc<App>,
    thread: Thread,
    arriving: &mut Arriving<B>,
    id: &HeaderValue,
    place: Place,
    open: impl FnOnce(&App) -> Result<Received, Code> + Send + 'static,
    purse: &Purse,
) -> Result<Begun, Code> {
    let share = mem::replace(&mut arriving.share, purse.share());
    let (app_there, id, home) = (Arc::clone(app), id.clone(), Handle::current());
    let network = purse.network();
    let work = move || {
        // The model's answer is waited for on the thread on which the request arrived.
        let _home = home.enter();
        match open(&app_there) {
            Ok(received) => {
                let (begun, rest) = Waiting { received, place, share, network }.begin(&app_there, &id);
                (Ok(begun), rest)
            }
            Err(code) => (Err(code), None),
        }
    };
    let begun = app.scheduling.run(thread, work).await?;
    suspect(purse, arriving.received, &begun);
    begun
}

/// Receives a request in chunks, which are opened as they arrive: where they did if all of it is short, else on a worker,
/// so many bytes at a time.
async fn chunked<B>(
    app: &Arc<App>,
    arriving: &mut Arriving<B>,
    id: &HeaderValue,
    purse: &Purse,
) -> Result<Begun, Code>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut opening = app.service.receive(app.limits.request_bytes);
    let mut is_known = false;
    loop {
        let (mut piece, mut ended) = (Vec::new(), false);
        while piece.len() < PIECE && !ended {
            match arriving.next().await? {
                Some(bytes) => piece.extend_from_slice(&bytes),
                None => ended = true,
            }
            if !is_known {
                is_known = may_open(app, Kind::Chunked, &piece).await?;
            }
        }
        if ended {
            // Places are for complete requests, so slow senders take none.
            let place = app.scheduling.place()?;
            let open = move |_: &App| opening.push(&piece).and_then(|()| opening.finish());
            let thread = self::thread(arriving.received as u64, Turn::Sealed, purse.network());
            return begin(app, thread, arriving, id, place, open, purse).await;
        }
        let open = move || {
            let opened = opening.push(&piece);
            (opened.map(|()| opening), ())
        };
        let opened = app.scheduling.run(Thread::Worker(Turn::Sealed, purse.network()), open).await?;
        suspect(purse, arriving.received, &opened);
        opening = opened?;
    }
}

/// If the request does not open and is long, its sender is read slowly from now on.
fn suspect<T>(purse: &Purse, received: usize, opened: &Result<T, Code>) {
    if opened.is_err() && received as u64 > SHORT {
        purse.suspect(Instant::now());
    }
}

/// Whether a request that begins so is sealed to something that is here; false while that cannot be said yet. What nobody
/// can open is not received to its end.
async fn may_open(app: &App, kind: Kind, begin: &[u8]) -> Result<bool, Code> {
    match (kind, begin) {
        (Kind::Resumed, begin) => match app.service.knows_resumption(begin) {
            Some(false) => Err(Code::ResumptionUnknown),
            known => Ok(known.is_some()),
        },
        (Kind::Whole | Kind::Chunked, [id, ..]) if begin.len() >= START => {
            if app.service.knows_key(*id).await { Ok(true) } else { Err(Code::KeyUnknown) }
        }
        (Kind::Whole | Kind::Chunked, _) => Ok(false),
    }
}

/// Waits until a request can be answered, and has that done.
async fn answered(app: &Arc<App>, waiting: Waiting, id: HeaderValue) -> Result<(Step, Place), Code> {
    let at = waiting.received.place().await;
    let thread = if waiting.received.is_long() {
        Thread::Worker(Turn::Opened, waiting.network)
    } else {
        thread(waiting.received.bytes(), Turn::Opened, waiting.network)
    };
    let app_there = Arc::clone(app);
    app.scheduling.run(thread, move || waiting.answer(&app_there, at, &id)).await
}

/// The sealed reply, once the model has run.
async fn finished(app: &Arc<App>, step: Step, place: Place, peer: Peer) -> Result<Sealed, Code> {
    let ran = match step {
        Step::Done(sealed) => return sealed,
        Step::Later(going) => going.answered().await,
    };
    let (thread, service) = (self::thread(ran.bytes(), Turn::Opened, peer), Arc::clone(&app.service));
    app.scheduling.run(thread, move || (service.finish(ran), place)).await?
}

/// The thread on which as many bytes are opened, copied or sealed.
fn thread(bytes: u64, turn: Turn, peer: Peer) -> Thread {
    if bytes > SHORT { Thread::Worker(turn, peer) } else { Thread::This }
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
    if app.scheduling.is_full() { Err(Code::QueueFull) } else { Ok(()) }
}

/// A body as it arrives: not too long, not too slowly, and counted.
struct Arriving<B> {
    body: B,
    share: Share,
    begun: Instant,
    longest: Duration,
    received: usize,
    /// How many of these bytes came since others of this thread had their turn.
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
            // A client that sends much and fast is read for as long as there is something, so others of this thread get
            // a turn.
            yield_now().await;
        }
        loop {
            let earned = Duration::from_secs((self.received / LEAST_RATE) as u64);
            let deadline = self.begun.later(self.longest.min(HEAD_START.saturating_add(earned)));
            match timeout_at(deadline, self.body.frame()).await {
                Err(_) => return Err(Code::RequestTimeout),
                Ok(None) => return Ok(None),
                // The connection broke, so this error goes nowhere; only the count of outcomes sees it.
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

/// The answer, held until it is written; there may be no room for it.
fn reply(app: &App, sealed: Sealed, kind: Kind, purse: &Purse) -> Result<Answered, Code> {
    let share = purse.reply(sealed.reply.held()).map_err(|_| Code::QueueFull)?;
    let mut response = Response::new(sealed.reply.holding(share));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.reply_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The outcome is inside the seal, and the host reads the counters.
    let outcome = if app.limits.request_metrics { sealed.outcome } else { "ok" };
    Ok(Answered { response, outcome, is_sealed: true })
}

/// The length of a message that is opened, answered or sealed where it arrived: with more, others of its thread wait
/// too long.
const SHORT: u64 = 16 << 10;

/// How many bytes of a request in chunks are opened at a time.
const PIECE: usize = 256 << 10;

/// How many bytes of a request are read before others of its thread have their turn.
const TURN: usize = 64 << 10;

/// The length that is assumed of a request which does not say its own.
const UNKNOWN: u64 = 1 << 20;

/// How many bytes at the start of a request say which key it is sealed to, and how.
const START: usize = 7;

/// How long a body may take beside what its bytes have earned.
const HEAD_START: Duration = Duration::from_secs(5);

/// The least rate of a sender, in bytes a second.
const LEAST_RATE: usize = 4 << 10;
