//! One call: a request to the inner API, and its sealed answer.

use std::time::{Duration, SystemTime};

use confonnx_protocol::bhttp::{self, Body, Fields, RequestHead, ResponseHead};
use confonnx_protocol::oip::{self, ErrorBody};
use confonnx_protocol::resumption::{RESUMPTION_FIELD, RESUMPTION_OFFER};
use confonnx_protocol::{Draft, Plaintext};

use crate::{ClientError, ModelRef, Options, Secret};

/// What to ask of the inner API; the same for every try.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'static str,
    /// The model it is about.
    pub(crate) model: Option<ModelRef<'a>>,
    /// With a model, what follows its own path.
    pub(crate) path: String,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Vec<&'a [u8]>,
    /// Bytes of JSON, the body's first part, when tensors follow it.
    pub(crate) json_len: Option<usize>,
    /// The bearer token to send, when the options have a source of them.
    pub(crate) token: Option<Secret>,
}

/// An opened reply.
pub(crate) struct Answer {
    message: Plaintext,
    head: ResponseHead,
    body: Body,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            model: None,
            path: path.into(),
            fields: Vec::new(),
            body: Vec::new(),
            json_len: None,
            token: None,
        }
    }

    /// The binary HTTP message, padded, with `room` for a seal; whether it offers a session. Erased on drop.
    pub(crate) fn message(
        &self,
        options: &Options,
        date: SystemTime,
        room: usize,
        offer: bool,
    ) -> Result<Draft, ClientError> {
        let mut head = RequestHead::new(self.method, self.path.as_str());
        head.fields.push("date", httpdate::fmt_http_date(date));
        if let Some(key) = self.token.as_ref().or(options.auth_key.as_ref()) {
            head.fields.push("authorization", format!("Bearer {}", key.expose()));
        }
        if offer {
            head.fields.push(RESUMPTION_FIELD, RESUMPTION_OFFER);
        }
        for (name, value) in &options.inner_headers {
            head.fields.push(name.to_ascii_lowercase(), value.expose());
        }
        for (name, value) in &self.fields {
            head.fields.push(*name, value.as_str());
        }
        let body = self.aligned_body(&mut head);
        Draft::request(room, &head, &body).map_err(|err| ClientError::Seal { source: err.into() })
    }

    /// The body, its JSON filled up with spaces so that the tensors start at a multiple of eight bytes of the message:
    /// the server then uses them where they lie. (Where a length gains a digit by it they do not, and are copied.)
    fn aligned_body(&self, head: &mut RequestHead) -> Vec<&'a [u8]> {
        let mut body = self.body.clone();
        let Some(json_len) = self.json_len else { return body };
        let mut unaligned = head.clone();
        unaligned.fields.push(oip::HEADER_LENGTH, json_len.to_string());
        let body_len = body.iter().map(|part| part.len()).sum();
        let tensors = bhttp::request_body_offset(&unaligned, body_len) + json_len;
        let spaces = tensors.next_multiple_of(SPACES.len()) - tensors;
        head.fields.push(oip::HEADER_LENGTH, (json_len + spaces).to_string());
        body.insert(1, &SPACES[..spaces]);
        body
    }
}

/// JSON's white space. One less than its number are ever needed.
const SPACES: &[u8; 8] = b"        ";

impl Answer {
    pub(crate) fn parse(message: Plaintext) -> Result<Self, ClientError> {
        let (head, body) = bhttp::decode_response(message.expose()).map_err(ClientError::reply)?;
        Ok(Self { message, head, body })
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.body.bytes(self.message.expose())
    }

    /// The value of a field, when it is text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        text(&self.head.fields, name)
    }

    /// Whether the server says that its key is no longer the current one.
    pub(crate) fn key_outdated(&self) -> bool {
        self.field("confonnx-key") == Some("outdated")
    }

    /// The session that the server grants.
    pub(crate) fn grant(&self) -> Option<&str> {
        self.field(RESUMPTION_FIELD)
    }

    /// How far the server's clock is ahead of ours (or behind), when it refused our `date`.
    pub(crate) fn date_refused(&self) -> Option<ClockOffset> {
        if self.status() != 400 || self.error().code != "date-out-of-window" {
            return None;
        }
        let theirs = httpdate::parse_http_date(self.field("date")?).ok()?;
        let ours = SystemTime::now();
        Some(match theirs.duration_since(ours) {
            Ok(ahead) => ClockOffset::Ahead(ahead),
            Err(behind) => ClockOffset::Behind(behind.duration()),
        })
    }

    /// The answer itself, if its status is 200.
    pub(crate) fn success(self) -> Result<Self, ClientError> {
        if self.status() == 200 {
            return Ok(self);
        }
        let ErrorBody { error, code } = self.error();
        let retry_after =
            self.field("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        Err(ClientError::Inner { status: self.status(), code, message: error, retry_after })
    }

    fn error(&self) -> ErrorBody {
        serde_json::from_slice(self.body())
            .unwrap_or_else(|_| ErrorBody { error: "the server gave no reason".into(), code: "none".into() })
    }
}

/// Server's clock against ours.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClockOffset {
    Ahead(Duration),
    Behind(Duration),
}

impl ClockOffset {
    /// Our time, corrected.
    pub(crate) fn apply(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Ahead(by) => now.checked_add(by),
            Self::Behind(by) => now.checked_sub(by),
        }
        .unwrap_or(now)
    }
}

fn text<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    fields.get(name).and_then(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn tensors_start_at_a_multiple_of_eight_bytes() {
        let tensors = [0x55; 24];
        for json_len in 40..70 {
            let json = vec![b'x'; json_len];
            let call = Call {
                method: "POST",
                model: None,
                path: "/v2/models/m/infer".into(),
                fields: vec![("content-type", "application/octet-stream".into())],
                body: vec![&json, &tensors],
                json_len: Some(json_len),
                token: None,
            };
            let message = call.message(&Options::default(), UNIX_EPOCH, 39, false).unwrap();
            let message = message.message();
            let (head, body) = bhttp::decode_request(message).unwrap();
            let said: usize =
                std::str::from_utf8(head.fields.get(oip::HEADER_LENGTH).unwrap()).unwrap().parse().unwrap();
            let (padded, found) = body.bytes(message).split_at(said);
            assert_eq!(found, tensors);
            assert_eq!(padded.trim_ascii_end(), json);
            let at = message.windows(tensors.len()).position(|window| window == tensors).unwrap();
            assert_eq!(at % 8, 0, "JSON of {json_len} bytes");
        }
    }
}
