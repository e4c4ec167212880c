//! The body of a request.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use confonnx_protocol::{Pieces, SealError};
use hyper::body::{Body, Frame, SizeHint};

/// Octets to send.
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
            Self::Whole(octets) => octets.len(),
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
            Self::Whole(octets) if octets.is_empty() => None,
            Self::Whole(octets) => Some(Ok(Frame::data(mem::take(octets)))),
            Self::Chunked(pieces) => {
                pieces.next().map(|piece| piece.map(|octets| Frame::data(octets.into())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}
