//! Answers that come piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use confonnx_client::{BoxError, Fields, Request as Sealed};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Proxy,
    answer::{Answer, copy_head},
    fault::Fault,
    stats::Running,
};

/// The answer as it comes. An error once it has begun cuts it off: it does not look whole then.
///
/// # Errors
/// [`Fault`] before it has begun.
pub(super) async fn streamed(
    proxy: Arc<Proxy>,
    place: usize,
    request: Sealed,
    running: Option<Running>,
) -> Result<Answer, Fault> {
    let (head, begun) = oneshot::channel::<Result<(u16, Fields), Fault>>();
    let (pieces, coming) = mpsc::channel::<Result<Frame<Bytes>, BoxError>>(8);
    tokio::spawn(async move {
        let Some(upstream) = proxy.upstreams.get(place) else { return };
        let mut stream = match upstream.stream(request).await {
            Ok(stream) => stream,
            Err(fault) => {
                let _ = head.send(Err(fault));
                return;
            }
        };
        // Who does not wait any more does not read either: sending fails then, and the stream is dropped.
        if head.send(Ok((stream.status(), stream.fields().clone()))).is_err() {
            return;
        }
        let succeeds = stream.status() == 200;
        loop {
            let piece = match stream.chunk().await {
                Ok(Some(piece)) => Ok(Frame::data(Bytes::from(piece))),
                Ok(None) => {
                    if let Some(running) = running.filter(|_| succeeds) {
                        running.succeeded();
                    }
                    return;
                }
                Err(err) => Err(BoxError::from(upstream.fault(&err).text)),
            };
            let ended = piece.is_err();
            if pieces.send(piece).await.is_err() || ended {
                return;
            }
        }
    });
    let (status, fields) = match begun.await {
        Ok(Ok(head)) => head,
        Ok(Err(fault)) => return Err(fault),
        Err(_) => return Err(Fault::proxy("the stream ended before it began")),
    };
    let mut answer = Response::new(StreamBody::new(Coming(coming)).boxed_unsync());
    copy_head(status, fields.iter(), &mut answer);
    Ok(answer)
}

struct Coming(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl futures_core::Stream for Coming {
    type Item = Result<Frame<Bytes>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
