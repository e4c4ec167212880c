//! `vectors/attestation` and `vectors/release-log`, and the checks that are made of any document.

use std::time::Duration;

use confonnx_attest::{Document, Expectations, Nonce, Policy, Preset, SigningKey, UnixTime, Verdict};
use serde_json::{Value, json};

/// The outcome by docs/protocol.md 2.5, and the checks that did not pass.
pub(crate) fn run(case: &Value, document: &[u8]) -> (Value, Value) {
    let expected = json!([case["expected"], case["failed_checks"]]);
    let mut document = document.to_vec();
    if let Some(len) = case["pad_document_to"].as_u64().and_then(|len| usize::try_from(len).ok()) {
        document.resize(len, b' ');
    }
    (expected, outcome(case, &document).unwrap_or_else(|| "a case that cannot be read".into()))
}

fn outcome(case: &Value, document: &[u8]) -> Option<Value> {
    let nonce: Option<Nonce> = case["nonce"].as_str().map(str::parse).transpose().ok()?;
    let now = UnixTime(case["now"].as_u64()?);
    let wanted = &case["policy"];
    let mut expected = Expectations::new();
    expected.enclave_hashes =
        wanted["enclave_hash"].as_str().map(str::parse).transpose().ok()?.into_iter().collect();
    expected.signing_keys =
        wanted["signing_key_pem"].as_str().map(SigningKey::from_pem).transpose().ok()?.into_iter().collect();
    expected.model_hashes =
        wanted["model_hash"].as_str().map(str::parse).transpose().ok()?.into_iter().collect();
    expected.allow_debug = wanted["allow_debug"].as_bool().unwrap_or_default();
    expected.max_age = wanted["max_age_s"].as_u64().map(Duration::from_secs);
    expected.release_log = match &wanted["release_log"] {
        Value::Null => None,
        log => Some(confonnx_attest::json::from_value(log.clone()).ok()?),
    };
    let policy = Policy::new(expected).ok()?;
    let failed = |verdict: &Verdict| verdict.failed().map(|check| check.name).collect::<Vec<_>>();
    let Ok(document) = Document::parse(document) else {
        return Some(json!(["document-invalid", []]));
    };
    Some(match document.verify(nonce.as_ref(), now) {
        Err(err) => json!(["not-genuine", failed(&err.verdict)]),
        Ok(genuine) => match genuine.appraise(&policy, now) {
            Err(err) => json!(["not-trusted", failed(&err.verdict)]),
            Ok(_) => json!(["trusted", []]),
        },
    })
}

/// Every check that *verify* makes of a document at the time of its claims, with what was expected and what was found.
pub(crate) fn checks(document: &[u8]) -> Value {
    let parsed = match Document::parse(document) {
        Ok(parsed) => parsed,
        Err(err) => return err.to_string().into(),
    };
    let Some(now) = issued_at(document) else { return "claims that cannot be read".into() };
    let verdict = match parsed.verify(None, now) {
        Err(err) => err.verdict,
        Ok(genuine) => match Policy::new(Expectations::from(Preset::Strict)) {
            Err(err) => return err.to_string().into(),
            Ok(policy) => match genuine.appraise(&policy, now) {
                Err(err) => err.verdict,
                Ok(trusted) => trusted.verdict().clone(),
            },
        },
    };
    serde_json::to_value(&verdict).unwrap_or_default()
}

fn issued_at(document: &[u8]) -> Option<UnixTime> {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let document: Value = serde_json::from_slice(document).ok()?;
    let claims = Base64UrlUnpadded::decode_vec(document["claims"].as_str()?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["issued_at"].as_u64().map(UnixTime)
}
