//! Requests to inner APIs that this crate has no method for.

use std::borrow::Cow;
use std::fmt;

use confonnx_protocol::bhttp::Fields;

use crate::conversation::{Answer, Call};

/// A request to the inner API, as it is. It travels sealed, with `date`, `authorization` and padding added.
#[derive(Clone)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request without fields and body. `path` is absolute and encoded, with its query.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self { method: method.into(), path: path.into(), fields: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new("GET", path)
    }

    /// A POST.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new("POST", path)
    }

    /// With one more header field inside the seal.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into().to_ascii_lowercase(), value.into()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl From<Request> for Call<'_> {
    fn from(request: Request) -> Self {
        let Request { method, path, fields, body } = request;
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let body = vec![Cow::Owned(body)];
        Self { method: method.into(), model: None, path, fields, body, json_len: None, streamed: false }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {}, {} bytes)", self.method, self.path, self.body.len())
    }
}

/// The answer to a [`Request`], opened; whatever its status. Erased on drop.
pub struct Response(pub(crate) Answer);

impl Response {
    /// Its status: the inner one, which came sealed.
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// Its header fields.
    pub fn fields(&self) -> &Fields {
        self.0.fields()
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status(), self.body().len())
    }
}
