//! The C library `confonnx`: a skin over `confonnx-client`.
//!
//! Pointers of C come in and go out here and nowhere else, which takes unsafe code; what decides is below. Every function
//! catches panics, and every handle is freed by the function of its name. `include/confonnx.h` says the rest.

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
