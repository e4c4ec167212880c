//! What the claims say and no policy judges: stated one by one, so that it is not overlooked.

use serde_json::{Value, json};

use crate::shown::{said, shown};
use crate::x509::shown_time;
use crate::{Claims, Verdict};

/// States keys, where they come from, and every setting that has no check of its own.
pub(super) fn check(claims: &Claims, verdict: &mut Verdict) {
    let keys = claims.keys.iter().map(|key| {
        let times = [key.not_before, key.not_after, key.accepted_until].map(shown_time);
        let [from, until, erased] = times;
        format!("{} {}, current {from} to {until}, erased {erased}", key.key_id, shown(&key.kem))
    });
    verdict.info("keys", some_of(keys.collect(), "; ").unwrap_or_else(|| "none yet".into()));
    // Where others than the TEE may have the keys, the check `key source` has judged that.
    if verdict.check("key source").is_none() {
        verdict.info("key source", claims.key_source.to_string());
    }
    let mut others = Vec::new();
    for (setting, value) in &claims.settings {
        if JUDGED.contains(&setting.as_str()) {
            continue;
        }
        match USUAL.iter().find(|(key, ..)| key == setting) {
            Some((_, name, usual)) => verdict.state(name, said(value), *value == usual()),
            None => others.push(format!("{} {}", shown(setting), said(value))),
        }
    }
    // Settings that this version does not know, as of a newer server: what they mean is unknown here.
    if let Some(others) = some_of(others, ", ") {
        verdict.state("other settings", others, false);
    }
}

/// As many settings as a person reads; the claims can have thousands.
fn some_of(mut all: Vec<String>, separator: &str) -> Option<String> {
    let more = all.len().saturating_sub(MOST_SHOWN);
    all.truncate(MOST_SHOWN);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    (!all.is_empty()).then(|| all.join(separator))
}

const MOST_SHOWN: usize = 32;

/// Settings that `[server]` of a policy is about.
const JUDGED: [&str; 6] =
    ["model_owner_sha256", "engine", "audit_log", "request_metrics", "model_control", "session_lifetime_s"];

/// The other settings: their names in claims and verdicts, and the values that they have unless somebody changes them.
type Usual = (&'static str, &'static str, fn() -> Value);
const USUAL: [Usual; 9] = [
    ("date_window_s", "date window", || json!(300)),
    ("key_rollover_interval_s", "key rollover", || json!(86_400)),
    ("key_grace_s", "key grace", || json!(3_600)),
    ("replay_capacity", "replay capacity", || json!(1 << 24)),
    ("max_sessions", "max resumptions", || json!(1 << 16)),
    ("max_request_bytes", "max request bytes", || json!(64 << 20)),
    ("insecure", "insecure setting", || json!(false)),
    ("use_model_key_provisioning", "model key provisioning", || json!(false)),
    ("model_key_source", "model key source", || Value::Null),
];
