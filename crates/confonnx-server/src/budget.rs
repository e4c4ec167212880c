//! Bytes of requests and replies that are held at a time: bounded for all together, for each peer and for each connection.
//!
//! A share is taken before bytes are kept and given back when they are gone: those of a request once it was erased, those
//! of a reply once they were written. What there is no room for is refused.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::clock::Later;

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Budget {
    all: Arc<Account>,
    peer: usize,
    each: usize,
    paces: bool,
}

/// What the connections of one peer share.
#[derive(Clone, Debug)]
pub struct PeerBudget {
    account: Arc<Account>,
    pace: Arc<Pace>,
    network: Option<IpAddr>,
}

/// One connection's part.
#[derive(Clone, Debug)]
pub struct Purse {
    accounts: Accounts,
    pace: Arc<Pace>,
    replies: Arc<Replies>,
    network: Option<IpAddr>,
}

/// Bytes that somebody holds. Dropping gives them back.
#[derive(Debug)]
pub struct Share {
    accounts: Accounts,
    bytes: usize,
    /// Of a reply that is not written yet.
    unsent: Option<Arc<Replies>>,
    making: bool,
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

/// How fast a peer is served that asks for what costs it almost nothing, and us as much as what is worth something.
#[derive(Debug, Default)]
struct Pace {
    /// How fast its long requests are read, once some of them were nothing that opens.
    suspected: Mutex<Option<Suspected>>,
    /// Its answers that just anybody gets.
    unsealed: Mutex<Turns>,
    /// Its connections that were taken.
    connections: Mutex<Turns>,
    /// Whether it is one peer: what many send under one address is no reason to serve all of them slowly.
    paces: bool,
}

#[derive(Debug)]
struct Suspected {
    until: Instant,
    /// When the next long request is read.
    next: Instant,
}

/// Turns that come at even intervals, and some at once after a pause.
#[derive(Debug, Default)]
struct Turns {
    /// When there could be all of those at once again.
    full: Option<Instant>,
}

impl Turns {
    /// When the next of them is, none if now; and what it makes of these if it is taken.
    fn next(&self, now: Instant, interval: Duration, burst: u32) -> (Option<Instant>, Self) {
        let taken = self.full.map_or(now, |full| full.max(now));
        let turn = taken.checked_sub(interval.saturating_mul(burst)).filter(|turn| *turn > now);
        (turn, Self { full: Some(taken.later(interval)) })
    }

    fn is_at_rest(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

impl Pace {
    /// When the next answer is given that just anybody gets: a document, or a refusal of what did not open. None is now.
    fn unsealed(&self, now: Instant) -> Option<Instant> {
        if !self.paces {
            return None;
        }
        let mut turns = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        let (turn, taken) = turns.next(now, UNSEALED_INTERVAL, UNSEALED_BURST);
        *turns = taken;
        turn
    }

    /// Whether one more connection is taken, which is counted then; `most` may be open at once.
    fn connects(&self, now: Instant, most: usize) -> bool {
        if !self.paces {
            return true;
        }
        let mut turns = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = u32::try_from(most).unwrap_or(u32::MAX).max(CONNECTION_BURST);
        let (turn, taken) = turns.next(now, CONNECTION_INTERVAL, burst);
        if turn.is_none() {
            *turns = taken;
        }
        turn.is_none()
    }

    /// Whether nothing has to be remembered of the peer.
    fn is_at_rest(&self, now: Instant) -> bool {
        let suspected = self.suspected.lock().unwrap_or_else(PoisonError::into_inner);
        let at_rest =
            |turns: &Mutex<Turns>| turns.lock().unwrap_or_else(PoisonError::into_inner).is_at_rest(now);
        suspected.as_ref().is_none_or(|suspected| suspected.until <= now)
            && at_rest(&self.unsealed)
            && at_rest(&self.connections)
    }

    fn turn(&self, bytes: u64, now: Instant) -> Result<Instant, Exhausted> {
        let mut pace = self.suspected.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suspected) = pace.as_mut().filter(|suspected| now < suspected.until) else { return Ok(now) };
        let turn = suspected.next.max(now);
        if turn > now.later(LONGEST_WAIT) {
            return Err(Exhausted);
        }
        let takes = bytes.saturating_mul(1000) / SUSPECTED_RATE;
        suspected.next = turn.later(Duration::from_millis(takes.min(1000)));
        Ok(turn)
    }

    fn suspect(&self, now: Instant) {
        if !self.paces {
            return;
        }
        let mut pace = self.suspected.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pace.as_ref().map_or(now, |suspected| suspected.next);
        *pace = Some(Suspected { until: now.later(SUSPICION), next });
    }
}

/// Bytes a second of long requests of a peer that sent some that did not open.
const SUSPECTED_RATE: u64 = 8 << 20;
/// How long such a peer is slowed down.
const SUSPICION: Duration = Duration::from_secs(10);
/// How long a peer's next answer that is not sealed takes to be earned, and how many it may have at once after a pause.
const UNSEALED_INTERVAL: Duration = Duration::from_micros(7_813);
const UNSEALED_BURST: u32 = 128;
/// The same for its connections, of which all that it may have can come at once: as many as no client that keeps them
/// needs, and few beside what one that drops them makes.
const CONNECTION_INTERVAL: Duration = Duration::from_micros(1_953);
const CONNECTION_BURST: u32 = 512;
/// The longest that a request waits for its turn; who would wait longer is told to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Replies of a connection.
#[derive(Debug, Default)]
struct Replies {
    unsent: AtomicUsize,
    /// How many of these have nothing to write until more of them is made.
    making: AtomicUsize,
    sent: AtomicU64,
}

impl Budget {
    /// A budget of `all` bytes, of which `peer` for the connections of one peer and `each` for one connection.
    pub fn new(all: usize, peer: usize, each: usize) -> Self {
        Self { all: Arc::new(Account::new(all)), peer, each, paces: true }
    }

    /// The same budget, which serves no later peer slowly: each address may be that of many.
    pub fn unpaced(self) -> Self {
        Self { paces: false, ..self }
    }

    /// The budget of a new peer.
    pub fn peer(&self) -> PeerBudget {
        let pace = Arc::new(Pace { paces: self.paces, ..Pace::default() });
        PeerBudget { account: Arc::new(Account::new(self.peer)), pace, network: None }
    }

    /// The purse of a new connection of `peer`.
    pub fn purse(&self, peer: &PeerBudget) -> Purse {
        let own = Arc::new(Account::new(self.each));
        let accounts = [own, Arc::clone(&peer.account), Arc::clone(&self.all)];
        let network = peer.network.filter(|_| self.paces);
        Purse { accounts, pace: Arc::clone(&peer.pace), replies: Arc::default(), network }
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

impl PeerBudget {
    /// The same budget, of the peer of that network.
    pub fn of(self, network: IpAddr) -> Self {
        Self { network: Some(network), ..self }
    }

    /// Whether one more connection of the peer, which may have `most` at once, is taken, and counted.
    pub fn connects(&self, now: Instant, most: usize) -> bool {
        self.pace.connects(now, most)
    }

    /// Whether nothing has to be remembered of a peer that has left.
    pub fn is_at_rest(&self, now: Instant) -> bool {
        self.pace.is_at_rest(now)
    }
}

impl Purse {
    /// The peer's network, if it is one peer: what many send under one address is nobody's.
    pub fn network(&self) -> Option<IpAddr> {
        self.network
    }

    /// When the peer gets its next answer that is not sealed, if not now. The answer is counted.
    pub fn unsealed(&self, now: Instant) -> Option<Instant> {
        self.pace.unsealed(now)
    }

    /// When a long request of `bytes` may be read: now, unless the peer's have lately been nothing that opens.
    ///
    /// # Errors
    /// [`Exhausted`]: its turn would come too late.
    pub fn turn(&self, bytes: u64, now: Instant) -> Result<Instant, Exhausted> {
        self.pace.turn(bytes, now)
    }

    /// A long request of the peer's was none that opens.
    pub fn suspect(&self, now: Instant) {
        self.pace.suspect(now);
    }

    /// A share of nothing yet.
    pub fn share(&self) -> Share {
        Share { accounts: self.accounts.clone(), bytes: 0, unsent: None, making: false }
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

    /// Replies of which something waits for the client to read it.
    pub fn unread(&self) -> usize {
        self.unsent().saturating_sub(self.replies.making.load(Relaxed))
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

    /// Says whether the reply has nothing to write until more of it is made.
    pub fn is_making(&mut self, making: bool) {
        if let Some(replies) = &self.unsent {
            match (self.making, making) {
                (false, true) => drop(replies.making.fetch_add(1, Relaxed)),
                (true, false) => drop(replies.making.fetch_sub(1, Relaxed)),
                _ => {}
            }
            self.making = making;
        }
    }

    /// `bytes`, which hold the share for as long as anybody holds them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.accounts.iter().for_each(|account| account.give(self.bytes));
        self.is_making(false);
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
        // A connection writes a part of the reply.
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
    fn who_sends_what_does_not_open_is_read_slowly_for_a_while() {
        let budget = Budget::new(10, 6, 4);
        let (peer, stranger) = (budget.peer(), budget.peer());
        let (one, other) = (budget.purse(&peer), budget.purse(&peer));
        let (now, mib) = (Instant::now(), 1 << 20);
        assert_eq!((one.turn(mib, now), one.turn(mib, now)), (Ok(now), Ok(now)), "nobody is suspected");
        one.suspect(now);
        let after = |millis| now.later(Duration::from_millis(millis));
        assert_eq!((one.turn(mib, now), other.turn(mib, now)), (Ok(now), Ok(after(125))), "one by one");
        assert_eq!(one.turn(u64::MAX, now), Ok(after(250)));
        assert_eq!(one.turn(mib, now), Ok(after(1250)), "no request costs more than a second");
        assert_eq!(budget.purse(&stranger).turn(mib, now), Ok(now), "others go on");
        for _ in 0..4 {
            one.turn(u64::MAX, now).unwrap();
        }
        assert_eq!(one.turn(mib, now), Err(Exhausted));
        let later = after(10_001);
        assert_eq!((one.turn(mib, later), one.turn(mib, later)), (Ok(later), Ok(later)), "it is forgotten");
    }

    #[test]
    fn what_just_anybody_gets_one_peer_gets_in_turns() {
        let budget = Budget::new(10, 6, 4);
        let (peer, stranger, now) = (budget.peer(), budget.peer(), Instant::now());
        let (one, other) = (budget.purse(&peer), budget.purse(&peer));
        assert!(peer.is_at_rest(now));
        for _ in 0..UNSEALED_BURST {
            assert_eq!(one.unsealed(now), None);
        }
        assert_eq!(other.unsealed(now), None, "the last of them is earned by the time it is given");
        let turn = |times: u32| Some(now.later(UNSEALED_INTERVAL * times));
        assert_eq!((other.unsealed(now), one.unsealed(now)), (turn(1), turn(2)), "over all its connections");
        assert!(!peer.is_at_rest(now), "who leaves and comes again is still known");
        assert_eq!(budget.purse(&stranger).unsealed(now), None, "others go on");
        let later = now.later(Duration::from_secs(2));
        assert!(peer.is_at_rest(later));
        assert_eq!(one.unsealed(later), None, "it is forgotten");
        // Behind a proxy everybody is one.
        let alike = budget.unpaced().peer();
        let purse = Budget::new(10, 6, 4).unpaced().purse(&alike);
        purse.suspect(now);
        for _ in 0..2 * UNSEALED_BURST {
            assert_eq!((purse.unsealed(now), purse.turn(u64::MAX, now)), (None, Ok(now)));
        }
    }

    #[test]
    fn who_connects_again_and_again_is_let_in_so_often() {
        let budget = Budget::new(10, 6, 4);
        let (peer, stranger, now) = (budget.peer(), budget.peer(), Instant::now());
        let let_in = |peer: &PeerBudget, now| (0..5000).filter(|_| peer.connects(now, 32)).count();
        assert_eq!(let_in(&peer, now), 513, "the last of them is earned by the time it is given");
        assert!(!peer.is_at_rest(now), "who leaves and comes again is still known");
        assert_eq!(let_in(&stranger, now), 513, "others go on");
        let after = |millis| now.later(Duration::from_millis(millis));
        assert_eq!(let_in(&peer, after(100)), 51, "who was refused has lost nothing by it");
        assert!(peer.is_at_rest(after(1200)));
        assert_eq!(let_in(&peer, after(1200)), 513, "it is forgotten");
        let large = budget.peer();
        assert_eq!(
            (0..5000).filter(|_| large.connects(now, 4000)).count(),
            4001,
            "all that it may have at once"
        );
        assert_eq!(let_in(&budget.unpaced().peer(), now), 5000, "behind a proxy everybody is one");
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
        assert_eq!(budget.purse(&budget.peer()).reply(1).unwrap_err(), Exhausted, "everybody's bound");
        drop((held, reply));
        more.grow(2).unwrap();
        assert_eq!(budget.held(), 4);
    }
}
