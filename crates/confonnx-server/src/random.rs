//! The system's generator.

use confonnx_attest::Nonce;
use getrandom::{SysRng, rand_core::UnwrapErr};

/// For sealing and for keys.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A nonce for a document.
///
/// # Errors
/// When the system gives no randomness.
pub(crate) fn nonce() -> Result<Nonce, getrandom::Error> {
    let mut nonce = Nonce([0; 32]);
    getrandom::fill(&mut nonce.0)?;
    Ok(nonce)
}
