//! The sealed path of confonnx: what travels between client and server, and how it is sealed.
//!
//! For whoever writes a client or a server; `docs/protocol.md` is the specification. Nothing here does IO, reads a
//! clock: time is an argument. So are random generators, but for ML-KEM, whose library draws its own randomness.
//!
//! - [`suite`], [`key_config`]: algorithms and published keys (RFC 9180, RFC 9458 §3).
//! - `client`: seal requests, open replies. A request can be sealed only to a key that a trusted attestation lists.
//! - `server`: the key ring, which opens requests, refuses replays, and seals each reply once.
//! - [`resumption`]: requests sealed under a secret of an earlier one.
//! - [`bhttp`], [`padding`]: what is inside a sealed message (RFC 9292, Padmé).
//! - [`oip`]: inference requests and responses (Open Inference Protocol v2).
//! - `key_service`: what services that release secrets against evidence are told, and what they answer.
//! - [`code`]: the problem codes of answers before opening.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]
// Client and server share the modules between them, and neither uses all.
#![cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]

mod backend;
pub mod bhttp;
mod buffer;
mod chunked;
#[cfg(feature = "client")]
pub mod client;
pub mod code;
mod context;
pub mod key_config;
#[cfg(all(feature = "server", feature = "aws-lc"))]
pub mod key_service;
pub mod oip;
pub mod padding;
mod reply_key;
pub mod resumption;
pub mod secret;
#[cfg(feature = "server")]
pub mod server;
pub mod suite;

pub use buffer::{Draft, Incoming};
pub use chunked::{ChunkSealer, MAX_CHUNK, Pieces};
pub use code::Code;
pub use context::SealError;
pub use key_config::KeyConfig;
pub use secret::{EpochSecret, Plaintext};
pub use suite::{Aead, Kem, NameError};
