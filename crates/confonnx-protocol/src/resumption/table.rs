//! The resumptions of one epoch, as the server holds them. They end with the epoch: whoever erases its keys drops them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use confonnx_attest::UnixTime;

use super::{ResumptionId, ResumptionSecret, Start, window::Window};
use crate::{context::HEADER_LEN, suite::Aead};

/// One resumption.
pub(crate) struct Entry {
    pub(crate) secret: ResumptionSecret,
    pub(crate) aead: Aead,
    header: [u8; HEADER_LEN],
    expires: UnixTime,
    window: Mutex<Window>,
    /// Since it was last passed over for removal.
    used: AtomicBool,
}

impl Entry {
    pub(crate) fn new(
        secret: ResumptionSecret,
        header: [u8; HEADER_LEN],
        aead: Aead,
        expires: UnixTime,
    ) -> Self {
        Self { secret, aead, header, expires, window: Mutex::default(), used: AtomicBool::new(false) }
    }

    /// Whether `start` has the header that the resumption was opened with.
    pub(crate) fn is_for(&self, start: &Start) -> bool {
        self.header == start.header()
    }

    pub(crate) fn is_open(&self, counter: u64) -> bool {
        self.window().is_open(counter)
    }

    /// Accepts `counter` once; to be called for authentic requests alone.
    pub(crate) fn accept(&self, counter: u64) -> bool {
        self.used.store(true, Ordering::Relaxed);
        self.window().accept(counter)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most as many resumptions as it was made for; a new one takes the place of one that is rarely used.
pub(crate) struct ResumptionTable {
    shards: Box<[Mutex<Shard>]>,
    shard_capacity: usize,
}

#[derive(Default)]
struct Shard {
    resumptions: HashMap<ResumptionId, Arc<Entry>>,
    /// The resumptions in the order in which they are removed, first come first. Those used since get another turn.
    order: VecDeque<ResumptionId>,
}

impl ResumptionTable {
    /// A table of at most `capacity` resumptions, which may be none.
    pub(crate) fn new(capacity: usize) -> Self {
        let shards = capacity.min(SHARDS);
        let shard_capacity = capacity.checked_div(shards).unwrap_or(0);
        Self { shards: (0..shards).map(|_| Mutex::default()).collect(), shard_capacity }
    }

    /// Whether it can hold any.
    pub(crate) fn is_on(&self) -> bool {
        !self.shards.is_empty()
    }

    pub(crate) fn insert(&self, id: ResumptionId, entry: Entry) {
        let Some(mut shard) = self.shard(&id) else { return };
        while shard.resumptions.len() >= self.shard_capacity && shard.remove_one() {}
        shard.order.push_back(id);
        shard.resumptions.insert(id, Arc::new(entry));
    }

    /// The resumption, unless it has expired.
    pub(crate) fn find(&self, id: &ResumptionId, now: UnixTime) -> Option<Arc<Entry>> {
        let entry = Arc::clone(self.shard(id)?.resumptions.get(id)?);
        (now < entry.expires).then_some(entry)
    }

    /// Erases what has expired. It is not found whether this is called or not.
    pub(crate) fn sweep(&self, now: UnixTime) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Shard { resumptions, order } = &mut *shard;
            resumptions.retain(|_, entry| now < entry.expires);
            order.retain(|id| resumptions.contains_key(id));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).resumptions.len()).sum()
    }

    fn shard(&self, id: &ResumptionId) -> Option<MutexGuard<'_, Shard>> {
        // Identifiers are drawn at random.
        let ResumptionId([a, b, ..]) = *id;
        let index = usize::from(u16::from_be_bytes([a, b])).checked_rem(self.shards.len())?;
        self.shards.get(index).map(lock)
    }
}

impl Shard {
    /// Makes room for one; false when there is nothing to remove.
    fn remove_one(&mut self) -> bool {
        for turn in 0..=MAX_TURNS {
            let Some(id) = self.order.pop_front() else { return false };
            let used =
                self.resumptions.get(&id).is_some_and(|entry| entry.used.swap(false, Ordering::Relaxed));
            if used && turn < MAX_TURNS {
                self.order.push_back(id);
            } else if self.resumptions.remove(&id).is_some() {
                return true;
            }
        }
        true
    }
}

/// Whatever a panic elsewhere interrupted, a shard is whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 64;
/// How many resumptions in use are passed over at most, so that a full table costs no more than this.
const MAX_TURNS: u32 = 8;

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    fn id(n: u64) -> ResumptionId {
        let mut id = [0; 16];
        // The first bytes choose the shard, so these identifiers are spread over all of them.
        id[..2].copy_from_slice(&(n as u16).to_be_bytes());
        id[8..].copy_from_slice(&n.to_be_bytes());
        ResumptionId(id)
    }

    fn entry() -> Entry {
        Entry::new(
            ResumptionSecret(Zeroizing::new(vec![1; 32])),
            [0; 7],
            Aead::Aes256Gcm,
            UnixTime(NOW.0 + 600),
        )
    }

    #[test]
    fn a_full_table_keeps_what_is_used() {
        let table = ResumptionTable::new(128);
        for n in 0..128 {
            table.insert(id(n), entry());
        }
        assert_eq!(table.len(), 128);
        // One of the two resumptions in each shard is used.
        for n in 0..64 {
            assert!(table.find(&id(n), NOW).unwrap().accept(0));
        }
        for n in 128..192 {
            table.insert(id(n), entry());
        }
        assert_eq!(table.len(), 128);
        for n in 0..192 {
            assert_eq!(table.find(&id(n), NOW).is_some(), !(64..128).contains(&n), "{n}");
        }
    }

    #[test]
    fn a_table_of_resumptions_in_use_still_takes_new_ones() {
        for capacity in [1, 5, 64, 100, 1_000] {
            let table = ResumptionTable::new(capacity);
            for n in 0..3_000 {
                table.insert(id(n), entry());
                assert!(table.find(&id(n), NOW).unwrap().accept(0), "{n}");
                assert!(table.len() <= capacity);
            }
        }
    }

    #[test]
    fn nothing_expired_is_found_and_sweeping_erases_it() {
        let table = ResumptionTable::new(10);
        table.insert(id(1), entry());
        assert!(table.find(&id(1), UnixTime(NOW.0 + 599)).is_some());
        assert!(table.find(&id(1), UnixTime(NOW.0 + 600)).is_none());
        table.sweep(UnixTime(NOW.0 + 599));
        assert_eq!(table.len(), 1);
        table.sweep(UnixTime(NOW.0 + 600));
        assert_eq!(table.len(), 0);
        assert!(table.shards.iter().all(|shard| lock(shard).order.is_empty()));
    }

    #[test]
    fn a_table_of_none_is_off() {
        let table = ResumptionTable::new(0);
        assert!(!table.is_on());
        table.insert(id(1), entry());
        assert!(table.find(&id(1), NOW).is_none());
    }
}
