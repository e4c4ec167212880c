//! Errors: a code, a text, and what the server said.

use std::ffi::{CString, c_char};
use std::fmt::Display;

use confonnx_client::{ClientError, ErrorKind};

use crate::pointer::{self, c_text};

/// What an error is about, and so what a caller can do. Numbers stay.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "as C has them")]
pub enum ConfonnxCode {
    /// The call worked.
    CONFONNX_OK = 0,
    /// What was given cannot be used.
    CONFONNX_ARGUMENT = 1,
    /// What is expected of the server is missing or malformed. Nothing was sent.
    CONFONNX_POLICY = 2,
    /// The server did not prove what the policy asks for. No request was sent.
    CONFONNX_ATTESTATION = 3,
    /// The server refused the request.
    CONFONNX_REFUSED = 4,
    /// There was no answer.
    CONFONNX_TRANSPORT = 5,
    /// There was no answer in time.
    CONFONNX_TIMEOUT = 6,
    /// The answer is malformed, or does not belong to this request.
    CONFONNX_REPLY = 7,
    /// The operating system refused something, such as reading a file.
    CONFONNX_SYSTEM = 8,
    /// The call was cancelled.
    CONFONNX_CANCELLED = 9,
    /// A defect of this library.
    CONFONNX_DEFECT = 10,
}

use ConfonnxCode::*;

/// What went wrong.
pub struct ConfonnxError {
    code: ConfonnxCode,
    message: CString,
    status: u16,
    server_code: Option<CString>,
    checks: Option<CString>,
}

/// Frees an error.
///
/// # Safety
/// `error` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_error_free(error: *mut ConfonnxError) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(error) }
}

/// The error's code.
///
/// # Safety
/// `error` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_error_code(error: *const ConfonnxError) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe { error.as_ref() }.map_or(CONFONNX_OK, |error| error.code)
}

/// The error's text: what was expected, what was found, what to do. Never null.
///
/// # Safety
/// `error` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_error_message(error: *const ConfonnxError) -> *const c_char {
    // SAFETY: as the caller says.
    unsafe { error.as_ref() }.map_or(c"no error".as_ptr(), |error| error.message.as_ptr())
}

/// HTTP status of a refusal, the inner one if the answer was sealed; 0 if there is none.
///
/// # Safety
/// `error` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_error_status(error: *const ConfonnxError) -> u16 {
    // SAFETY: as the caller says.
    unsafe { error.as_ref() }.map_or(0, |error| error.status)
}

/// The server's code for a refusal, such as `queue-full`; null if there is none.
///
/// # Safety
/// `error` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_error_server_code(error: *const ConfonnxError) -> *const c_char {
    // SAFETY: as the caller says.
    let error = unsafe { error.as_ref() };
    error.and_then(|error| error.server_code.as_ref()).map_or(std::ptr::null(), |code| code.as_ptr())
}

/// Every check of the attestation as a JSON array, when that is what failed; else null.
///
/// # Safety
/// `error` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_error_checks(error: *const ConfonnxError) -> *const c_char {
    // SAFETY: as the caller says.
    let error = unsafe { error.as_ref() };
    error.and_then(|error| error.checks.as_ref()).map_or(std::ptr::null(), |checks| checks.as_ptr())
}

/// An error on its way to the caller.
pub(crate) enum Failure {
    Client(Box<ClientError>),
    Told(ConfonnxCode, String),
}

impl Failure {
    pub(crate) fn argument(name: &str, problem: impl Display) -> Self {
        Self::Told(CONFONNX_ARGUMENT, format!("{name}: {problem}"))
    }

    pub(crate) fn policy(problem: impl Display) -> Self {
        Self::Told(CONFONNX_POLICY, problem.to_string())
    }

    pub(crate) fn system(problem: impl Display) -> Self {
        Self::Told(CONFONNX_SYSTEM, problem.to_string())
    }

    pub(crate) fn cancelled() -> Self {
        Self::Told(CONFONNX_CANCELLED, "the call was cancelled".into())
    }

    pub(crate) fn panicked() -> Self {
        Self::Told(CONFONNX_DEFECT, "the library failed: please report it".into())
    }

    pub(crate) fn code(&self) -> ConfonnxCode {
        match self {
            Self::Told(code, _) => *code,
            Self::Client(error) => match error.kind() {
                ErrorKind::Argument => CONFONNX_ARGUMENT,
                ErrorKind::Attestation => CONFONNX_ATTESTATION,
                ErrorKind::Refused => CONFONNX_REFUSED,
                ErrorKind::Transport => CONFONNX_TRANSPORT,
                ErrorKind::Timeout => CONFONNX_TIMEOUT,
                ErrorKind::Reply => CONFONNX_REPLY,
                _ => CONFONNX_SYSTEM,
            },
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl From<Failure> for ConfonnxError {
    fn from(failure: Failure) -> Self {
        let code = failure.code();
        match failure {
            Failure::Told(_, message) => {
                Self { code, message: c_text(&message), status: 0, server_code: None, checks: None }
            }
            Failure::Client(error) => {
                let checks = error.verdict().and_then(|verdict| serde_json::to_string(&verdict.checks).ok());
                Self {
                    code,
                    message: c_text(&error.to_string()),
                    status: error.status().unwrap_or(0),
                    server_code: error.code().map(c_text),
                    checks: checks.as_deref().map(c_text),
                }
            }
        }
    }
}
