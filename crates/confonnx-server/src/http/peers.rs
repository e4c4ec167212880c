//! Who is connected, by address: how many connections, and what they share of the budget.
//!
//! An address is the nearest thing to a caller that there is before anything is opened. Behind a proxy it is the proxy.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::budget::{Budget, PeerBudget};

/// Peers with a connection, and those of which something has to be remembered a while longer.
#[derive(Debug, Default)]
pub(super) struct Peers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    peers: HashMap<IpAddr, Connected>,
    /// How many peers have no connection.
    gone: usize,
}

#[derive(Debug)]
struct Connected {
    connections: usize,
    budget: PeerBudget,
}

/// One connection of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    network: IpAddr,
    budget: PeerBudget,
    peers: Peers,
}

/// Why a peer gets no more connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// It has as many as it may have.
    TooMany,
    /// It had more of late than anybody needs.
    TooOften,
}

impl Peers {
    /// Counts one more connection of `address`, which may have `most`.
    ///
    /// # Errors
    /// [`NotAdmitted`]
    pub(super) fn admit(&self, address: IpAddr, most: usize, budget: &Budget) -> Result<Peer, NotAdmitted> {
        let network = network(address);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.make_room();
        let Known { peers, gone } = &mut *known;
        let connected = peers.entry(network).or_insert_with(|| {
            *gone = gone.saturating_add(1);
            Connected { connections: 0, budget: budget.peer().of(network) }
        });
        // A peer that was just made has no connection and may have at least one: it does not stay behind.
        if !connected.budget.connects(Instant::now(), most) {
            return Err(NotAdmitted::TooOften);
        }
        if connected.connections >= most {
            return Err(NotAdmitted::TooMany);
        }
        if connected.connections == 0 {
            *gone = gone.saturating_sub(1);
        }
        connected.connections = connected.connections.saturating_add(1);
        Ok(Peer { network, budget: connected.budget.clone(), peers: Self(Arc::clone(&self.0)) })
    }
}

impl Known {
    /// Forgets those who left when there are many: first those of which nothing has to be remembered, then all.
    fn make_room(&mut self) {
        if self.gone < REMEMBERED {
            return;
        }
        let now = Instant::now();
        self.peers.retain(|_, peer| peer.connections > 0 || !peer.budget.is_at_rest(now));
        self.count();
        // As many peers have to come and go until this is done again.
        if self.gone > REMEMBERED / 2 {
            self.peers.retain(|_, peer| peer.connections > 0);
            self.count();
        }
    }

    fn count(&mut self) {
        self.gone = self.peers.values().filter(|peer| peer.connections == 0).count();
    }
}

impl Peer {
    /// The budget that the peer's connections share.
    pub(super) fn budget(&self) -> &PeerBudget {
        &self.budget
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut known = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connected) = known.peers.get_mut(&self.network) else { return };
        connected.connections = connected.connections.saturating_sub(1);
        if connected.connections > 0 {
            return;
        }
        // If the peer were forgotten now, a sender of garbage would begin anew with each connection.
        if connected.budget.is_at_rest(Instant::now()) {
            known.peers.remove(&self.network);
        } else {
            known.gone = known.gone.saturating_add(1);
        }
    }
}

/// The addresses that one customer has: one of IPv4, or 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS)),
        address @ IpAddr::V4(_) => address,
    }
}

const HOST_BITS: u32 = 64;

/// Peers without a connection that are remembered.
const REMEMBERED: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_peer_has_so_many_connections_and_others_have_theirs() {
        let (peers, budget) = (Peers::default(), Budget::new(10, 6, 6));
        let admit = |address: &str| peers.admit(address.parse().unwrap(), 2, &budget);
        let first = admit("192.0.2.1").unwrap();
        let second = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(
            admit("192.0.2.1").unwrap_err(),
            NotAdmitted::TooMany,
            "the same address, however it is written"
        );
        let other = admit("192.0.2.2").unwrap();
        drop(first);
        let third = admit("192.0.2.1").unwrap();
        // The budget of the first connection is that of all the peer's connections.
        let held = budget.purse(second.budget()).reply(6).unwrap();
        assert!(budget.purse(third.budget()).reply(1).is_err());
        // Nobody has connected so lately that it has to be remembered.
        std::thread::sleep(Duration::from_millis(100));
        // What the peer leaves with the server is known to be its own.
        let network = |peer: &Peer, budget: &Budget| budget.purse(peer.budget()).network();
        assert_eq!(network(&third, &budget), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(network(&other, &budget.clone().unpaced()), None, "behind a proxy everybody is one");
        drop((held, second, third, other));
        assert!(peers.0.lock().unwrap().peers.is_empty(), "nobody is remembered");
    }

    #[test]
    fn who_sent_garbage_and_left_is_known_when_it_comes_again_and_not_for_ever() {
        let (peers, budget) = (Peers::default(), Budget::new(10, 6, 6));
        let admit = |address: IpAddr| peers.admit(address, 1, &budget).unwrap();
        let (now, address) = (Instant::now(), "192.0.2.1".parse().unwrap());
        let suspect = |peer: Peer| budget.purse(peer.budget()).suspect(now);
        suspect(admit(address));
        let purse = budget.purse(admit(address).budget());
        let turns = [purse.turn(8 << 20, now).unwrap(), purse.turn(8 << 20, now).unwrap()];
        assert!(turns[1] > now, "{turns:?}");
        // A client with many addresses fills no memory.
        for host in 0..2 * REMEMBERED as u32 {
            suspect(admit(IpAddr::from(host.to_be_bytes())));
            assert!(peers.0.lock().unwrap().peers.len() <= REMEMBERED + 1);
        }
        let known = peers.0.lock().unwrap();
        assert_eq!(known.peers.len(), known.gone);
    }

    #[test]
    fn who_comes_and_goes_is_let_in_only_so_often() {
        let (peers, budget) = (Peers::default(), Budget::new(10, 6, 6));
        let admit = |address: &str| peers.admit(address.parse().unwrap(), 2, &budget);
        let refused =
            (0..2000).filter(|_| admit("192.0.2.1").map(drop) == Err(NotAdmitted::TooOften)).count();
        assert!(refused > 0, "{refused}");
        drop(admit("192.0.2.2").unwrap());
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let (peers, budget) = (Peers::default(), Budget::new(10, 6, 6));
        let admit = |address: &str| peers.admit(address.parse().unwrap(), 1, &budget);
        let _first = admit("2001:db8:0:1::1").unwrap();
        assert_eq!(admit("2001:db8:0:1:ffff::2").unwrap_err(), NotAdmitted::TooMany);
        admit("2001:db8:0:2::1").unwrap();
    }
}
