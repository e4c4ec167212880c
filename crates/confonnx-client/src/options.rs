//! How a client talks to its server; nothing here decides whom it trusts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use confonnx_protocol::{Aead, Kem};
use confonnx_tensor::Erased;

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
    /// Resume: from the third call on, requests are sealed without key encapsulation for as long as the server keeps
    /// the resumption. They can be linked to each other, and whoever gets hold of the resumption's secret before it
    /// ends can open them all (docs/protocol.md, section 4.1). Never with `chunked` or `relay`.
    pub resumption: bool,
    /// URL of an Oblivious HTTP relay (RFC 9458) that takes the sealed requests, so that the server does not see whose they
    /// are. It is asked for attestation documents, too, by GET (docs/protocol.md, section 2.1). Header fields of these
    /// options are for the server and never go there.
    pub relay: Option<String>,
    /// Longest time for one call, with its attestation and retries.
    pub timeout: Duration,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// Longest reply to read, in bytes.
    pub max_reply: usize,
    /// How often a call is repeated, after a pause, that the server was too busy to run or that did not reach it; 2 by
    /// default. When the connection ends without an answer, or a gateway says that its own did (502 to 504), only what
    /// reads or infers is repeated, because running it twice changes nothing. Each try is sealed anew. No pause is begun
    /// that `timeout` would cut short.
    pub retries: u32,
    /// PEM file with the certificates that https is checked against, in place of this machine's. (Confidentiality does not
    /// rest on them.)
    pub ca_file: Option<PathBuf>,
    /// The proxy on the way to the server; that of the environment by default.
    pub proxy: Proxy,
    /// Is told how far sealed requests and answers are on their way, for those who show it.
    pub progress: Option<Progress>,
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
            resumption: true,
            relay: None,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            max_reply: 1 << 30,
            retries: 2,
            ca_file: None,
            proxy: Proxy::Environment,
            progress: None,
        }
    }
}

impl Options {
    /// The defaults, to be changed by the methods below, each of which sets the field of its name.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bearer token, sealed.
    #[must_use]
    pub fn auth_key(mut self, value: impl Into<Secret>) -> Self {
        self.auth_key = Some(value.into());
        self
    }

    /// Source of bearer tokens.
    #[must_use]
    pub fn auth_key_source(mut self, value: TokenSource) -> Self {
        self.auth_key_source = Some(value);
        self
    }

    /// Key encapsulation.
    #[must_use]
    pub fn kem(mut self, value: Kem) -> Self {
        self.kem = value;
        self
    }

    /// Encryption.
    #[must_use]
    pub fn aead(mut self, value: Aead) -> Self {
        self.aead = value;
        self
    }

    /// Seal in chunks.
    #[must_use]
    pub fn chunked(mut self, value: bool) -> Self {
        self.chunked = value;
        self
    }

    /// Resume.
    #[must_use]
    pub fn resumption(mut self, value: bool) -> Self {
        self.resumption = value;
        self
    }

    /// URL of a relay.
    #[must_use]
    pub fn relay(mut self, value: impl Into<String>) -> Self {
        self.relay = Some(value.into());
        self
    }

    /// Longest time for one call.
    #[must_use]
    pub fn timeout(mut self, value: Duration) -> Self {
        self.timeout = value;
        self
    }

    /// Longest time to open a connection.
    #[must_use]
    pub fn connect_timeout(mut self, value: Duration) -> Self {
        self.connect_timeout = value;
        self
    }

    /// Longest reply in bytes.
    #[must_use]
    pub fn max_reply(mut self, value: usize) -> Self {
        self.max_reply = value;
        self
    }

    /// How often to repeat what is safe.
    #[must_use]
    pub fn retries(mut self, value: u32) -> Self {
        self.retries = value;
        self
    }

    /// Certificates for https.
    #[must_use]
    pub fn ca_file(mut self, value: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(value.into());
        self
    }

    /// Proxy on the way.
    #[must_use]
    pub fn proxy(mut self, value: Proxy) -> Self {
        self.proxy = value;
        self
    }

    /// Who is told how far transfers are.
    #[must_use]
    pub fn progress(mut self, value: Progress) -> Self {
        self.progress = Some(value);
        self
    }

    /// User and password for HTTP Basic, outside the seal.
    #[must_use]
    pub fn basic(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.basic = Some((user.into(), password.into()));
        self
    }

    /// One more header field outside the seal.
    #[must_use]
    pub fn outer_header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.outer_headers.push((name.into(), value.into()));
        self
    }

    /// One more header field inside the seal.
    #[must_use]
    pub fn inner_header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.inner_headers.push((name.into(), value.into()));
        self
    }
}

/// The HTTP proxy on the way to a server. It sees what everybody on the way sees: sealed requests, or TLS around them. This
/// machine (`localhost` and loopback addresses) is always reached directly.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say, in capitals or not, when the client is made.
    #[default]
    Environment,
    /// None, whatever the environment says.
    Direct,
    /// The one at this URL, such as `http://user:password@proxy.example:3128`.
    Url(Secret),
}

impl Proxy {
    /// `none`, or a URL.
    pub fn from_name(text: &str) -> Self {
        if text == "none" { Self::Direct } else { Self::Url(text.into()) }
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

/// How far a sealed request or its answer is. Each try of a call begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transfer {
    /// The request is on its way to the server; else the answer back.
    pub sending: bool,
    /// How many bytes are through.
    pub done: u64,
    /// How many bytes there are, as far as that is known.
    pub total: Option<u64>,
}

/// Is told how far transfers are.
#[derive(Clone)]
pub struct Progress(Arc<Told>);

type Told = dyn Fn(Transfer) + Send + Sync;

impl Progress {
    /// `told` is called often, by the thread that sends and receives: it should be quick.
    pub fn new(told: impl Fn(Transfer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    pub(crate) fn tell(&self, transfer: Transfer) {
        (self.0)(transfer);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Text that is erased on drop and never printed.
#[derive(Clone)]
pub struct Secret(Erased<String>);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(Erased::new(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
