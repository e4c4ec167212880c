//! Opening requests and sealing their replies.

use std::{fmt, mem, ops::Deref, sync::Weak};

use confonnx_attest::UnixTime;
use rand_core::CryptoRng;
use thiserror::Error;

use super::{
    epoch::EpochKeys,
    replay::{Refusal, Token},
    ring::{FoundKey, KeyRing},
};
use crate::{
    ChunkSealer, Code, Draft, Incoming, Pieces, Plaintext,
    chunked::{ChunkError, ChunkReader},
    context::{Framing, HEADER_LEN, Receiver, Seal, SealError},
    reply_key::{ReplyKey, ReplySecret},
    resumption::{self, ID_LEN, MessageKey, ResumptionGrant, ResumptionId, ResumptionSecret},
    suite::{Aead, KDF_ID, Kem, TAG_LEN},
};

impl KeyRing {
    /// Opens a `message/ohttp-req` (RFC 9458 §4.3), in the buffer it came in.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, message: impl Into<Incoming>, now: UnixTime) -> Result<(Opened, Reply), OpenError> {
        let (authentic, reply) = open_authentic(self, message.into(), now)?;
        Ok((authentic.remember(self, now)?, reply))
    }

    /// As [`open`](Self::open), but the request is not remembered yet: for whoever wants to know first whether it will be served.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_unremembered(
        &self,
        message: impl Into<Incoming>,
        now: UnixTime,
    ) -> Result<(Authentic, Reply), OpenError> {
        open_authentic(self, message.into(), now)
    }

    /// Opens a `message/confonnx-session-req`, in the buffer it came in.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_resumed(
        &self,
        message: impl Into<Incoming>,
        now: UnixTime,
    ) -> Result<(Opened, Reply), OpenError> {
        open_resumed(self, message.into(), now)
    }

    /// Whether the resumption that a request names is known; `None` while too little of the request is there to say.
    pub fn knows_resumption(&self, begin: &[u8], now: UnixTime) -> Option<bool> {
        let start = resumption::Start::first(begin)?;
        let now = self.advance(now);
        let key = self.find(start.key_id(), now);
        Some(key.is_some_and(|key| key.resumptions().find(&start.id(), now).is_some()))
    }

    /// Opens a `message/ohttp-chunked-req` of at most `limit` bytes, sealed, as they arrive.
    pub fn chunked_opener(&self, limit: usize) -> ChunkedOpener<&Self> {
        ChunkedOpener::new(self, limit)
    }
}

/// Why a request was not opened. The peer is told its [`code`](Self::code) alone.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// The request ends before its header, its encapsulated key, its tag or its final chunk does.
    #[error("the request ends after {len} bytes, which is too early")]
    Truncated {
        /// How many bytes were received.
        len: usize,
    },
    /// The request is not authentic.
    #[error("the request does not decrypt")]
    Decrypt,
    /// A chunk is longer than allowed or shorter than its tag.
    #[error("a chunk of the request has no allowed size")]
    ChunkSize,
    /// The request is larger than the caller allows.
    #[error("the request is larger than the {limit} bytes allowed")]
    TooLarge {
        /// How many bytes are allowed, sealed.
        limit: usize,
    },
    /// No key that is accepted has this identifier.
    #[error("key {0} is not accepted: it expired, or is of another server")]
    UnknownKey(u8),
    /// The key is not published for this suite.
    #[error("key {key_id} is not for KEM {kem:#06x}, KDF {kdf:#06x}, AEAD {aead:#06x}")]
    Suite {
        /// The key's identifier.
        key_id: u8,
        /// KEM identifier in the request.
        kem: u16,
        /// KDF identifier in the request.
        kdf: u16,
        /// AEAD identifier in the request.
        aead: u16,
    },
    /// The encapsulated key was seen before.
    #[error("the request was received before")]
    Replayed,
    /// The resumption has ended, is of another server or was never granted.
    #[error("the resumption is not known: it ended, or is of another server")]
    UnknownResumption,
    /// There is no room to remember the request.
    #[error("as many requests as can be remembered came within twice the date window")]
    ReplayFull,
}

impl OpenError {
    /// The code that the peer is told.
    pub fn code(&self) -> Code {
        match self {
            // There is one code for all of these, so that it is no oracle.
            Self::Truncated { .. } | Self::Decrypt | Self::ChunkSize => Code::RequestInvalid,
            Self::TooLarge { .. } => Code::RequestTooLarge,
            Self::UnknownKey(_) => Code::KeyUnknown,
            Self::Suite { .. } => Code::SuiteUnsupported,
            Self::Replayed => Code::RequestReplayed,
            Self::UnknownResumption => Code::ResumptionUnknown,
            Self::ReplayFull => Code::ReplayStateFull,
        }
    }
}

impl From<Refusal> for OpenError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Seen => Self::Replayed,
            Refusal::Full => Self::ReplayFull,
        }
    }
}

/// An authentic request that was not seen before.
#[derive(Debug)]
pub struct Opened {
    /// The message: padded binary HTTP.
    pub plaintext: Plaintext,
    /// The key it was sealed to is no longer the current one.
    pub outdated: bool,
    received: UnixTime,
    date_window: u64,
    resumption: Option<Offered>,
}

/// An authentic request that may still be seen again: nothing of it may be done before it is remembered.
#[derive(Debug)]
pub struct Authentic {
    opened: Opened,
    admission: Admission,
}

impl Authentic {
    /// The message: padded binary HTTP.
    pub fn plaintext(&self) -> &Plaintext {
        &self.opened.plaintext
    }

    /// The key it was sealed to is no longer the current one.
    pub fn is_outdated(&self) -> bool {
        self.opened.outdated
    }

    /// When the request was received, by a clock that never runs backwards.
    pub fn received(&self) -> UnixTime {
        self.opened.received
    }

    /// As [`Opened::check_date`].
    ///
    /// # Errors
    /// [`DateOutOfWindow`].
    pub fn check_date(&self, date: UnixTime) -> Result<(), DateOutOfWindow> {
        self.opened.check_date(date)
    }

    /// The last step: it is this one, or a replay of it, that is served.
    ///
    /// # Errors
    /// [`OpenError::Replayed`], [`OpenError::ReplayFull`], and [`OpenError::UnknownKey`] if what the keys are bound to changed
    /// meanwhile.
    pub fn remember(self, ring: &KeyRing, now: UnixTime) -> Result<Opened, OpenError> {
        let Self { mut opened, admission } = self;
        ring.advance(now);
        if !ring.is_bound(admission.rebound) {
            return Err(OpenError::UnknownKey(admission.key_id));
        }
        // The request counts as received no earlier than this: how long it is remembered counts from here.
        opened.received = ring.admit(admission.token)?;
        Ok(opened)
    }
}

/// What a resumption can be made of.
struct Offered {
    context: Box<dyn Receiver>,
    header: [u8; HEADER_LEN],
    aead: Aead,
    lifetime: u64,
    epoch: Weak<EpochKeys>,
}

/// A request's `date` is too far from the server's clock.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the request's date is {} s and the server's {} s of Unix time; at most {window} s apart are accepted", .date.0, .now.0)]
pub struct DateOutOfWindow {
    /// The request's `date`.
    pub date: UnixTime,
    /// When the request was received.
    pub now: UnixTime,
    /// How many seconds are allowed, either way.
    pub window: u64,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offered")
    }
}

impl Opened {
    /// When the request was received, by a clock that never runs backwards.
    pub fn received(&self) -> UnixTime {
        self.received
    }

    /// Whether the request's `date` was in the window when the request was received. What is not must not be served:
    /// how long the request is remembered depends on it.
    ///
    /// # Errors
    /// [`DateOutOfWindow`].
    pub fn check_date(&self, date: UnixTime) -> Result<(), DateOutOfWindow> {
        if date.0.abs_diff(self.received.0) <= self.date_window {
            Ok(())
        } else {
            Err(DateOutOfWindow { date, now: self.received, window: self.date_window })
        }
    }

    /// Opens the resumption that the request offered, for the reply to say so. `None` when the server holds none, the
    /// request was chunked or resumed itself, or its key is outdated.
    ///
    /// Grants a resumption, once the request's `date` was checked: until then the request may be a replay.
    pub fn grant_resumption(&self, rng: &mut impl CryptoRng) -> Option<ResumptionGrant> {
        let offered = self.resumption.as_ref()?;
        let epoch = offered.epoch.upgrade().filter(|epoch| epoch.resumptions.is_on())?;
        let left = epoch.accepted_until.0.saturating_sub(self.received.0).min(offered.lifetime);
        let expires = UnixTime(self.received.0.saturating_add(left));
        let secret = ResumptionSecret::export(&*offered.context).ok()?;
        let mut id = ResumptionId([0; ID_LEN]);
        rng.fill_bytes(&mut id.0);
        epoch.resumptions.insert(id, resumption::Entry::new(secret, offered.header, offered.aead, expires));
        Some(ResumptionGrant { id, lifetime: u32::try_from(left).unwrap_or(u32::MAX) })
    }
}

/// Seals the reply to one request.
pub struct Reply(ReplySecret);

impl Reply {
    /// Seals `message`, padded binary HTTP, in its buffer: as `message/ohttp-res` (RFC 9458 §4.4), or as
    /// `message/confonnx-session-res` when it answers a request resumed.
    ///
    /// # Errors
    /// [`SealError::TooLong`] over 64 GiB.
    pub fn seal(self, message: impl Into<Draft>, rng: &mut impl CryptoRng) -> Result<Vec<u8>, SealError> {
        let message = message.into();
        let mut nonce = Vec::with_capacity(self.0.nonce_len());
        let mut key = start_reply(self.0, rng, &mut nonce)?;
        let too_long = SealError::TooLong { len: message.message().len() };
        message.seal(&nonce, |data| key.seal(b"", data)).map_err(|_| too_long)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Seals the reply to one chunked request.
pub struct ChunkedReply(ReplySecret);

impl ChunkedReply {
    /// Starts a `message/ohttp-chunked-res` (draft-ietf-ohai-chunked-ohttp §6.2) and appends its start to `out`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn start(self, rng: &mut impl CryptoRng, out: &mut Vec<u8>) -> Result<ChunkSealer, SealError> {
        Ok(ChunkSealer::new(Box::new(start_reply(self.0, rng, out)?)))
    }

    /// The whole reply for `message`, padded binary HTTP, to be sealed as it is sent.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn pieces(self, message: Draft, rng: &mut impl CryptoRng) -> Result<Pieces, SealError> {
        let mut start = Vec::new();
        let sealer = self.start(rng, &mut start)?;
        Ok(Pieces::new(start, sealer, message))
    }
}

impl fmt::Debug for ChunkedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkedReply")
    }
}

/// Opens one chunked request as its bytes arrive, with the keys of the ring that `R` leads to.
pub struct ChunkedOpener<R> {
    ring: R,
    state: State,
    received: usize,
    limit: usize,
}

enum State {
    Head(Vec<u8>),
    Chunks(Box<Chunks>),
    Failed,
}

struct Chunks {
    context: Box<dyn Receiver>,
    reader: ChunkReader,
    reply: ReplySecret,
    admission: Admission,
}

impl<R: Deref<Target = KeyRing>> ChunkedOpener<R> {
    /// An opener of a request of at most `limit` bytes, sealed.
    pub fn new(ring: R, limit: usize) -> Self {
        Self { ring, state: State::Head(Vec::new()), received: 0, limit }
    }

    /// Takes the next bytes of the request, however they were split on the way.
    ///
    /// # Errors
    /// [`OpenError`]; after one, the request is lost.
    pub fn push(&mut self, sealed: &[u8], now: UnixTime) -> Result<(), OpenError> {
        self.received = self.received.saturating_add(sealed.len());
        let state = mem::replace(&mut self.state, State::Failed);
        if self.received > self.limit {
            return Err(OpenError::TooLarge { limit: self.limit });
        }
        self.state = match state {
            State::Head(mut head) => {
                head.extend_from_slice(sealed);
                match Start::read(&self.ring, &head, now) {
                    Ok((start, rest)) => {
                        let (context, reply) = start.receiver(Framing::Chunked)?;
                        let admission = start.admission();
                        let mut chunks =
                            Chunks { context, reader: ChunkReader::new(self.limit), reply, admission };
                        chunks.push(rest, self.received)?;
                        State::Chunks(Box::new(chunks))
                    }
                    Err(OpenError::Truncated { .. }) => State::Head(head),
                    Err(err) => return Err(err),
                }
            }
            State::Chunks(mut chunks) => {
                chunks.push(sealed, self.received)?;
                State::Chunks(chunks)
            }
            State::Failed => return Err(OpenError::Decrypt),
        };
        Ok(())
    }

    /// The request, when all bytes were taken.
    ///
    /// # Errors
    /// [`OpenError::Truncated`] when the final chunk is missing or cut; [`OpenError::Replayed`].
    pub fn finish(self, now: UnixTime) -> Result<(Opened, ChunkedReply), OpenError> {
        let (ring, state, received) = (self.ring, self.state, self.received);
        let (authentic, reply) = finished(&ring, state, received, now)?;
        Ok((authentic.remember(&ring, now)?, reply))
    }

    /// As [`finish`](Self::finish), with the request not remembered yet: see [`KeyRing::open_unremembered`].
    ///
    /// # Errors
    /// [`OpenError::Truncated`] when the final chunk is missing or cut.
    pub fn finish_unremembered(self, now: UnixTime) -> Result<(Authentic, ChunkedReply), OpenError> {
        finished(&self.ring, self.state, self.received, now)
    }
}

fn finished(
    ring: &KeyRing,
    state: State,
    received: usize,
    now: UnixTime,
) -> Result<(Authentic, ChunkedReply), OpenError> {
    let chunks = match state {
        State::Head(_) => return Err(OpenError::Truncated { len: received }),
        State::Chunks(chunks) => *chunks,
        State::Failed => return Err(OpenError::Decrypt),
    };
    let Chunks { mut context, reader, reply, admission } = chunks;
    let plaintext = reader.finish(context.as_mut()).map_err(|err| chunk_error(err, received))?;
    Ok((admission.authentic(ring, plaintext, now, None), ChunkedReply(reply)))
}

impl<R> fmt::Debug for ChunkedOpener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkedOpener({} bytes)", self.received)
    }
}

impl Chunks {
    fn push(&mut self, sealed: &[u8], received: usize) -> Result<(), OpenError> {
        self.reader.push(sealed, self.context.as_mut()).map_err(|err| chunk_error(err, received))
    }
}

fn open_authentic(ring: &KeyRing, message: Incoming, now: UnixTime) -> Result<(Authentic, Reply), OpenError> {
    let len = message.len();
    let (mut message, lead) = message.into_parts();
    let (start, sealed) = Start::read(ring, message.get(lead..).unwrap_or_default(), now)?;
    if sealed.len() < TAG_LEN {
        return Err(OpenError::Truncated { len });
    }
    let begin = message.len().saturating_sub(sealed.len());
    let (mut context, reply) = start.receiver(Framing::Whole)?;
    let (aead, header, epoch) = (start.aead, *start.header, start.key.epoch());
    let admission = start.admission();
    let Some((data, tag)) = message.get_mut(begin..).and_then(|sealed| sealed.split_last_chunk_mut()) else {
        return Err(OpenError::Truncated { len });
    };
    context.open(b"", data, tag).map_err(|_| OpenError::Decrypt)?;
    let end = message.len().saturating_sub(TAG_LEN);
    let plaintext = Plaintext::within(message, begin..end);
    let lifetime = ring.config().resumption.lifetime.as_secs();
    let resumption = (!admission.outdated).then_some(Offered { context, header, aead, lifetime, epoch });
    Ok((admission.authentic(ring, plaintext, now, resumption), Reply(reply)))
}

pub(super) fn open_resumed(
    ring: &KeyRing,
    message: Incoming,
    now: UnixTime,
) -> Result<(Opened, Reply), OpenError> {
    let now = ring.advance(now);
    let truncated = OpenError::Truncated { len: message.len() };
    let (mut message, lead) = message.into_parts();
    let Some((start, sealed)) = resumption::Start::read(message.get(lead..).unwrap_or_default()) else {
        return Err(truncated);
    };
    let begin = message.len().saturating_sub(sealed.len());
    let key = ring.find(start.key_id(), now).ok_or(OpenError::UnknownResumption)?;
    let resumption = key.resumptions().find(&start.id(), now).ok_or(OpenError::UnknownResumption)?;
    let (outdated, rebound) = (key.outdated, key.rebound);
    drop(key);
    if !resumption.is_for(&start) {
        return Err(OpenError::Decrypt);
    }
    // The resumption is asked before any work is done for the request; what counts is asked below, once that has proved
    // to be authentic.
    if !resumption.is_open(start.counter()) {
        return Err(OpenError::Replayed);
    }
    let Some((data, tag)) = message.get_mut(begin..).and_then(|sealed| sealed.split_last_chunk_mut()) else {
        return Err(truncated);
    };
    let reply = MessageKey::derive(&resumption.secret, resumption.aead, &start)
        .and_then(|key| key.open(data, tag, &start))
        .map_err(|_| OpenError::Decrypt)?;
    let end = message.len().saturating_sub(TAG_LEN);
    let plaintext = Plaintext::within(message, begin..end);
    if !ring.is_bound(rebound) {
        return Err(OpenError::UnknownResumption);
    }
    if !resumption.accept(start.counter()) {
        return Err(OpenError::Replayed);
    }
    let (received, date_window) = (ring.time(), ring.config().date_window.as_secs());
    Ok((Opened { plaintext, outdated, received, date_window, resumption: None }, Reply(reply)))
}

/// The start of a request: which key opens it.
struct Start<'m> {
    key: FoundKey,
    aead: Aead,
    header: &'m [u8; HEADER_LEN],
    encapsulated: &'m [u8],
    token: Token,
}

impl<'m> Start<'m> {
    fn read(ring: &KeyRing, message: &'m [u8], now: UnixTime) -> Result<(Self, &'m [u8]), OpenError> {
        let now = ring.advance(now);
        let truncated = OpenError::Truncated { len: message.len() };
        let Some((header, rest)) = message.split_first_chunk::<HEADER_LEN>() else {
            return Err(truncated);
        };
        let &[key_id, k0, k1, d0, d1, a0, a1] = header;
        let [kem, kdf, aead] = [[k0, k1], [d0, d1], [a0, a1]].map(u16::from_be_bytes);
        let unsupported = OpenError::Suite { key_id, kem, kdf, aead };
        let key = ring.find(key_id, now).ok_or(OpenError::UnknownKey(key_id))?;
        let suite = (Kem::from_id(kem).filter(|kem| key.kem() == Some(*kem)), Aead::from_id(aead));
        let (Some(kem), Some(aead), KDF_ID) = (suite.0, suite.1, kdf) else {
            return Err(unsupported);
        };
        let Some((encapsulated, sealed)) = rest.split_at_checked(kem.encapsulated_key_len()) else {
            return Err(truncated);
        };
        let token = ring.token(encapsulated);
        ring.check_replay(token)?;
        Ok((Self { key, aead, header, encapsulated, token }, sealed))
    }

    fn admission(&self) -> Admission {
        let [key_id, ..] = *self.header;
        Admission { token: self.token, key_id, outdated: self.key.outdated, rebound: self.key.rebound }
    }

    fn receiver(&self, framing: Framing) -> Result<(Box<dyn Receiver>, ReplySecret), OpenError> {
        let context = self
            .key
            .receiver(framing, self.aead, self.header, self.encapsulated)
            .map_err(|_| OpenError::Decrypt)?;
        let reply = ReplySecret::export(&*context, framing, self.aead, self.encapsulated)
            .map_err(|_| OpenError::Decrypt)?;
        Ok((context, reply))
    }
}

/// What it takes to remember a request.
#[derive(Debug)]
struct Admission {
    token: Token,
    key_id: u8,
    outdated: bool,
    rebound: u64,
}

impl Admission {
    fn authentic(
        self,
        ring: &KeyRing,
        plaintext: Plaintext,
        now: UnixTime,
        resumption: Option<Offered>,
    ) -> Authentic {
        let (received, date_window) = (ring.advance(now), ring.config().date_window.as_secs());
        let opened = Opened { plaintext, outdated: self.outdated, received, date_window, resumption };
        Authentic { opened, admission: self }
    }
}

fn start_reply(
    secret: ReplySecret,
    rng: &mut impl CryptoRng,
    out: &mut Vec<u8>,
) -> Result<ReplyKey, SealError> {
    let mut nonce = vec![0; secret.nonce_len()];
    rng.fill_bytes(&mut nonce);
    let key = secret.key(&nonce).map_err(|_| SealError::TooLong { len: 0 })?;
    out.extend_from_slice(&nonce);
    Ok(key)
}

fn chunk_error(err: ChunkError, len: usize) -> OpenError {
    match err {
        ChunkError::Truncated => OpenError::Truncated { len },
        ChunkError::Decrypt => OpenError::Decrypt,
        ChunkError::Size => OpenError::ChunkSize,
    }
}
