//! One call: a request to the inner API, and its sealed answer.

use std::time::{Duration, SystemTime};

use confonnx_protocol::bhttp::{self, Body, Fields, RequestHead, ResponseHead};
use confonnx_protocol::oip::ErrorBody;
use confonnx_protocol::{Plaintext, padding};
use zeroize::Zeroizing;

use crate::{ClientError, Options};

/// What to ask of the inner API; the same for every try.
pub(crate) struct Call<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Vec<&'a [u8]>,
}

/// An opened reply.
pub(crate) struct Answer {
    message: Plaintext,
    head: ResponseHead,
    body: Body,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), fields: Vec::new(), body: Vec::new() }
    }

    /// The binary HTTP message, padded. Erased on drop.
    pub(crate) fn message(
        &self,
        options: &Options,
        date: SystemTime,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let mut head = RequestHead::new(self.method, self.path.as_str());
        head.fields.push("date", httpdate::fmt_http_date(date));
        if let Some(key) = &options.auth_key {
            head.fields.push("authorization", format!("Bearer {}", key.expose()));
        }
        for (name, value) in &options.inner_headers {
            head.fields.push(name.to_ascii_lowercase(), value.expose());
        }
        for (name, value) in &self.fields {
            head.fields.push(*name, value.as_str());
        }
        let mut message = Zeroizing::new(Vec::new());
        bhttp::encode_request(&head, &self.body, &mut message)
            .map_err(|err| ClientError::Seal { source: err.into() })?;
        padding::pad(&mut message);
        Ok(message)
    }
}

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
        Err(ClientError::Inner { status: self.status(), code, message: error })
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
