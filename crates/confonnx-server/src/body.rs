//! The body of an answer: public bytes, or a sealed reply, whole, in pieces or still being made. Nothing but what may be sent
//! is in it.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use confonnx_protocol::{Pieces, SealError};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::budget::Share;

/// Bytes to send.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// The share of what is not sent yet.
    share: Option<Share>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    /// Sealed as they are sent.
    Pieces(Box<Pieces>),
    /// Sealed as they are made.
    Made(Made),
}

#[derive(Debug)]
struct Made {
    pieces: UnboundedReceiver<Bytes>,
    state: Arc<State>,
    limit: usize,
}

/// Where the pieces of a body come from that is still being made. Dropped unfinished, it breaks the connection.
#[derive(Debug)]
pub struct Source {
    pieces: UnboundedSender<Bytes>,
    state: Arc<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that wait to be sent.
    behind: AtomicUsize,
    finished: AtomicBool,
}

/// Why no more is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The connection has ended.
    #[error("the client is gone")]
    Gone,
    /// As many bytes wait as may.
    #[error("more than {limit} bytes wait for the client")]
    Behind {
        /// How many bytes may wait.
        limit: usize,
    },
}

/// Why a body ends early. It ends its connection: the client sees that the end is missing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The body cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The content's maker gave up.
    #[error("the answer was not made to its end")]
    Unfinished,
}

impl Source {
    /// A source and its body, with at most `limit` bytes between them.
    pub fn new(limit: usize) -> (Self, Body) {
        let (sender, pieces) = unbounded_channel();
        let state = Arc::<State>::default();
        let made = Made { pieces, state: Arc::clone(&state), limit };
        (Self { pieces: sender, state, limit }, Body { content: Content::Made(made), share: None })
    }

    /// Whether anybody still waits for more.
    ///
    /// # Errors
    /// [`Refused::Gone`]
    pub fn is_wanted(&self) -> Result<(), Refused> {
        if self.pieces.is_closed() { Err(Refused::Gone) } else { Ok(()) }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Refused`]: nothing more should be sent. One piece alone may be larger than the limit.
    pub fn send(&self, piece: Bytes) -> Result<(), Refused> {
        let behind = self.state.behind.load(Ordering::Acquire);
        if behind > 0 && behind.saturating_add(piece.len()) > self.limit {
            return Err(Refused::Behind { limit: self.limit });
        }
        self.state.behind.fetch_add(piece.len(), Ordering::AcqRel);
        self.pieces.send(piece).map_err(|_| Refused::Gone)
    }

    /// Says that the content is complete.
    pub fn finish(&self) {
        self.state.finished.store(true, Ordering::Release);
    }
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
    /// Bytes that are still to come; of one that is still being made, the most that are held at a time.
    pub fn held(&self) -> usize {
        match &self.content {
            Content::Whole(bytes) => bytes.len(),
            Content::Pieces(pieces) => pieces.remaining(),
            Content::Made(made) => made.limit,
        }
    }

    /// Bytes that are still to come, if that is known.
    pub fn known_length(&self) -> Option<usize> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes.len()),
            Content::Pieces(pieces) => Some(pieces.remaining()),
            Content::Made(_) => None,
        }
    }

    /// The body, counted as held until it is written.
    #[must_use]
    pub fn holding(self, share: Share) -> Self {
        match self.content {
            // A connection takes it in one piece, and writes it when it can.
            Content::Whole(bytes) => Self { content: Content::Whole(share.hold(bytes)), share: None },
            content => Self { content, share: Some(share) },
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let next = match &mut this.content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(mem::take(bytes))),
            Content::Pieces(pieces) => pieces.next().map(|piece| Ok(Bytes::from(piece?))),
            Content::Made(made) => {
                let piece = made.pieces.poll_recv(context);
                // A client that has read all that there is does not read slowly.
                if let Some(share) = &mut this.share {
                    share.is_making(piece.is_pending());
                }
                match ready!(piece) {
                    Some(piece) => {
                        made.state.behind.fetch_sub(piece.len(), Ordering::AcqRel);
                        Some(Ok(piece))
                    }
                    None if made.state.finished.load(Ordering::Acquire) => None,
                    None => Some(Err(Broken::Unfinished)),
                }
            }
        };
        if next.is_none() {
            self.share = None;
        }
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.known_length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.known_length().map_or_else(SizeHint::default, |len| SizeHint::with_exact(len as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::time::timeout;

    use super::*;
    use crate::budget::Budget;

    async fn next(body: &mut Body) -> Option<Result<Bytes, Broken>> {
        body.frame().await.map(|frame| Ok(frame?.into_data().unwrap()))
    }

    #[tokio::test]
    async fn pieces_come_out_as_they_are_made() {
        let (source, mut body) = Source::new(10);
        for piece in ["one", "two"] {
            source.send(piece.into()).unwrap();
            assert_eq!(next(&mut body).await, Some(Ok(piece.into())));
        }
        source.finish();
        drop(source);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn who_has_read_all_that_was_made_is_not_slow() {
        let budget = Budget::new(100, 100, 100);
        let purse = budget.purse(&budget.peer());
        let (source, body) = Source::new(10);
        let mut body = body.holding(purse.reply(10).unwrap());
        source.send("one".into()).unwrap();
        assert_eq!((purse.unsent(), purse.unread()), (1, 1));
        next(&mut body).await.unwrap().unwrap();
        assert!(timeout(Duration::ZERO, next(&mut body)).await.is_err());
        assert_eq!((purse.unsent(), purse.unread()), (1, 0), "it waits for more");
        source.send("two".into()).unwrap();
        next(&mut body).await.unwrap().unwrap();
        assert_eq!(purse.unread(), 1);
        assert!(timeout(Duration::ZERO, next(&mut body)).await.is_err());
        drop(body);
        assert_eq!((purse.unsent(), purse.unread(), budget.held()), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_is_not_finished_breaks() {
        let (source, mut body) = Source::new(10);
        source.send("one".into()).unwrap();
        drop(source);
        assert_eq!(next(&mut body).await, Some(Ok("one".into())));
        assert_eq!(next(&mut body).await, Some(Err(Broken::Unfinished)));
    }

    #[tokio::test]
    async fn no_more_waits_than_may() {
        let (source, mut body) = Source::new(10);
        source.send("12345678".into()).unwrap();
        assert_eq!(source.send("123".into()), Err(Refused::Behind { limit: 10 }));
        next(&mut body).await.unwrap().unwrap();
        source.send("123".into()).unwrap();
        assert_eq!(source.is_wanted(), Ok(()));
        drop(body);
        assert_eq!((source.is_wanted(), source.send("4".into())), (Err(Refused::Gone), Err(Refused::Gone)));
    }
}
