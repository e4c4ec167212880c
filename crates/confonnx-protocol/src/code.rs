//! Problem codes: all that an answer before opening says (`docs/protocol.md`, section 6; RFC 9457).

use std::{borrow::Cow, fmt};

/// Why a server did not open a request, or did not answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The key identifier is of no key the server accepts.
    KeyUnknown,
    /// Truncated, malformed or not decryptable: one code for all, so that it is no oracle.
    RequestInvalid,
    /// KEM, KDF or AEAD are not those of the key.
    SuiteUnsupported,
    /// The encapsulated key was seen before.
    RequestReplayed,
    /// The resumption is not (or no longer) known here.
    ResumptionUnknown,
    /// The replay table is full.
    ReplayStateFull,
    /// The attestation nonce is not 64 hex digits.
    NonceInvalid,
    /// There is no such resource.
    NotFound,
    /// The resource has no such method.
    MethodNotAllowed,
    /// The body is not a sealed request.
    MediaTypeUnsupported,
    /// The body is over the limit.
    RequestTooLarge,
    /// The body did not arrive in time.
    RequestTimeout,
    /// Too many requests wait.
    QueueFull,
    /// The server is draining.
    ShuttingDown,
    /// Too many connections.
    ConnectionsFull,
    /// The TEE gave no evidence.
    AttestationUnavailable,
    /// The server has no keys yet.
    KeysUnavailable,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 17] = [
        Self::KeyUnknown,
        Self::RequestInvalid,
        Self::SuiteUnsupported,
        Self::RequestReplayed,
        Self::ResumptionUnknown,
        Self::ReplayStateFull,
        Self::NonceInvalid,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::MediaTypeUnsupported,
        Self::RequestTooLarge,
        Self::RequestTimeout,
        Self::QueueFull,
        Self::ShuttingDown,
        Self::ConnectionsFull,
        Self::AttestationUnavailable,
        Self::KeysUnavailable,
    ];

    /// The code called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The member `code`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeyUnknown => "key-unknown",
            Self::RequestInvalid => "request-invalid",
            Self::SuiteUnsupported => "suite-unsupported",
            Self::RequestReplayed => "request-replayed",
            Self::ResumptionUnknown => "session-unknown",
            Self::ReplayStateFull => "replay-state-full",
            Self::NonceInvalid => "nonce-invalid",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::MediaTypeUnsupported => "media-type-unsupported",
            Self::RequestTooLarge => "request-too-large",
            Self::RequestTimeout => "request-timeout",
            Self::QueueFull => "queue-full",
            Self::ShuttingDown => "shutting-down",
            Self::ConnectionsFull => "connections-full",
            Self::AttestationUnavailable => "attestation-unavailable",
            Self::KeysUnavailable => "keys-unavailable",
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::KeyUnknown
            | Self::RequestInvalid
            | Self::SuiteUnsupported
            | Self::ResumptionUnknown
            | Self::NonceInvalid => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::RequestReplayed => 409,
            Self::RequestTooLarge => 413,
            Self::MediaTypeUnsupported => 415,
            Self::QueueFull => 429,
            Self::ReplayStateFull
            | Self::ShuttingDown
            | Self::ConnectionsFull
            | Self::AttestationUnavailable
            | Self::KeysUnavailable => 503,
        }
    }

    /// The member `title`: the same text each time, and what to do.
    pub const fn title(self) -> &'static str {
        match self {
            Self::KeyUnknown => "The server does not accept this key; attest it again",
            Self::RequestInvalid => "The request cannot be opened; attest the server again and seal anew",
            Self::SuiteUnsupported => "The KEM, KDF or AEAD is not one the key is published for",
            Self::RequestReplayed => "The request was received before; seal it anew",
            Self::ResumptionUnknown => "The server does not know this resumption; seal to its key",
            Self::ReplayStateFull => "The server cannot remember more requests; retry later",
            Self::NonceInvalid => "The query must be `nonce=` and 64 hex digits, or absent",
            Self::NotFound => "There is no such resource",
            Self::MethodNotAllowed => "The resource does not support this method",
            Self::MediaTypeUnsupported => {
                "The content type must be message/ohttp-req, message/ohttp-chunked-req or message/confonnx-session-req"
            }
            Self::RequestTooLarge => "The body is larger than the server accepts",
            Self::RequestTimeout => "The body did not arrive in time",
            Self::QueueFull => "Too many requests are waiting; retry later",
            Self::ShuttingDown => "The server is shutting down; retry elsewhere",
            Self::ConnectionsFull => "The server has too many connections; retry later",
            Self::AttestationUnavailable => "The server has no evidence to give; retry later",
            Self::KeysUnavailable => "The server has no keys yet; retry later, or elsewhere",
        }
    }

    /// The member `type`, a URI: registered for unknown keys (RFC 9458 §5.3), else our own.
    pub fn type_uri(self) -> Cow<'static, str> {
        match self {
            Self::KeyUnknown => "https://iana.org/assignments/http-problem-types#ohttp-key".into(),
            code => format!("urn:confonnx:problem:{}", code.name()).into(),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_specification_with_its_status() {
        let spec = include_str!("../../../docs/protocol.md");
        for code in Code::ALL {
            let row = spec
                .lines()
                .find(|line| line.starts_with('|') && line.contains(&format!("`{code}`")))
                .unwrap_or_else(|| panic!("{code} is not in section 6"));
            assert!(row.contains(&code.status().to_string()), "{row}");
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
    }
}
