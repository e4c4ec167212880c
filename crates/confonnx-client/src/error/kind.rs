//! Kinds of errors, for callers in other languages: a class, a code.

use confonnx_attest::ModelRefused;

use crate::ClientError;

/// What an error is about, and so what a caller can do. Names and numbers stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What the caller gave cannot be used: URL, header, inputs, file, name of a model.
    Argument,
    /// The server did not prove what the policy asks for. No request was sent.
    Attestation,
    /// The server refused the request, before opening it or sealed.
    Refused,
    /// There was no answer.
    Transport,
    /// There was no answer in time.
    Timeout,
    /// The answer is malformed, or does not belong to this request.
    Reply,
    /// There is no token, or the system gives no randomness.
    System,
}

impl ErrorKind {
    /// The kind's name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Argument => "argument",
            Self::Attestation => "attestation",
            Self::Refused => "refused",
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Reply => "reply",
            Self::System => "system",
        }
    }
}

impl ClientError {
    /// What the error is about.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. }
            | Self::Header { .. }
            | Self::Proxy { .. }
            | Self::Inputs(_)
            | Self::NotEncrypted { .. }
            | Self::File { .. }
            | Self::Seal { .. }
            | Self::Model(ModelRefused::Unnamed { .. }) => ErrorKind::Argument,
            Self::Document(_)
            | Self::NotGenuine(_)
            | Self::NotTrusted(_)
            | Self::NoKey { .. }
            | Self::Model(_) => ErrorKind::Attestation,
            Self::Refused { .. } | Self::RequestTooLarge { .. } | Self::Inner { .. } => ErrorKind::Refused,
            Self::Transport { .. } => ErrorKind::Transport,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Unsealed { status, .. } if *status >= 400 => ErrorKind::Refused,
            Self::Unsealed { .. } | Self::ReplyInvalid { .. } | Self::TooLarge { .. } => ErrorKind::Reply,
            Self::Token { .. } | Self::System { .. } => ErrorKind::System,
        }
    }

    /// The HTTP status of a refusal: the inner one, if the answer was sealed.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Inner { status, .. } | Self::Unsealed { status, .. } => {
                Some(*status)
            }
            // The status that the server itself would answer with.
            Self::RequestTooLarge { .. } => Some(413),
            _ => None,
        }
    }

    /// The server's code for a refusal (docs/protocol.md, section 6).
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } | Self::Inner { code, .. } => Some(code),
            Self::RequestTooLarge { .. } => Some("request-too-large"),
            _ => None,
        }
    }
}
