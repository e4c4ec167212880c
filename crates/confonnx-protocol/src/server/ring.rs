//! The keys a server accepts, through their epochs.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use confonnx_attest::UnixTime;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{
    epoch::{Epoch, EpochKeys},
    replay::{Refusal, ReplayTable, Token},
};
use crate::{
    KeyConfig,
    backend::CipherFailure,
    context::{Framing, PrivateKey, Receiver, info},
    resumption::ResumptionTable,
    suite::{Aead, Kem},
};

/// How long keys live and what is remembered.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// How long an epoch's keys are accepted after it.
    pub grace: Duration,
    /// How far a request's `date` may be from the ring's clock, either way.
    pub date_window: Duration,
    /// How many requests are remembered to refuse their replays. When as many came within twice the window, more are
    /// refused.
    pub replay_capacity: usize,
    /// How many resumptions are held and how long.
    pub resumption: ResumptionLimits,
}

/// How many resumptions are held and how long.
#[derive(Clone, Copy, Debug)]
pub struct ResumptionLimits {
    /// Resumptions of one epoch at most; 0 grants none. A new one takes the place of one that is rarely used.
    pub max: usize,
    /// How long one lives, unless its epoch's keys are erased before.
    pub lifetime: Duration,
}

impl ResumptionLimits {
    /// Limits that allow no resumptions.
    pub const OFF: Self = Self { max: 0, lifetime: Duration::ZERO };
}

/// Why there are no (new) keys.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// With this window no request would be in time.
    #[error("the date window must be at least 1 s, found {0:?}")]
    DateWindow(Duration),
    /// With this capacity no request could be remembered.
    #[error("the replay capacity must be at least 1, found 0")]
    ReplayCapacity,
    /// An epoch ends before it begins.
    #[error("key epoch {number} is to end at {}, not after its beginning at {}", not_after.0, not_before.0)]
    Times {
        /// The epoch's number.
        number: u64,
        /// When the epoch begins.
        not_before: UnixTime,
        /// When the epoch ends.
        not_after: UnixTime,
    },
    /// A later epoch begins earlier.
    #[error("key epochs {number} and {other} begin in another order than they are numbered")]
    Order {
        /// The new one.
        number: u64,
        /// An epoch that is accepted.
        other: u64,
    },
    /// An epoch is numbered so far from another one that is accepted that they have identifiers in common.
    #[error("key epochs {number} and {other} are too far apart to be accepted together")]
    Apart {
        /// The new one.
        number: u64,
        /// An epoch that is accepted.
        other: u64,
    },
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
    /// When the key became current.
    pub not_before: UnixTime,
    /// When the key stops being current.
    pub not_after: UnixTime,
    /// From when on the key is refused.
    pub accepted_until: UnixTime,
}

/// What is public about an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochInfo {
    /// The epoch's number.
    pub number: u64,
    /// When the epoch begins.
    pub not_before: UnixTime,
    /// When the epoch ends.
    pub not_after: UnixTime,
}

/// The keys of the current epoch, of those before it that are still accepted, and of those to come that are known.
///
/// All methods take `&self` and may run at once on many threads; no lock is held while a key is used. The ring's clock
/// is the latest `now` it was given, so that a host that sets time back revives neither keys nor replays.
pub struct KeyRing {
    config: RingConfig,
    state: RwLock<Arc<State>>,
    replays: ReplayTable,
    clock: AtomicU64,
}

/// Replaced whole.
struct State {
    /// The binding of all keys.
    binding: [u8; 32],
    /// How often that changed.
    rebound: u64,
    /// The greatest number first.
    epochs: Vec<Arc<EpochKeys>>,
}

/// As many epochs are accepted at once at most: there are 256 identifiers for three keys each.
pub(super) const MAX_EPOCHS: usize = 64;

/// Epochs have distinct identifiers while their numbers differ by less: three keys each, and 256 identifiers.
const APART: u64 = 85;

impl KeyRing {
    /// A ring without keys, whose clock starts at `now`. The keys it will have are for `binding` alone.
    ///
    /// # Errors
    /// [`RingError::DateWindow`], [`RingError::ReplayCapacity`].
    pub fn new(config: RingConfig, binding: [u8; 32], now: UnixTime) -> Result<Self, RingError> {
        if config.date_window.as_secs() == 0 {
            return Err(RingError::DateWindow(config.date_window));
        }
        if config.replay_capacity == 0 {
            return Err(RingError::ReplayCapacity);
        }
        Ok(Self {
            config,
            state: RwLock::new(Arc::new(State { binding, rebound: 0, epochs: Vec::new() })),
            replays: ReplayTable::new(config.date_window.as_secs(), config.replay_capacity),
            clock: AtomicU64::new(now.0),
        })
    }

    /// The `application/ohttp-keys` bytes: the current epoch's keys, then those of earlier ones still accepted. While no
    /// epoch has begun by the ring's clock, the keys of those to come.
    pub fn key_configs(&self) -> Vec<u8> {
        self.published().0
    }

    /// The keys of [`Self::key_configs`], in the same order.
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.published().1
    }

    /// [`Self::key_configs`] and [`Self::keys`] of one instant.
    pub fn published(&self) -> (Vec<u8>, Vec<KeyInfo>) {
        let epochs = self.epochs();
        let configs =
            KeyConfig::encode_list(epochs.iter().flat_map(|epoch| &epoch.keys).map(|key| &key.config));
        let info = |epoch: &Arc<EpochKeys>| {
            let EpochKeys { not_before, not_after, accepted_until, .. } = **epoch;
            let info = |config: &KeyConfig| KeyInfo {
                key_id: config.key_id(),
                kem: config.kem(),
                not_before,
                not_after,
                accepted_until,
            };
            epoch.keys.iter().map(|key| info(&key.config)).collect::<Vec<_>>()
        };
        (configs, epochs.iter().flat_map(info).collect())
    }

    /// The epoch whose keys are the first of [`Self::key_configs`].
    pub fn current(&self) -> Option<EpochInfo> {
        self.epochs().first().map(|epoch| info_of(epoch))
    }

    /// The epoch with the greatest number, which may not have begun.
    pub fn newest(&self) -> Option<EpochInfo> {
        self.snapshot().epochs.first().map(|epoch| info_of(epoch))
    }

    /// Takes an epoch. Its keys are accepted from now on, even before it begins, because other clocks may be ahead; until
    /// a grace period after its end. One of the same number replaces the one before; one that is over is erased at once.
    ///
    /// # Errors
    /// [`RingError`]; nothing changed.
    pub fn install(&self, epoch: Epoch, now: UnixTime) -> Result<(), RingError> {
        let now = self.advance(now);
        let Epoch { number, not_before, not_after, .. } = epoch;
        if not_after <= not_before {
            return Err(RingError::Times { number, not_before, not_after });
        }
        let mut state = self.write();
        let same = |known: &&Arc<EpochKeys>| {
            (known.number, known.not_before, known.not_after) == (number, not_before, not_after)
                && bool::from(known.secret.expose().ct_eq(epoch.secret.expose()))
        };
        if state.epochs.iter().find(same).is_some() {
            return Ok(());
        }
        let mut epochs: Vec<_> =
            state.epochs.iter().filter(|epoch| epoch.is_accepted(now)).cloned().collect();
        epochs.retain(|known| known.number != number);
        for known in &epochs {
            let other = known.number;
            let (earlier, later) =
                if other < number { (known.not_before, not_before) } else { (not_before, known.not_before) };
            if earlier > later {
                return Err(RingError::Order { number, other });
            }
            if other.abs_diff(number) >= APART {
                return Err(RingError::Apart { number, other });
            }
        }
        if epochs.len() >= MAX_EPOCHS {
            return Err(RingError::TooManyEpochs(epochs.len()));
        }
        let keys = EpochKeys::new(epoch, &state.binding, self.config.grace, self.config.resumption.max);
        if keys.is_accepted(now) {
            epochs.insert(epochs.partition_point(|known| known.number > number), Arc::new(keys));
        }
        *state = Arc::new(State { epochs, ..**state });
        Ok(())
    }

    /// From now on all keys are for another binding, and those for the old one are gone: a request that was not opened
    /// whole by then is refused.
    pub fn rebind(&self, binding: [u8; 32]) {
        let mut state = self.write();
        if state.binding == binding {
            return;
        }
        let epochs = state
            .epochs
            .iter()
            .map(|epoch| Arc::new(epoch.rebound(&binding, self.config.resumption.max)))
            .collect();
        *state = Arc::new(State { binding, rebound: state.rebound.wrapping_add(1), epochs });
    }

    /// Erases the keys and the resumptions that are no longer accepted. They are refused whether this is called or not.
    pub fn retire(&self, now: UnixTime) {
        let now = self.advance(now);
        let mut state = self.write();
        if state.epochs.iter().any(|epoch| !epoch.is_accepted(now)) {
            let epochs = state.epochs.iter().filter(|epoch| epoch.is_accepted(now)).cloned().collect();
            *state = Arc::new(State { epochs, ..**state });
        }
        drop(state);
        self.snapshot().epochs.iter().for_each(|epoch| epoch.resumptions.sweep(now));
        self.replays.sweep(|| self.time());
    }

    /// When [`Self::retire`] is due next; `None` without keys.
    pub fn next_expiry(&self) -> Option<UnixTime> {
        self.snapshot().epochs.iter().map(|epoch| epoch.accepted_until).min()
    }

    /// Whether a key of that identifier is accepted now.
    pub fn knows(&self, key_id: u8, now: UnixTime) -> bool {
        self.find(key_id, self.advance(now)).is_some()
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
        let state = self.snapshot();
        let (epoch, position) = state.epochs.iter().find_map(|epoch| {
            let position = epoch.keys.iter().position(|key| key.config.key_id() == key_id)?;
            epoch.is_accepted(now).then_some((epoch, position))
        })?;
        let outdated = state.epochs.iter().any(|later| later.number > epoch.number && later.has_begun(now));
        Some(FoundKey { epoch: Arc::clone(epoch), position, outdated, rebound: state.rebound })
    }

    /// Whether `key` is still of the binding that the ring has.
    pub(super) fn is_bound(&self, rebound: u64) -> bool {
        self.snapshot().rebound == rebound
    }

    /// What stands for an encapsulated key in the replay table.
    pub(super) fn token(&self, encapsulated: &[u8]) -> Token {
        self.replays.token(encapsulated)
    }

    /// Refuses a token that was seen, before any work is done for it.
    pub(super) fn check_replay(&self, token: Token) -> Result<(), Refusal> {
        self.replays.check(token, || self.time())
    }

    /// Admits a token once; to be called for authentic requests alone. Returns when it was admitted.
    pub(super) fn admit(&self, token: Token) -> Result<UnixTime, Refusal> {
        self.replays.admit(token, || self.time())
    }

    /// The epochs whose keys can be sealed to, the current one first.
    fn epochs(&self) -> Vec<Arc<EpochKeys>> {
        let now = self.time();
        let accepted: Vec<_> =
            self.snapshot().epochs.iter().filter(|epoch| epoch.is_accepted(now)).cloned().collect();
        if accepted.iter().any(|epoch| epoch.has_begun(now)) {
            accepted.into_iter().filter(|epoch| epoch.has_begun(now)).collect()
        } else {
            accepted
        }
    }

    // The locks guard values that are replaced whole, so a panic elsewhere leaves nothing half-done.
    fn snapshot(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<State>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is accepted now, held for as long as it is used.
pub(super) struct FoundKey {
    epoch: Arc<EpochKeys>,
    position: usize,
    /// A newer epoch has begun.
    pub(super) outdated: bool,
    /// For [`KeyRing::is_bound`].
    pub(super) rebound: u64,
}

impl FoundKey {
    pub(super) fn kem(&self) -> Option<Kem> {
        Some(self.epoch.keys.get(self.position)?.config.kem())
    }

    pub(super) fn resumptions(&self) -> &ResumptionTable {
        &self.epoch.resumptions
    }

    /// The key's epoch, for as long as it is accepted.
    pub(super) fn epoch(&self) -> Weak<EpochKeys> {
        Arc::downgrade(&self.epoch)
    }

    pub(super) fn receiver(
        &self,
        framing: Framing,
        aead: Aead,
        header: &[u8; crate::context::HEADER_LEN],
        encapsulated: &[u8],
    ) -> Result<Box<dyn Receiver>, CipherFailure> {
        let private: &PrivateKey =
            self.epoch.keys.get(self.position).map(|key| &key.private).ok_or(CipherFailure)?;
        private.receiver(aead, encapsulated, &info(framing.request(), header))
    }
}

fn info_of(epoch: &EpochKeys) -> EpochInfo {
    let EpochKeys { number, not_before, not_after, .. } = *epoch;
    EpochInfo { number, not_before, not_after }
}
