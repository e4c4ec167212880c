//! The door that all requests come through.

use std::sync::Arc;

use confonnx_client::BoxError;
use http::{Method, Request, StatusCode};
use hyper::body::{Body, Bytes};

use crate::{
    Proxy,
    answer::{Answer, with_body},
    metrics, rest,
};

/// The answer to one request.
pub(crate) async fn answer<B>(proxy: Arc<Proxy>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if let Err(refused) = proxy.guard.check(request.uri(), request.headers()) {
        return refused;
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            with_body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::page(&proxy))
        }
        _ => rest::answer(&proxy, request).await,
    }
}
