//! A real server with real models, over real connections.

mod abuse;
mod akv;
mod attest;
mod auth;
mod azure_vault;
mod batching;
mod boxes;
mod harness;
mod inner;
mod kbs;
mod keys;
mod lifecycle;
mod memory;
mod peers;
mod problems;
mod program;
mod protected;
mod providers;
mod reference;
mod released;
mod replicas;
mod repository;
mod service;
mod sessions;
mod tpm;
mod trustee;
