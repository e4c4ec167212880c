//! What tests of several modules share.

use std::path::PathBuf;

/// A file of the vectors that may not be committed; says so when it is absent.
#[allow(clippy::print_stdout)]
pub(crate) fn shared(name: &str) -> Option<Vec<u8>> {
    let beside =
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/shared-only"));
    let root = std::env::var_os("CONFONNX_SHARED_VECTORS").map_or_else(beside, PathBuf::from);
    let read = std::fs::read(root.join(name)).ok();
    if read.is_none() {
        println!("skipped: shared vector {name} is absent");
    }
    read
}
