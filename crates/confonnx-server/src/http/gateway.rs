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
use crate::{metrics::Held, service::Sealed};

/// Receives the request, and lets a worker open, run and seal it.
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
    let sealed = if kind == Kind::Chunked {
        let mut receiving = app.service.receive(limit);
        receive(app, request.into_body(), |octets| receiving.push(octets)).await?;
        let received = receiving.finish()?;
        run(app, permit, move |app| app.service.exchange_chunked(received, text(&id))).await??
    } else {
        // At most the limit, for as many requests as the queue has places.
        let mut message = Incoming::with_capacity(usize::try_from(announced).unwrap_or(0));
        receive(app, request.into_body(), |octets| {
            message.push(octets);
            Ok(())
        })
        .await?;
        if kind == Kind::Whole {
            app.service.look_for_key(&message).await;
        }
        run(app, permit, move |app| match kind {
            Kind::InSession => app.service.exchange_in_session(message, text(&id)),
            _ => app.service.exchange(message, text(&id)),
        })
        .await??
    };
    Ok(reply(sealed, kind.reply_type()))
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

/// Runs `work` here if it is likely to be brief and no request has to wait for others; else on a worker, which gives the
/// place in the queue back when it is done, whoever still waits.
async fn run<T: Send + 'static>(
    app: &Arc<App>,
    permit: OwnedSemaphorePermit,
    work: impl FnOnce(&App) -> T + Send + 'static,
) -> Result<T, Code> {
    if let Some(_place) = app.in_place.place().filter(|_| !app.service.puts_together()) {
        let (_permit, _running) = (permit, Held::new(&app.metrics.in_flight));
        let work = || app.in_place.timed(|| work(app));
        return catch_unwind(AssertUnwindSafe(work)).map_err(|_| Code::RequestInvalid);
    }
    let shared = Arc::clone(app);
    let queued = Queued::new(app);
    let job = move || {
        let _permit = permit;
        drop(queued);
        let _running = Held::new(&shared.metrics.in_flight);
        shared.in_place.timed(|| work(&shared))
    };
    // The service answers its own panics inside the seal; one outside it loses the keys to do so.
    app.workers.run(job).await.map_err(|_| Code::RequestInvalid)
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

fn reply(sealed: Sealed, media_type: &'static str) -> Answered {
    let mut response = Response::new(Payload::Sealed(sealed.reply));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Answered { response, outcome: sealed.outcome }
}
