//! Requests to inner APIs that this crate has no method for.

use std::borrow::Cow;
use std::fmt;

use confonnx_protocol::bhttp::Fields;

use crate::ModelRef;
use crate::conversation::{Answer, Asked, Call};

/// A request to the inner API, as it is. It travels sealed, with `date`, `authorization` and padding added.
#[derive(Clone)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) tensors: Option<Vec<u8>>,
    pub(crate) model: Option<Model>,
}

#[derive(Clone)]
pub(crate) struct Model {
    name: Option<String>,
    version: Option<String>,
    in_body: bool,
}

impl Request {
    /// A request without fields and body. `path` is absolute and encoded, with its query.
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        let (fields, body) = (Vec::new(), Vec::new());
        Self { method: method.into(), path: path.into(), fields, body, tensors: None, model: None }
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

    /// Makes this a request to `model`, which has to have a hash that the policy expects, if it expects any. The path
    /// given before is what follows the model's own, such as `/infer`; without a version the model's is chosen as for
    /// [`Client::infer`](crate::Client).
    #[must_use]
    pub fn to_model(mut self, model: ModelRef<'_>) -> Self {
        let ModelRef { name, version } = model;
        let (name, version) = (name.map(Into::into), version.map(Into::into));
        self.model = Some(Model { name, version, in_body: false });
        self
    }

    /// Makes this a request about the model `name`, which the body names: the policy is asked in the same way, and the
    /// path stays as it is.
    #[must_use]
    pub fn about_model(mut self, name: &str) -> Self {
        self.model = Some(Model { name: Some(name.into()), version: None, in_body: true });
        self
    }

    /// With a body of JSON followed by tensors (OIP's binary tensor data extension). The field that says where they begin is
    /// added; white space between the two aligns the tensors for the server.
    #[must_use]
    pub fn tensor_body(mut self, json: impl Into<Vec<u8>>, tensors: impl Into<Vec<u8>>) -> Self {
        (self.body, self.tensors) = (json.into(), Some(tensors.into()));
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        (self.body, self.tensors) = (body.into(), None);
        self
    }
}

impl From<Request> for Call<'_> {
    fn from(request: Request) -> Self {
        let Request { method, path, fields, body, tensors, model } = request;
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let json_len = tensors.is_some().then_some(body.len());
        let body = std::iter::once(body).chain(tensors).map(Cow::Owned).collect();
        let asked = |Model { name, version, in_body }| Asked {
            name: name.map(Cow::Owned),
            version: version.map(Cow::Owned),
            in_body,
        };
        let model = model.map(asked);
        Self { method: method.into(), model, path, fields, body, json_len, streamed: false }
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
    /// The answer's status: the inner one, which came sealed.
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// The answer's header fields.
    pub fn fields(&self) -> &Fields {
        self.0.fields()
    }

    /// The answer's body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status(), self.body().len())
    }
}
