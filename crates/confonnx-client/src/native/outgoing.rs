//! The body of a request, for hyper.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use confonnx_protocol::SealError;
use hyper::body::{Body, Frame, SizeHint};

use crate::conversation;

/// Bytes to send, if there are any.
pub(crate) struct Outgoing(pub(crate) Option<conversation::Body>);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = SealError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SealError>>> {
        let next = self.0.as_mut().and_then(Iterator::next);
        Poll::Ready(next.map(|piece| piece.map(|bytes| Frame::data(bytes.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(conversation::Body::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, conversation::Body::len) as u64)
    }
}
