//! A real server with real models, over real connections.

#![allow(clippy::restriction, reason = "a test may panic")]

mod abuse;
mod akv;
mod attest;
mod auth;
mod azure_vault;
mod batching;
mod boxes;
mod cors;
mod embeddings;
mod generation;
mod harness;
mod inner;
mod kbs;
mod keys;
mod lifecycle;
mod memory;
mod peer_clock;
mod peers;
mod problems;
mod program;
mod protected;
mod providers;
mod reference;
mod released;
mod replicas;
mod repository;
mod resumption;
mod sequences;
mod service;
mod tpm;
mod translation;
mod trustee;
mod trustee_policy;
