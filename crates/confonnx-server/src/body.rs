//! The body of an answer: public bytes, or a sealed reply, whole or in pieces. Nothing but what may be sent is in it.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use confonnx_protocol::{Pieces, SealError};
use http_body::{Frame, SizeHint};

use crate::budget::Share;

/// Bytes to send.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// Of what is not sent yet.
    share: Option<Share>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    /// Sealed as they are sent.
    Pieces(Box<Pieces>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { content: Content::Whole(bytes), share: None }
    }
}

impl From<Pieces> for Body {
    fn from(pieces: Pieces) -> Self {
        Self { content: Content::Pieces(Box::new(pieces)), share: None }
    }
}

impl Body {
    /// Bytes that are still to come.
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Whole(bytes) => bytes.len(),
            Content::Pieces(pieces) => pieces.remaining(),
        }
    }

    /// Whether all of it was sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same, counted as held until it is written.
    #[must_use]
    pub fn holding(self, share: Share) -> Self {
        match self.content {
            // A connection takes it in one piece, and writes it when it can.
            Content::Whole(bytes) => Self { content: Content::Whole(share.hold(bytes)), share: None },
            content @ Content::Pieces(_) => Self { content, share: Some(share) },
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    /// Ends the connection: the client sees that the end of the reply is missing.
    type Error = SealError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SealError>>> {
        let next = match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(mem::take(bytes)))),
            Content::Pieces(pieces) => {
                pieces.next().map(|piece| piece.map(|piece| Frame::data(Bytes::from(piece))))
            }
        };
        if next.is_none() {
            self.share = None;
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}
