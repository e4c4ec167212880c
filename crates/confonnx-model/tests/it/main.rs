//! Models and tensors are read from files that the `onnx` Python package made (`tests/data/make.py`).

#![allow(clippy::restriction, reason = "a test may panic")]

mod annotate;
mod hash;
mod info;
mod tensor_proto;

use std::{fs, path::PathBuf};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn data(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}
