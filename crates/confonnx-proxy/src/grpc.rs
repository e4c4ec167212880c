//! The inference protocol over gRPC: `GRPCInferenceService`, with Triton's extensions.

mod calls;
mod convert;
mod generate;
#[allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    unreachable_pub,
    reason = "made of proto/inference.proto"
)]
mod inference {
    include!("grpc/inference.rs.inc");
}
mod refused;
mod service;
mod stream;

use std::sync::Arc;

use confonnx_client::BoxError;
use http::{Request, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tonic::codec::CompressionEncoding::{Deflate, Gzip};
use tonic::codegen::Service as _;

use self::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::{Proxy, answer::Answer};

/// Whether that is a call of gRPC.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let media = request.headers().get(header::CONTENT_TYPE);
    media.is_some_and(|media| media.as_bytes().starts_with(b"application/grpc"))
}

pub(crate) async fn answer<B>(proxy: Arc<Proxy>, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let longest = proxy.settings.max_request_bytes;
    let mut server = GrpcInferenceServiceServer::new(calls::Service(proxy))
        .max_decoding_message_size(longest)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(Gzip)
        .accept_compressed(Deflate)
        .send_compressed(Gzip);
    let answer = match server.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    answer.map(|body| body.map_err(BoxError::from).boxed_unsync())
}
