//! The server's side: the key ring, which opens requests, refuses replays, and seals one reply to each.

mod epoch;
mod open;
mod ratchet;
mod replay;
mod ring;

pub use self::{
    epoch::Epoch,
    open::{Authentic, ChunkedOpener, ChunkedReply, DateOutOfWindow, OpenError, Opened, Reply},
    ratchet::{Ratchet, StateError, TooFar},
    ring::{EpochInfo, KeyInfo, KeyRing, ResumptionLimits, RingConfig, RingError},
};
