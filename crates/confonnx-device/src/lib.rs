//! What Linux offers by calls for which no safe wrapper can exist in general: requests to TEE devices and the device mapper by
//! `ioctl`, and what a process does to itself before it runs what it does not trust.
//!
//! `ioctl` takes an address that the kernel writes to, so no safe wrapper of it can exist for all devices. This crate has
//! the calls that attestation needs and nothing else; all other crates forbid unsafe code (docs/decisions/0006). It
//! reads nothing out of the answers: what they mean is for `confonnx-attest`.
//!
//! Feature `bell`: what another process rings, for tasks to wait by. Feature `ort`: strings of ONNX Runtime's tensors as
//! bytes, which the `ort` crate's safe functions cannot give.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

#[cfg(all(target_os = "linux", feature = "bell"))]
mod bell;
#[cfg(target_os = "linux")]
mod mapping;
#[cfg(target_os = "linux")]
mod nsm;
#[cfg(target_os = "linux")]
mod own_process;
#[cfg(target_os = "linux")]
mod sev_guest;
#[cfg(target_os = "linux")]
mod verity;
#[cfg(target_os = "linux")]
mod window;

#[cfg(feature = "ort")]
mod strings;

#[cfg(all(target_os = "linux", feature = "bell"))]
pub use bell::{Bell, Listener};
#[cfg(target_os = "linux")]
pub use mapping::Mapping;
#[cfg(target_os = "linux")]
pub use nsm::nsm_request;
#[cfg(target_os = "linux")]
pub use own_process::{close_all_from, give_memory_back, ignore_terminal_signals, keep_freed_memory};
#[cfg(target_os = "linux")]
pub use sev_guest::{SevGuestError, SevGuestReport, sev_guest_extended_report};
#[cfg(feature = "ort")]
pub use strings::{strings_from_bytes, strings_to_bytes};
#[cfg(target_os = "linux")]
pub use verity::{map_verity, unmap};
#[cfg(target_os = "linux")]
pub use window::Window;
