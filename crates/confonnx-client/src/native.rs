//! The native host of a conversation: sockets, TLS, clocks, threads.

pub mod blocking;
mod chat;
mod client;
mod drive;
mod host;
mod outgoing;
mod policy;
mod proxies;
mod transport;

pub use chat::{ChatStream, ChatTokens};
pub use client::Client;
pub use drive::Stream;
pub use policy::{LoadError, load_enclave_hash, load_policy};
