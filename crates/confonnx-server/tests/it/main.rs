//! A real server with real models, over real connections.

mod abuse;
mod attest;
mod auth;
mod harness;
mod inner;
mod keys;
mod lifecycle;
mod memory;
mod problems;
mod program;
mod protected;
mod tpm;
