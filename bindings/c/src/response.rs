//! Answers to requests of the caller's.

use std::ffi::{CString, c_char};

use confonnx_client::Response;

use crate::pointer::{self, c_text};

/// An opened answer. Erased when it is freed.
pub struct ConfonnxResponse {
    response: Response,
    fields: Vec<(CString, CString)>,
}

impl ConfonnxResponse {
    pub(crate) fn new(response: Response) -> Self {
        let field = |(name, value): (&str, &[u8])| (c_text(name), c_text(&String::from_utf8_lossy(value)));
        let fields = response.fields().iter().map(field).collect();
        Self { response, fields }
    }
}

/// Frees a response.
///
/// # Safety
/// `response` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_response_free(response: *mut ConfonnxResponse) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(response) }
}

/// The status of a response, which came sealed; 0 of a null pointer.
///
/// # Safety
/// `response` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_response_status(response: *const ConfonnxResponse) -> u16 {
    // SAFETY: as the caller says.
    unsafe { response.as_ref() }.map_or(0, |it| it.response.status())
}

/// The value of the header field of that lower-case name; null if there is none.
///
/// # Safety
/// `response` is null, or was given out by this library and not freed; `name` is a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_response_field(
    response: *const ConfonnxResponse,
    name: *const c_char,
) -> *const c_char {
    // SAFETY: as the caller says.
    let (response, name) = unsafe { (response.as_ref(), pointer::text(name, "name")) };
    let (Some(response), Ok(name)) = (response, name) else { return std::ptr::null() };
    let found = response.fields.iter().find(|(known, _)| known.as_bytes() == name.as_bytes());
    found.map_or(std::ptr::null(), |(_, value)| value.as_ptr())
}

/// The body of a response, of `len` bytes; null of a null pointer.
///
/// # Safety
/// `response` is null, or was given out by this library and not freed; `len` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_response_body(
    response: *const ConfonnxResponse,
    len: *mut usize,
) -> *const u8 {
    // SAFETY: as the caller says.
    let body = unsafe { response.as_ref() }.map(|it| it.response.body());
    if !len.is_null() {
        // SAFETY: not null, and as the caller says.
        unsafe { len.write(body.map_or(0, <[u8]>::len)) };
    }
    body.map_or(std::ptr::null(), <[u8]>::as_ptr)
}
