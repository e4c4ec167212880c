//! Resumed sessions: when to offer one, when to use it, and when to stop trying.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confonnx_protocol::resumption::{Resumption as Session, ResumptionGrant, ResumptionOffer};

/// What becomes of a key's requests after the first. All of it goes when the key does.
#[derive(Default)]
pub(crate) struct Resumption(Mutex<State>);

#[derive(Default)]
struct State {
    current: Option<Arc<Resumed>>,
    /// The key has answered: whoever asks again is worth a session to the server.
    answered: bool,
    /// One offer at a time.
    offering: bool,
    /// The latest requests in a session, the last one lowest: a bit for each that was refused.
    refused: u8,
    /// Full requests only until then, without offers.
    paused_until: Option<Instant>,
}

/// A session and how long the server keeps it.
pub(crate) struct Resumed {
    pub(crate) session: Session,
    until: Instant,
}

/// How to seal the next request.
pub(crate) enum Way<'r> {
    /// In this session.
    Resume(Arc<Resumed>),
    /// To the key, offering a session.
    Offer(Offering<'r>),
    /// To the key.
    Plain,
}

/// Held while an offer is under way.
pub(crate) struct Offering<'r> {
    resumption: &'r Resumption,
    since: Instant,
}

impl Resumption {
    pub(crate) fn way(&self, now: Instant) -> Way<'_> {
        let mut state = self.state();
        if let Some(current) = state.current.as_ref().filter(|current| now < current.until) {
            return Way::Resume(Arc::clone(current));
        }
        state.current = None;
        let paused = state.paused_until.is_some_and(|until| now < until);
        if paused || state.offering || !state.answered {
            return Way::Plain;
        }
        state.offering = true;
        Way::Offer(Offering { resumption: self, since: now })
    }

    /// A reply to a request sealed to the key was opened.
    pub(crate) fn answered(&self) {
        self.state().answered = true;
    }

    /// A reply in the session was opened.
    pub(crate) fn resumed(&self) {
        self.state().refused <<= 1;
    }

    /// The server, or somebody before it, says that it cannot open what was sealed in `resumed`.
    pub(crate) fn refused(&self, resumed: &Arc<Resumed>, now: Instant) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, resumed)) {
            state.current = None;
        }
        state.refused = state.refused << 1 | 1;
        if state.refused.count_ones() >= MAX_REFUSED {
            (state.refused, state.current, state.paused_until) = (0, None, Some(now + PAUSE));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and every field is valid at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offering<'_> {
    /// Takes the session that was granted; `grant` is the field of the sealed reply, if there was one.
    pub(crate) fn answered(self, offer: ResumptionOffer, grant: Option<&str>) {
        let Some(grant) = grant.and_then(|grant| grant.parse::<ResumptionGrant>().ok()) else { return };
        // The server counts from when it opened the request, in whole seconds.
        let lifetime = Duration::from_secs(grant.lifetime().saturating_sub(1).into());
        let resumed = Resumed { session: offer.accept(&grant), until: self.since + lifetime };
        self.resumption.state().current = Some(Arc::new(resumed));
    }
}

impl Drop for Offering<'_> {
    fn drop(&mut self) {
        self.resumption.state().offering = false;
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resumption")
    }
}

/// Whether a refusal with this code may be the session's fault alone. It is not authenticated: what a full request costs is
/// all that whoever forges it gains.
pub(crate) fn ends_session(code: &str) -> bool {
    matches!(
        code,
        "session-unknown" | "key-unknown" | "request-invalid" | "request-replayed" | "media-type-unsupported"
    )
}

/// Of the last eight requests in a session, as many may be refused before there are no more for a while: behind replicas
/// that take turns, every other one would be sent twice.
const MAX_REFUSED: u32 = 3;
const PAUSE: Duration = Duration::from_secs(60);
