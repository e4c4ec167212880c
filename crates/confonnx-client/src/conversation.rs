//! The conversation with a server, without IO: what to fetch and what to post, and what the answers mean.
//!
//! A [`Conversation`] has what calls share: the attested key, what is resumed with it, the server's clock. Each call is an
//! [`Exchange`], which says step by step what its host has to do: [`Step::Get`], [`Step::Post`], [`Step::Wait`], until
//! [`Step::Done`]. The host brings time ([`Now`]), randomness and answers; it decides nothing. Sockets and threads are one
//! host ([`Client`](crate::Client)); a page's `fetch` is another.
//!
//! ```no_run
//! # use confonnx_client::conversation::{CryptoRng, Head, Now, Step};
//! # fn example(fetch: impl Fn(&Step) -> Option<(Head, Vec<u8>)>, now: impl Fn() -> Now, rng: &mut impl CryptoRng)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use confonnx_client::conversation::{Conversation, Exchange, Outcome, Want};
//! use confonnx_client::{Expectations, Options, Policy, Request};
//!
//! let expected = Expectations::new().enclave_hash("4a…".parse()?);
//! let conversation = Conversation::new("https://models.example", Policy::new(expected)?, Options::default())?;
//! let mut exchange = Exchange::new(conversation.into(), Want::Call(Request::get("/v2").into()), None);
//! let outcome = loop {
//!     match exchange.step(now(), rng) {
//!         Step::Done(outcome) => break outcome?,
//!         Step::Wait(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
//!         step => match fetch(&step) {
//!             None => exchange.failed("no network".into(), false, now()),
//!             Some((head, body)) => {
//!                 exchange.head(&head);
//!                 exchange.data(&body);
//!                 exchange.end(now());
//!             }
//!         },
//!     }
//! };
//! # let Outcome::Answer(_) = outcome else { return Ok(()) };
//! # Ok(())
//! # }
//! ```

mod attested_key;
mod backoff;
mod call;
mod exchange;
mod incoming;
mod resuming;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use confonnx_attest::{Policy, Trusted, UnixTime};

use self::attested_key::AttestedKey;
pub(crate) use self::call::Asked;
use self::call::ClockOffset;
#[cfg(feature = "native")]
pub(crate) use self::call::percent_encode;
pub use self::call::{Answer, Call};
pub use self::exchange::{Body, Exchange, Outcome, Step, Wait, Want};
pub use self::incoming::Head;
use crate::base::Base;
use crate::{ClientError, Options};
pub use rand_core::CryptoRng;

/// The host's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time of day.
    pub clock: SystemTime,
    /// Time since any instant of the host's choice, which never runs backwards.
    pub elapsed: Duration,
}

impl Now {
    pub(crate) fn unix(self) -> UnixTime {
        UnixTime(self.clock.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
    }
}

/// What the calls to one server share.
pub struct Conversation {
    policy: Policy,
    options: Options,
    state: Mutex<State>,
}

struct State {
    base: Base,
    key: Option<Arc<AttestedKey>>,
    /// A sealed reply said that the key is no longer the current one.
    outdated: bool,
    /// One call at a time attests; the others share what comes of it.
    attesting: bool,
    /// The calls that wait for that.
    waiting: Vec<Waker>,
    clock: Option<ClockOffset>,
    rollovers: u64,
    invalid: u64,
}

impl Conversation {
    /// A conversation with the server at `url`, which has to be what `policy` says.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn new(url: &str, policy: Policy, options: Options) -> Result<Self, ClientError> {
        let base = Base::parse(url)?;
        options.relay.as_deref().map(Base::parse).transpose()?;
        let state = State {
            base,
            key: None,
            outdated: false,
            attesting: false,
            waiting: Vec::new(),
            clock: None,
            rollovers: 0,
            invalid: 0,
        };
        Ok(Self { policy, options, state: Mutex::new(state) })
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        self.state().base.as_str().into()
    }

    /// Talks to another server from now on, which has to satisfy the same policy; keys are forgotten.
    ///
    /// # Errors
    /// [`ClientError::Url`].
    pub fn set_url(&self, url: &str) -> Result<(), ClientError> {
        let base = Base::parse(url)?;
        let mut state = self.state();
        (state.base, state.key, state.outdated, state.clock) = (base, None, false, None);
        Ok(())
    }

    /// What the server has to be.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The proof on which the current key rests, if there is one.
    pub fn proof(&self) -> Option<Arc<Trusted>> {
        self.state().key.as_ref().map(|key| Arc::clone(&key.trusted))
    }

    /// Forgets the key: the next call attests first.
    pub fn forget(&self) {
        self.state().key = None;
    }

    /// What a copy of this process must not share with its original: what is resumed, and whose turn it is.
    pub fn forked(&self) {
        let mut state = self.state();
        state.key = state.key.as_ref().map(|key| Arc::new(key.afresh()));
        state.attesting = false;
        // The wakers belong to threads of the process that was copied.
        std::mem::forget(std::mem::take(&mut state.waiting));
    }

    /// How often the key was renewed because the server changed its own; 0 after the first exchange.
    pub fn key_rollover_count(&self) -> u64 {
        self.state().rollovers
    }

    /// How often the server no longer knew the key, so that a call was repeated with a new one.
    pub fn key_invalid_count(&self) -> u64 {
        self.state().invalid
    }

    /// Whether the last sealed reply said that the key is outdated; the next call then renews it first.
    pub fn key_outdated(&self) -> bool {
        self.state().outdated
    }

    /// For [`Wait::Attestation`]: ready when no other call attests any more.
    pub fn poll_attested(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.attesting {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !state.waiting.iter().any(|known| known.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        Poll::Pending
    }

    /// The current key unless it is outdated, expired or `refused`, or leave to attest.
    fn key(self: &Arc<Self>, refused: Option<&Arc<AttestedKey>>, now: Now) -> Key {
        let mut state = self.state();
        if state.attesting {
            return Key::Busy;
        }
        let previous = state.key.clone();
        let is_refused = match (&previous, refused) {
            (Some(current), Some(refused)) => Arc::ptr_eq(current, refused),
            _ => false,
        };
        if is_refused {
            // Whatever comes of attesting again, nothing more is sealed to that key.
            state.key = None;
        }
        if let Some(key) = &previous
            && !is_refused
            && !state.outdated
            && key.accepted_until > now.unix()
        {
            return Key::Current(Arc::clone(key));
        }
        state.attesting = true;
        let renews = previous.is_some() && !is_refused;
        Key::Attest(Attesting { conversation: Arc::clone(self), base: state.base.clone(), renews })
    }

    /// Our time, or the server's when it said that ours is wrong.
    fn date(&self, now: Now) -> SystemTime {
        self.state().clock.map_or(now.clock, |offset| offset.apply(now.clock))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock, and every field is valid at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("url", &self.url())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

enum Key {
    Current(Arc<AttestedKey>),
    Attest(Attesting),
    Busy,
}

/// Held by the call that attests, so that concurrent calls share one attestation.
struct Attesting {
    conversation: Arc<Conversation>,
    base: Base,
    renews: bool,
}

impl Attesting {
    /// Takes the key that was attested.
    fn attested(self, key: &Arc<AttestedKey>) {
        let mut state = self.conversation.state();
        // If another URL was set meanwhile, this key is the wrong one for the next call, though not for this one.
        if state.base == self.base {
            state.key = Some(Arc::clone(key));
            state.outdated = false;
            state.rollovers = state.rollovers.saturating_add(u64::from(self.renews));
        }
    }
}

impl Drop for Attesting {
    fn drop(&mut self) {
        let mut state = self.conversation.state();
        state.attesting = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}
