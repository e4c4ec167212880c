//! The Open Inference Protocol over gRPC, as far as one request and its answer need it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes};
use confonnx_tensor::{DataType, Shape, Tensor};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message;
use tokio::runtime::{Builder, Runtime};

use crate::inputs::{Bare, same};

/// An HTTP/2 connection with an event loop of its own on the calling thread.
pub(crate) struct Channel {
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Channel {
    pub(crate) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .http2_initial_stream_window_size(16 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .build(tcp);
        Ok(Self {
            runtime,
            client,
            url: format!("http://{address}/inference.GRPCInferenceService/ModelInfer"),
        })
    }

    /// Sends `request`, which [`request`] made.
    pub(crate) fn ask(&self, request: &Bytes, bare: &Bare) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let http = Request::post(&self.url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(request.clone()))?;
        let answer = self.runtime.block_on(async {
            let response = self.client.request(http).await?;
            anyhow::Ok(response.into_body().collect().await?)
        })?;
        let time = start.elapsed();
        let trailers = format!("{:?}", answer.trailers());
        let body = answer.to_bytes();
        // A message begins with a flag for compression and its length (gRPC over HTTP/2, Length-Prefixed-Message).
        let message =
            body.split_at_checked(5).with_context(|| format!("no answer, but trailers {trailers}"))?.1;
        let response = ModelInferResponse::decode(message)?;
        ensure!(
            response.outputs.len() == response.raw_output_contents.len(),
            "expected raw contents for every output"
        );
        let mut outputs = Vec::new();
        for (output, raw) in response.outputs.into_iter().zip(response.raw_output_contents) {
            let dtype = DataType::from_name(&output.datatype).with_context(|| output.datatype.clone())?;
            let dims: Vec<u64> =
                output.shape.iter().map(|&dim| u64::try_from(dim)).collect::<Result<_, _>>()?;
            outputs.push((output.name, Tensor::new(dtype, Shape::new(dims)?, raw)?));
        }
        same(&bare.outputs, &outputs)?;
        Ok(time)
    }
}

/// The message that asks `model` for what `bare` was asked, with tensors as raw bytes.
pub(crate) fn request(model: &str, bare: &Bare) -> anyhow::Result<Bytes> {
    let inputs = bare.inputs.iter().map(|(name, tensor)| {
        let shape = tensor.shape().dims().iter().map(|&dim| i64::try_from(dim)).collect::<Result<_, _>>()?;
        anyhow::Ok(PortTensor { name: name.clone(), datatype: tensor.dtype().name().into(), shape })
    });
    let message = ModelInferRequest {
        model_name: model.into(),
        inputs: inputs.collect::<Result<_, _>>()?,
        raw_input_contents: bare.inputs.iter().map(|(_, tensor)| tensor.data().to_vec()).collect(),
    };
    let mut framed = Vec::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len().try_into()?);
    message.encode(&mut framed)?;
    Ok(framed.into())
}

// `inference.proto` of the Open Inference Protocol, without what is not used here.

#[derive(Clone, PartialEq, Message)]
struct ModelInferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<PortTensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw_input_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ModelInferResponse {
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<PortTensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    raw_output_contents: Vec<Vec<u8>>,
}

/// `InferInputTensor` and `InferOutputTensor`, which are alike so far.
#[derive(Clone, PartialEq, Message)]
struct PortTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
}
