use std::ops::Range;

use confonnx_tensor::Erased;

use super::{
    BhttpError, Body, Fields, MAX_FIELDS, MAX_HEAD, MAX_INFORMATIONAL, Part, RequestHead, ResponseHead,
    fields::{check_field, check_method, check_visible},
};

/// Reads a request of either framing; empty content and trailers may be left out at its end, and zeros may follow it
/// (RFC 9292, section 3.8).
pub fn decode_request(message: &[u8]) -> Result<(RequestHead, Body), BhttpError> {
    let mut reader = Reader::new(message);
    let framing = reader.framing("request", [0, 2])?;
    let method = check_method(reader.head_bytes(Part::Method)?)?.into();
    let scheme = check_visible(Part::Scheme, reader.head_bytes(Part::Scheme)?)?.into();
    let authority = check_visible(Part::Authority, reader.head_bytes(Part::Authority)?)?.into();
    let path = check_visible(Part::Path, reader.head_bytes(Part::Path)?)?.into();
    let fields = reader.fields(framing, Part::Header)?;
    let body = reader.rest(framing)?;
    Ok((RequestHead { method, scheme, authority, path, fields }, body))
}

/// Reads a response of either framing, as [`decode_request`] does a request; skips informational responses.
pub fn decode_response(message: &[u8]) -> Result<(ResponseHead, Body), BhttpError> {
    let mut reader = Reader::new(message);
    let (framing, head) = response_head(&mut reader)?;
    Ok((head, reader.rest(framing)?))
}

/// Control data and fields of the final response.
fn response_head(reader: &mut Reader<'_>) -> Result<(Framing, ResponseHead), BhttpError> {
    let framing = reader.framing("response", [1, 3])?;
    let mut informational = 0_usize;
    let status = loop {
        match reader.varint(Part::Status)? {
            found @ 200..600 => break u16::try_from(found).map_err(|_| BhttpError::Status { found })?,
            100..200 => {}
            found => return Err(BhttpError::Status { found }),
        }
        informational = informational.saturating_add(1);
        if informational > MAX_INFORMATIONAL {
            return Err(BhttpError::TooManyInformational);
        }
        reader.fields(framing, Part::Header)?;
    };
    let fields = reader.fields(framing, Part::Header)?;
    Ok((framing, ResponseHead { status, fields }))
}

/// How long a message of known length, without its padding, says it is. `None` when `start`, its first bytes, is too
/// short to tell, or it does not say.
pub(crate) fn announced_len(start: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(start);
    match reader.varint(Part::Framing).ok()? {
        0 => {
            for part in [Part::Method, Part::Scheme, Part::Authority, Part::Path, Part::Header] {
                reader.head_bytes(part).ok()?;
            }
        }
        1 => {
            while (100..200).contains(&reader.varint(Part::Status).ok()?) {
                reader.head_bytes(Part::Header).ok()?;
            }
            reader.head_bytes(Part::Header).ok()?;
        }
        _ => return None,
    }
    let body = usize::try_from(reader.varint(Part::Content).ok()?).ok()?;
    let no_trailer = 1;
    reader.at.checked_add(body)?.checked_add(no_trailer)
}

/// Reads a response of either framing while it arrives. What it gives is to be read again with [`decode_response`] when all
/// is there: only then trailers and padding are.
#[derive(Debug, Default)]
pub struct ResponseReader {
    head: Option<ResponseHead>,
    known_length: bool,
    at: usize,
    /// How many bytes of content are still to come, of the message or of its chunk.
    left: u64,
    ended: bool,
}

impl ResponseReader {
    /// The head of the final response, once it is there.
    pub fn head(&self) -> Option<&ResponseHead> {
        self.head.as_ref()
    }

    /// Where in `message`, of which there is more each time, the next content is. `None` when there is no more yet.
    ///
    /// # Errors
    /// [`BhttpError`]: no response starts like that.
    pub fn next(&mut self, message: &[u8]) -> Result<Option<Range<usize>>, BhttpError> {
        if self.head.is_none() {
            let mut reader = Reader::new(message);
            let Some((framing, head)) = incomplete(response_head(&mut reader))? else { return Ok(None) };
            (self.head, self.at) = (Some(head), reader.at);
            if let Framing::Known = framing {
                self.known_length = true;
            }
        }
        if self.left == 0 && !self.ended {
            let mut reader = Reader { message, at: self.at, head_left: 0 };
            let Some(len) = incomplete(reader.varint(Part::Content))? else { return Ok(None) };
            (self.at, self.left) = (reader.at, len);
            self.ended = self.known_length || len == 0;
        }
        let there = message.len().saturating_sub(self.at).try_into().unwrap_or(u64::MAX);
        let len = self.left.min(there);
        let start = self.at;
        self.at = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        self.left = self.left.saturating_sub(len);
        Ok((len > 0).then_some(start..self.at))
    }
}

/// `None` for what is only cut short.
fn incomplete<T>(read: Result<T, BhttpError>) -> Result<Option<T>, BhttpError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(BhttpError::Truncated { .. }) => Ok(None),
        Err(err) => Err(err),
    }
}

#[derive(Clone, Copy)]
enum Framing {
    Known,
    Indeterminate,
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    /// How many bytes of control data and fields may still come.
    head_left: usize,
}

impl<'a> Reader<'a> {
    fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0, head_left: MAX_HEAD }
    }

    fn framing(
        &mut self,
        expected: &'static str,
        [known, indeterminate]: [u64; 2],
    ) -> Result<Framing, BhttpError> {
        match self.varint(Part::Framing)? {
            found if found == known => Ok(Framing::Known),
            found if found == indeterminate => Ok(Framing::Indeterminate),
            found => Err(BhttpError::Framing { expected, found }),
        }
    }

    fn fields(&mut self, framing: Framing, part: Part) -> Result<Fields, BhttpError> {
        let mut fields = Fields::default();
        match framing {
            Framing::Known => {
                let section = self.head_bytes(part)?;
                // The section's bytes are paid for, so its lines are free.
                let mut lines = Reader::new(section);
                while !lines.at_end() {
                    let name_len = lines.varint(part)?;
                    lines.field_line(name_len, part, &mut fields)?;
                }
            }
            Framing::Indeterminate => loop {
                match self.varint(part)? {
                    0 => break,
                    name_len => self.field_line(name_len, part, &mut fields)?,
                }
            },
        }
        Ok(fields)
    }

    fn field_line(&mut self, name_len: u64, part: Part, fields: &mut Fields) -> Result<(), BhttpError> {
        if fields.len() == MAX_FIELDS {
            return Err(BhttpError::TooManyFields);
        }
        let name = self.head_take(name_len, part)?;
        let value = self.head_bytes(part)?;
        fields.push(check_field(fields.len(), name, value)?, value);
        Ok(())
    }

    /// Content, trailers and padding.
    fn rest(mut self, framing: Framing) -> Result<Body, BhttpError> {
        let body = match framing {
            _ if self.at_end() => Body::Range(self.at..self.at),
            Framing::Known => {
                let len = self.varint(Part::Content)?;
                Body::Range(self.take(len, Part::Content)?)
            }
            Framing::Indeterminate => self.chunks()?,
        };
        if !self.at_end() {
            self.head_left = MAX_HEAD;
            self.fields(framing, Part::Trailer)?;
        }
        let padding = self.message.get(self.at..).unwrap_or_default();
        match padding.iter().position(|&b| b != 0) {
            None => Ok(body),
            Some(offset) => Err(BhttpError::Padding { at: self.at.saturating_add(offset) }),
        }
    }

    /// The content of an indeterminate-length message, joined only if it has several chunks.
    fn chunks(&mut self) -> Result<Body, BhttpError> {
        let start = self.at;
        let (mut chunks, mut total, mut only) = (0_usize, 0_usize, start..start);
        while let Some(chunk) = self.chunk()? {
            chunks = chunks.saturating_add(1);
            total = total.saturating_add(chunk.len());
            only = chunk;
        }
        if chunks <= 1 {
            return Ok(Body::Range(only));
        }
        let end = self.at;
        let mut joined = Erased::new(Vec::with_capacity(total));
        self.at = start;
        while let Some(chunk) = self.chunk()? {
            joined.extend_from_slice(self.message.get(chunk).unwrap_or_default());
        }
        self.at = end;
        Ok(Body::Owned(joined))
    }

    fn chunk(&mut self) -> Result<Option<Range<usize>>, BhttpError> {
        match self.varint(Part::Content)? {
            0 => Ok(None),
            len => self.take(len, Part::Content).map(Some),
        }
    }

    /// A length and that many bytes of control data or fields.
    fn head_bytes(&mut self, part: Part) -> Result<&'a [u8], BhttpError> {
        let len = self.varint(part)?;
        self.head_take(len, part)
    }

    fn head_take(&mut self, len: u64, part: Part) -> Result<&'a [u8], BhttpError> {
        let len_usize = usize::try_from(len).map_err(|_| BhttpError::HeadTooLarge)?;
        self.head_left = self.head_left.checked_sub(len_usize).ok_or(BhttpError::HeadTooLarge)?;
        let range = self.take(len, part)?;
        self.message.get(range).ok_or(BhttpError::Truncated { part })
    }

    fn take(&mut self, len: u64, part: Part) -> Result<Range<usize>, BhttpError> {
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| self.at.checked_add(len))
            .filter(|&end| end <= self.message.len())
            .ok_or(BhttpError::Truncated { part })?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    /// A variable-length integer (RFC 9000, section 16); any of its encodings.
    fn varint(&mut self, part: Part) -> Result<u64, BhttpError> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let truncated = BhttpError::Truncated { part };
        let first = *rest.first().ok_or(truncated.clone())?;
        let len = 1_usize << (first >> 6);
        let bytes = rest.get(..len).ok_or(truncated)?;
        let value = bytes.iter().fold(0_u64, |value, &byte| (value << 8) | u64::from(byte));
        self.at = self.at.saturating_add(len);
        // The two highest bits said the length.
        let prefix_bits = 66_usize.saturating_sub(len.saturating_mul(8));
        Ok(value & (u64::MAX >> prefix_bits))
    }

    fn at_end(&self) -> bool {
        self.at >= self.message.len()
    }
}
