//! What hardware will report of a program, computed from its files before it runs.
//!
//! A client pins these values ([`EnclaveInfo`](crate::EnclaveInfo)), so whoever computes them need not trust the host. Each
//! TEE's part is in its own folder.

pub use crate::image::MeasureError;
pub use crate::nitro::measure as nitro;
pub use crate::sgx::measure as sgx;
pub use crate::snp::measure as snp;
pub use crate::tdx::measure as tdx;
pub use crate::tpm::measure::{Predicted, UkiMeasurement, uki};
