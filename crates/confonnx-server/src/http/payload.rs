//! The body of an answer.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use confonnx_protocol::SealError;
use http_body::{Body, Frame, SizeHint};

use crate::service::SealedReply;

/// Bytes to send, each as it is.
#[derive(Debug)]
pub enum Payload {
    /// Public ones.
    Public(Bytes),
    /// A sealed reply.
    Sealed(SealedReply),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Public(bytes)
    }
}

impl Payload {
    fn len(&self) -> usize {
        match self {
            Self::Public(bytes) => bytes.len(),
            Self::Sealed(reply) => reply.len(),
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    /// Ends the connection: the client sees that the end of the reply is missing.
    type Error = SealError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SealError>>> {
        Poll::Ready(match &mut *self {
            Self::Public(bytes) if bytes.is_empty() => None,
            Self::Public(bytes) => Some(Ok(Frame::data(mem::take(bytes)))),
            Self::Sealed(reply) => reply.next().map(|piece| piece.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}
