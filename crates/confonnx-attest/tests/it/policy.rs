use std::time::Duration;

use confonnx_attest::{
    Claims, Digest, Document, Expectations, Outcome, Policy, PolicyBuildError, SigningKey, SigningKeyError,
};

use crate::{MEASUREMENT, NONCE, NOW, allow_debug, document, document_of, policy};

#[test]
fn nothing_expected_is_an_error() {
    let build = |expected| Policy::new(expected).map(drop);
    assert_eq!(build(Expectations::default()), Err(PolicyBuildError::NoExpectation));
    let aged = Expectations::new().max_age(Duration::from_secs(60));
    assert_eq!(build(aged), Err(PolicyBuildError::NoExpectation));
    let model = Expectations::new().model_hash(Digest([1; 32]).into());
    assert_eq!(build(model.clone()), Err(PolicyBuildError::ModelHashAlone));
    assert_eq!(build(model.allow_debug(true)), Ok(()));
}

#[test]
fn a_refusal_names_all_checks_with_both_values() {
    let wrong = Expectations::new().enclave_hash(Digest([0; 32]).into()).model_hash(Digest([0; 32]).into());
    let genuine = Document::parse(&document()).unwrap().verify(Some(&NONCE), NOW).unwrap();
    let err = genuine.appraise(&policy(wrong), NOW).unwrap_err();
    let failed: Vec<_> = err.verdict.failed().map(|check| check.name).collect();
    assert_eq!(failed, ["tee", "enclave hash", "debug", "model hash"]);
    let check = err.verdict.check("enclave hash").unwrap();
    assert_eq!((&*check.expected, &*check.found), (&*"00".repeat(32), &*MEASUREMENT.to_string()));
    assert_eq!(err.verdict.check("report data").unwrap().outcome, Outcome::Passed);
    assert!(err.to_string().contains("model hash: expected 0000"), "{err}");
}

#[test]
fn server_text_cannot_disturb_the_table() {
    let mut claims = Claims::example(NOW);
    claims.protocol = format!("\u{1b}[2Jconfonnx/1\n{}", "x".repeat(1000));
    let genuine = Document::parse(&document_of(&claims, b"k")).unwrap().verify(Some(&NONCE), NOW).unwrap();
    let err = genuine.appraise(&policy(allow_debug()), NOW).unwrap_err();
    let found = &err.verdict.check("protocol").unwrap().found;
    assert!(found.starts_with("?[2Jconfonnx/1?xxx") && found.chars().count() == 65, "{found}");
}

#[test]
fn signing_keys_are_pem() {
    let pem = |body: &str| format!("-----BEGIN PUBLIC KEY-----\r\n{body}\r\n-----END PUBLIC KEY-----\r\n");
    let key = SigningKey::from_pem(&pem("AAEC\r\nAwQF")).unwrap();
    assert_eq!(key, SigningKey::from_pem(&pem("AAECAwQF")).unwrap());
    assert_ne!(key, SigningKey::from_pem(&pem("AAECAwQG")).unwrap());
    for (text, error) in [
        (String::new(), SigningKeyError::NoPublicKey),
        (pem(""), SigningKeyError::NoPublicKey),
        ("-----BEGIN PUBLIC KEY-----\nAAEC".into(), SigningKeyError::NoPublicKey),
        (pem("A*EC"), SigningKeyError::Base64),
    ] {
        assert_eq!(SigningKey::from_pem(&text), Err(error), "{text}");
    }
}

#[test]
fn the_policy_on_clients_can_be_pinned() {
    let mut claims = Claims::example(NOW);
    let check = |claims: &Claims, accepted: u8| {
        let expected = allow_debug().client_auth(Digest([accepted; 32]));
        let genuine = Document::parse(&document_of(claims, b"k")).unwrap().verify(Some(&NONCE), NOW).unwrap();
        genuine
            .appraise(&policy(expected), NOW)
            .map(|trusted| trusted.verdict().clone())
            .map_err(|err| err.verdict)
    };
    let refused = check(&claims, 7).unwrap_err();
    assert_eq!(refused.failed().map(|check| check.name).collect::<Vec<_>>(), ["client auth"]);
    claims.client_auth.policy_sha256 = Some(Digest([7; 32]));
    claims.client_auth.kind = "bearer".into();
    let passed = check(&claims, 7).unwrap();
    assert_eq!(passed.check("client auth").unwrap().found, format!("bearer, policy {}", "07".repeat(32)));
    check(&claims, 8).unwrap_err();
}
