//! What the claims have to say of a server's program, its settings and its keys.

use serde::Deserialize;
use serde_json::Value;

use crate::list::at_least_one;
use crate::shown::{one_of, shown};
use crate::{Claims, Digest, KeyClaim, Verdict};

/// `[server]`: what the claims have to say of the server. What is not expected is not judged; what is expected and not
/// claimed, as by an older server, is refused.
///
/// They are statements of the program, and true only as far as it is the one that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerExpectations {
    /// SHA-256 of the server's executable: one of these.
    #[serde(deserialize_with = "at_least_one")]
    pub build_sha256: Vec<Digest>,
    /// SHA-256 of ONNX Runtime's library: one of these.
    #[serde(deserialize_with = "at_least_one")]
    pub runtime_sha256: Vec<Digest>,
    /// Whose signature the keys of encrypted models need: that of one of these public keys.
    #[serde(deserialize_with = "at_least_one")]
    pub model_owner_sha256: Vec<Digest>,
    /// Where models run.
    pub engine: Option<AcceptedEngine>,
    /// Whether requests of several callers may run together.
    pub batching: Option<Refusal>,
    /// Whether the host may get a record of who called what.
    pub audit_log: Option<Refusal>,
    /// The longest time from the beginning of a key to its erasure, in seconds.
    pub max_key_lifetime_s: Option<u64>,
    /// The longest a session of resumption may last, in seconds.
    pub max_session_lifetime_s: Option<u64>,
}

/// Where models may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceptedEngine {
    /// In processes of their own, without the server's keys.
    Isolated,
}

/// Of what a server may do or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// It must not.
    Refuse,
}

impl ServerExpectations {
    /// Makes a check of each that is expected.
    pub(super) fn check(&self, claims: &Claims, verdict: &mut Verdict) {
        one("build", &self.build_sha256, Some(claims.build.sha256), verdict);
        one("runtime", &self.runtime_sha256, Some(claims.runtime.sha256), verdict);
        let setting = |name: &str| claims.settings.get(name);
        let owner = setting("model_owner_sha256").and_then(Value::as_str).and_then(|hex| hex.parse().ok());
        one("model owner", &self.model_owner_sha256, owner, verdict);
        if self.engine == Some(AcceptedEngine::Isolated) {
            let engine = setting("engine");
            let found = engine.map_or_else(|| "not stated, so in-process".into(), said);
            verdict.decide("engine", "isolated", found, engine.and_then(Value::as_str) == Some("isolated"));
        }
        if self.batching == Some(Refusal::Refuse) {
            let batched = claims.models.iter().filter(|model| model.batching.is_some());
            let names: Vec<_> = batched.map(|model| shown(&model.name)).collect();
            let found = if names.is_empty() { "none".into() } else { names.join(", ") };
            verdict.decide("batching", "no model with requests of several callers", found, names.is_empty());
        }
        if self.audit_log == Some(Refusal::Refuse) {
            let log = setting("audit_log");
            let passed = log.and_then(Value::as_bool) == Some(false);
            verdict.decide("audit log", "false", log.map_or_else(not_stated, said), passed);
        }
        if let Some(most) = self.max_key_lifetime_s {
            // A document without keys says nothing of those to come.
            let longest =
                claims.keys.iter().map(lifetime).try_fold(None, |longest, one| Some(longest.max(Some(one?))));
            at_most("key lifetime", most, longest.flatten(), verdict);
        }
        if let Some(most) = self.max_session_lifetime_s {
            let claimed = setting("session_lifetime_s").and_then(Value::as_u64);
            at_most("session lifetime", most, claimed, verdict);
        }
    }
}

/// Seconds; none for a key that is erased before it begins.
fn lifetime(key: &KeyClaim) -> Option<u64> {
    key.accepted_until.0.checked_sub(key.not_before.0)
}

fn one(name: &'static str, accepted: &[Digest], found: Option<Digest>, verdict: &mut Verdict) {
    if accepted.is_empty() {
        return;
    }
    let passed = found.is_some_and(|found| accepted.contains(&found));
    let found = found.map_or_else(not_stated, |digest| digest.to_string());
    verdict.decide(name, one_of(accepted.iter().map(Digest::to_string)), found, passed);
}

fn at_most(name: &'static str, most: u64, found: Option<u64>, verdict: &mut Verdict) {
    let passed = found.is_some_and(|found| found <= most);
    let found = found.map_or_else(not_stated, |seconds| format!("{seconds} s"));
    verdict.decide(name, format!("at most {most} s"), found, passed);
}

fn not_stated() -> String {
    "not stated".into()
}

fn said(value: &Value) -> String {
    shown(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests;
