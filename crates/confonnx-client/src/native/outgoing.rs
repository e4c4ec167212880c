//! The body of a request, for hyper.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use confonnx_protocol::SealError;
use hyper::body::{Body, Frame, SizeHint};

use crate::conversation;
use crate::{Progress, Transfer};

/// Bytes to send, if there are any.
pub(crate) struct Outgoing {
    body: Option<conversation::Body>,
    watched: Option<Watched>,
}

/// A body of which somebody wants to know how far it is: given in pieces, the next one when the last ones are through.
struct Watched {
    progress: Progress,
    rest: Bytes,
    done: u64,
    total: u64,
}

impl Outgoing {
    pub(crate) fn new(body: Option<conversation::Body>, progress: Option<&Progress>) -> Self {
        let total = body.as_ref().map_or(0, conversation::Body::len) as u64;
        let watch =
            |progress: &Progress| Watched { progress: progress.clone(), rest: Bytes::new(), done: 0, total };
        Self { watched: progress.filter(|_| body.is_some()).map(watch), body }
    }

    fn next(&mut self) -> Option<Result<Bytes, SealError>> {
        let mut next = || self.body.as_mut()?.next().map(|piece| piece.map(Bytes::from));
        let Some(watched) = &mut self.watched else { return next() };
        if watched.rest.is_empty() {
            match next()? {
                Ok(bytes) => watched.rest = bytes,
                Err(err) => return Some(Err(err)),
            }
        }
        let piece = watched.rest.split_to(watched.rest.len().min(PIECE));
        watched.done = watched.done.saturating_add(piece.len() as u64);
        watched.progress.tell(Transfer { sending: true, done: watched.done, total: Some(watched.total) });
        Some(Ok(piece))
    }

    /// Bytes that are still to come.
    fn len(&self) -> usize {
        let rest = self.watched.as_ref().map_or(0, |watched| watched.rest.len());
        self.body.as_ref().map_or(0, conversation::Body::len).saturating_add(rest)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = SealError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SealError>>> {
        Poll::Ready(self.next().map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// How many bytes a piece has: few beside what is worth watching.
const PIECE: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn who_watches_sees_every_byte_go_and_changes_none() {
        let bytes: Vec<u8> = (0..PIECE * 2 + 5).map(|i| i as u8).collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let progress = Progress::new(move |transfer| told.lock().unwrap().push(transfer));
        let mut body = Outgoing::new(Some(conversation::Body::Whole(bytes.clone())), Some(&progress));
        let mut sent = Vec::new();
        assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
        while !body.is_end_stream() {
            sent.extend(body.next().unwrap().unwrap());
            assert_eq!(body.size_hint().exact(), Some((bytes.len() - sent.len()) as u64));
        }
        assert!(sent == bytes && body.next().is_none());
        let total = Some(bytes.len() as u64);
        let sums = [PIECE, PIECE * 2, bytes.len()];
        let expected = sums.map(|done| Transfer { sending: true, done: done as u64, total });
        assert_eq!(*seen.lock().unwrap(), expected);
        // A request without a body has nothing to watch.
        assert!(Outgoing::new(None, Some(&progress)).next().is_none());
        assert_eq!(seen.lock().unwrap().len(), 3);
    }
}
