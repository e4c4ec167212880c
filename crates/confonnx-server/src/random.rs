//! The system's generator.

use confonnx_attest::Nonce;
use getrandom::{
    SysRng,
    rand_core::{Rng, UnwrapErr},
};

/// The generator for sealing and for keys.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
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
