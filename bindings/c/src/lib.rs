//! The C library `confonnx`: a skin over `confonnx-client`.
//!
//! Pointers of C come in and go out in this crate alone, which takes unsafe code; what decides is in `confonnx-client`.
//! Every function catches panics, and every handle is freed by the function named after it. `include/confonnx.h` says
//! the rest.

mod call;
mod client;
mod error;
mod options;
mod pointer;
mod response;
mod tensors;

use std::ffi::c_char;

/// The library's version.
#[unsafe(no_mangle)]
pub extern "C" fn confonnx_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
