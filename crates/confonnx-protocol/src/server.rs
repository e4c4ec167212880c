//! The server's side: the key ring, which opens requests, refuses replays, and seals one reply to each.

mod epoch;
mod open;
mod replay;
mod ring;

pub use self::{
    open::{ChunkedOpener, ChunkedReply, DateOutOfWindow, OpenError, Opened, Reply},
    ring::{KeyInfo, KeyRing, RingConfig, RingError, SessionLimits},
};
