//! The confidential ONNX inference server, which runs inside the TEE.
//!
//! A request flows one way: `http` (bytes) → `service`, which opens it, asks the inner API and seals the answer →
//! `http` (bytes). Plaintext exists only within [`service`]; `http` and `metrics` never see it.
//!
//! - [`clock`], [`metrics`], [`budget`], [`https`]: below everything; [`evidence`], [`tee`]: what attests this server.
//! - [`config`]: settings, from the untrusted host.
//! - [`keys`], [`group`], [`key_service`]: the key epochs, and where their secrets come from; [`attestation`]: the proof that
//!   they were made here; [`collateral`]: what the TEE's vendor says of it, so that clients can check the proof offline.
//! - [`models`], [`generation`], [`embedding`], [`auth`], [`service`]: what a sealed request meets; [`audit`]: what is written of it.
//! - [`http`] with [`body`], [`admin`], [`scheduling`], [`log`], [`systemd`], [`hardening`]: around it.
//! - [`server`]: puts them together.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

pub mod admin;
pub mod attestation;
pub mod audit;
pub mod auth;
pub mod body;
pub mod budget;
pub mod clock;
pub mod collateral;
pub mod config;
pub mod embedding;
pub mod evidence;
pub mod generation;
pub mod group;
pub mod hardening;
pub mod http;
pub mod https;
pub mod key_service;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod models;
pub mod pacer;
mod random;
pub mod scheduling;
pub mod sequences;
pub mod server;
pub mod service;
pub mod systemd;
pub mod tee;
