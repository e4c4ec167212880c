//! What went wrong between a program and its server: each kind has a name, a status for HTTP and one for gRPC.

use std::time::Duration;

use confonnx_client::{Check, ClientError, Outcome};
use http::StatusCode;

/// A call without an answer of the server. Nothing of the request is in it.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// The checks that did not pass.
    pub(crate) checks: Vec<Check>,
    pub(crate) retry_after: Option<Duration>,
}

/// The kinds, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The evidence is not genuine.
    NotGenuine,
    /// Genuine, and not what the policy wants.
    NotTrusted,
    /// The server was what the policy wants, and is no longer.
    Changed,
    /// The server does not prove the model's hash.
    Model,
    /// The server's keys have expired, or are of another kind.
    Key,
    /// There was no connection.
    Unreachable,
    /// There was no answer in time.
    Slow,
    /// Too busy.
    Busy,
    /// Refused before it was opened.
    Refused,
    /// The request is longer than the server takes.
    TooLarge,
    /// The answer is neither sealed nor a refusal, or sealed and not readable.
    AnswerInvalid,
    /// This proxy cannot do its part.
    Proxy,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::NotGenuine,
        Self::NotTrusted,
        Self::Changed,
        Self::Model,
        Self::Key,
        Self::Unreachable,
        Self::Slow,
        Self::Busy,
        Self::Refused,
        Self::TooLarge,
        Self::AnswerInvalid,
        Self::Proxy,
    ];

    /// The fault's name, for programs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotGenuine => "server-not-genuine",
            Self::NotTrusted => "server-not-trusted",
            Self::Changed => "server-changed",
            Self::Model => "model-not-trusted",
            Self::Key => "key-unusable",
            Self::Unreachable => "server-unreachable",
            Self::Slow => "server-slow",
            Self::Busy => "server-busy",
            Self::Refused => "server-refused",
            Self::TooLarge => "request-too-large",
            Self::AnswerInvalid => "answer-invalid",
            Self::Proxy => "proxy-failed",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NotGenuine | Self::NotTrusted | Self::Changed | Self::Model | Self::Key | Self::Refused => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable | Self::AnswerInvalid => StatusCode::BAD_GATEWAY,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Proxy => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or(0)
    }

    /// The fault's counter among those of all kinds.
    pub(crate) fn of<T>(self, all: &[T; Self::ALL.len()]) -> Option<&T> {
        all.get(self.place())
    }
}

impl Fault {
    /// `trusted`: the server has been what the policy wants before.
    pub(crate) fn new(error: &ClientError, trusted: bool) -> Self {
        let checks: Vec<Check> = error.verdict().map_or_else(Vec::new, |verdict| {
            let failed = |check: &&Check| matches!(check.outcome, Outcome::Failed | Outcome::Undecided);
            verdict.checks.iter().filter(failed).cloned().collect()
        });
        let mut text = error.to_string();
        let kind = kind(error, trusted);
        if kind == Kind::Changed {
            text = format!("the server is no longer the one that was trusted: {text}");
        }
        for check in &checks {
            text += &format!("; {}: expected {}, found {}", check.name, check.expected, check.found);
        }
        Self { kind, text, checks, retry_after: error.retry_after() }
    }

    pub(crate) fn proxy(text: impl Into<String>) -> Self {
        Self { kind: Kind::Proxy, text: text.into(), checks: Vec::new(), retry_after: None }
    }
}

fn kind(error: &ClientError, trusted: bool) -> Kind {
    match error {
        ClientError::NotTrusted(_) | ClientError::NotGenuine(_) if trusted => Kind::Changed,
        ClientError::NotTrusted(_) => Kind::NotTrusted,
        ClientError::NotGenuine(_) | ClientError::Document(_) => Kind::NotGenuine,
        ClientError::Model(_) => Kind::Model,
        ClientError::NoKey { .. } => Kind::Key,
        ClientError::Refused { status: 429, .. } => Kind::Busy,
        ClientError::Refused { status: 413, .. } | ClientError::RequestTooLarge { .. } => Kind::TooLarge,
        ClientError::Refused { .. } => Kind::Refused,
        ClientError::Timeout { .. } => Kind::Slow,
        ClientError::Transport { .. } => Kind::Unreachable,
        ClientError::Unsealed { .. } | ClientError::ReplyInvalid { .. } | ClientError::TooLarge { .. } => {
            Kind::AnswerInvalid
        }
        // Tokens, files, randomness: nothing that the server has to do with.
        _ => Kind::Proxy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_and_a_counter_of_its_own() {
        let numbers: [usize; Kind::ALL.len()] = std::array::from_fn(|number| number);
        for (number, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(kind.of(&numbers), Some(&number));
            assert_eq!(Kind::ALL.iter().filter(|other| other.name() == kind.name()).count(), 1);
        }
    }

    #[test]
    fn an_expired_key_is_no_wrong_server() {
        let expired = ClientError::NoKey { reason: "accepted until 0".into() };
        let fault = Fault::new(&expired, true);
        assert_eq!((fault.kind, fault.kind.status()), (Kind::Key, StatusCode::SERVICE_UNAVAILABLE));
        assert!(fault.text.contains("accepted until 0"));
    }
}
