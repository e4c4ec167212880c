use super::{
    BhttpError, ResponseHead,
    encode::{push_prefixed, push_varint, status_and_fields},
};
use crate::padding::padded_len;

/// Writes a response of indeterminate length while its content is made: head, content, end. Each call appends to what it is
/// given, which may be empty each time: what was written before may be gone.
#[derive(Debug)]
pub struct ResponseWriter {
    written: usize,
}

impl ResponseWriter {
    /// Appends the head.
    ///
    /// # Errors
    /// [`BhttpError`]: what does not decode is not encoded.
    pub fn start(head: &ResponseHead, out: &mut Vec<u8>) -> Result<Self, BhttpError> {
        status_and_fields(head)?;
        let before = out.len();
        push_varint(out, INDETERMINATE_RESPONSE);
        push_varint(out, usize::from(head.status));
        for (name, value) in head.fields.iter() {
            push_prefixed(out, name.as_bytes());
            push_prefixed(out, value);
        }
        push_varint(out, END);
        Ok(Self { written: out.len().saturating_sub(before) })
    }

    /// Appends `content`, after which more may follow.
    pub fn content(&mut self, content: &[u8], out: &mut Vec<u8>) {
        // A chunk of nothing would be the end.
        if !content.is_empty() {
            let before = out.len();
            push_prefixed(out, content);
            self.written = self.written.saturating_add(out.len().saturating_sub(before));
        }
    }

    /// Appends the end, padded so that the whole has one of the few lengths that messages have.
    pub fn finish(self, out: &mut Vec<u8>) {
        let no_trailer = END;
        push_varint(out, END);
        push_varint(out, no_trailer);
        let len = self.written.saturating_add(2);
        out.resize(out.len().saturating_add(padded_len(len).saturating_sub(len)), 0);
    }
}

const INDETERMINATE_RESPONSE: usize = 3;
/// Ends a section of lines, or of chunks.
const END: usize = 0;
