//! Flaws of the 2020 design that attestation has to prevent, each by its number in the design.

use confonnx_attest::{Claims, Document, Expectations, Nonce, Policy};

use crate::{MEASUREMENT, NONCE, NOW, allow_debug, document, document_of, policy};

fn failed(document: &[u8], nonce: &Nonce) -> Vec<&'static str> {
    let err = Document::parse(document).unwrap().verify(Some(nonce), NOW).unwrap_err();
    err.verdict.failed().map(|check| check.name).collect()
}

/// The document `to` with its member `member` replaced by the one of `from`.
fn graft(from: &[u8], to: &[u8], member: &str) -> Vec<u8> {
    let from: serde_json::Value = serde_json::from_slice(from).unwrap();
    let mut to: serde_json::Value = serde_json::from_slice(to).unwrap();
    to[member] = from[member].clone();
    to.to_string().into_bytes()
}

#[test]
fn flaw_4_freshness_is_signed_by_the_evidence_itself() {
    // A new root and its proof, put into a document with old evidence: the evidence covers the old root.
    let later = Nonce([9; 32]);
    let tree = confonnx_attest::merkle::Tree::new(vec![later]).unwrap();
    let fresh = Document::parse(&document()).unwrap();
    let mut wire: serde_json::Value = serde_json::from_slice(&fresh.to_json()).unwrap();
    let root: String = tree.root().iter().map(|byte| format!("{byte:02x}")).collect();
    wire["freshness"] =
        serde_json::json!({ "root": root, "proof": { "leaf_index": 0, "tree_size": 1, "path": [] } });
    assert_eq!(failed(wire.to_string().as_bytes(), &later), ["report data"]);
}

#[test]
fn flaw_5_the_key_source_is_attested() {
    let mut claims = Claims::example(NOW);
    claims.key_source.kind = "anything the host likes".into();
    let other = document_of(&claims, b"key configs");
    assert_eq!(failed(&graft(&other, &document(), "claims"), &NONCE), ["report data"]);
}

#[test]
fn flaw_6_measurement_and_debug_are_checked_beside_the_signer() {
    let appraise = |expected: Expectations| {
        let genuine = Document::parse(&document()).unwrap().verify(Some(&NONCE), NOW).unwrap();
        genuine.appraise(&policy(expected), NOW)
    };
    let right_program = Expectations::new().enclave_hash(MEASUREMENT.into());
    let err = appraise(right_program.clone()).unwrap_err();
    assert!(err.verdict.failed().any(|check| check.name == "debug"), "{}", err.verdict);
    assert!(appraise(right_program.allow_debug(true)).is_ok());
}

#[test]
fn flaw_7_key_validity_is_attested() {
    let mut claims = Claims::example(NOW);
    claims.keys[0].accepted_until.0 += 1;
    let other = document_of(&claims, b"key configs");
    assert_eq!(failed(&graft(&other, &document(), "claims"), &NONCE), ["report data"]);
    let other = document_of(&Claims::example(NOW), b"other configs");
    assert_eq!(failed(&graft(&other, &document(), "key_configs"), &NONCE), ["report data"]);
}

#[test]
fn flaw_12_missing_evidence_or_expectation_is_an_error() {
    for member in ["evidence", "freshness", "claims", "key_configs"] {
        let mut wire: serde_json::Value = serde_json::from_slice(&document()).unwrap();
        wire.as_object_mut().unwrap().remove(member);
        assert!(Document::parse(wire.to_string().as_bytes()).is_err(), "{member}");
    }
    assert!(Policy::new(Expectations::default()).is_err());
    // Without a nonce asked for, none is proved: the policy refuses the document unless it allows an age.
    let genuine = Document::parse(&document()).unwrap().verify(None, NOW).unwrap();
    assert!(genuine.appraise(&policy(allow_debug()), NOW).is_err());
}
