//! Binary HTTP (RFC 9292): what is inside a sealed message.
//!
//! Both framings are read, known-length and indeterminate-length; known-length is written, and indeterminate-length by
//! [`ResponseWriter`] while an answer is made. Informational responses and
//! trailers are checked and dropped. Bodies are not copied unless they came in several chunks: [`Body`] names a
//! range of the message.
//!
//! Stricter than the RFC where a gateway would otherwise have to guess: field names must be lower-case tokens, and
//! method, scheme, authority and path visible ASCII. Everything before the content may take [`MAX_HEAD`] bytes.
//!
//! ```
//! use confonnx_protocol::bhttp::{RequestHead, decode_request, encode_request};
//!
//! let mut head = RequestHead::new("POST", "/v2/models/digits/infer");
//! head.fields.push("content-type", "application/json");
//! let mut message = Vec::new();
//! encode_request(&head, &[b"{\"inputs\"", b":[]}"], &mut message)?;
//! confonnx_protocol::padding::pad(&mut message);
//!
//! let (read, body) = decode_request(&message)?;
//! assert_eq!(read, head);
//! assert_eq!(body.bytes(&message), b"{\"inputs\":[]}");
//! # Ok::<(), confonnx_protocol::bhttp::BhttpError>(())
//! ```

mod decode;
mod encode;
mod error;
mod fields;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, ops::Range};

use confonnx_tensor::Erased;

pub(crate) use decode::announced_len;
pub use decode::{ResponseReader, decode_request, decode_response};
pub use encode::{encode_request, encode_response, request_body_offset};
pub use error::{BhttpError, Part};
pub use fields::Fields;
pub use writer::ResponseWriter;

/// Most bytes of control data and header fields, informational responses included; trailers may have as many again.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields in one section.
pub const MAX_FIELDS: usize = 100;
/// Most informational responses before the final one.
pub const MAX_INFORMATIONAL: usize = 16;

/// Control data and header fields of a request (RFC 9292, section 3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// `GET`, `POST`, …
    pub method: String,
    /// `https`
    pub scheme: String,
    /// Host and port; may be empty.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// The header fields.
    pub fields: Fields,
}

impl RequestHead {
    /// A request with scheme `https`, no authority and no fields.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            scheme: "https".into(),
            authority: String::new(),
            path: path.into(),
            fields: Fields::default(),
        }
    }
}

/// Control data and header fields of a final response (RFC 9292, section 3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 200 to 599.
    pub status: u16,
    /// The header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// A response without fields.
    pub fn new(status: u16) -> Self {
        Self { status, fields: Fields::default() }
    }
}

/// Where the content of a decoded message is.
pub enum Body {
    /// These bytes of the message.
    Range(Range<usize>),
    /// The joined chunks of an indeterminate-length message; erased on drop.
    Owned(Erased<Vec<u8>>),
}

impl Body {
    /// The content; `message` is what was decoded.
    pub fn bytes<'m>(&'m self, message: &'m [u8]) -> &'m [u8] {
        match self {
            Self::Range(range) => message.get(range.clone()).unwrap_or_default(),
            Self::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => write!(f, "Body({} bytes)", range.len()),
            Self::Owned(bytes) => write!(f, "Body({} bytes, joined)", bytes.len()),
        }
    }
}
