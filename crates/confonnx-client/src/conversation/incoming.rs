//! An answer over HTTP as it arrives: the one expected, or why there is none.

use std::time::Duration;

use serde::Deserialize;

use crate::ClientError;

/// The head of an HTTP answer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// `content-type`, if there is one.
    pub content_type: Option<String>,
    /// `retry-after`, if there is one.
    pub retry_after: Option<String>,
    /// `content-length`, if there is one.
    pub content_length: Option<u64>,
}

impl Head {
    /// A head without fields.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The media type, without parameters and in lower case.
    fn media_type(&self) -> String {
        let value = self.content_type.as_deref().unwrap_or("no content type");
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.chars().take(64).collect::<String>().to_ascii_lowercase()
    }
}

/// What has arrived.
pub(super) struct Incoming {
    expected: &'static str,
    status: u16,
    found: String,
    retry_after: Option<Duration>,
    bytes: Vec<u8>,
    limit: usize,
    too_large: bool,
}

impl Incoming {
    /// Reads an answer of the type `expected`, of `limit` bytes at most.
    pub(super) fn new(expected: &'static str, head: &Head, limit: usize) -> Self {
        let (status, found) = (head.status, head.media_type());
        let retry_after = head.retry_after.as_deref().and_then(|text| text.trim().parse().ok());
        let mut incoming = Self {
            expected,
            status,
            found,
            retry_after: retry_after.map(Duration::from_secs),
            bytes: Vec::new(),
            limit,
            too_large: false,
        };
        if !incoming.is_expected() {
            // Of an answer of another type no more than this is of interest.
            incoming.limit = limit.min(MAX_PROBLEM);
        }
        let announced = head.content_length.and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        incoming.bytes.reserve(announced.min(incoming.limit));
        incoming
    }

    pub(super) fn is_expected(&self) -> bool {
        self.status == 200 && self.found == self.expected
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.bytes.len().saturating_add(bytes.len()) > self.limit {
            self.too_large = true;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Whether there are more bytes than are wanted.
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// The bytes of the answer that was expected.
    pub(super) fn finish(self) -> Result<Vec<u8>, ClientError> {
        let Self { status, expected, found, retry_after, limit, .. } = self;
        if status == 200 && found == expected {
            return if self.too_large { Err(ClientError::TooLarge { limit }) } else { Ok(self.bytes) };
        }
        let is_problem = !self.too_large && found == "application/problem+json";
        let problem = confonnx_attest::json::from_slice::<Problem>(&self.bytes).ok().filter(|_| is_problem);
        Err(match problem {
            Some(problem) => {
                let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
                let code = problem.code.chars().filter(is_plain).take(64).collect();
                ClientError::Refused { status, code, retry_after }
            }
            None => ClientError::Unsealed { status, expected, found },
        })
    }
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

const MAX_PROBLEM: usize = 16 * 1024;
