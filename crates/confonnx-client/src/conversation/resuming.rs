//! Resumption: when to offer one, when to use it, and when to stop trying.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use confonnx_protocol::resumption::{Resumption, ResumptionGrant, ResumptionOffer};

/// What becomes of a key's requests after the first. All of it goes when the key does.
#[derive(Default)]
pub(crate) struct Resuming(Mutex<State>);

#[derive(Default)]
struct State {
    current: Option<Arc<Resumed>>,
    /// Whether the key has answered: whoever asks again is worth a resumption to the server.
    answered: bool,
    /// Whether an offer is under way: there is one at a time.
    offering: bool,
    /// The latest requests resumed, the last one lowest: a bit for each that was refused.
    refused: u8,
    /// The time until which requests are sealed in full, without offers.
    paused_until: Option<Duration>,
}

/// A resumption and how long the server keeps it.
pub(crate) struct Resumed {
    pub(crate) resumption: Resumption,
    until: Duration,
}

/// How to seal the next request.
pub(crate) enum Way {
    /// By this resumption, without encapsulation.
    Resume(Arc<Resumed>),
    /// Sealed to the key, offering a resumption.
    Offer(Offering),
    /// Sealed to the key, without an offer.
    Plain,
}

/// Held while an offer is under way.
pub(crate) struct Offering {
    resuming: Arc<Resuming>,
    since: Duration,
}

impl Resuming {
    pub(crate) fn way(self: &Arc<Self>, now: Duration) -> Way {
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
        Way::Offer(Offering { resuming: Arc::clone(self), since: now })
    }

    /// A reply to a request sealed to the key was opened.
    pub(crate) fn answered(&self) {
        self.state().answered = true;
    }

    /// A reply to a resumed request was opened.
    pub(crate) fn resumed(&self) {
        self.state().refused <<= 1;
    }

    /// The server, or somebody before it, says that it cannot open what was sealed in `resumed`.
    pub(crate) fn refused(&self, resumed: &Arc<Resumed>, now: Duration) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, resumed)) {
            state.current = None;
        }
        state.refused = state.refused << 1 | 1;
        if state.refused.count_ones() >= MAX_REFUSED {
            (state.refused, state.current, state.paused_until) = (0, None, Some(now.saturating_add(PAUSE)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock, and every field is valid at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offering {
    /// Takes the resumption that was granted; `grant` is the field of the sealed reply, if there was one.
    pub(crate) fn answered(self, offer: ResumptionOffer, grant: Option<&str>) {
        let Some(grant) = grant.and_then(|grant| grant.parse::<ResumptionGrant>().ok()) else { return };
        // The server counts from when it opened the request, in whole seconds.
        let lifetime = Duration::from_secs(grant.lifetime().saturating_sub(1).into());
        let resumed =
            Resumed { resumption: offer.accept(&grant), until: self.since.saturating_add(lifetime) };
        self.resuming.state().current = Some(Arc::new(resumed));
    }
}

impl Drop for Offering {
    fn drop(&mut self) {
        self.resuming.state().offering = false;
    }
}

impl fmt::Debug for Resuming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resuming")
    }
}

/// Whether a refusal with this code may be the resumption's fault alone. It is not authenticated: what a full request costs is
/// all that whoever forges it gains.
pub(crate) fn ends_resumption(code: &str) -> bool {
    matches!(
        code,
        "session-unknown" | "key-unknown" | "request-invalid" | "request-replayed" | "media-type-unsupported"
    )
}

/// Of the last eight requests resumed, as many may be refused before there are no more for a while: behind replicas
/// that take turns, every other one would be sent twice.
const MAX_REFUSED: u32 = 3;
const PAUSE: Duration = Duration::from_secs(60);
