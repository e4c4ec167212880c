//! The door that all requests come through.

use std::sync::Arc;

use confonnx_client::BoxError;
use http::{Method, Request, StatusCode};
use hyper::body::{Body, Bytes};

use crate::{
    Proxy, Traces,
    answer::{Answer, with_body},
    grpc, metrics, rest, ui,
};

/// The answer to one request.
pub(crate) async fn answer<B>(proxy: Arc<Proxy>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError> + Send,
{
    if let Err(refused) = proxy.guard.check(request.uri(), request.headers()) {
        return refused;
    }
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix("/ui").filter(|_| proxy.settings.ui) {
        return ui::answer(&proxy, rest);
    }
    match (request.method(), path) {
        (&Method::GET, "/metrics") => {
            with_body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::page(&proxy))
        }
        _ => traced(proxy, request).await,
    }
}

/// Answers what programs ask, with a span for each request if somebody wants to have spans.
async fn traced<B>(proxy: Arc<Proxy>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError> + Send,
{
    let started = proxy.traces.as_ref().and_then(|_| Traces::begin(&request));
    let there = Arc::clone(&proxy);
    let answer = if grpc::is_grpc(&request) {
        grpc::answer(proxy, request).await
    } else {
        rest::answer(&proxy, request).await
    };
    if let (Some(traces), Some(mut started)) = (&there.traces, started) {
        started.answered(&answer);
        traces.end(started);
    }
    answer
}
