use std::fmt;

use confonnx_tensor::Erased;

use super::{BhttpError, Part};

/// Header fields, in order. Values are erased on drop and never printed: one of them may be a token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Erased<Vec<u8>>)>);

impl Fields {
    /// The value of the first field of this (lower-case) name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// Appends a field. Names are lower-case tokens and values without CR, LF and NUL; encoding checks both.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.push((name.into(), Erased::new(value.into())));
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, value.len()))).finish()
    }
}

/// The name as text, if name and value may be sent (RFC 9292, section 3.6; RFC 9110, section 5).
pub(super) fn check_field<'a>(index: usize, name: &'a [u8], value: &[u8]) -> Result<&'a str, BhttpError> {
    let name = token(name)
        .filter(|name| !name.bytes().any(|b| b.is_ascii_uppercase()))
        .ok_or(BhttpError::FieldName { index })?;
    if value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
        return Err(BhttpError::FieldValue { name: name.into() });
    }
    Ok(name)
}

/// A method: a token (RFC 9110, section 9.1).
pub(super) fn check_method(bytes: &[u8]) -> Result<&str, BhttpError> {
    token(bytes).ok_or(BhttpError::Control { part: Part::Method })
}

/// Scheme, authority or path: visible ASCII, so it cannot split a line or a log entry.
pub(super) fn check_visible(part: Part, bytes: &[u8]) -> Result<&str, BhttpError> {
    str::from_utf8(bytes)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or(BhttpError::Control { part })
}

/// `token` of RFC 9110, section 5.6.2.
fn token(bytes: &[u8]) -> Option<&str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && text.bytes().all(allowed))
}
