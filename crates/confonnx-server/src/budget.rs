//! Bytes of requests and replies that are held at a time: bounded for all together, for each peer and for each connection.
//!
//! A share is taken before bytes are kept and given back when they are gone: those of a request once it was erased, those
//! of a reply once they were written. What there is no room for is refused.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Budget {
    all: Arc<Account>,
    peer: usize,
    each: usize,
}

/// What the connections of one peer share.
#[derive(Clone, Debug)]
pub struct PeerBudget(Arc<Account>);

/// One connection's part.
#[derive(Clone, Debug)]
pub struct Purse {
    accounts: Accounts,
    replies: Arc<Replies>,
}

/// Bytes that somebody holds. Dropping gives them back.
#[derive(Debug)]
pub struct Share {
    accounts: Accounts,
    bytes: usize,
    /// Of a reply that is not written yet.
    unsent: Option<Arc<Replies>>,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more bytes than may be held at a time")]
pub struct Exhausted;

/// The connection's, its peer's, and everybody's.
type Accounts = [Arc<Account>; 3];

#[derive(Debug)]
struct Account {
    limit: usize,
    held: AtomicUsize,
}

/// Replies of a connection.
#[derive(Debug, Default)]
struct Replies {
    unsent: AtomicUsize,
    sent: AtomicU64,
}

impl Budget {
    /// At most `all` bytes, `peer` for the connections of one peer, and `each` for one connection.
    pub fn new(all: usize, peer: usize, each: usize) -> Self {
        Self { all: Arc::new(Account::new(all)), peer, each }
    }

    /// For a new peer.
    pub fn peer(&self) -> PeerBudget {
        PeerBudget(Arc::new(Account::new(self.peer)))
    }

    /// For a new connection of `peer`.
    pub fn purse(&self, peer: &PeerBudget) -> Purse {
        let own = Arc::new(Account::new(self.each));
        Purse { accounts: [own, Arc::clone(&peer.0), Arc::clone(&self.all)], replies: Arc::default() }
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.all.held.load(Relaxed)
    }

    /// The most bytes.
    pub fn limit(&self) -> usize {
        self.all.limit
    }
}

impl Purse {
    /// A share of nothing yet.
    pub fn share(&self) -> Share {
        Share { accounts: self.accounts.clone(), bytes: 0, unsent: None }
    }

    /// A share of the `bytes` of a reply.
    ///
    /// # Errors
    /// [`Exhausted`]
    pub fn reply(&self, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = self.share();
        share.grow(bytes)?;
        self.replies.unsent.fetch_add(1, Relaxed);
        share.unsent = Some(Arc::clone(&self.replies));
        Ok(share)
    }

    /// Replies that are not written yet.
    pub fn unsent(&self) -> usize {
        self.replies.unsent.load(Relaxed)
    }

    /// Replies that were written, or given up.
    pub fn sent(&self) -> u64 {
        self.replies.sent.load(Relaxed)
    }
}

impl Share {
    /// Takes `more` bytes, too.
    ///
    /// # Errors
    /// [`Exhausted`]; what was taken before is still held.
    pub fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        for (index, account) in self.accounts.iter().enumerate() {
            if let Err(exhausted) = account.take(more) {
                self.accounts.iter().take(index).for_each(|account| account.give(more));
                return Err(exhausted);
            }
        }
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }

    /// `bytes`, which hold the share for as long as anybody holds them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.accounts.iter().for_each(|account| account.give(self.bytes));
        if let Some(replies) = &self.unsent {
            replies.unsent.fetch_sub(1, Relaxed);
            replies.sent.fetch_add(1, Relaxed);
        }
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Account {
    fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> Result<(), Exhausted> {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.limit);
        self.held.fetch_update(Relaxed, Relaxed, more).map(drop).map_err(|_| Exhausted)
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::new(10, 10, 6);
        let peer = budget.peer();
        let (one, other) = (budget.purse(&peer), budget.purse(&peer));
        let mut share = one.share();
        share.grow(6).unwrap();
        assert_eq!(share.grow(1), Err(Exhausted), "a connection's own bound");
        let reply = other.reply(4).unwrap();
        assert_eq!(other.reply(1).unwrap_err(), Exhausted, "everybody's bound");
        assert_eq!((budget.held(), other.unsent(), other.sent()), (10, 1, 0));
        // As a connection does that writes a part of it.
        let held = reply.hold(Bytes::from_static(b"abcd"));
        let rest = held.slice(2..);
        drop(held);
        assert_eq!((budget.held(), other.unsent()), (10, 1), "a part is not written yet");
        drop(rest);
        assert_eq!((budget.held(), other.unsent(), other.sent()), (6, 0, 1));
        drop(share);
        assert_eq!(budget.held(), 0);
        other.reply(6).unwrap();
    }

    #[test]
    fn what_one_peer_has_no_room_for_others_have() {
        let budget = Budget::new(10, 6, 4);
        let (peer, stranger) = (budget.peer(), budget.peer());
        let (one, other) = (budget.purse(&peer), budget.purse(&peer));
        let (held, mut more) = (one.reply(4).unwrap(), other.share());
        more.grow(2).unwrap();
        assert_eq!(more.grow(1), Err(Exhausted), "the peer's bound, over both connections");
        assert_eq!(budget.held(), 6, "a share that was refused takes nothing");
        let reply = budget.purse(&stranger).reply(4).unwrap();
        drop((held, reply));
        more.grow(2).unwrap();
        assert_eq!(budget.held(), 4);
    }
}
