//! What can go wrong in a call.

mod kind;

use std::path::PathBuf;
use std::time::Duration;

use confonnx_attest::{DocumentError, ModelRefused, PolicyError, Verdict, VerifyError};
use confonnx_protocol::oip::OipError;

pub use self::kind::ErrorKind;

/// Causes that come from below, for [`std::error::Error::source`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL cannot be used.
    #[error("expected a URL such as https://host:8888, found `{url}`: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The proxy that an option or a variable of the environment names cannot be used. Its URL is not shown, because there may
    /// be a password in it.
    #[error(
        "{named}: expected an HTTP proxy, such as http://proxy.example:3128, {reason}; to ask none, {}",
        if .named == "proxy" { "say `none`" } else { "add the server to NO_PROXY" }
    )]
    Proxy {
        /// The option or the variable.
        named: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header option cannot be used. Its value is not shown, because it may be secret.
    #[error("the name or value of header field `{name}` is not valid in HTTP")]
    Header {
        /// Name of the field.
        name: String,
    },
    /// The server could not be reached, or the connection broke.
    #[error("no answer from {url}: {source}: {}{}", root_cause(.source), whose(.source))]
    Transport {
        /// The URL that was asked.
        url: String,
        /// What happened.
        source: BoxError,
        /// Whether the server may have got the request all the same.
        sent: bool,
    },
    /// The call took too long.
    #[error("no answer from {url} within {} s: is the server overloaded, or the timeout too short?", .after.as_secs_f64())]
    Timeout {
        /// The server's URL.
        url: String,
        /// The time that the call was given.
        after: Duration,
    },
    /// The answer is longer than the limit.
    #[error("an answer of more than {limit} bytes: raise the limit if such answers are expected")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The attestation document cannot be read.
    #[error("the server's attestation document cannot be read: {0}")]
    Document(#[from] DocumentError),
    /// The evidence is not genuine, or not about this server's keys.
    #[error(transparent)]
    NotGenuine(#[from] VerifyError),
    /// The evidence is genuine, but not what the policy wants.
    #[error(transparent)]
    NotTrusted(#[from] PolicyError),
    /// None of the attested keys can be used.
    #[error("no attested key can be used: {reason}")]
    NoKey {
        /// Why, with what is offered.
        reason: String,
    },
    /// The server refused before opening the request. Not authenticated: anybody on the way could have said so.
    #[error("refused before the request was opened: {code} (HTTP {status}){}", hint(.code))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Problem code (docs/protocol.md, section 6).
        code: String,
        /// How long to wait before trying again, when the answer says so.
        retry_after: Option<Duration>,
    },
    /// The sealed request is longer than the server takes, as its attested claims say. Nothing was sent.
    #[error(
        "the sealed request has {len} bytes, the server takes {limit}: send fewer or smaller tensors, or have the server's \
         max-request-bytes raised"
    )]
    RequestTooLarge {
        /// Bytes of the request, sealed.
        len: usize,
        /// The server's limit in bytes.
        limit: usize,
    },
    /// An answer that is neither sealed nor a problem document, from a proxy for instance. It is not a result.
    #[error(
        "expected {expected}, found {found} (HTTP {status}): is this a confonnx server, or a proxy before it?"
    )]
    Unsealed {
        /// HTTP status.
        status: u16,
        /// Content type that was expected.
        expected: &'static str,
        /// Content type that was found.
        found: String,
    },
    /// The server opened the request and answered with an error, sealed.
    #[error("{message} ({code}, status {status})")]
    Inner {
        /// Status of the inner response.
        status: u16,
        /// The server's code, or `none`.
        code: String,
        /// The server's words.
        message: String,
        /// How long to wait before trying again, when the server says so.
        retry_after: Option<Duration>,
    },
    /// There is no token to send.
    #[error("no token for the server: {source}")]
    Token {
        /// What the token's source said.
        source: BoxError,
    },
    /// The sealed reply cannot be opened or read.
    #[error("the sealed reply is not valid: {source}")]
    ReplyInvalid {
        /// What is wrong with it.
        source: BoxError,
    },
    /// The inputs cannot be sent.
    #[error("the inputs cannot be sent: {0}")]
    Inputs(OipError),
    /// The request cannot be sealed.
    #[error("the request cannot be sealed: {source}")]
    Seal {
        /// What is wrong.
        source: BoxError,
    },
    /// There is no model that the call could go to: none was named and there are several, or the server does not prove
    /// the hash that the policy expects of it. Nothing was sent.
    #[error(transparent)]
    Model(#[from] ModelRefused),
    /// The model has no encrypted file that its owner could sign a key for.
    #[error("model {model} is not encrypted, or not there: there is nothing to sign a key for")]
    NotEncrypted {
        /// The model's name.
        model: String,
    },
    /// A file that an option names cannot be used.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system gives no randomness or no thread.
    #[error("the operating system refused: {source}")]
    System {
        /// What the operating system said.
        source: BoxError,
    },
}

impl ClientError {
    /// Every attestation check that was made, when attestation is what failed.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::NotGenuine(err) => Some(&err.verdict),
            Self::NotTrusted(err) => Some(&err.verdict),
            _ => None,
        }
    }

    /// How long to wait before trying again, when the server says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Inner { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn reply(source: impl Into<BoxError>) -> Self {
        Self::ReplyInvalid { source: source.into() }
    }
}

fn hint(code: &str) -> &'static str {
    match code {
        "queue-full"
        | "connections-full"
        | "replay-state-full"
        | "attestation-unavailable"
        | "keys-unavailable" => ": try again later",
        "request-too-large" => ": send fewer or smaller tensors",
        "shutting-down" => ": try again, at another replica if there is one",
        "suite-unsupported" => ": choose another KEM or AEAD",
        _ => "",
    }
}

/// What to do about the failure, where that is not plain.
fn whose(err: &BoxError) -> &'static str {
    let cause = root_cause(err).to_string();
    if UNCERTIFIED.iter().any(|name| cause.contains(name)) {
        "; no authority that this machine knows certifies the server: name yours with --ca-file (ca_file)"
    } else {
        ""
    }
}

/// How rustls calls it. The last two are of another authority's that has the same name.
const UNCERTIFIED: [&str; 4] =
    ["UnknownIssuer", "CaUsedAsEndEntity", "BadSignature", "UnsupportedSignatureAlgorithmForPublicKey"];

fn root_cause<'a>(err: &'a BoxError) -> &'a (dyn std::error::Error + 'static) {
    let mut cause: &'a (dyn std::error::Error + 'static) = err.as_ref();
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}
