//! Does what an exchange asks for.

use std::fmt;
use std::future::poll_fn;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use confonnx_protocol::bhttp::Fields;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::host::Native;
use super::outgoing::Outgoing;
use crate::conversation::{Answer, Exchange, Now, Outcome, Step, Wait};
use crate::{BoxError, ClientError, Progress, Transfer};

/// The time by this machine's clocks.
pub(super) fn now() -> Now {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Now { clock: SystemTime::now(), elapsed: START.elapsed() }
}

/// An exchange under way.
pub(super) struct Drive<'c, 'a> {
    native: &'c Native,
    exchange: Exchange<'a>,
    body: Option<Incoming>,
    watched: Option<Watched>,
}

/// How much of a sealed answer has come, for somebody who wants to know.
struct Watched {
    progress: Progress,
    done: u64,
    total: Option<u64>,
}

impl Watched {
    fn came(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes as u64);
        self.progress.tell(Transfer { sending: false, done: self.done, total: self.total });
    }
}

impl<'c, 'a> Drive<'c, 'a> {
    pub(super) fn new(native: &'c Native, exchange: Exchange<'a>) -> Self {
        Self { native, exchange, body: None, watched: None }
    }

    /// Drives the exchange until it is done.
    pub(super) async fn finish(mut self) -> Result<Outcome, ClientError> {
        loop {
            if let Some(outcome) = self.advance().await {
                return outcome;
            }
        }
    }

    /// Takes one step, or the next bytes of an answer.
    async fn advance(&mut self) -> Option<Result<Outcome, ClientError>> {
        if let Some(body) = &mut self.body {
            let wanted = match body.frame().await {
                Some(Ok(frame)) => frame.data_ref().is_none_or(|data| {
                    self.watched.iter_mut().for_each(|watched| watched.came(data.len()));
                    self.exchange.data(data)
                }),
                Some(Err(err)) => {
                    self.body = None;
                    self.exchange.failed(err.into(), true, now());
                    return None;
                }
                None => false,
            };
            if !wanted {
                self.body = None;
                self.exchange.end(now());
            }
            return None;
        }
        let (method, url, content_type, accept, body, ours) =
            match self.exchange.step(now(), &mut UnwrapErr(SysRng)) {
                Step::Done(outcome) => return Some(outcome),
                Step::Wait(Wait::For(time)) => {
                    tokio::time::sleep(time).await;
                    return None;
                }
                Step::Wait(Wait::Attestation) => {
                    poll_fn(|context| self.native.conversation.poll_attested(context)).await;
                    return None;
                }
                Step::Get { url, relayed, accept } => (Method::GET, url, None, accept, None, !relayed),
                Step::Post { url, relayed, content_type, accept, body } => {
                    (Method::POST, url, Some(content_type), accept, Some(body), !relayed)
                }
            };
        let transport = match self.native.transport() {
            Ok(transport) => transport,
            Err(err) => return Some(Err(err)),
        };
        let progress = self.native.conversation.options().progress.as_ref().filter(|_| body.is_some());
        let outgoing = Outgoing::new(body, progress);
        match transport.send(method, &url, content_type, accept, outgoing, ours).await {
            Ok((head, body)) => {
                self.exchange.head(&head);
                self.watched = progress.map(|progress| Watched {
                    progress: progress.clone(),
                    done: 0,
                    total: head.content_length,
                });
                self.body = Some(body);
            }
            Err(failed) => self.exchange.failed(failed.source, failed.sent, now()),
        }
        None
    }
}

/// The answer to a [`Request`](crate::Request), opened as it comes.
///
/// What is given is authentic, and in order. That it was whole is said by the `None` at its end alone: an error before that
/// means that the rest is missing.
pub struct Stream<'c> {
    drive: Drive<'c, 'static>,
    status: u16,
    fields: Fields,
    /// Bytes given so far.
    given: usize,
    whole: OnceLock<Answer>,
    timeout: Duration,
}

impl<'c> Stream<'c> {
    /// Waits for the head.
    pub(super) async fn start(mut drive: Drive<'c, 'static>, timeout: Duration) -> Result<Self, ClientError> {
        loop {
            if let Some(outcome) = drive.advance().await {
                let Outcome::Answer(answer) = outcome? else { return Err(no_answer()) };
                let (status, fields) = (answer.status(), answer.fields().clone());
                return Ok(Self { drive, status, fields, given: 0, whole: answer.into(), timeout });
            }
            if let Some((status, fields)) = drive.exchange.streamed_head() {
                let fields = fields.clone();
                return Ok(Self { drive, status, fields, given: 0, whole: OnceLock::new(), timeout });
            }
        }
    }

    /// The answer's status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The answer's header fields.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The next bytes of the answer's body; `None` after the last ones.
    ///
    /// # Errors
    /// [`ClientError`]: the rest is missing. [`ClientError::Timeout`] when nothing comes for the options' `timeout`.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let (url, after) = (self.drive.native.conversation.url(), self.timeout);
        match tokio::time::timeout(after, self.next()).await {
            Ok(chunk) => chunk,
            Err(_) => Err(ClientError::Timeout { url, after }),
        }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(answer) = self.whole.get() {
                let rest = answer.body().get(self.given..).unwrap_or_default().to_vec();
                self.given = self.given.saturating_add(rest.len());
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let chunk = self.drive.exchange.take_streamed();
            if !chunk.is_empty() {
                self.given = self.given.saturating_add(chunk.len());
                return Ok(Some(chunk));
            }
            if let Some(outcome) = self.drive.advance().await {
                let Outcome::Answer(answer) = outcome? else { return Err(no_answer()) };
                self.whole = answer.into();
            }
        }
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}, {} bytes so far)", self.status, self.given)
    }
}

pub(super) fn no_answer() -> ClientError {
    ClientError::System { source: BoxError::from("an exchange without an answer") }
}
