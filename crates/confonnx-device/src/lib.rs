//! The requests to TEE devices that Linux offers by `ioctl` alone.
//!
//! `ioctl` takes an address that the kernel writes to, so no safe wrapper of it can exist for all devices. This crate has
//! the calls that attestation needs and nothing else; all other crates forbid unsafe code (docs/decisions/0006). It
//! reads nothing out of the answers: what they mean is for `confonnx-attest`.

#[cfg(target_os = "linux")]
mod nsm;
#[cfg(target_os = "linux")]
mod sev_guest;

#[cfg(target_os = "linux")]
pub use nsm::nsm_request;
#[cfg(target_os = "linux")]
pub use sev_guest::{SevGuestError, SevGuestReport, sev_guest_extended_report};
