//! How much clients can make the server hold.

use std::time::Duration;

/// Bounds of what clients can make the server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest body of a sealed request, in bytes.
    pub request_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// What one peer may have of connections and of held bytes, in percent.
    pub peer_percent: usize,
    /// Sealed requests received, waiting or running at once.
    pub queue: usize,
    /// Bytes of requests and replies held at once, for all connections.
    pub held_bytes: usize,
    /// Whether counters tell what became of requests inside the seal.
    pub request_metrics: bool,
    /// How long a header or a body may take to arrive, and a reply to be read.
    pub request_timeout: Duration,
    /// How long a connection may be idle.
    pub idle_timeout: Duration,
}

impl Limits {
    /// Bytes held at once for one connection: proxies send requests of many clients over one.
    pub fn connection_bytes(&self) -> usize {
        (self.held_bytes / 4).max(self.request_bytes.saturating_mul(2)).min(self.held_bytes)
    }

    /// Bytes held at once for all connections of one peer.
    pub fn peer_bytes(&self) -> usize {
        percent(self.held_bytes, self.peer_percent).max(self.connection_bytes())
    }

    /// Whether addresses are peers: not where all that there is may be one peer's, as behind a proxy.
    pub fn tells_peers_apart(&self) -> bool {
        self.peer_percent < 100
    }

    /// Connections at once from one peer.
    pub fn peer_connections(&self) -> usize {
        percent(self.connections, self.peer_percent).max(1)
    }
}

fn percent(whole: usize, percent: usize) -> usize {
    whole.saturating_mul(percent) / 100
}
