//! What a request goes to, whichever it is: bare ONNX Runtime, confonnx, a peer, or an echo.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use bytes::Bytes;
use confonnx_protocol::oip::InferResponse;

use crate::{
    grpc::Channel,
    http::Connection,
    inputs::{Bare, same, same_bytes},
    sealed::{Library, SealedClient, Sealer},
};

/// What a request goes to.
pub(crate) enum Target {
    /// ONNX Runtime in this process, on the client's thread.
    Bare,
    /// confonnx, by the light client.
    Sealed { address: SocketAddr, sealer: Box<Sealer> },
    /// confonnx, by the published client.
    Library { url: String, model: String },
    /// A peer over HTTP, which gets the same bytes each time.
    Plain { address: SocketAddr, request: Vec<u8>, answer: Body },
    /// A peer over gRPC, which gets the same bytes each time.
    Grpc { address: SocketAddr, request: Bytes },
}

/// The form of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Body {
    /// The outputs' bytes, one after the other.
    Raw,
    /// An inference response of the Open Inference Protocol, binary or JSON.
    V2,
    /// Of no interest.
    Anything,
}

/// One client of a target.
pub(crate) enum Worker {
    Bare,
    Sealed(Box<SealedClient>),
    Http(Connection),
    Library(Box<Library>),
    Grpc(Box<Channel>),
}

impl Target {
    /// A client with a connection of its own.
    pub(crate) fn open(&self) -> anyhow::Result<Worker> {
        Ok(match self {
            Self::Bare => Worker::Bare,
            Self::Sealed { address, .. } => Worker::Sealed(Box::new(Sealer::open(*address)?)),
            Self::Plain { address, .. } => Worker::Http(Connection::open(*address)?),
            Self::Library { url, .. } => Worker::Library(Box::new(Library::new(url)?)),
            Self::Grpc { address, .. } => Worker::Grpc(Box::new(Channel::new(*address)?)),
        })
    }

    /// Sends the request of `bare`; fails unless the answer is the same to the bit. Returns how long the answer took.
    pub(crate) fn ask(&self, worker: &mut Worker, bare: &Bare) -> anyhow::Result<Duration> {
        match (self, worker) {
            (Self::Bare, Worker::Bare) => bare.ask(),
            (Self::Sealed { sealer, .. }, Worker::Sealed(client)) => sealer.ask(client, bare),
            (Self::Library { model, .. }, Worker::Library(client)) => client.ask(model, bare),
            (Self::Grpc { request, .. }, Worker::Grpc(channel)) => channel.ask(request, bare),
            (Self::Plain { request, answer, .. }, Worker::Http(connection)) => {
                let start = Instant::now();
                let found = connection.exchange(&[request])?;
                let time = start.elapsed();
                ensure!(
                    found.status == 200,
                    "status {}: {}",
                    found.status,
                    String::from_utf8_lossy(&found.body[..found.body.len().min(500)])
                );
                answer.check(found.body, found.json_len, bare)?;
                Ok(time)
            }
            _ => bail!("a client of something else"),
        }
    }
}

impl Body {
    fn check(self, body: &[u8], json_len: Option<usize>, bare: &Bare) -> anyhow::Result<()> {
        match self {
            Self::Raw => {
                let mut left = body;
                for (name, tensor) in &bare.outputs {
                    let (found, rest) = left.split_at(tensor.data().len().min(left.len()));
                    same_bytes(name, tensor.data(), found)?;
                    left = rest;
                }
                ensure!(left.is_empty(), "{} bytes after the last output", left.len());
                Ok(())
            }
            Self::V2 => same(&bare.outputs, &InferResponse::decode(body, json_len)?.outputs),
            Self::Anything => Ok(()),
        }
    }
}
