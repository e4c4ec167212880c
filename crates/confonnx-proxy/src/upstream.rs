//! A server, and the policy that it has to satisfy.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use confonnx_client::{Client, ClientError, Request, Response, Stream, Trusted};

use crate::fault::{Fault, Kind};

/// A server, or a group of them behind one URL. Nothing goes there before its evidence satisfied the policy of `client`.
#[derive(Debug)]
pub struct Upstream {
    /// The server's name for people: in metrics and on the page.
    pub(crate) name: String,
    /// The models that it is asked for: names, or how they start with `*` at the end. Empty: every model.
    models: Vec<String>,
    /// The beginning of paths that go here whatever model they name, such as `/team-a`; it is taken away.
    pub(crate) path: Option<String>,
    /// Verifies and seals.
    pub(crate) client: Client,
    /// The server has been what the policy wants.
    trusted: AtomicBool,
    /// Whether the program's own token is sent, sealed: the proxy has none for this server.
    pub(crate) passes_token: bool,
    last: Mutex<Option<(SystemTime, Fault)>>,
    faults: [AtomicU64; Kind::ALL.len()],
}

impl Upstream {
    /// A server that is asked for every model.
    pub fn new(name: impl Into<String>, client: Client) -> Self {
        Self {
            name: name.into(),
            models: Vec::new(),
            path: None,
            client,
            trusted: AtomicBool::new(false),
            passes_token: false,
            last: Mutex::new(None),
            faults: Default::default(),
        }
    }

    /// Restricts the upstream to these models: names, or how they start with `*` at the end.
    #[must_use]
    pub fn models(mut self, models: Vec<String>) -> Self {
        self.models = models;
        self
    }

    /// Sends what is asked below this path, which starts with `/`, here, whatever the model.
    #[must_use]
    pub fn path(mut self, path: Option<String>) -> Self {
        self.path = path.map(|path| path.trim_end_matches('/').to_owned());
        self
    }

    /// Whether a program's own `Authorization` is sent on, sealed.
    #[must_use]
    pub fn passes_token(mut self, passes: bool) -> Self {
        self.passes_token = passes;
        self
    }

    pub(crate) fn has(&self, model: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => pattern == model,
        };
        self.models.is_empty() || self.models.iter().any(fits)
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Response, Fault> {
        self.noted(self.client.request(request).await)
    }

    pub(crate) async fn stream(&self, request: Request) -> Result<Stream<'_>, Fault> {
        self.noted(self.client.stream(request).await)
    }

    pub(crate) async fn attested(&self) -> Result<Arc<Trusted>, Fault> {
        self.noted(self.client.attest().await)
    }

    /// What went wrong, counted.
    pub(crate) fn fault(&self, error: &ClientError) -> Fault {
        let fault = Fault::new(error, self.trusted.load(Relaxed));
        if let Some(counter) = fault.kind.of(&self.faults) {
            counter.fetch_add(1, Relaxed);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((SystemTime::now(), fault.clone()));
        fault
    }

    /// How often each kind of fault occurred.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.faults.iter().map(|counter| counter.load(Relaxed)))
    }

    /// The latest fault, and when it was.
    pub(crate) fn last_fault(&self) -> Option<(SystemTime, Fault)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn noted<T>(&self, result: Result<T, ClientError>) -> Result<T, Fault> {
        match result {
            Ok(value) => {
                // Whatever the answer was, the key was a trusted one.
                if !self.trusted.load(Relaxed) {
                    self.trusted.store(true, Relaxed);
                }
                Ok(value)
            }
            Err(err) => Err(self.fault(&err)),
        }
    }
}
