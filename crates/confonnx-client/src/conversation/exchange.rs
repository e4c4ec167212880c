//! One call: attests if need be, seals, opens, and repeats what may be repeated.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "native")]
use confonnx_attest::ModelClaim;
use confonnx_attest::{MAX_DOCUMENT_BYTES, Nonce, Trusted};
#[cfg(feature = "native")]
use confonnx_model::encrypted::{ModelKey, OwnerKey};
use confonnx_protocol::bhttp::{Fields, ResponseReader};
use confonnx_protocol::client::{ChunkedReplyOpener, ReplyOpener};
use confonnx_protocol::resumption::{Resumption, ResumptionOffer};
use confonnx_protocol::{Pieces, SealError};
use rand_core::CryptoRng;

use super::attested_key::AttestedKey;
use super::backoff;
use super::call::{Answer, Call, percent_encode};
use super::incoming::{Head, Incoming};
use super::resuming::{self, Offering, Resumed, Way};
use super::{Attesting, Conversation, Key, Now};
#[cfg(feature = "native")]
use crate::ModelRef;
use crate::{BoxError, ClientError, Secret};

/// What a call is for.
pub enum Want<'a> {
    /// The proof on which the current key rests.
    Proof,
    /// The server's attestation document as sent, not verified: for the nonce, or its latest one.
    Document(Option<Nonce>),
    /// An answer of the inner API, whatever its status.
    Call(Call<'a>),
}

/// The outcome of a call.
#[derive(Debug)]
pub enum Outcome {
    /// For [`Want::Proof`].
    Proof(Arc<Trusted>),
    /// For [`Want::Document`].
    Document(Vec<u8>),
    /// For [`Want::Call`].
    Answer(Answer),
}

/// What the host has to do next.
#[derive(Debug)]
pub enum Step {
    /// Send a GET, then give [`Exchange::head`], [`Exchange::data`], [`Exchange::end`], or [`Exchange::failed`].
    Get {
        /// The URL to ask.
        url: String,
        /// Whether the URL is a relay's: nothing of the caller's goes there but the nonce.
        relayed: bool,
        /// The media type of the answer, for `accept`.
        accept: &'static str,
    },
    /// Send a POST, then give what [`Step::Get`] names.
    Post {
        /// The URL to post to.
        url: String,
        /// Whether the URL is a relay's: nothing of the caller's goes there but the body.
        relayed: bool,
        /// The body's media type.
        content_type: &'static str,
        /// The media type of the answer, for `accept`.
        accept: &'static str,
        /// What to send.
        body: Body,
    },
    /// Wait, then ask again.
    Wait(Wait),
    /// The call is over: what came of it.
    Done(Result<Outcome, ClientError>),
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until this much time has passed.
    For(Duration),
    /// Until another call has attested the server: [`Conversation::poll_attested`].
    Attestation,
}

/// A sealed body, whole or in pieces that are sealed as they are sent.
#[derive(Debug)]
pub enum Body {
    /// The body, all there.
    Whole(Vec<u8>),
    /// The body, sealed piece by piece.
    Pieces(Box<Pieces>),
}

/// See the [module](super).
pub struct Exchange<'a> {
    conversation: Arc<Conversation>,
    want: Want<'a>,
    token: Option<Secret>,
    state: State,
    incoming: Option<Incoming>,
    key: Option<Arc<AttestedKey>>,
    /// The key that must not be used again, and what the server said of it.
    refused: Option<(Arc<AttestedKey>, Option<ClientError>)>,
    /// The resumption was refused, so the request is sealed to the key.
    full: bool,
    renewals: u32,
    corrected: bool,
    looked_again: bool,
    tries: u32,
    /// The error after which to wait before the next try, once randomness is at hand.
    pausing: Option<ClientError>,
    deadline: Option<Duration>,
    streamed: Streamed,
}

enum State {
    Ready,
    Paused(Duration),
    Document,
    Attesting(Nonce, Attesting),
    Sealed(Sealed),
    Done(Result<Outcome, ClientError>),
    Over,
}

enum Sealed {
    Whole(ReplyOpener, Option<(Offering, ResumptionOffer)>),
    Resumed(ReplyOpener, Arc<Resumed>),
    Chunked(ChunkedReplyOpener),
}

/// What is read of an answer before its end.
#[derive(Default)]
struct Streamed {
    reader: ResponseReader,
    head: Option<(u16, Fields)>,
    pieces: Vec<Range<usize>>,
}

impl<'a> Exchange<'a> {
    /// Nothing happens before the first [`Self::step`]. `token` is the bearer token of this call, in place of the options'.
    pub fn new(conversation: Arc<Conversation>, want: Want<'a>, token: Option<Secret>) -> Self {
        Self {
            conversation,
            want,
            token,
            state: State::Ready,
            incoming: None,
            key: None,
            refused: None,
            full: false,
            renewals: 0,
            corrected: false,
            looked_again: false,
            tries: 0,
            pausing: None,
            deadline: None,
            streamed: Streamed::default(),
        }
    }

    /// What to do next. To be asked again after everything that was done; an answer under way is to be ended first.
    pub fn step(&mut self, now: Now, rng: &mut impl CryptoRng) -> Step {
        let timeout = self.conversation.options.timeout;
        let deadline = *self.deadline.get_or_insert(now.elapsed.saturating_add(timeout));
        if let Some(err) = self.pausing.take() {
            let until = now.elapsed.saturating_add(backoff::pause(self.tries, err.retry_after(), rng));
            self.tries = self.tries.saturating_add(1);
            self.state = if until < deadline { State::Paused(until) } else { State::Done(Err(err)) };
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Ready => self.start(now, rng).unwrap_or_else(|err| Step::Done(Err(err))),
            State::Paused(until) if until > now.elapsed => {
                self.state = State::Paused(until);
                Step::Wait(Wait::For(until.saturating_sub(now.elapsed)))
            }
            State::Paused(_) => {
                self.state = State::Ready;
                self.step(now, rng)
            }
            State::Done(result) => Step::Done(result),
            // The answer under way was not ended: the host has given up on it.
            State::Document | State::Attesting(..) | State::Sealed(_) | State::Over => {
                Step::Done(Err(ClientError::System { source: "the exchange was not ended".into() }))
            }
        }
    }

    /// The head of the answer.
    pub fn head(&mut self, head: &Head) {
        let max_reply = self.conversation.options.max_reply;
        let (expected, limit) = match &self.state {
            State::Sealed(sealed) => (sealed.media().1, max_reply),
            _ => (DOCUMENT, MAX_DOCUMENT_BYTES),
        };
        self.incoming = Some(Incoming::new(expected, head, limit));
    }

    /// The next bytes of the answer. When `false`, no more of them are wanted and the answer can be ended.
    pub fn data(&mut self, bytes: &[u8]) -> bool {
        let Some(incoming) = &mut self.incoming else { return false };
        let State::Sealed(Sealed::Chunked(opener)) = &mut self.state else {
            incoming.push(bytes);
            return !incoming.is_too_large();
        };
        if !incoming.is_expected() {
            incoming.push(bytes);
            return !incoming.is_too_large();
        }
        // The error is told when the answer ends.
        opener.push(bytes).is_ok()
            && (!self.want.is_streamed() || self.streamed.read(opener.opened()).is_ok())
    }

    /// Status and fields of a streamed answer, once they are there. Authentic, but what follows may still be cut short:
    /// only [`Step::Done`] says that it was whole. None while the answer may be one that the exchange deals with itself.
    pub fn streamed_head(&self) -> Option<(u16, &Fields)> {
        self.streamed.head.as_ref().map(|(status, fields)| (*status, fields))
    }

    /// Content of a streamed answer that has come since this was last asked.
    pub fn take_streamed(&mut self) -> Vec<u8> {
        let State::Sealed(Sealed::Chunked(opener)) = &self.state else { return Vec::new() };
        let message = opener.opened();
        std::mem::take(&mut self.streamed.pieces)
            .into_iter()
            .flat_map(|range| message.get(range).unwrap_or_default())
            .copied()
            .collect()
    }

    /// The answer has ended.
    pub fn end(&mut self, now: Now) {
        let state = std::mem::replace(&mut self.state, State::Over);
        let Some(incoming) = self.incoming.take() else {
            self.state = State::Done(Err(ClientError::System { source: "an end without a head".into() }));
            return;
        };
        let ended = match state {
            State::Document => incoming.finish().map(Outcome::Document).map(Some),
            State::Attesting(nonce, attesting) => {
                incoming.finish().and_then(|document| self.attested(&document, &nonce, attesting, now))
            }
            State::Sealed(sealed) => self.opened(sealed, incoming, now),
            State::Ready | State::Paused(_) | State::Done(_) | State::Over => Ok(None),
        };
        self.settle(ended);
    }

    /// There was no answer. `sent`: the server may have got the request all the same.
    pub fn failed(&mut self, source: BoxError, sent: bool, _now: Now) {
        self.incoming = None;
        // With a relay, it was the relay that did not answer.
        let url = self.conversation.options.relay.clone().unwrap_or_else(|| self.conversation.url());
        self.settle(Err(ClientError::Transport { url, source, sent }));
    }

    /// What comes next: `None` is another try.
    fn settle(&mut self, ended: Result<Option<Outcome>, ClientError>) {
        self.state = match ended {
            Ok(Some(outcome)) => State::Done(Ok(outcome)),
            Ok(None) => State::Ready,
            Err(err) => {
                let repeatable = match &self.want {
                    Want::Call(call) => call.is_repeatable(),
                    Want::Proof | Want::Document(_) => true,
                };
                let more = self.tries < self.conversation.options.retries && self.streamed.head.is_none();
                if more && backoff::may_retry(&err, repeatable) {
                    self.pausing = Some(err);
                    State::Ready
                } else {
                    State::Done(Err(err))
                }
            }
        };
    }

    /// Attests, or seals the request.
    fn start(&mut self, now: Now, rng: &mut impl CryptoRng) -> Result<Step, ClientError> {
        if let Want::Document(nonce) = &self.want {
            self.state = State::Document;
            return Ok(self.document_step(self.conversation.state().base.as_str(), nonce.as_ref()));
        }
        loop {
            if self.key.is_none() || self.refused.is_some() {
                let refused = self.refused.as_ref().map(|(key, _)| key);
                match self.conversation.key(refused, now) {
                    Key::Busy => {
                        self.state = State::Ready;
                        return Ok(Step::Wait(Wait::Attestation));
                    }
                    Key::Current(key) => self.keyed(key)?,
                    Key::Attest(attesting) => {
                        let mut nonce = Nonce([0; 32]);
                        rng.fill_bytes(&mut nonce.0);
                        let step = self.document_step(attesting.base.as_str(), Some(&nonce));
                        self.state = State::Attesting(nonce, attesting);
                        return Ok(step);
                    }
                }
            }
            let Some(key) = self.key.clone() else { continue };
            let Want::Call(call) = &self.want else {
                return Ok(Step::Done(Ok(Outcome::Proof(Arc::clone(&key.trusted)))));
            };
            // The path is made anew for every key: what its claims say of the model decides.
            match self.address(call, &key) {
                // The claims may be old, so the server is attested once more.
                Err(ClientError::Model(_)) if !self.looked_again => {
                    self.looked_again = true;
                    self.refused = Some((key, None));
                }
                path => return self.seal(&path?, &key, now, rng),
            }
        }
    }

    /// A document of the server at `base`; from the relay if there is one, as the server would else learn who asks, and soon
    /// after whose the sealed request is.
    fn document_step(&self, base: &str, nonce: Option<&Nonce>) -> Step {
        let query = nonce.map(|nonce| format!("?nonce={nonce}")).unwrap_or_default();
        let relay = self.conversation.options.relay.as_ref();
        let url = relay.map_or_else(|| format!("{base}/.well-known/confonnx/attestation"), Clone::clone);
        Step::Get { url: url + &query, relayed: relay.is_some(), accept: DOCUMENT }
    }

    /// The path of the call, with that of its model if it is about one.
    fn address(&self, call: &Call<'_>, key: &AttestedKey) -> Result<String, ClientError> {
        let Some(model) = &call.model else { return Ok(call.path.clone()) };
        let (name, version) = (model.name.as_deref(), model.version.as_deref());
        let called = self.conversation.policy.model(key.trusted.claims(), name, version)?;
        if model.in_body {
            return Ok(call.path.clone());
        }
        let mut path = format!("/v2/models/{}", percent_encode(&called.name));
        if let Some(version) = called.version {
            path += &format!("/versions/{}", percent_encode(&version));
        }
        Ok(path + &call.path)
    }

    fn seal(
        &mut self,
        path: &str,
        key: &Arc<AttestedKey>,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Result<Step, ClientError> {
        let Want::Call(call) = &self.want else { return Err(unexpected()) };
        let (conversation, options) = (&self.conversation, &self.conversation.options);
        let (date, token) = (conversation.date(now), self.token.as_ref());
        let message = |room, offer| call.message(path, token, options, date, room, offer);
        // Resumed requests can be linked, which a relay is to prevent; and chunks have no resumption.
        let chunked = options.chunked || call.streamed;
        let resumes = options.resumption && options.relay.is_none() && !chunked;
        let way = if resumes { key.resuming.way(now.elapsed) } else { Way::Plain };
        let (body, sealed) = if chunked {
            let mut start = Vec::new();
            let (sealer, opener) = key
                .key
                .seal_chunked(options.aead, options.max_reply, rng, &mut start)
                .map_err(seal_failed)?;
            let pieces = Pieces::new(start, sealer, message(key.key.room(), false)?);
            (Body::Pieces(Box::new(pieces)), Sealed::Chunked(opener))
        } else if let (Way::Resume(resumed), false) = (&way, self.full) {
            let (request, opener) =
                resumed.resumption.seal(message(Resumption::ROOM, false)?, rng).map_err(seal_failed)?;
            (Body::Whole(request), Sealed::Resumed(opener, Arc::clone(resumed)))
        } else {
            let offering = if let Way::Offer(offering) = way { Some(offering) } else { None };
            let message = message(key.key.room(), offering.is_some())?;
            let (request, opener, offer) =
                key.key.seal_offering(options.aead, message, rng).map_err(seal_failed)?;
            let offering = offering.map(|offering| (offering, offer));
            (Body::Whole(request), Sealed::Whole(opener, offering))
        };
        key.fits(body.len())?;
        let relayed = options.relay.is_some();
        let gateway = || format!("{}/.well-known/ohttp-gateway", conversation.state().base.as_str());
        let url = options.relay.clone().unwrap_or_else(gateway);
        let (content_type, accept) = sealed.media();
        self.streamed = Streamed::default();
        self.state = State::Sealed(sealed);
        Ok(Step::Post { url, relayed, content_type, accept, body })
    }

    /// Verifies and appraises the document, and takes its key.
    fn attested(
        &mut self,
        document: &[u8],
        nonce: &Nonce,
        attesting: Attesting,
        now: Now,
    ) -> Result<Option<Outcome>, ClientError> {
        let Conversation { policy, options, .. } = &*self.conversation;
        let key = Arc::new(AttestedKey::open(document, nonce, policy, options.kem, now.unix())?);
        attesting.attested(&key);
        self.keyed(key)?;
        Ok(None)
    }

    /// Goes on with `key`, unless it does not help against what the server said of the one before.
    fn keyed(&mut self, key: Arc<AttestedKey>) -> Result<(), ClientError> {
        if let Some((old, Some(refusal))) = self.refused.take() {
            // With the same keys the request itself is at fault, and sending it again would not help.
            let unknown = matches!(&refusal, ClientError::Refused { code, .. } if code == "key-unknown");
            if (!unknown || self.renewals > 0) && key.trusted.key_configs() == old.trusted.key_configs() {
                return Err(refusal);
            }
            let mut state = self.conversation.state();
            state.invalid = state.invalid.saturating_add(1);
            drop(state);
            self.renewals = self.renewals.saturating_add(1);
        }
        (self.key, self.full) = (Some(key), false);
        Ok(())
    }

    /// What the answer to a sealed request means.
    fn opened(
        &mut self,
        sealed: Sealed,
        incoming: Incoming,
        now: Now,
    ) -> Result<Option<Outcome>, ClientError> {
        let Some(key) = self.key.clone() else { return Err(unexpected()) };
        let received = incoming.finish();
        let answer = match (sealed, received) {
            (Sealed::Resumed(_, resumed), Err(ClientError::Refused { code, .. }))
                if resuming::ends_resumption(&code) =>
            {
                key.resuming.refused(&resumed, now.elapsed);
                self.full = true;
                return Ok(None);
            }
            (_, Err(err)) => return self.refused(err, key),
            (Sealed::Whole(opener, offering), Ok(reply)) => {
                let answer = Answer::parse(opener.open(reply).map_err(ClientError::reply)?)?;
                key.resuming.answered();
                if let Some((offering, offer)) = offering {
                    offering.answered(offer, answer.grant());
                }
                answer
            }
            (Sealed::Resumed(opener, _), Ok(reply)) => {
                let answer = Answer::parse(opener.open(reply).map_err(ClientError::reply)?)?;
                key.resuming.resumed();
                answer
            }
            (Sealed::Chunked(opener), Ok(_)) => Answer::parse(opener.finish().map_err(ClientError::reply)?)?,
        };
        self.full = false;
        let mut state = self.conversation.state();
        if state.key.as_ref().is_some_and(|current| Arc::ptr_eq(current, &key)) {
            state.outdated = answer.key_outdated();
        }
        if let Some(offset) = answer.date_refused(now.clock).filter(|_| !self.corrected) {
            state.clock = Some(offset);
            self.corrected = true;
            return Ok(None);
        }
        drop(state);
        let retried =
            self.tries < self.conversation.options.retries && backoff::may_retry(&answer.failure(), false);
        if answer.status() != 200 && retried {
            return Err(answer.failure());
        }
        Ok(Some(Outcome::Answer(answer)))
    }

    fn refused(&mut self, err: ClientError, key: Arc<AttestedKey>) -> Result<Option<Outcome>, ClientError> {
        let may_be_the_key = matches!(&err, ClientError::Refused { code, .. } if may_be_the_key(code));
        if self.renewals >= MAX_RENEWALS || !may_be_the_key {
            return Err(err);
        }
        self.refused = Some((key, Some(err)));
        Ok(None)
    }

    #[cfg(feature = "native")]
    /// The signature by which `owner` gives the `model` its key, for a server that was told whose the model is. After
    /// [`Outcome::Proof`].
    pub(crate) fn owner_signature(
        conversation: &Conversation,
        trusted: &Trusted,
        model: ModelRef<'_>,
        key: &ModelKey,
        owner: &OwnerKey,
    ) -> Result<Vec<u8>, ClientError> {
        let called = conversation.policy.model(trusted.claims(), model.name, model.version)?;
        // The version is chosen as by the server: the highest one that is locked.
        let number =
            |claim: &&ModelClaim| (claim.sha256.is_none(), claim.version.parse::<u64>().unwrap_or_default());
        let is_called = |claim: &&ModelClaim| {
            claim.name == called.name
                && called.version.as_ref().is_none_or(|version| *version == claim.version)
        };
        let claimed = trusted.claims().models.iter().filter(is_called).max_by_key(number);
        let Some(ciphertext) = claimed.and_then(|claim| claim.ciphertext_sha256) else {
            return Err(ClientError::NotEncrypted { model: called.name });
        };
        let failed = || ClientError::System { source: "the cryptographic library failed".into() };
        owner.sign(&ciphertext.0, key).ok_or_else(failed)
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("with", &self.conversation.url()).finish_non_exhaustive()
    }
}

impl Want<'_> {
    fn is_streamed(&self) -> bool {
        matches!(self, Self::Call(call) if call.streamed)
    }
}

impl Body {
    /// Bytes that are still to come.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Pieces(pieces) => pieces.remaining(),
        }
    }

    /// Whether no bytes are to come any more.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for Body {
    type Item = Result<Vec<u8>, SealError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Self::Pieces(pieces) => pieces.next(),
        }
    }
}

impl Sealed {
    /// The media types of request and reply.
    fn media(&self) -> (&'static str, &'static str) {
        match self {
            Self::Whole(..) => ("message/ohttp-req", "message/ohttp-res"),
            Self::Resumed(..) => ("message/confonnx-session-req", "message/confonnx-session-res"),
            Self::Chunked(_) => ("message/ohttp-chunked-req", "message/ohttp-chunked-res"),
        }
    }
}

impl Streamed {
    fn read(&mut self, opened: &[u8]) -> Result<(), ClientError> {
        while let Some(range) = self.reader.next(opened).map_err(ClientError::reply)? {
            self.pieces.push(range);
        }
        if self.head.is_none() {
            // An answer of another status is read whole first: the request may be one to repeat.
            self.head = self.reader.head().filter(|head| head.status == 200).map(|head| {
                let fields = head.fields.clone();
                (head.status, fields)
            });
        }
        Ok(())
    }
}

fn unexpected() -> ClientError {
    ClientError::System { source: "no request was sealed".into() }
}

fn seal_failed(err: SealError) -> ClientError {
    ClientError::Seal { source: err.into() }
}

/// Whether another key may be all it takes. Keys of another set of models may by chance have the number of an old one, with
/// the same KEM or another.
fn may_be_the_key(code: &str) -> bool {
    matches!(code, "key-unknown" | "request-invalid" | "suite-unsupported")
}

const DOCUMENT: &str = "application/json";

/// How often a call is repeated because the server's keys changed, each time with other keys: as models change, they may
/// change again meanwhile.
const MAX_RENEWALS: u32 = 4;
