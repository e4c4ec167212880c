//! What the claims have to say of a server's program, its settings and its keys.

use serde::Deserialize;
use serde_json::Value;

use super::stated;

use crate::list::at_least_one;
use crate::shown::{one_of, said, shown};
use crate::{Build, Claims, Digest, KeyClaim, Runtime, Verdict};

/// `[server]`: what the claims have to say of the server. What is not expected is not judged; what is expected and not
/// claimed, as by an older server, is refused.
///
/// Claims are statements of the program, and true only if that is the one that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServerExpectations {
    /// SHA-256 of the server's executable: one of these.
    #[serde(deserialize_with = "at_least_one")]
    pub build_sha256: Vec<Digest>,
    /// SHA-256 of ONNX Runtime's library: one of these.
    #[serde(deserialize_with = "at_least_one")]
    pub runtime_sha256: Vec<Digest>,
    /// Whose signature the keys of encrypted models need, by the SHA-256 of the public key: one of these.
    #[serde(deserialize_with = "at_least_one")]
    pub model_owner_sha256: Vec<Digest>,
    /// Where models run.
    pub engine: Option<AcceptedEngine>,
    /// Whether requests of several callers may run together.
    pub batching: Option<Refusal>,
    /// Whether the host may get a record of who called what.
    pub audit_log: Option<Refusal>,
    /// Whether counters and logs may say how sealed requests ended.
    pub request_metrics: Option<Refusal>,
    /// Who may load and unload models: `none`, `poll` (the host's folder) or `explicit` (callers): one of these.
    #[serde(deserialize_with = "at_least_one")]
    pub model_control: Vec<String>,
    /// The longest time from the beginning of a key to its erasure, in seconds.
    pub max_key_lifetime_s: Option<u64>,
    /// The longest a resumption may last, in seconds.
    #[serde(alias = "max_session_lifetime_s")]
    pub max_resumption_lifetime_s: Option<u64>,
    /// What the preset allows at most, where the policy itself says nothing.
    #[serde(skip)]
    pub maxima: Maxima,
}

/// What a preset allows at most. What the claims do not state is not held against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Maxima {
    /// The longest time from the beginning of a key to its erasure, in seconds.
    pub key_lifetime_s: u64,
    /// The longest a resumption may last, in seconds.
    pub resumption_lifetime_s: u64,
}

impl Maxima {
    /// A server's defaults: keys of a day and an hour, resumptions of ten minutes.
    pub const STRICT: Self = Self { key_lifetime_s: 90_000, resumption_lifetime_s: 600 };
    /// The longest that a server can be set to: thirty days and a week, resumptions of a day.
    pub const CLOUD: Self = Self { key_lifetime_s: 3_196_800, resumption_lifetime_s: 86_400 };
}

impl Default for Maxima {
    fn default() -> Self {
        Self::CLOUD
    }
}

/// Where models may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AcceptedEngine {
    /// In processes of their own, without the server's keys.
    Isolated,
}

/// What the policy says of something that a server may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Refusal {
    /// The server must not.
    Refuse,
}

impl ServerExpectations {
    /// Makes a check of each that is expected, and states all others: what the host has set is not to be overlooked.
    pub(super) fn check(&self, claims: &Claims, verdict: &mut Verdict) {
        let Build { version, sha256 } = &claims.build;
        one("build", &self.build_sha256, Some(*sha256), &format!("{} {sha256}", shown(version)), verdict);
        let Runtime { name, version, sha256 } = &claims.runtime;
        let found = format!("{} {} {sha256}", shown(name), shown(version));
        one("runtime", &self.runtime_sha256, Some(*sha256), &found, verdict);
        self.check_keys(claims, verdict);
        self.check_settings(claims, verdict);
        stated::check(claims, verdict);
    }

    fn check_keys(&self, claims: &Claims, verdict: &mut Verdict) {
        // A server that has no keys yet says in its settings how long those to come will live.
        let setting = |name: &str| claims.settings.get(name).and_then(Value::as_u64);
        let to_come = || setting("key_rollover_interval_s")?.checked_add(setting("key_grace_s")?);
        let longest = match &claims.keys[..] {
            [] => to_come(),
            // The maximum is none when any key ends before it begins.
            keys => {
                keys.iter().map(lifetime).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
            }
        };
        let malformed = !claims.keys.is_empty() && longest.is_none();
        let (name, maximum) = ("key lifetime", self.maxima.key_lifetime_s);
        at_most(name, self.max_key_lifetime_s, maximum, longest, malformed, verdict);
        let claimed = setting("session_lifetime_s");
        let (name, maximum) = ("resumption lifetime", self.maxima.resumption_lifetime_s);
        at_most(name, self.max_resumption_lifetime_s, maximum, claimed, false, verdict);
    }

    fn check_settings(&self, claims: &Claims, verdict: &mut Verdict) {
        let setting = |name: &str| claims.settings.get(name).filter(|value| !value.is_null());
        let owner = setting("model_owner_sha256").and_then(Value::as_str).and_then(|hex| hex.parse().ok());
        let found = owner.map_or_else(|| "none".into(), |owner: Digest| owner.to_string());
        match owner {
            Some(_) if self.model_owner_sha256.is_empty() => verdict.state("model owner", found, false),
            _ => one("model owner", &self.model_owner_sha256, owner, &found, verdict),
        }
        let engine = setting("engine");
        let isolated = engine.and_then(Value::as_str) == Some("isolated");
        let found = engine.map_or_else(|| "not stated, so in-process".into(), said);
        match self.engine {
            Some(AcceptedEngine::Isolated) => verdict.decide("engine", "isolated", found, isolated),
            None => verdict.state("engine", found, isolated),
        }
        let batched = claims.models.iter().filter(|model| model.batching.is_some());
        let names: Vec<_> = batched.map(|model| shown(&model.name)).collect();
        let found = if names.is_empty() { "none".into() } else { names.join(", ") };
        match self.batching {
            Some(Refusal::Refuse) => {
                let expected = "no model with requests of several callers";
                verdict.decide("batching", expected, found, names.is_empty());
            }
            None => verdict.state("batching", found, names.is_empty()),
        }
        for (name, key, refusal) in [
            ("audit log", "audit_log", self.audit_log),
            ("request metrics", "request_metrics", self.request_metrics),
        ] {
            let claimed = setting(key);
            let off = claimed.and_then(Value::as_bool) == Some(false);
            let found = claimed.map_or_else(not_stated, said);
            match refusal {
                Some(Refusal::Refuse) => verdict.decide(name, "false", found, off),
                None => verdict.state(name, found, off),
            }
        }
        let control = setting("model_control").and_then(Value::as_str);
        let found = control.map_or_else(not_stated, shown);
        if self.model_control.is_empty() {
            verdict.state("model control", found, control == Some("none"));
        } else {
            let passed = control.is_some_and(|control| self.model_control.iter().any(|one| one == control));
            verdict.decide("model control", one_of(self.model_control.iter().cloned()), found, passed);
        }
    }
}

/// A key's lifetime in seconds; none for a key that is erased before it begins.
fn lifetime(key: &KeyClaim) -> Option<u64> {
    key.accepted_until.0.checked_sub(key.not_before.0)
}

/// Checks one digest; `said` is what is shown when nothing is expected.
fn one(name: &'static str, accepted: &[Digest], found: Option<Digest>, said: &str, verdict: &mut Verdict) {
    if accepted.is_empty() {
        return verdict.info(name, said);
    }
    let passed = found.is_some_and(|found| accepted.contains(&found));
    let found = found.map_or_else(not_stated, |digest| digest.to_string());
    verdict.decide(name, one_of(accepted.iter().map(Digest::to_string)), found, passed);
}

fn at_most(
    name: &'static str,
    expected: Option<u64>,
    maximum: u64,
    found: Option<u64>,
    malformed: bool,
    verdict: &mut Verdict,
) {
    let most = expected.unwrap_or(maximum);
    let passed = found.is_some_and(|found| found <= most);
    let shown = found.map_or_else(not_stated, |seconds| format!("{seconds} s"));
    if expected.is_none() && found.is_none() && !malformed {
        return verdict.info(name, shown);
    }
    verdict.decide(name, format!("at most {most} s"), shown, passed);
}

fn not_stated() -> String {
    "not stated".into()
}

#[cfg(test)]
mod tests;
