//! How a client talks to its server; nothing here decides whom it trusts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use confonnx_protocol::{Aead, Kem};
use zeroize::Zeroizing;

use crate::BoxError;

/// Options of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bearer token. Travels sealed: only the TEE sees it.
    pub auth_key: Option<Secret>,
    /// Gives the bearer token for each call, in place of `auth_key`: for tokens that expire.
    pub auth_key_source: Option<TokenSource>,
    /// User and password for HTTP Basic. Travels outside the seal, for an ingress to check.
    pub basic: Option<(String, Secret)>,
    /// More header fields outside the seal: name, value.
    pub outer_headers: Vec<(String, Secret)>,
    /// More header fields inside the seal: lower-case name, value.
    pub inner_headers: Vec<(String, Secret)>,
    /// Key encapsulation; the server has to offer it.
    pub kem: Kem,
    /// Encryption; the server has to offer it.
    pub aead: Aead,
    /// Seal requests in chunks (draft-ietf-ohai-chunked-ohttp), and so the replies; for peers that stream.
    pub chunked: bool,
    /// Resume sessions: from the third call on, requests are sealed without key encapsulation for as long as the server
    /// keeps the session. They can be linked to each other, and whoever gets hold of the session's secret before it
    /// ends can open them all (docs/protocol.md, section 4.1). Never with `chunked` or `relay`.
    pub sessions: bool,
    /// URL of an Oblivious HTTP relay (RFC 9458) that takes the sealed requests, so that the server does not see whose they
    /// are. Attestation documents still come from the server.
    pub relay: Option<String>,
    /// Longest time for one call, with its attestation and retries.
    pub timeout: Duration,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// Longest reply to read, in bytes.
    pub max_reply: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth_key: None,
            auth_key_source: None,
            basic: None,
            outer_headers: Vec::new(),
            inner_headers: Vec::new(),
            kem: Kem::XWing,
            aead: Aead::Aes256Gcm,
            chunked: false,
            sessions: true,
            relay: None,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            max_reply: 1 << 30,
        }
    }
}

/// Gives a token when one is needed.
#[derive(Clone)]
pub struct TokenSource(Arc<Source>);

type Source = dyn Fn() -> Result<Secret, BoxError> + Send + Sync;

impl TokenSource {
    /// `source` is called once for each call, in a thread where it may block. It should keep its token until that expires.
    pub fn new(source: impl Fn() -> Result<Secret, BoxError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    pub(crate) fn token(&self) -> Result<Secret, BoxError> {
        (self.0)()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

/// Text that is erased on drop and never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(Zeroizing::new(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
