//! The keys a server accepts, through their epochs.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use confonnx_attest::UnixTime;
use thiserror::Error;

use super::{
    epoch::{Derived, Epoch},
    open::{self, ChunkedOpener, OpenError, Opened, Reply},
    replay::{ReplayTable, Token},
};
use crate::{
    Incoming, KeyConfig,
    context::{Framing, PrivateKey, Receiver, info},
    secret::EpochSecret,
    session::SessionTable,
    suite::{Aead, Kem},
};

/// How long keys live and what is remembered.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// How long an epoch's keys are the current ones.
    pub rollover: Duration,
    /// How long they are accepted after that.
    pub grace: Duration,
    /// How far a request's `date` may be from the ring's clock, either way.
    pub date_window: Duration,
    /// How many requests are remembered to refuse their replays. When as many came within twice the window, more are
    /// refused.
    pub replay_capacity: usize,
    /// How many sessions are held and how long.
    pub sessions: SessionLimits,
}

/// How many sessions are held and how long.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Sessions of one epoch at most; 0 grants none. A new one takes the place of one that is rarely used.
    pub max: usize,
    /// How long one lives, unless its epoch's keys are erased before.
    pub lifetime: Duration,
}

impl SessionLimits {
    /// No sessions.
    pub const OFF: Self = Self { max: 0, lifetime: Duration::ZERO };
}

/// Why there are no (new) keys.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// Keys would expire as they are made.
    #[error("the key rollover interval must be at least 1 s, found {0:?}")]
    Rollover(Duration),
    /// No request would be in time.
    #[error("the date window must be at least 1 s, found {0:?}")]
    DateWindow(Duration),
    /// No request could be remembered.
    #[error("the replay capacity must be at least 1, found 0")]
    ReplayCapacity,
    /// Too many epochs are still accepted for another one to have identifiers of its own.
    #[error("{0} epochs are still accepted; the grace period is too long for so short a rollover interval")]
    TooManyEpochs(usize),
}

/// What is public about a key the ring accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Identifies the key.
    pub key_id: u8,
    /// The key's mechanism.
    pub kem: Kem,
    /// When it became current.
    pub not_before: UnixTime,
    /// When it stops being current.
    pub not_after: UnixTime,
    /// When it is refused, from then on.
    pub accepted_until: UnixTime,
}

/// The keys of the current epoch and of those before it that are still accepted.
///
/// All methods take `&self` and may run at once on many threads; no lock is held while a key is used. The ring's clock
/// is the latest `now` it was given, so that a host that sets time back revives neither keys nor replays.
pub struct KeyRing {
    config: RingConfig,
    /// Current epoch first.
    epochs: RwLock<Arc<Vec<Arc<Epoch>>>>,
    replays: ReplayTable,
    clock: AtomicU64,
}

/// As many epochs are accepted at once at most: there are 256 identifiers for three keys each.
const MAX_EPOCHS: usize = 64;

impl KeyRing {
    /// A ring whose first epoch starts at `now`. Its keys have the identifiers from `first_key_id` on; draw it at
    /// random, so that a key of a server's former life is rarely mistaken for one of this.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn new(
        config: RingConfig,
        first_secret: EpochSecret,
        first_key_id: u8,
        now: UnixTime,
    ) -> Result<Self, RingError> {
        if config.rollover.as_secs() == 0 {
            return Err(RingError::Rollover(config.rollover));
        }
        if config.date_window.as_secs() == 0 {
            return Err(RingError::DateWindow(config.date_window));
        }
        if config.replay_capacity == 0 {
            return Err(RingError::ReplayCapacity);
        }
        let derived = Derived::new(&first_secret);
        let ids = identifiers(first_key_id);
        let first = Epoch::start(derived, ids, now, config.rollover, config.grace, config.sessions.max);
        Ok(Self {
            config,
            epochs: RwLock::new(Arc::new(vec![Arc::new(first)])),
            replays: ReplayTable::new(config.date_window.as_secs(), config.replay_capacity),
            clock: AtomicU64::new(now.0),
        })
    }

    /// The `application/ohttp-keys` bytes: the current epoch's keys, then those still accepted.
    pub fn key_configs(&self) -> Vec<u8> {
        let epochs = self.accepted(self.time());
        KeyConfig::encode_list(epochs.iter().flat_map(|epoch| &epoch.keys).map(|key| &key.config))
    }

    /// The keys of [`Self::key_configs`], in the same order.
    pub fn keys(&self) -> Vec<KeyInfo> {
        let info = |epoch: &Arc<Epoch>| {
            let Epoch { not_before, not_after, accepted_until, .. } = **epoch;
            let info = |config: &KeyConfig| KeyInfo {
                key_id: config.key_id(),
                kem: config.kem(),
                not_before,
                not_after,
                accepted_until,
            };
            epoch.keys.iter().map(|key| info(&key.config)).collect::<Vec<_>>()
        };
        self.accepted(self.time()).iter().flat_map(info).collect()
    }

    /// Starts the next epoch. The keys of those before are accepted for as long as was said when they were made.
    ///
    /// # Errors
    /// [`RingError::TooManyEpochs`]; nothing changed.
    pub fn rotate(&self, secret: EpochSecret, now: UnixTime) -> Result<(), RingError> {
        let now = self.advance(now);
        let derived = Derived::new(&secret);
        drop(secret);
        let mut epochs = self.write();
        let mut kept: Vec<_> = epochs.iter().filter(|epoch| epoch.is_accepted(now)).cloned().collect();
        if kept.len() >= MAX_EPOCHS {
            return Err(RingError::TooManyEpochs(kept.len()));
        }
        let used = |id: &u8| kept.iter().flat_map(|epoch| &epoch.keys).any(|key| key.config.key_id() == *id);
        let newest = epochs.iter().flat_map(|epoch| epoch.keys.last()).map(|key| key.config.key_id()).next();
        let ids = identifiers(newest.unwrap_or_default().wrapping_add(1)).filter(|id| !used(id));
        let RingConfig { rollover, grace, sessions, .. } = self.config;
        let next = Epoch::start(derived, ids, now, rollover, grace, sessions.max);
        kept.insert(0, Arc::new(next));
        *epochs = Arc::new(kept);
        Ok(())
    }

    /// Erases the keys and the sessions that are no longer accepted. They are refused whether this is called or not.
    pub fn retire(&self, now: UnixTime) {
        let now = self.advance(now);
        let mut epochs = self.write();
        if epochs.iter().any(|epoch| !epoch.is_accepted(now)) {
            *epochs = Arc::new(epochs.iter().filter(|epoch| epoch.is_accepted(now)).cloned().collect());
        }
        drop(epochs);
        self.snapshot().iter().for_each(|epoch| epoch.sessions.sweep(now));
        self.replays.sweep(|| self.time());
    }

    /// When to call [`Self::rotate`] or [`Self::retire`] next; not after `now` when that is due.
    pub fn next_change(&self, now: UnixTime) -> UnixTime {
        let now = self.advance(now);
        let epochs = self.snapshot();
        let rotate = epochs.first().map_or(now, |current| current.not_after);
        epochs.iter().map(|epoch| epoch.accepted_until).fold(rotate, Ord::min)
    }

    /// Opens a `message/ohttp-req` (RFC 9458 §4.3), in the buffer it came in.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, message: impl Into<Incoming>, now: UnixTime) -> Result<(Opened, Reply), OpenError> {
        open::open_whole(self, message.into(), now)
    }

    /// Opens a `message/confonnx-session-req`, in the buffer it came in.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_session(
        &self,
        message: impl Into<Incoming>,
        now: UnixTime,
    ) -> Result<(Opened, Reply), OpenError> {
        open::open_session(self, message.into(), now)
    }

    /// Opens a `message/ohttp-chunked-req` of at most `limit` octets, sealed, as they arrive.
    pub fn chunked_opener(&self, limit: usize) -> ChunkedOpener<'_> {
        ChunkedOpener::new(self, limit)
    }

    /// The latest time the ring knows.
    pub fn time(&self) -> UnixTime {
        UnixTime(self.clock.load(Ordering::Relaxed))
    }

    /// Moves the ring's clock forward to `now`, or leaves it where it is.
    pub(super) fn advance(&self, now: UnixTime) -> UnixTime {
        UnixTime(self.clock.fetch_max(now.0, Ordering::Relaxed).max(now.0))
    }

    pub(super) fn config(&self) -> &RingConfig {
        &self.config
    }

    pub(super) fn find(&self, key_id: u8, now: UnixTime) -> Option<FoundKey> {
        let epochs = self.snapshot();
        let (age, epoch, position) = epochs.iter().enumerate().find_map(|(age, epoch)| {
            let position = epoch.keys.iter().position(|key| key.config.key_id() == key_id)?;
            epoch.is_accepted(now).then_some((age, epoch, position))
        })?;
        Some(FoundKey { epoch: Arc::clone(epoch), position, outdated: age > 0 })
    }

    /// What stands for an encapsulated key in the replay table.
    pub(super) fn token(&self, encapsulated: &[u8]) -> Token {
        self.replays.token(encapsulated)
    }

    /// Refuses a token that was seen, before any work is done for it.
    pub(super) fn check_replay(&self, token: Token) -> Result<(), OpenError> {
        self.replays.check(token, || self.time()).map_err(OpenError::from)
    }

    /// Admits a token once; to be called for authentic requests alone. Returns when it was admitted.
    pub(super) fn admit(&self, token: Token) -> Result<UnixTime, OpenError> {
        Ok(self.replays.admit(token, || self.time())?)
    }

    fn accepted(&self, now: UnixTime) -> Vec<Arc<Epoch>> {
        self.snapshot().iter().filter(|epoch| epoch.is_accepted(now)).cloned().collect()
    }

    // What the locks guard is replaced whole, so a panic elsewhere leaves nothing half-done.
    fn snapshot(&self) -> Arc<Vec<Arc<Epoch>>> {
        Arc::clone(&self.epochs.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<Vec<Arc<Epoch>>>> {
        self.epochs.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is accepted now, held for as long as it is used.
pub(super) struct FoundKey {
    epoch: Arc<Epoch>,
    position: usize,
    /// There is a newer epoch.
    pub(super) outdated: bool,
}

impl FoundKey {
    pub(super) fn kem(&self) -> Option<Kem> {
        Some(self.epoch.keys.get(self.position)?.config.kem())
    }

    pub(super) fn sessions(&self) -> &SessionTable {
        &self.epoch.sessions
    }

    /// The key's epoch, for as long as it is accepted.
    pub(super) fn epoch(&self) -> Weak<Epoch> {
        Arc::downgrade(&self.epoch)
    }

    pub(super) fn receiver(
        &self,
        framing: Framing,
        aead: Aead,
        header: &[u8; crate::context::HEADER_LEN],
        encapsulated: &[u8],
    ) -> Result<Box<dyn Receiver>, OpenError> {
        let private: &PrivateKey =
            self.epoch.keys.get(self.position).map(|key| &key.private).ok_or(OpenError::Decrypt)?;
        private.receiver(aead, encapsulated, &info(framing.request(), header)).map_err(|_| OpenError::Decrypt)
    }
}

/// All identifiers, from `first` on.
fn identifiers(first: u8) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).map(move |offset| first.wrapping_add(offset))
}
