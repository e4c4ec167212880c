//! Who is connected, by address: how many connections, and what they share of the budget.
//!
//! An address is the nearest thing to a caller that there is before anything is opened. Behind a proxy it is the proxy.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::budget::{Budget, PeerBudget};

/// Peers with a connection.
#[derive(Debug, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<IpAddr, Connected>>>);

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

impl Peers {
    /// One more connection from `address`, which may have `most`; `None` if it has them.
    pub(super) fn admit(&self, address: IpAddr, most: usize, budget: &Budget) -> Option<Peer> {
        let network = network(address);
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connected =
            peers.entry(network).or_insert_with(|| Connected { connections: 0, budget: budget.peer() });
        // One that was just made has none, and may have at least one: it does not stay behind.
        if connected.connections >= most {
            return None;
        }
        connected.connections = connected.connections.saturating_add(1);
        Some(Peer { network, budget: connected.budget.clone(), peers: Self(Arc::clone(&self.0)) })
    }
}

impl Peer {
    /// What its connections share.
    pub(super) fn budget(&self) -> &PeerBudget {
        &self.budget
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut peers = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut connected) = peers.entry(self.network) {
            let connections = connected.get().connections.saturating_sub(1);
            connected.get_mut().connections = connections;
            if connections == 0 {
                connected.remove();
            }
        }
    }
}

/// What is given to one customer: an address, or 64 bits of one of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS)),
        address @ IpAddr::V4(_) => address,
    }
}

const HOST_BITS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_connections_and_others_have_theirs() {
        let (peers, budget) = (Peers::default(), Budget::new(10, 6, 6));
        let admit = |address: &str| peers.admit(address.parse().unwrap(), 2, &budget);
        let first = admit("192.0.2.1").unwrap();
        let second = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none(), "the same address, however it is written");
        let other = admit("192.0.2.2").unwrap();
        drop(first);
        let third = admit("192.0.2.1").unwrap();
        // What the first connection's budget is, is all of the peer's.
        let held = budget.purse(second.budget()).reply(6).unwrap();
        assert!(budget.purse(third.budget()).reply(1).is_err());
        drop((held, second, third, other));
        assert!(peers.0.lock().unwrap().is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let (peers, budget) = (Peers::default(), Budget::new(10, 6, 6));
        let admit = |address: &str| peers.admit(address.parse().unwrap(), 1, &budget);
        let _first = admit("2001:db8:0:1::1").unwrap();
        assert!(admit("2001:db8:0:1:ffff::2").is_none());
        assert!(admit("2001:db8:0:2::1").is_some());
    }
}
