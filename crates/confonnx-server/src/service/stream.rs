//! An answer that is made piece by piece, each sealed as soon as it is there.

use bytes::Bytes;
use confonnx_protocol::{
    ChunkSealer, Draft, SealError,
    bhttp::{BhttpError, ResponseHead, ResponseWriter},
    server::Reply,
};
use confonnx_tensor::Erased;

use super::ReplyTo;
use crate::{
    body::{Body, Refused, Source},
    random::rng,
};

/// Takes the content of one answer, from any thread, and never waits. Dropped before its end, the client sees that the answer
/// is cut short.
///
/// Where the request came in chunks, the number and sizes of the pieces are seen by whoever sees the connection: what is
/// secret of them is for the sender to pad. Other requests get the whole in one piece at its end.
pub(super) struct Stream {
    sealing: Option<Sealing>,
    /// The head, until it is sealed: with the first content, unless it is sent before.
    head: Option<ResponseHead>,
    pieces: Source,
    /// How many bytes there are so far: sealed, or to be sealed at the end.
    len: usize,
    ended: Option<Ended>,
}

/// Is told how an answer ended, and how many bytes it had.
pub(super) type Ended = Box<dyn FnOnce(&'static str, usize) + Send>;

enum Sealing {
    Chunks { sealer: ChunkSealer, writer: Option<ResponseWriter> },
    Whole { reply: Reply, content: Vec<Erased<Vec<u8>>> },
}

/// Why no more of an answer is taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// The client is gone, or too slow.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The answer is too long.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The answer's head cannot be sent.
    #[error("the answer cannot be sent as binary HTTP: {0}")]
    Head(#[from] BhttpError),
}

impl Stream {
    /// A stream that answers `reply`, and the body that it comes out of.
    pub(super) fn new(reply: ReplyTo, head: ResponseHead, ended: Ended) -> Result<(Self, Body), NotTaken> {
        let (pieces, body) = Source::new(MAX_BEHIND);
        let mut start = Vec::new();
        let sealing = match reply {
            ReplyTo::Whole(reply) => Sealing::Whole { reply, content: Vec::new() },
            ReplyTo::Chunked(reply) => {
                Sealing::Chunks { sealer: reply.start(&mut rng(), &mut start)?, writer: None }
            }
        };
        let len = start.len();
        if len > 0 {
            pieces.send(start.into())?;
        }
        Ok((Self { sealing: Some(sealing), head: Some(head), pieces, len, ended: Some(ended) }, body))
    }

    /// Sends the head alone if the answer goes out piece by piece: before there is content, the client knows that there will be.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing more will be.
    pub(super) fn start(&mut self) -> Result<(), NotTaken> {
        if self.is_in_pieces() { self.send(b"") } else { Ok(()) }
    }

    /// Whether anybody waits for more.
    pub(super) fn is_wanted(&self) -> bool {
        self.pieces.is_wanted().is_ok()
    }

    /// Whether what is sent goes out piece by piece, so that others see when; else all goes at the end.
    pub(super) fn is_in_pieces(&self) -> bool {
        matches!(self.sealing, Some(Sealing::Chunks { .. }))
    }

    /// Sends `content`.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing more will be.
    pub(super) fn send(&mut self, content: &[u8]) -> Result<(), NotTaken> {
        match &mut self.sealing {
            None => Err(Refused::Gone.into()),
            Some(Sealing::Whole { content: parts, .. }) => {
                self.pieces.is_wanted()?;
                self.len = self.len.saturating_add(content.len());
                if self.len > MAX_BEHIND {
                    return Err(Refused::Behind { limit: MAX_BEHIND }.into());
                }
                parts.push(Erased::new(content.to_vec()));
                Ok(())
            }
            Some(Sealing::Chunks { sealer, writer }) => {
                let mut message =
                    Erased::new(Vec::with_capacity(content.len().saturating_add(LONGEST_LENGTH)));
                begun(writer, &mut self.head, &mut message)?.content(content, &mut message);
                let mut sealed = Vec::with_capacity(ChunkSealer::sealed_len(message.len()));
                sealer.chunk(&message, &mut sealed)?;
                self.len = self.len.saturating_add(sealed.len());
                Ok(self.pieces.send(sealed.into())?)
            }
        }
    }

    /// Ends the answer; `outcome` is a fixed word for the audit log.
    ///
    /// # Errors
    /// [`NotTaken`]: the client sees an answer cut short.
    pub(super) fn finish(mut self, outcome: &'static str) -> Result<(), NotTaken> {
        let sealed = match self.sealing.take() {
            None => return Err(Refused::Gone.into()),
            Some(Sealing::Whole { reply, content }) => {
                let head = self.head.take().unwrap_or_else(|| ResponseHead::new(500));
                let parts: Vec<&[u8]> = content.iter().map(|part| part.as_slice()).collect();
                let sealed = reply.seal(Draft::response(&head, &parts)?, &mut rng())?;
                self.len = sealed.len();
                sealed
            }
            Some(Sealing::Chunks { sealer, mut writer }) => {
                let (mut message, mut sealed) = (Vec::new(), Vec::new());
                begun(&mut writer, &mut self.head, &mut message)?;
                if let Some(writer) = writer {
                    writer.finish(&mut message);
                }
                sealer.finish(&message, &mut sealed)?;
                self.len = self.len.saturating_add(sealed.len());
                sealed
            }
        };
        self.pieces.send(Bytes::from(sealed))?;
        self.pieces.finish();
        self.end(outcome);
        Ok(())
    }

    /// Answers with an error instead, of which nothing was sent yet.
    ///
    /// # Errors
    /// [`NotTaken`]: the client sees an answer cut short.
    pub(super) fn fail(mut self, status: u16, error: &[u8], outcome: &'static str) -> Result<(), NotTaken> {
        // After another head, whoever reads on takes an error for an answer: such an answer is cut.
        let Some(head) = &mut self.head else { return Err(Refused::Gone.into()) };
        head.status = status;
        self.send(error)?;
        self.finish(outcome)
    }

    fn end(&mut self, outcome: &'static str) {
        if let Some(ended) = self.ended.take() {
            ended(outcome, self.len);
        }
    }
}

/// What writes the content, after the head.
fn begun<'w>(
    writer: &'w mut Option<ResponseWriter>,
    head: &mut Option<ResponseHead>,
    message: &mut Vec<u8>,
) -> Result<&'w mut ResponseWriter, NotTaken> {
    Ok(match writer {
        Some(writer) => writer,
        None => {
            let head = head.take().ok_or(Refused::Gone)?;
            writer.insert(ResponseWriter::start(&head, message)?)
        }
    })
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end(CUT);
    }
}

/// The outcome of an answer whose end was never made or never wanted.
const CUT: &str = "cut";
/// How many bytes may wait to be sent, or make up an answer that is sent whole.
const MAX_BEHIND: usize = 1 << 20;
/// How many bytes the length of the longest content takes.
const LONGEST_LENGTH: usize = 8;

#[cfg(test)]
mod tests;
