//! Attestation for confonnx: evidence in, proof out.
//!
//! A server's attestation [`Document`] carries its key configs, its [`Claims`] and hardware [`Evidence`] that binds
//! both to a fresh nonce. It becomes a proof in two steps, each of which names every check it made:
//!
//! 1. [`Document::verify`] asks whether the evidence is genuine, giving [`Genuine`];
//! 2. [`Genuine::appraise`] asks whether what it proves is what the caller's [`Policy`] wants, giving [`Trusted`].
//!
//! A [`Trusted`] value cannot be made in any other way, so holding one means both steps passed. Everything but
//! `produce` is pure: no IO, no clock, no environment; `now` is an argument.
//!
//! ```
//! # #[cfg(all(feature = "insecure-dev", feature = "produce"))] {
//! use confonnx_attest::{Document, Expectations, Nonce, Policy, UnixTime};
//! # use confonnx_attest::{Claims, Digest, merkle::Tree, produce::Attester, report_data};
//! # let (nonce, now) = (Nonce([7; 32]), UnixTime(1_795_426_200));
//! # let (tree, claims) = (Tree::new(vec![nonce]).unwrap(), Claims::example(now).to_bytes());
//! # let bound = report_data(&tree.root(), b"key configs", &claims);
//! # let evidence = Attester::insecure(Digest([1; 32])).evidence(&bound).unwrap();
//! # let received = Document::new(b"key configs".to_vec(), claims, evidence, tree.root(), tree.proof(0)).to_json();
//! let policy = Policy::new(Expectations::new().allow_debug(true))?;
//! let trusted = Document::parse(&received)?.verify(Some(&nonce), now)?.appraise(&policy, now)?;
//! println!("{}", trusted.verdict());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The wire forms are those of section 2 of `docs/protocol.md`.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

pub mod azure;
mod backend;
mod binding;
mod bound;
mod claims;
pub mod collateral;
mod contract;
mod cursor;
mod dcap;
mod digest;
mod document;
mod enclave_info;
#[allow(dead_code, reason = "TPMs use what trust domains do not")]
mod eventlog;
mod evidence;
mod image;
#[cfg(feature = "insecure-dev")]
pub mod insecure;
pub mod json;
pub mod key_service;
mod list;
mod maa;
pub mod measure;
mod measured;
pub mod merkle;
pub mod nitro;
mod policy;
#[cfg(feature = "produce")]
pub mod produce;
mod proof;
mod raw;
mod release_log;
pub mod sgx;
mod shown;
pub mod snp;
pub mod tdx;
mod tee;
#[cfg(test)]
mod testing;
pub mod tpm;
mod trust;
#[cfg(feature = "produce")]
mod tsm;
mod verdict;
mod x509;

pub use binding::{Nonce, TimeError, UnixTime, report_data};
pub use claims::{
    Build, Claims, ClaimsError, ClientAuth, KeyClaim, KeyService, KeySource, ModelClaim, PROTOCOL, Runtime,
};
pub use digest::{Digest, EnclaveHash, Hex, HexError};
pub use document::{Document, DocumentError, Documents, MAX_DOCUMENT_BYTES, VerifyError};
pub use enclave_info::{EnclaveInfo, EnclaveInfoError};
pub use evidence::{Evidence, EvidenceError};
pub use policy::{
    AcceptedEngine, AcceptedKeyService, Called, Expectations, Maxima, ModelPin, ModelRefused, Platforms,
    Policy, PolicyBuildError, PolicyError, PolicyFileError, Preset, Refusal, ServerExpectations, SigningKey,
    SigningKeyError,
};
pub use proof::Genuine;
pub use raw::{RawError, RawEvidence};
pub use release_log::{MAX_PROOF_BYTES, ReleaseLog, is_proof};
pub use tee::Tee;
pub use trust::Trusted;
pub use verdict::{Check, Outcome, Step, Verdict};
