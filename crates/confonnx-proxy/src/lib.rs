//! A listener on this machine that speaks what programs already speak (Open Inference Protocol v2, OpenAI's API) to programs
//! that know nothing of attestation, and verifies, seals and forwards what they ask.
//!
//! It fails closed: what no policy accepted gets nothing, and the program gets 503 with the checks that failed. It is not
//! reachable from other machines, since what it is told is in the clear, and answers no page of a browser but its own.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]
#![allow(clippy::result_large_err, reason = "the error of whoever stops early is the answer")]

mod answer;
mod config;
mod fault;
mod front;
mod grpc;
mod guard;
mod listen;
mod metrics;
mod proxy;
mod rest;
mod stats;
mod trace;
mod ui;
mod upstream;

pub use config::{Config, ConfigError, UpstreamConfig};
pub use listen::{ListenError, Listener, serve};
pub use proxy::{Proxy, Settings};
pub use trace::{TraceError, Traces};
pub use upstream::Upstream;
