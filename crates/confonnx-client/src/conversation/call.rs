//! One call: a request to the inner API, and its sealed answer.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use confonnx_protocol::bhttp::{self, Body, Fields, RequestHead, ResponseHead};
use confonnx_protocol::oip::{self, ErrorBody};
use confonnx_protocol::resumption::{RESUMPTION_FIELD, RESUMPTION_OFFER};
use confonnx_protocol::{Draft, Plaintext};
use serde::{Deserialize, de::IgnoredAny};

use crate::{ClientError, ModelRef, Options, Secret};

/// What to ask of the inner API; the same for every try.
pub struct Call<'a> {
    pub(crate) method: Cow<'static, str>,
    /// The model that the call is about: what the policy says of it decides whether anything is sent.
    pub(crate) model: Option<Asked<'a>>,
    /// The path; of a call about a model, what follows the model's own path.
    pub(crate) path: String,
    pub(crate) fields: Vec<(Cow<'static, str>, String)>,
    pub(crate) body: Vec<Cow<'a, [u8]>>,
    /// Bytes of JSON, the body's first part, when tensors follow it.
    pub(crate) json_len: Option<usize>,
    /// Whether the answer's content is wanted as it comes.
    pub(crate) streamed: bool,
}

/// The model that a call is about, and where it is named.
pub(crate) struct Asked<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) version: Option<Cow<'a, str>>,
    /// Whether the path is whole and does not begin with the model's: then the model's name is in the body.
    pub(crate) in_body: bool,
}

impl<'a> From<ModelRef<'a>> for Asked<'a> {
    fn from(model: ModelRef<'a>) -> Self {
        Self { name: model.name.map(Into::into), version: model.version.map(Into::into), in_body: false }
    }
}

/// Of an inference's JSON, as the server reads it, what says whether it is one of a sequence.
#[derive(Deserialize)]
struct Infer {
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    sequence_id: Option<IgnoredAny>,
}

/// An opened reply. Erased on drop.
pub struct Answer {
    message: Plaintext,
    head: ResponseHead,
    body: Body,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            model: None,
            path: path.into(),
            fields: Vec::new(),
            body: Vec::new(),
            json_len: None,
            streamed: false,
        }
    }

    /// The call, with the answer's content given as it comes: [`Exchange::take_streamed`](super::Exchange::take_streamed).
    #[must_use]
    pub fn streamed(self) -> Self {
        Self { streamed: true, ..self }
    }

    /// Whether running the call twice changes nothing: it reads, or infers, which gives the same answer each time unless the
    /// model keeps a state from one request to the next.
    pub(crate) fn is_repeatable(&self) -> bool {
        match &*self.method {
            "GET" | "HEAD" => true,
            _ => self.path.ends_with("/infer") && !self.is_of_a_sequence(),
        }
    }

    /// Whether the request names a sequence. A caller may have written its JSON: what cannot be read may name one.
    fn is_of_a_sequence(&self) -> bool {
        let json = self.body.first().map_or(&[][..], |json| &**json);
        // Tensors may follow the JSON in one piece.
        Infer::deserialize(&mut serde_json::Deserializer::from_slice(json))
            .map_or(true, |infer| infer.parameters.is_some_and(|parameters| parameters.sequence_id.is_some()))
    }

    /// The binary HTTP message, padded, with `room` for a seal; whether it offers a resumption. Erased on drop.
    pub(crate) fn message(
        &self,
        path: &str,
        token: Option<&Secret>,
        options: &Options,
        date: SystemTime,
        room: usize,
        offer: bool,
    ) -> Result<Draft, ClientError> {
        let mut head = RequestHead::new(&*self.method, path);
        head.fields.push("date", httpdate::fmt_http_date(date));
        if let Some(key) = token.or(options.auth_key.as_ref()) {
            head.fields.push("authorization", format!("Bearer {}", key.expose()));
        }
        if offer {
            head.fields.push(RESUMPTION_FIELD, RESUMPTION_OFFER);
        }
        for (name, value) in &options.inner_headers {
            head.fields.push(name.to_ascii_lowercase(), value.expose());
        }
        for (name, value) in &self.fields {
            head.fields.push(&**name, value.as_str());
        }
        let body = self.aligned_body(&mut head);
        Draft::request(room, &head, &body).map_err(|err| ClientError::Seal { source: err.into() })
    }

    /// The body, its JSON filled up with spaces so that the tensors start at a multiple of eight bytes of the message:
    /// the server then uses them where they lie. (Where a length gains a digit by it they do not, and are copied.)
    fn aligned_body(&self, head: &mut RequestHead) -> Vec<&[u8]> {
        let mut body: Vec<&[u8]> = self.body.iter().map(|part| &**part).collect();
        let Some(json_len) = self.json_len else { return body };
        let mut unaligned = head.clone();
        unaligned.fields.push(oip::HEADER_LENGTH, json_len.to_string());
        let body_len = body.iter().map(|part| part.len()).sum();
        let tensors = bhttp::request_body_offset(&unaligned, body_len).saturating_add(json_len);
        let lacks = tensors.checked_next_multiple_of(SPACES.len()).unwrap_or(tensors).saturating_sub(tensors);
        let spaces = SPACES.get(..lacks).unwrap_or_default();
        head.fields.push(oip::HEADER_LENGTH, json_len.saturating_add(spaces.len()).to_string());
        body.insert(1, spaces);
        body
    }
}

/// White space of JSON; at most seven of them are needed.
const SPACES: &[u8; 8] = b"        ";

impl Answer {
    pub(crate) fn parse(message: Plaintext) -> Result<Self, ClientError> {
        let (head, body) = bhttp::decode_response(message.expose()).map_err(ClientError::reply)?;
        Ok(Self { message, head, body })
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.head.fields
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

    /// The resumption that the server grants.
    pub(crate) fn grant(&self) -> Option<&str> {
        self.field(RESUMPTION_FIELD)
    }

    /// How far the server's clock is ahead of ours (or behind), when it refused our `date`.
    pub(crate) fn date_refused(&self, ours: SystemTime) -> Option<ClockOffset> {
        if self.status() != 400 || self.error().code != "date-out-of-window" {
            return None;
        }
        let theirs = httpdate::parse_http_date(self.field("date")?).ok()?;
        Some(match theirs.duration_since(ours) {
            Ok(ahead) => ClockOffset::Ahead(ahead),
            Err(behind) => ClockOffset::Behind(behind.duration()),
        })
    }

    /// The answer itself, if its status is 200.
    pub(crate) fn success(self) -> Result<Self, ClientError> {
        if self.status() == 200 { Ok(self) } else { Err(self.failure()) }
    }

    /// What the server says went wrong.
    pub(crate) fn failure(&self) -> ClientError {
        let ErrorBody { error, code } = self.error();
        let retry_after =
            self.field("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        ClientError::Inner { status: self.status(), code, message: error, retry_after }
    }

    fn error(&self) -> ErrorBody {
        confonnx_attest::json::from_slice(self.body())
            .unwrap_or_else(|_| ErrorBody { error: "the server gave no reason".into(), code: "none".into() })
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status(), self.body().len())
    }
}

/// The server's clock compared with ours.
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

/// A path segment (RFC 3986 section 2.1).
pub(crate) fn percent_encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn text<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    fields.get(name).and_then(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn what_names_a_sequence_is_not_repeated_however_it_is_written() {
        let is_repeatable = |body: &[u8]| {
            let body = vec![body.into()];
            Call { body, ..Call::new("POST", "/v2/models/m/infer") }.is_repeatable()
        };
        for json in [
            r#"{"parameters": {"sequence_id": 7}, "inputs": []}"#,
            r#"{"inputs": [], "parameters" : { "sequence\u005fid" : "5f1d0c77b2a9e0d1" }}"#,
            r#"{"\u0070arameters": {"\u0073equence_id": 7}}"#,
            // Who reads the first of two and who reads the last one differ.
            r#"{"parameters": {}, "parameters": {"sequence_id": 7}}"#,
            "",
            "no JSON",
            r#"{"parameters": {"sequence_id": 7}, "inputs": ["#,
        ] {
            assert!(!is_repeatable(json.as_bytes()), "{json}");
        }
        for json in [
            "{}",
            r#"{"parameters": null}"#,
            r#"{"parameters": {"sequence_id": null}}"#,
            r#"{"id": "\"sequence_id\"", "inputs": [{"name": "sequence_id", "parameters": {"sequence_id": 7}}]}"#,
        ] {
            assert!(is_repeatable(json.as_bytes()), "{json}");
            let with_tensors = [json.as_bytes(), &[0xff; 8]].concat();
            assert!(is_repeatable(&with_tensors), "{json}, and tensors after it");
        }
        assert!(!Call::new("POST", "/v1/chat/completions").is_repeatable());
        assert!(Call::get("/v2").is_repeatable());
    }

    #[test]
    fn tensors_start_at_a_multiple_of_eight_bytes() {
        let tensors = [0x55; 24];
        for json_len in 40..70 {
            let json = vec![b'x'; json_len];
            let call = Call {
                fields: vec![("content-type".into(), "application/octet-stream".into())],
                body: vec![(&json).into(), (&tensors).into()],
                json_len: Some(json_len),
                ..Call::new("POST", "")
            };
            let path = "/v2/models/m/infer";
            let message = call.message(path, None, &Options::default(), UNIX_EPOCH, 39, false).unwrap();
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
