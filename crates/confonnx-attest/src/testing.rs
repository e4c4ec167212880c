//! What tests of several modules share.

use std::path::PathBuf;

/// A file of the vectors that may not be committed. Tests that need one are ignored unless asked for, so that none of
/// them passes where there is no such file.
pub(crate) fn shared(name: &str) -> Vec<u8> {
    let beside =
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/shared-only"));
    let path = std::env::var_os("CONFONNX_SHARED_VECTORS").map_or_else(beside, PathBuf::from).join(name);
    std::fs::read(&path).unwrap_or_else(|err| {
        panic!("{}: {err}; CONFONNX_SHARED_VECTORS names the folder that has it", path.display())
    })
}
