//! Walks `vectors/attestation`, one folder for each case, as any implementation could.

use std::fs;
use std::path::Path;
use std::time::Duration;

use confonnx_attest::{Document, Expectations, Nonce, Policy, SigningKey, UnixTime};
use serde_json::Value;

#[test]
fn every_case_ends_as_it_should() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/attestation");
    let mut walked = 0;
    for entry in fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let case: Value = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
        let mut document = fs::read(folder.join("document.json")).unwrap();
        if let Some(len) = case["pad_document_to"].as_u64() {
            document.resize(usize::try_from(len).unwrap(), b' ');
        }
        let found = outcome(&case, &document);
        let failed = case["failed_checks"].as_array().unwrap();
        let failed: Vec<_> = failed.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(found, (case["expected"].as_str().unwrap(), failed), "{}", folder.display());
        walked += 1;
    }
    assert!(walked >= 40, "only {walked} cases in {}", root.display());
}

fn outcome(case: &Value, document: &[u8]) -> (&'static str, Vec<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let nonce: Option<Nonce> = text(&case["nonce"]).map(|hex| hex.parse().unwrap());
    let now = UnixTime(case["now"].as_u64().unwrap());
    let wanted = &case["policy"];
    let mut expected = Expectations::new();
    expected.enclave_hashes =
        text(&wanted["enclave_hash"]).map(|hex| hex.parse().unwrap()).into_iter().collect();
    expected.signing_keys =
        text(&wanted["signing_key_pem"]).map(|pem| SigningKey::from_pem(&pem).unwrap()).into_iter().collect();
    expected.model_hashes = text(&wanted["model_hash"]).map(|hex| hex.parse().unwrap()).into_iter().collect();
    expected.allow_debug = wanted["allow_debug"].as_bool().unwrap_or_default();
    expected.max_age = wanted["max_age_s"].as_u64().map(Duration::from_secs);
    let policy = Policy::new(expected).unwrap();
    let names =
        |verdict: confonnx_attest::Verdict| verdict.failed().map(|check| check.name.to_owned()).collect();
    let Ok(document) = Document::parse(document) else {
        return ("document-invalid", Vec::new());
    };
    match document.verify(nonce.as_ref(), now) {
        Err(err) => ("not-genuine", names(err.verdict)),
        Ok(genuine) => match genuine.appraise(&policy, now) {
            Err(err) => ("not-trusted", names(err.verdict)),
            Ok(_) => ("trusted", Vec::new()),
        },
    }
}
