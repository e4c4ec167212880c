//! Pointers of C, read and written in one place.

use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{ConfonnxCode, ConfonnxError, Failure};

/// The text at `text`; an error when it is null or not UTF-8.
///
/// # Safety
/// `text` is null, or points to bytes that end in a null byte and live as long as `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &'static str) -> Result<&'a str, Failure> {
    // SAFETY: as the caller says.
    unsafe { optional(text, name) }?
        .ok_or_else(|| Failure::argument(name, "expected text, found a null pointer"))
}

/// The text at `text`, if it is not null.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional<'a>(
    text: *const c_char,
    name: &'static str,
) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and as the caller says.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Failure::argument(name, "expected UTF-8"))
}

/// `len` values at `values`, which may be null when there are none.
///
/// # Safety
/// `values` points to `len` values that live as long as `'a`, or `len` is 0.
pub(crate) unsafe fn slice<'a, T>(
    values: *const T,
    len: usize,
    name: &'static str,
) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if values.is_null() {
        return Err(Failure::argument(name, "expected values, found a null pointer"));
    }
    // SAFETY: not null, and as the caller says.
    Ok(unsafe { std::slice::from_raw_parts(values, len) })
}

/// What a handle points to.
///
/// # Safety
/// `handle` is null, or was given out by [`hand_out`] and not freed.
pub(crate) unsafe fn borrow<'a, T>(handle: *const T, name: &'static str) -> Result<&'a T, Failure> {
    // SAFETY: as the caller says.
    unsafe { handle.as_ref() }
        .ok_or_else(|| Failure::argument(name, "expected a handle, found a null pointer"))
}

/// What the handle points to, to be changed.
///
/// # Safety
/// As [`borrow`], and nothing else uses the value meanwhile.
pub(crate) unsafe fn borrow_mut<'a, T>(handle: *mut T, name: &'static str) -> Result<&'a mut T, Failure> {
    // SAFETY: as the caller says.
    unsafe { handle.as_mut() }
        .ok_or_else(|| Failure::argument(name, "expected a handle, found a null pointer"))
}

/// A handle of `value`, which [`free`] frees.
pub(crate) fn hand_out<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Frees a handle; null is no error.
///
/// # Safety
/// `handle` is null, or was given out by [`hand_out`] and not freed.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if handle.is_null() {
        return;
    }
    // SAFETY: made by `hand_out`, as the caller says.
    let value = unsafe { Box::from_raw(handle) };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(value)));
}

/// Text for C, without null bytes within.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// Runs a function of the library: puts its result where `out` points, which must not be null, and its error where
/// `error` points, which may be null.
///
/// # Safety
/// Both pointers are null or can be written to.
pub(crate) unsafe fn run<T>(
    out: *mut *mut T,
    error: *mut *mut ConfonnxError,
    function: impl FnOnce() -> Result<T, Failure>,
) -> ConfonnxCode {
    if !out.is_null() {
        // SAFETY: not null, and as the caller says.
        unsafe { out.write(std::ptr::null_mut()) };
    }
    // SAFETY: as the caller says.
    unsafe {
        check(error, || {
            if out.is_null() {
                return Err(Failure::argument(
                    "out",
                    "expected where to put the result, found a null pointer",
                ));
            }
            out.write(hand_out(function()?));
            Ok(())
        })
    }
}

/// As [`run`], for a function without a result.
///
/// # Safety
/// `error` is null or can be written to.
pub(crate) unsafe fn check(
    error: *mut *mut ConfonnxError,
    function: impl FnOnce() -> Result<(), Failure>,
) -> ConfonnxCode {
    let outcome = catch_unwind(AssertUnwindSafe(function)).unwrap_or_else(|_| Err(Failure::panicked()));
    let (code, told) = match outcome {
        Ok(()) => (ConfonnxCode::CONFONNX_OK, std::ptr::null_mut()),
        Err(failure) if error.is_null() => (failure.code(), std::ptr::null_mut()),
        Err(failure) => (failure.code(), hand_out(failure.into())),
    };
    if !error.is_null() {
        // SAFETY: not null, and as the caller says.
        unsafe { error.write(told) };
    }
    code
}
