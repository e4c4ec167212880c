//! Intel's Data Center Attestation Primitives, which SGX and TDX share: quotes, the chain of a platform's key (PCK) to
//! Intel's root, and what Intel says of platforms (TCB info) and of the enclave that makes quotes (QE identity).
//!
//! Verification is `dcap-qvl`'s. Its answer is one error or none, so [`verify()`] also makes each check by itself, in
//! order to name them all; evidence is genuine only when every check passes and `dcap-qvl` agrees.

mod behind;
mod checks;
mod collateral;
mod enclave;
mod pcs;
mod platform;
mod policy;
mod quote;
mod root;
mod status;
mod tcb;
mod verify;

pub(crate) use collateral::{Collateral, CollateralError};
pub(crate) use enclave::EnclaveReport;
pub(crate) use pcs::{requests, staple};
pub(crate) use platform::Platform;
pub use platform::TcbStatus;
pub(crate) use policy::{CLOUD_EVALUATION, PlatformPolicy, STRICT_EVALUATION, check_list};
pub(crate) use quote::Quote;
pub use quote::{Kind, QuoteError};
pub(crate) use root::Root;
pub(crate) use verify::verify;

#[cfg(test)]
mod tests;
