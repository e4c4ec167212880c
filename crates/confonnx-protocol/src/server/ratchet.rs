//! Secrets that lead forward and never back (`docs/protocol.md`, section 3.2).

use std::{collections::VecDeque, fmt, time::Duration};

use confonnx_attest::UnixTime;
use hkdf::hmac::{Hmac, KeyInit, Mac, digest::FixedOutput};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use super::epoch::Epoch;
use crate::secret::EpochSecret;

/// A chain of secrets: each link gives its epoch's secret and the next link, and is erased. Whoever holds the chain
/// derives the same epochs by the same calendar, and nobody derives those that were erased.
pub struct Ratchet {
    /// Names all that come from one first secret; public.
    fingerprint: [u8; 32],
    /// How many seconds an epoch has, at least 1.
    rollover: u64,
    /// The epoch that `chain` gives.
    next: u64,
    /// When the next epoch begins.
    begins: UnixTime,
    chain: EpochSecret,
    /// Secrets of the epochs right before that one, oldest first.
    kept: VecDeque<EpochSecret>,
}

/// The clock jumped.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("Unix time {} is {epochs} key epochs ahead, more than {MAX_STEPS}: the clock jumped", at.0)]
pub struct TooFar {
    /// The time asked for.
    pub at: UnixTime,
    /// How many epochs there are until then.
    pub epochs: u64,
}

/// Bytes that are not the state of a ratchet.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StateError {
    /// The bytes are too few or too many, or do not begin as a state does.
    #[error("{len} bytes that are no state of a key ratchet of version 1")]
    Form {
        /// How many bytes there are.
        len: usize,
    },
    /// The state's calendar is impossible.
    #[error("a key ratchet whose epochs of {rollover} s cannot have had number {next} begin at {}", begins.0)]
    Calendar {
        /// How many seconds an epoch has.
        rollover: u64,
        /// Number of the next epoch.
        next: u64,
        /// When the next epoch begins.
        begins: UnixTime,
    },
}

impl Ratchet {
    /// A chain whose first epoch has this number and begins at `begins`. An epoch has at least 1 s.
    pub fn start(first: EpochSecret, number: u64, begins: UnixTime, rollover: Duration) -> Self {
        let mut fingerprint = [0; 32];
        expand(&first, FINGERPRINT, &mut fingerprint);
        let rollover = rollover.as_secs().max(1);
        Self { fingerprint, rollover, next: number, begins, chain: first, kept: VecDeque::new() }
    }

    /// Names the first secret, of which it tells nothing.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// How many seconds an epoch has.
    pub fn rollover(&self) -> u64 {
        self.rollover
    }

    /// The epoch at `at`; before the first that is kept, that one. Links that lead beyond it are erased.
    ///
    /// # Errors
    /// [`TooFar`]; nothing changed.
    pub fn epoch(&mut self, at: UnixTime) -> Result<Epoch, TooFar> {
        let ahead = at.0.checked_sub(self.begins.0).and_then(|ahead| ahead.checked_div(self.rollover));
        let steps = ahead.map_or(0, |epochs| epochs.saturating_add(1));
        if steps > MAX_STEPS {
            return Err(TooFar { at, epochs: steps });
        }
        for _ in 0..steps {
            self.step();
        }
        loop {
            let (first, _) = self.times(0);
            let index = at.0.saturating_sub(first.0).checked_div(self.rollover).unwrap_or(0);
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            if let Some(secret) = self.kept.get(index) {
                let secret = EpochSecret::copy(secret.expose());
                let (not_before, not_after) = self.times(index);
                return Ok(Epoch { number: self.number(index), secret, not_before, not_after });
            }
            // No epoch is kept, and the next begins later than `at`.
            self.step();
        }
    }

    /// Erases the epochs that ended at least `grace` before `now`.
    pub fn forget(&mut self, now: UnixTime, grace: Duration) {
        while !self.kept.is_empty() && self.times(0).1.0.saturating_add(grace.as_secs()) <= now.0 {
            self.kept.pop_front();
        }
    }

    /// The whole state, for a replica: to be sealed.
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        // Never grows, lest a copy be left behind.
        let kept = self.kept.len().min(MAX_KEPT);
        let len = HEAD.saturating_add(kept.saturating_mul(32));
        let mut state = Zeroizing::new(Vec::with_capacity(len));
        state.extend_from_slice(VERSION);
        state.extend_from_slice(&self.fingerprint);
        for number in [self.rollover, self.next, self.begins.0] {
            state.extend_from_slice(&number.to_be_bytes());
        }
        state.extend_from_slice(self.chain.expose());
        state.push(u8::try_from(kept).unwrap_or(u8::MAX));
        for secret in self.kept.iter().take(kept) {
            state.extend_from_slice(secret.expose());
        }
        state
    }

    /// Reads what [`state`](Self::state) wrote.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn from_state(state: &[u8]) -> Result<Self, StateError> {
        let form = StateError::Form { len: state.len() };
        let mut rest = state.strip_prefix(VERSION).ok_or(form)?;
        let fingerprint = *take::<32>(&mut rest).ok_or(form)?;
        let mut number = || Some(u64::from_be_bytes(*take::<8>(&mut rest)?));
        let (rollover, next, begins) = (number().ok_or(form)?, number().ok_or(form)?, number().ok_or(form)?);
        let chain = EpochSecret::copy(take(&mut rest).ok_or(form)?);
        let [count] = *take::<1>(&mut rest).ok_or(form)?;
        let (secrets, odd) = rest.as_chunks::<32>();
        if !odd.is_empty() || secrets.len() != usize::from(count) || secrets.len() > MAX_KEPT {
            return Err(form);
        }
        let begins = UnixTime(begins);
        let before = u64::from(count).checked_mul(rollover).is_some_and(|before| before <= begins.0);
        if rollover == 0 || next < u64::from(count) || !before {
            return Err(StateError::Calendar { rollover, next, begins });
        }
        let kept = secrets.iter().map(EpochSecret::copy).collect();
        Ok(Self { fingerprint, rollover, next, begins, chain, kept })
    }

    fn step(&mut self) {
        let secret = EpochSecret::written(|out| expand(&self.chain, EPOCH, out));
        // The old link is erased as it is replaced.
        self.chain = EpochSecret::written(|out| expand(&self.chain, CHAIN, out));
        self.kept.push_back(secret);
        if self.kept.len() > MAX_KEPT {
            self.kept.pop_front();
        }
        self.next = self.next.saturating_add(1);
        self.begins = UnixTime(self.begins.0.saturating_add(self.rollover));
    }

    /// How many epochs before the next one that of `index` is.
    fn back(&self, index: usize) -> u64 {
        u64::try_from(self.kept.len().saturating_sub(index)).unwrap_or(u64::MAX)
    }

    fn number(&self, index: usize) -> u64 {
        self.next.saturating_sub(self.back(index))
    }

    fn times(&self, index: usize) -> (UnixTime, UnixTime) {
        let begins = self.begins.0.saturating_sub(self.back(index).saturating_mul(self.rollover));
        (UnixTime(begins), UnixTime(begins.saturating_add(self.rollover)))
    }
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ratchet")
            .field("next", &self.next)
            .field("begins", &self.begins)
            .finish_non_exhaustive()
    }
}

/// HKDF-Expand (RFC 5869 §2.3) of one block, with the link as the key: it is uniformly random already. By HMAC, which
/// writes the result where it stays and nowhere else.
fn expand(link: &EpochSecret, info: &[u8], out: &mut [u8; 32]) {
    // A key of any length will do.
    if let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(link.expose()) {
        hmac.update(info);
        hmac.update(&[1]);
        hmac.finalize_into(out.into());
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}

const EPOCH: &[u8] = b"confonnx epoch v1";
const CHAIN: &[u8] = b"confonnx chain v1";
const FINGERPRINT: &[u8] = b"confonnx group v1";
const VERSION: &[u8] = b"confonnx ratchet v1";
/// How many bytes a state has without secrets of past epochs.
const HEAD: usize = VERSION.len() + 32 + 3 * 8 + 32 + 1;
/// How many past epochs are kept: as many as a ring accepts.
const MAX_KEPT: usize = super::ring::MAX_EPOCHS;
/// How many epochs the clock may jump: twelve days of epochs of a second, 2,800 years of those of a day.
const MAX_STEPS: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime(1_795_426_200);
    const HOUR: Duration = Duration::from_secs(3600);

    fn after(seconds: u64) -> UnixTime {
        UnixTime(START.0 + seconds)
    }

    fn ratchet() -> Ratchet {
        let first = EpochSecret::new(std::array::from_fn(|i| u8::try_from((i * 53 + 29) % 256).unwrap()));
        Ratchet::start(first, 7, START, HOUR)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn secrets_match_values_computed_elsewhere() {
        // python: prk = chain; hmac.new(prk, info + b"\x01", "sha256"), with info and links of docs/protocol.md 3.2
        let mut ratchet = ratchet();
        assert_eq!(
            hex(ratchet.fingerprint()),
            "304be6f4a125af6b2b885b52508caac48c71ce9f5253d241460e6ae8d559da89"
        );
        for (n, secret) in [
            "024174aa0565bf0311da2e894fb080b56a56622db1af9e5fdd19b2ef3f39ca29",
            "1e156e9dc8bdcda530991f04c7a7db3459839d707076640e1f045b9c81264c01",
            "6f5c861d54704dc1d6dc6575d9e40a2620312080a691c925c367765910e035a9",
        ]
        .into_iter()
        .enumerate()
        {
            let n = n as u64;
            let epoch = ratchet.epoch(after(n * 3600 + 1800)).unwrap();
            assert_eq!(hex(epoch.secret.expose()), secret);
            assert_eq!((epoch.number, epoch.not_before), (7 + n, after(n * 3600)));
            assert_eq!(epoch.not_after, after((n + 1) * 3600));
        }
    }

    #[test]
    fn the_next_epoch_may_be_asked_for_ahead() {
        let mut ratchet = ratchet();
        let next = ratchet.epoch(after(3600)).unwrap();
        let now = ratchet.epoch(after(10)).unwrap();
        assert_eq!((now.number, next.number), (7, 8));
        ratchet.forget(after(3600 + 9), Duration::from_secs(10));
        assert_eq!(ratchet.epoch(after(10)).unwrap().secret.expose(), now.secret.expose());
        ratchet.forget(after(3600 + 10), Duration::from_secs(10));
        // Nothing is left of what was erased: a clock set back gets the oldest epoch that there is.
        assert_eq!(ratchet.epoch(after(10)).unwrap().number, 8);
    }

    #[test]
    fn a_replica_goes_on_where_the_state_was_taken() {
        let mut ours = ratchet();
        ours.epoch(after(3 * 3600)).unwrap();
        ours.forget(after(3 * 3600), HOUR);
        let state = ours.state();
        assert_eq!(state.capacity(), state.len());
        let mut theirs = Ratchet::from_state(&state).unwrap();
        assert_eq!((theirs.fingerprint(), theirs.rollover()), (ours.fingerprint(), 3600));
        for hours in [2, 3, 4, 9] {
            let (one, other) =
                (ours.epoch(after(hours * 3600)).unwrap(), theirs.epoch(after(hours * 3600)).unwrap());
            assert_eq!(one.secret.expose(), other.secret.expose());
            assert_eq!((one.number, one.not_before), (other.number, other.not_before));
        }
    }

    #[test]
    fn a_clock_that_jumps_changes_nothing() {
        let mut ratchet = ratchet();
        let first = ratchet.epoch(START).unwrap();
        let err = ratchet.epoch(UnixTime(u64::MAX)).unwrap_err();
        assert!(err.epochs > MAX_STEPS, "{err}");
        assert_eq!(ratchet.epoch(UnixTime(0)).unwrap().number, first.number);
        // Many epochs at once are no more than a ring can hold.
        ratchet.epoch(after(3600 * 1000)).unwrap();
        assert_eq!(ratchet.kept.len(), MAX_KEPT);
        Ratchet::from_state(&ratchet.state()).unwrap();
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let mut ratchet = ratchet();
        ratchet.epoch(after(3600)).unwrap();
        let state = ratchet.state().to_vec();
        for len in 0..state.len() {
            Ratchet::from_state(&state[..len]).unwrap_err();
        }
        Ratchet::from_state(&[&state[..], &[0]].concat()).unwrap_err();
        Ratchet::from_state(&[&state[..], &[0; 32]].concat()).unwrap_err();
        let with = |at: usize, number: u64| {
            let mut state = state.clone();
            state[at..at + 8].copy_from_slice(&number.to_be_bytes());
            Ratchet::from_state(&state).map(drop)
        };
        let calendar = |found| matches!(found, Err(StateError::Calendar { .. }));
        let rollover = VERSION.len() + 32;
        assert!(calendar(with(rollover, 0)) && calendar(with(rollover, u64::MAX)));
        assert!(calendar(with(rollover + 8, 1)), "two epochs before the second");
        assert!(calendar(with(rollover + 16, 7199)));
        with(rollover + 16, 7200).unwrap();
    }
}
