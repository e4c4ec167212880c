use serde_json::json;

use super::*;
use crate::evidence::Facts;
use crate::measured::Measured;
use crate::{
    Check, EnclaveHash, Expectations, Genuine, Outcome, Policy, PolicyBuildError, Preset, Tee, UnixTime,
};

const A: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const B: &str = "b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1";

fn read(server: &str) -> Result<Expectations, String> {
    let none = &mut |_: &str| Err(std::io::ErrorKind::NotFound.into());
    Expectations::from_toml(&format!("[server]\n{server}"), none).map_err(|err| err.to_string())
}

fn claims() -> Claims {
    Claims::example(UnixTime(5))
}

fn with(setting: &str, value: Value) -> Claims {
    let mut claims = claims();
    claims.settings.insert(setting.into(), value);
    claims
}

fn checks(server: &str, claims: &Claims) -> Vec<Check> {
    let mut verdict = Verdict::default();
    // The presets' maxima have tests of their own.
    let lax = Maxima { key_lifetime_s: u64::MAX, resumption_lifetime_s: u64::MAX };
    ServerExpectations { maxima: lax, ..read(server).unwrap().server }.check(claims, &mut verdict);
    let of_maxima = |check: &Check| check.expected.ends_with(&format!("{} s", u64::MAX));
    verdict
        .checks
        .retain(|check| !matches!(check.outcome, Outcome::Info | Outcome::Notable) && !of_maxima(check));
    verdict.checks
}

/// Whether the one check of the line `server` passes; with its name, what it expected and what it found.
fn judged(server: &str, claims: &Claims) -> (bool, String) {
    match &checks(server, claims)[..] {
        [Check { name, expected, found, outcome, .. }] => {
            (*outcome == Outcome::Passed, format!("{name}: {expected}: {found}"))
        }
        other => panic!("{server}: {other:?}"),
    }
}

fn text(passed: bool, text: &str) -> (bool, String) {
    (passed, text.into())
}

#[test]
fn what_is_not_expected_is_not_judged() {
    assert_eq!(checks("", &with("audit_log", true.into())), []);
}

#[test]
fn the_build_is_one_of_those_named() {
    assert_eq!(
        judged(&format!("build_sha256 = ['{B}']"), &claims()),
        text(true, &format!("build: {B}: {B}"))
    );
    assert!(judged(&format!("build_sha256 = ['{A}', '{B}']"), &claims()).0);
    assert_eq!(
        judged(&format!("build_sha256 = ['{A}']"), &claims()),
        text(false, &format!("build: {A}: {B}"))
    );
}

#[test]
fn the_runtime_is_one_of_those_named() {
    let mut claims = claims();
    claims.runtime.sha256 = A.parse().unwrap();
    let line = |hash| format!("runtime_sha256 = ['{hash}']");
    assert_eq!(judged(&line(A), &claims), text(true, &format!("runtime: {A}: {A}")));
    assert_eq!(judged(&line(B), &claims), text(false, &format!("runtime: {B}: {A}")));
}

#[test]
fn the_owner_is_one_of_those_named() {
    let line = format!("model_owner_sha256 = ['{A}']");
    let owner = |value| with("model_owner_sha256", value);
    assert_eq!(judged(&line, &owner(A.into())), text(true, &format!("model owner: {A}: {A}")));
    assert_eq!(judged(&line, &owner(B.into())), text(false, &format!("model owner: {A}: {B}")));
    for none in [claims(), owner(Value::Null), owner("a1".into()), owner(json!([A]))] {
        assert_eq!(judged(&line, &none), text(false, &format!("model owner: {A}: not stated")));
    }
}

#[test]
fn an_engine_that_is_not_stated_is_in_process() {
    let line = "engine = 'isolated'";
    let engine = |value| with("engine", value);
    assert_eq!(judged(line, &engine("isolated".into())), text(true, "engine: isolated: isolated"));
    assert_eq!(judged(line, &engine("in-process".into())), text(false, "engine: isolated: in-process"));
    assert_eq!(judged(line, &claims()), text(false, "engine: isolated: not stated, so in-process"));
    for other in [Value::Null, true.into(), "Isolated".into(), "isolated ".into(), json!(["isolated"])] {
        assert!(!judged(line, &engine(other.clone())).0, "{other}");
    }
    let found = judged(line, &engine("\u{1b}[2J".into())).1;
    assert_eq!(found, "engine: isolated: ?[2J");
}

#[test]
fn batching_of_any_model_can_be_refused() {
    let line = "batching = 'refuse'";
    let expected = "batching: no model with requests of several callers";
    assert_eq!(judged(line, &claims()), text(true, &format!("{expected}: none")));
    let mut claims = claims();
    claims.models.push(claims.models[0].clone());
    claims.models[1].name = "other".into();
    claims.models[1].batching = Some(1);
    assert_eq!(judged(line, &claims), text(false, &format!("{expected}: other")));
    claims.models[0].batching = Some(16);
    assert_eq!(judged(line, &claims), text(false, &format!("{expected}: digits, other")));
}

#[test]
fn an_audit_log_can_be_refused() {
    let line = "audit_log = 'refuse'";
    let log = |value| with("audit_log", value);
    assert_eq!(judged(line, &log(false.into())), text(true, "audit log: false: false"));
    assert_eq!(judged(line, &log(true.into())), text(false, "audit log: false: true"));
    assert_eq!(judged(line, &claims()), text(false, "audit log: false: not stated"));
    for other in [Value::Null, "false".into(), 0.into()] {
        assert!(!judged(line, &log(other.clone())).0, "{other}");
    }
}

#[test]
fn no_key_lives_longer_than_the_policy_says() {
    let mut claims = claims();
    assert_eq!(
        judged("max_key_lifetime_s = 90000", &claims),
        text(true, "key lifetime: at most 90000 s: 90000 s")
    );
    let line = "max_key_lifetime_s = 89999";
    assert_eq!(judged(line, &claims), text(false, "key lifetime: at most 89999 s: 90000 s"));
    // The longest lifetime of the keys counts, wherever it is.
    let shorter = KeyClaim { accepted_until: UnixTime(6), ..claims.keys[0].clone() };
    claims.keys.push(shorter.clone());
    assert!(!judged(line, &claims).0);
    claims.keys.rotate_left(1);
    assert!(!judged(line, &claims).0);
    claims.keys = vec![shorter.clone()];
    assert_eq!(judged(line, &claims), text(true, "key lifetime: at most 89999 s: 1 s"));
    for backwards in [0, 1] {
        claims.keys = vec![shorter.clone(), shorter.clone()];
        claims.keys[backwards].not_before = UnixTime(7);
        assert_eq!(judged(line, &claims), text(false, "key lifetime: at most 89999 s: not stated"));
    }
    claims.keys.clear();
    assert_eq!(judged(line, &claims), text(false, "key lifetime: at most 89999 s: not stated"));
}

#[test]
fn no_resumption_lasts_longer_than_the_policy_says() {
    let line = "max_resumption_lifetime_s = 60";
    let lifetime = |value| with("session_lifetime_s", value);
    assert_eq!(judged(line, &lifetime(60.into())), text(true, "resumption lifetime: at most 60 s: 60 s"));
    assert_eq!(judged(line, &lifetime(61.into())), text(false, "resumption lifetime: at most 60 s: 61 s"));
    for other in [claims(), lifetime(Value::Null), lifetime("60".into()), lifetime((-1).into())] {
        assert_eq!(judged(line, &other), text(false, "resumption lifetime: at most 60 s: not stated"));
    }
    let former = "max_session_lifetime_s = 60";
    assert_eq!(judged(former, &lifetime(61.into())), text(false, "resumption lifetime: at most 60 s: 61 s"));
}

#[test]
fn request_metrics_can_be_refused() {
    let line = "request_metrics = 'refuse'";
    let metrics = |value| with("request_metrics", value);
    assert_eq!(judged(line, &metrics(false.into())), text(true, "request metrics: false: false"));
    assert_eq!(judged(line, &metrics(true.into())), text(false, "request metrics: false: true"));
    assert_eq!(judged(line, &claims()), text(false, "request metrics: false: not stated"));
}

#[test]
fn who_loads_models_is_one_of_those_named() {
    let line = "model_control = ['none', 'poll']";
    let control = |value| with("model_control", value);
    assert_eq!(judged(line, &control("poll".into())), text(true, "model control: none or poll: poll"));
    assert_eq!(
        judged(line, &control("explicit".into())),
        text(false, "model control: none or poll: explicit")
    );
    assert_eq!(judged(line, &claims()), text(false, "model control: none or poll: not stated"));
}

/// Keys of two hundred years are nobody's default.
#[test]
fn presets_bound_how_long_keys_and_resumptions_last() {
    let failed = |preset: Preset, claims: &Claims| {
        let mut verdict = Verdict::default();
        Expectations::from(preset).server.check(claims, &mut verdict);
        verdict.failed().map(|check| check.name).collect::<Vec<_>>()
    };
    let lives = |seconds: u64| {
        let mut claims = claims();
        claims.keys[0].accepted_until.0 = claims.keys[0].not_before.0 + seconds;
        claims
    };
    for (preset, most) in [(Preset::Strict, 90_000), (Preset::Cloud, 3_196_800)] {
        assert_eq!(failed(preset, &lives(most)), [""; 0]);
        assert_eq!(failed(preset, &lives(most + 1)), ["key lifetime"]);
    }
    assert_eq!(failed(Preset::Strict, &with("session_lifetime_s", 601.into())), ["resumption lifetime"]);
    assert_eq!(failed(Preset::Cloud, &with("session_lifetime_s", 86_400.into())), [""; 0]);
    // Without a preset the maxima are those of `cloud`, and a policy may say otherwise.
    assert_eq!(ServerExpectations::default().maxima, Maxima::CLOUD);
    let file =
        Expectations::from_toml("preset = 'cloud'\n[server]\nmax_key_lifetime_s = 7000000000", &mut |_| {
            Err(std::io::ErrorKind::NotFound.into())
        });
    let mut verdict = Verdict::default();
    file.unwrap().server.check(&lives(6_307_200_000), &mut verdict);
    assert!(verdict.passes(), "{verdict}");
    // A server that joins a group has no keys yet: its settings say how long they will live.
    let mut joiner = with("key_rollover_interval_s", 86_400.into());
    joiner.keys.clear();
    assert_eq!(failed(Preset::Strict, &joiner), [""; 0]);
    joiner.settings.insert("key_grace_s".into(), 3_601.into());
    assert_eq!(failed(Preset::Strict, &joiner), ["key lifetime"]);
}

#[test]
fn what_no_policy_judges_is_stated_and_what_is_unusual_stands_out() {
    let mut claims = claims();
    let settings = json!({
        "engine": "in-process", "audit_log": true, "request_metrics": false, "model_control": "poll",
        "model_owner_sha256": A, "date_window_s": 300, "max_sessions": 5, "telepathy": true,
    });
    claims.settings = settings.as_object().unwrap().clone();
    claims.models[0].batching = Some(4);
    let mut verdict = Verdict::default();
    verdict.appraising();
    ServerExpectations::default().check(&claims, &mut verdict);
    let of = |outcome| {
        verdict
            .not_judged()
            .filter(|check| check.outcome == outcome)
            .map(|check| check.name)
            .collect::<Vec<_>>()
    };
    let notable = [
        "model owner",
        "engine",
        "batching",
        "audit log",
        "model control",
        "max resumptions",
        "other settings",
    ];
    assert_eq!(of(Outcome::Notable), notable);
    let usual =
        ["build", "runtime", "resumption lifetime", "request metrics", "keys", "key source", "date window"];
    assert_eq!(of(Outcome::Info), usual);
    let shown = verdict.to_string();
    assert!(
        shown.contains("! audit log") && shown.contains("! other settings       telepathy true"),
        "{shown}"
    );
    assert!(shown.contains("17 x-wing, current 1970-01-01T00:00:05Z to 1970-01-02T00:00:05Z"), "{shown}");
    // What is stated stays bounded, however many settings there are.
    for setting in 0..1000 {
        claims.settings.insert(format!("setting {setting}"), true.into());
    }
    let mut long = Verdict::default();
    ServerExpectations::default().check(&claims, &mut long);
    let found = &long.check("other settings").unwrap().found;
    assert!(found.ends_with(", and 969 more") && found.len() < 2000, "{found}");
    // Every claim is somewhere: what is judged is not stated again.
    let mut judged = Verdict::default();
    read("audit_log = 'refuse'").unwrap().server.check(&claims, &mut judged);
    assert_eq!(judged.checks.iter().filter(|check| check.name == "audit log").count(), 1);
}

#[test]
fn errors_name_the_key_and_what_was_expected() {
    for (line, expected) in [
        ("build_sha256 = []", "at least one"),
        ("runtime_sha256 = []", "at least one"),
        ("model_owner_sha256 = []", "at least one"),
        ("build_sha256 = ['12']", "64 hex digits"),
        ("engine = 'in-process'", "expected `isolated`"),
        ("batching = 'accept'", "expected `refuse`"),
        ("audit_log = false", "audit_log"),
        ("max_key_lifetime_s = -1", "u64"),
        ("request_metrics = false", "request_metrics"),
        ("model_control = []", "at least one"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.contains("line 2") && error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn a_policy_makes_these_checks() {
    let genuine = Genuine {
        key_configs: Vec::new(),
        claims: with("audit_log", true.into()),
        tee: Tee::Insecure,
        measured: Measured {
            enclave_hash: EnclaveHash::from(Digest([7; 32])),
            signer: None,
            debug: true,
            facts: Facts::Insecure,
        },
        fresh: true,
        release_proof: None,
        verdict: Verdict::default(),
    };
    let failed = |server| {
        let expected = Expectations { allow_debug: true, ..read(server).unwrap() };
        let mut verdict = Verdict::default();
        Policy::new(expected).unwrap().check(&genuine, UnixTime(5), &mut verdict);
        verdict.failed().map(|check| check.name).collect::<Vec<_>>()
    };
    assert_eq!(failed("batching = 'refuse'"), [""; 0]);
    assert_eq!(failed("engine = 'isolated'\naudit_log = 'refuse'"), ["engine", "audit log"]);
}

/// Any program may claim a build, and `server` is no kind of TEE.
#[test]
fn the_claims_name_no_program_and_no_platform() {
    let expected = read(&format!("build_sha256 = ['{B}']\nengine = 'isolated'")).unwrap();
    assert_eq!(expected.platforms.accepted().len(), 6);
    assert_eq!(Policy::new(expected).map(drop), Err(PolicyBuildError::NoExpectation));
}
