use super::{
    BhttpError, Fields, MAX_FIELDS, MAX_HEAD, Part, RequestHead, ResponseHead,
    fields::{check_field, check_method, check_visible},
};
use crate::{padding::padded_len, suite::TAG_LEN};

/// Appends a known-length request to `out`, its body joined from `body_parts`. What does not decode is not encoded.
///
/// Grows `out` at most once, with room for the padding that the caller adds ([`padding::pad`](crate::padding::pad)) and
/// a tag.
pub fn encode_request(head: &RequestHead, body_parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), BhttpError> {
    check_method(head.method.as_bytes())?;
    check_visible(Part::Scheme, head.scheme.as_bytes())?;
    check_visible(Part::Authority, head.authority.as_bytes())?;
    check_visible(Part::Path, head.path.as_bytes())?;
    let control = [&head.method, &head.scheme, &head.authority, &head.path];
    let control_len = control.iter().map(|text| prefixed_len(text.len())).fold(0, usize::saturating_add);
    let fields_len = checked_fields_len(&head.fields, control_len)?;

    let body_len = reserve(out, control_len, fields_len, body_parts);
    push_varint(out, REQUEST);
    for text in control {
        push_prefixed(out, text.as_bytes());
    }
    push_fields_and_body(out, &head.fields, fields_len, body_parts, body_len);
    Ok(())
}

/// Where [`encode_request`] puts the first byte of a body of `body_len` bytes.
pub fn request_body_offset(head: &RequestHead, body_len: usize) -> usize {
    let framing = 1;
    let control = [&head.method, &head.scheme, &head.authority, &head.path];
    let control_len = control.iter().map(|text| prefixed_len(text.len())).fold(0, usize::saturating_add);
    let fields_len = head
        .fields
        .iter()
        .map(|(name, value)| prefixed_len(name.len()).saturating_add(prefixed_len(value.len())))
        .fold(0, usize::saturating_add);
    [framing, control_len, prefixed_len(fields_len), varint_len(body_len)]
        .into_iter()
        .fold(0, usize::saturating_add)
}

/// Appends a known-length response to `out`, as [`encode_request`] does a request.
pub fn encode_response(
    head: &ResponseHead,
    body_parts: &[&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), BhttpError> {
    let fields_len = status_and_fields(head)?;

    let body_len = reserve(out, varint_len(usize::from(head.status)), fields_len, body_parts);
    push_varint(out, RESPONSE);
    push_varint(out, usize::from(head.status));
    push_fields_and_body(out, &head.fields, fields_len, body_parts, body_len);
    Ok(())
}

const REQUEST: usize = 0;
const RESPONSE: usize = 1;

/// Checks the head of a response; returns the length of its fields.
pub(super) fn status_and_fields(head: &ResponseHead) -> Result<usize, BhttpError> {
    if !(200..600).contains(&head.status) {
        return Err(BhttpError::Status { found: head.status.into() });
    }
    checked_fields_len(&head.fields, 0)
}

fn checked_fields_len(fields: &Fields, control_len: usize) -> Result<usize, BhttpError> {
    if fields.len() > MAX_FIELDS {
        return Err(BhttpError::TooManyFields);
    }
    let mut len = 0_usize;
    for (index, (name, value)) in fields.iter().enumerate() {
        check_field(index, name.as_bytes(), value)?;
        len = len.saturating_add(prefixed_len(name.len())).saturating_add(prefixed_len(value.len()));
    }
    if len.saturating_add(control_len) > MAX_HEAD {
        return Err(BhttpError::HeadTooLarge);
    }
    Ok(len)
}

/// Makes room in `out` and returns the length of the body.
fn reserve(out: &mut Vec<u8>, control_len: usize, fields_len: usize, body_parts: &[&[u8]]) -> usize {
    let body_len = body_parts.iter().map(|part| part.len()).fold(0, usize::saturating_add);
    let framing_and_trailer = 2;
    let total = [framing_and_trailer, control_len, prefixed_len(fields_len), prefixed_len(body_len)]
        .into_iter()
        .fold(0, usize::saturating_add);
    out.reserve_exact(padded_len(total).saturating_add(TAG_LEN));
    body_len
}

fn push_fields_and_body(
    out: &mut Vec<u8>,
    fields: &Fields,
    fields_len: usize,
    body_parts: &[&[u8]],
    body_len: usize,
) {
    push_varint(out, fields_len);
    for (name, value) in fields.iter() {
        push_prefixed(out, name.as_bytes());
        push_prefixed(out, value);
    }
    push_varint(out, body_len);
    for part in body_parts {
        out.extend_from_slice(part);
    }
    let no_trailer = 0;
    push_varint(out, no_trailer);
}

pub(super) fn push_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn prefixed_len(len: usize) -> usize {
    len.saturating_add(varint_len(len))
}

/// RFC 9000, section 16. A slice is never longer than 2^62 bytes, so every length has an encoding.
pub(super) fn push_varint(out: &mut Vec<u8>, value: usize) {
    let value = value as u64;
    match varint_len_u64(value) {
        1 => out.push(value as u8),
        2 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        4 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

fn varint_len(value: usize) -> usize {
    varint_len_u64(value as u64)
}

fn varint_len_u64(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}
