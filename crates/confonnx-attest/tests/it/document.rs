use confonnx_attest::{Document, DocumentError, MAX_DOCUMENT_BYTES, UnixTime};
use proptest::prelude::*;
use serde_json::Value;

use crate::{NONCE, NOW, allow_debug, document, policy};

#[test]
fn a_good_document_is_trusted_and_says_what_was_checked() {
    let trusted = Document::parse(&document())
        .unwrap()
        .verify(Some(&NONCE), NOW)
        .unwrap()
        .appraise(&policy(allow_debug()), NOW)
        .unwrap();
    assert_eq!(trusted.key_configs(), b"key configs");
    assert_eq!(trusted.claims().models[0].name, "digits");
    let names: Vec<_> = trusted.verdict().checks.iter().map(|check| check.name).collect();
    let expected = [
        "signature",
        "report data",
        "nonce",
        "claims",
        "tee",
        "enclave hash",
        "enclave signer",
        "debug",
        "model hash",
        "client auth",
        "build",
        "runtime",
        "key lifetime",
        "resumption lifetime",
        "model owner",
        "engine",
        "batching",
        "audit log",
        "request metrics",
        "model control",
        "keys",
        "key source",
        "age",
        "protocol",
    ];
    assert_eq!(names, expected);
}

#[test]
fn documents_round_trip() {
    let parsed = Document::parse(&document()).unwrap();
    assert_eq!(parsed.to_json(), document());
}

/// The stand-in's endorsements stand for what a vendor states: before, it is not genuine, and after, nobody knows.
#[test]
fn the_stand_in_may_have_a_vendors_word_that_ends() {
    let valid = |validity: Value| {
        let mut document: Value = serde_json::from_slice(&document()).unwrap();
        document["evidence"]["endorsements"]["validity"] = validity;
        Document::parse(&serde_json::to_vec(&document).unwrap())
    };
    let word = serde_json::json!([NOW.0 - 10, NOW.0 + 10]);
    let (parsed, again) = (valid(word.clone()).unwrap(), valid(word).unwrap());
    assert_eq!(Document::parse(&parsed.to_json()).unwrap(), parsed);
    let judged = |at: u64| parsed.verify(Some(&NONCE), UnixTime(at));
    let outcome = |at: u64| judged(at).err().map(|err| err.verdict.is_undecided());
    assert_eq!(again.verify(Some(&NONCE), NOW).unwrap().stated_at(), Some(UnixTime(NOW.0 - 10)));
    assert_eq!(
        [-11, -10, 10, 11].map(|s| outcome(NOW.0.saturating_add_signed(s))),
        [Some(false), None, None, Some(true)]
    );
    for wrong in [serde_json::json!(5), serde_json::json!([5]), serde_json::json!([5, "6"])] {
        let error = valid(wrong).unwrap_err().to_string();
        assert!(error.contains("endorsements.validity: expected two times in Unix seconds"), "{error}");
    }
}

#[test]
fn limits_come_before_parsing() {
    let mut long = document();
    long.resize(MAX_DOCUMENT_BYTES + 1, b' ');
    assert!(matches!(Document::parse(&long), Err(DocumentError::TooLong { found }) if found == long.len()));
    long.pop();
    assert!(Document::parse(&long).is_ok());
    let deep = "[".repeat(MAX_DOCUMENT_BYTES);
    assert!(matches!(Document::parse(deep.as_bytes()), Err(DocumentError::Json(_))));
}

#[test]
fn no_flipped_bit_changes_what_is_trusted() {
    let good = document();
    let original: Value = serde_json::from_slice(&good).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let Ok(parsed) = Document::parse(&bad) else { continue };
            let Ok(genuine) = parsed.verify(Some(&NONCE), NOW) else { continue };
            let Ok(trusted) = genuine.appraise(&policy(allow_debug()), NOW) else { continue };
            // Some bits matter to nobody (the warning, the self-reported measurement, a member's name); none of them
            // may change the keys or the claims.
            assert_eq!(trusted.key_configs(), b"key configs", "byte {at} bit {bit}");
            let wire: Value = serde_json::from_slice(&bad).unwrap();
            assert_eq!(wire["claims"], original["claims"], "byte {at} bit {bit}");
        }
    }
}

#[test]
fn hex_has_one_form() {
    let mut wire: Value = serde_json::from_slice(&document()).unwrap();
    wire["freshness"]["root"] = wire["freshness"]["root"].as_str().unwrap().to_uppercase().into();
    let error = Document::parse(wire.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("freshness.root: expected hex digits in lower case"), "{error}");
}

#[test]
fn no_truncation_parses() {
    let good = document();
    for len in 0..good.len() {
        assert!(Document::parse(&good[..len]).is_err(), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Document::parse(&bytes);
    }

    #[test]
    fn nobody_elses_nonce_verifies(nonce in any::<[u8; 32]>()) {
        let parsed = Document::parse(&document()).unwrap();
        prop_assume!(nonce != NONCE.0);
        let err = parsed.verify(Some(&confonnx_attest::Nonce(nonce)), NOW).unwrap_err();
        prop_assert_eq!(err.verdict.failed().map(|check| check.name).collect::<Vec<_>>(), ["nonce"]);
    }
}
