//! The body of a request.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use confonnx_protocol::{Pieces, SealError};
use hyper::body::{Body, Frame, SizeHint};

/// Bytes to send.
pub(crate) enum Outgoing {
    /// All there.
    Whole(Bytes),
    /// Sealed as they are sent.
    Chunked(Box<Pieces>),
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Pieces> for Outgoing {
    fn from(pieces: Pieces) -> Self {
        Self::Chunked(Box::new(pieces))
    }
}

impl Outgoing {
    fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Chunked(pieces) => pieces.remaining(),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = SealError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SealError>>> {
        Poll::Ready(match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(Ok(Frame::data(mem::take(bytes)))),
            Self::Chunked(pieces) => pieces.next().map(|piece| piece.map(|bytes| Frame::data(bytes.into()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}
