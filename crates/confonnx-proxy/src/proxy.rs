//! What all requests share: the servers, and what is counted.

use std::time::SystemTime;

use confonnx_client::ModelRef;
use http::{HeaderMap, StatusCode};

use crate::{
    Traces, Upstream,
    answer::{Answer, refusal},
    guard::Guard,
    stats::{Key, Stats},
};

/// Settings that are the same for all upstreams.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Longest request of a program, in bytes.
    pub max_request_bytes: usize,
    /// Names beside localhost by which programs may call the proxy.
    pub allowed_hosts: Vec<String>,
    /// Whether there is a page for people at `/ui`.
    pub ui: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_request_bytes: 256 << 20, allowed_hosts: Vec::new(), ui: false }
    }
}

/// Answers what programs ask.
#[derive(Debug)]
pub struct Proxy {
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) settings: Settings,
    pub(crate) stats: Stats,
    pub(crate) started: SystemTime,
    pub(crate) guard: Guard,
    pub(crate) traces: Option<Traces>,
}

impl Proxy {
    /// A proxy for `upstreams`; the first that has a model is asked for it.
    pub fn new(upstreams: Vec<Upstream>, settings: Settings) -> Self {
        let guard = Guard { names: settings.allowed_hosts.clone() };
        Self { upstreams, settings, stats: Stats::default(), started: SystemTime::now(), guard, traces: None }
    }

    /// The same proxy, which sends spans of requests there.
    #[must_use]
    pub fn traced(mut self, traces: Option<Traces>) -> Self {
        self.traces = traces;
        self
    }

    /// Sends the last spans.
    pub async fn close(&self) {
        if let Some(traces) = &self.traces {
            traces.close().await;
        }
    }

    /// Verifies every server now; names those that are not what their policy wants, and why.
    pub async fn verify(&self) -> Vec<(String, String)> {
        let mut refused = Vec::new();
        for upstream in &self.upstreams {
            if let Err(fault) = upstream.attested().await {
                refused.push((upstream.name.clone(), fault.text));
            }
        }
        refused
    }

    /// The upstreams that a path may mean, and the path for them: one with a prefix of its own, or all that have none.
    pub(crate) fn reached<'p>(&self, path: &'p str) -> (Vec<usize>, &'p str) {
        let below = |upstream: &Upstream| {
            let rest = path.strip_prefix(upstream.path.as_deref()?)?;
            rest.starts_with('/').then_some(rest)
        };
        let found = self.upstreams.iter().enumerate().find_map(|(place, one)| Some((place, below(one)?)));
        if let Some((place, rest)) = found {
            return (vec![place], rest);
        }
        let all = self.upstreams.iter().enumerate().filter(|(_, one)| one.path.is_none());
        (all.map(|(place, _)| place).collect(), path)
    }

    /// The one of `among` that is for a model.
    pub(crate) fn upstream_for(&self, among: &[usize], model: &str) -> Option<&Upstream> {
        self.place_for(among, model).and_then(|place| self.upstreams.get(place))
    }

    /// The number of the upstream, for a task that outlives what borrows it.
    pub(crate) fn place_for(&self, among: &[usize], model: &str) -> Option<usize> {
        among.iter().copied().find(|place| self.upstreams.get(*place).is_some_and(|one| one.has(model)))
    }

    pub(crate) fn among(&self, among: &[usize]) -> impl Iterator<Item = &Upstream> {
        among.iter().filter_map(|place| self.upstreams.get(*place))
    }
}

impl Upstream {
    /// The name by which the numbers of a model are kept: without one unless the server has proven to have the model.
    pub(crate) fn counted(&self, model: ModelRef<'_>) -> Key {
        let unknown = || (String::new(), String::new());
        let (Some(proof), Some(name)) = (self.client.proof(), model.name) else { return unknown() };
        let claimed = proof.claims().models.iter().filter(|claim| claim.name == name);
        let version = match model.version {
            Some(version) => claimed.map(|claim| &claim.version).find(|claimed| *claimed == version),
            None => claimed.map(|claim| &claim.version).max_by_key(|version| version.parse::<u64>().ok()),
        };
        version.map_or_else(unknown, |version| (name.to_owned(), version.clone()))
    }
}

/// The program's own token, if it is to be sent on.
pub(crate) fn token(upstream: &Upstream, fields: &HeaderMap) -> Option<String> {
    let value = fields.get(http::header::AUTHORIZATION).filter(|_| upstream.passes_token)?;
    Some(value.to_str().ok()?.to_owned())
}

/// The answer when no upstream is for that model.
pub(crate) fn no_upstream(model: &str) -> Answer {
    refusal(StatusCode::NOT_FOUND, &format!("no server of this proxy is for model {model}"))
}
