//! Sealed messages in, sealed messages out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use confonnx_protocol::{Code, Incoming};
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{Answered, App, Payload, media_type};
use crate::{
    metrics::Held,
    service::{Sealed, Spent},
};

/// Receives the request, and has it opened, answered and sealed: on this thread if that is likely to be brief, else on a
/// worker.
pub(super) async fn answer<B>(app: &Arc<App>, request: Request<B>, id: &HeaderValue) -> Result<Answered, Code>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Send,
{
    let kind = match media_type(request.headers()).as_deref() {
        Some("message/ohttp-req") => Kind::Whole,
        Some("message/ohttp-chunked-req") => Kind::Chunked,
        Some("message/confonnx-session-req") => Kind::InSession,
        _ => return Err(Code::MediaTypeUnsupported),
    };
    let permit = admit(app)?;
    let (limit, id) = (app.limits.request_bytes, id.clone());
    let announced = request.body().size_hint().lower();
    if announced > limit as u64 {
        return Err(Code::RequestTooLarge);
    }
    let body = request.into_body();
    let received = if kind == Kind::Chunked {
        let mut receiving = app.service.receive(limit);
        receive(app, body, |bytes| receiving.push(bytes)).await?;
        receiving.finish()?
    } else {
        // At most the limit, for as many requests as the queue has places.
        let mut message = Incoming::with_capacity(usize::try_from(announced).unwrap_or(0));
        receive(app, body, |bytes| {
            message.push(bytes);
            Ok(())
        })
        .await?;
        if kind == Kind::Whole {
            app.service.look_for_key(&message).await;
        }
        let len = message.len();
        let open = move |app: &App| match kind {
            Kind::InSession => app.service.open_in_session(message),
            _ => app.service.open(message),
        };
        if len > SHORT {
            let work = move |app: &App| match open(app) {
                Ok(received) => {
                    let (sealed, spent) = app.service.answer(received, text(&id));
                    (sealed, Some(spent))
                }
                Err(code) => (Err(code), None),
            };
            return Ok(reply(on_worker(app, permit, work).await?, kind));
        }
        open(app)?
    };
    let is_brief = received.bytes() <= SHORT && app.service.is_brief(&received);
    let place = if is_brief { app.in_place.try_acquire().ok() } else { None };
    let work = move |app: &App| app.service.answer(received, text(&id));
    let sealed = match place {
        Some(_place) => here(app, permit, work)?,
        None => on_worker(app, permit, work).await?,
    };
    Ok(reply(sealed, kind))
}

/// How a request is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Chunked,
    InSession,
}

impl Kind {
    fn reply_type(self) -> &'static str {
        match self {
            Self::Whole => "message/ohttp-res",
            Self::Chunked => "message/ohttp-chunked-res",
            Self::InSession => "message/confonnx-session-res",
        }
    }
}

/// The request's name in the audit log.
fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

/// A place in the queue, or the reason for there being none: before anything is read or opened.
fn admit(app: &App) -> Result<OwnedSemaphorePermit, Code> {
    if app.is_draining() {
        return Err(Code::ShuttingDown);
    }
    if !app.service.is_ready() {
        return Err(Code::KeysUnavailable);
    }
    Arc::clone(&app.queue).try_acquire_owned().map_err(|_| Code::QueueFull)
}

/// Hands the body on as it arrives, if it is not too long and does not take too long.
async fn receive<B>(
    app: &App,
    mut body: B,
    mut each: impl FnMut(&[u8]) -> Result<(), Code>,
) -> Result<(), Code>
where
    B: Body<Data = Bytes> + Unpin,
{
    let deadline = Instant::now() + app.limits.request_timeout;
    let mut left = app.limits.request_bytes;
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Code::RequestTimeout),
            Ok(None) => return Ok(()),
            // The connection broke, so this goes nowhere; only the count of outcomes sees it.
            Ok(Some(Err(_))) => return Err(Code::RequestInvalid),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                left = left.checked_sub(data.len()).ok_or(Code::RequestTooLarge)?;
                each(&data)?;
            }
        }
    }
}

/// Runs `work` on this thread, whose other connections wait meanwhile.
fn here(
    app: &App,
    _permit: OwnedSemaphorePermit,
    work: impl FnOnce(&App) -> (Result<Sealed, Code>, Spent),
) -> Result<Sealed, Code> {
    let _running = Held::new(&app.metrics.in_flight);
    catch_unwind(AssertUnwindSafe(|| work(app).0)).unwrap_or(Err(Code::RequestInvalid))
}

/// Runs `work` on a worker, which gives the place in the queue back when it is done, whoever still waits.
async fn on_worker<R>(
    app: &Arc<App>,
    permit: OwnedSemaphorePermit,
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
    app.workers.run(job).await.unwrap_or(Err(Code::RequestInvalid))
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

fn reply(sealed: Sealed, kind: Kind) -> Answered {
    let mut response = Response::new(Payload::Sealed(sealed.reply));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.reply_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Answered { response, outcome: sealed.outcome }
}

/// Bytes of a request that is opened where it arrives: what a model does with more is hardly brief.
const SHORT: usize = 16 << 10;
