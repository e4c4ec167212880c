//! Every vector of this checkout, with the library for cryptography that the build has.

#![allow(clippy::restriction, reason = "a test may panic")]

use confonnx_vectors::{collect, run};

#[test]
fn every_case_ends_as_it_says() {
    let cases = collect().unwrap();
    let count = |suite: &str| cases.iter().filter(|case| case.suite == suite).count();
    for (suite, at_least) in [
        ("sealing", 76),
        ("session", 28),
        ("attestation", 40),
        ("called", 12),
        ("exchange", 1),
        ("proofs", 3),
        ("release-log", 16),
    ] {
        assert!(count(suite) >= at_least, "{} cases of {suite}", count(suite));
    }
    for found in cases.into_iter().map(run) {
        assert!(found.is_expected(), "{found:?}");
    }
}

#[test]
fn what_is_not_as_expected_is_found() {
    let mut case = collect().unwrap().into_iter().find(|case| case.suite == "exchange").unwrap();
    let sealed = case.case["reply"]["sealed"].as_str().unwrap().to_owned();
    let flipped = if sealed.ends_with('0') { "1" } else { "0" };
    case.case["reply"]["sealed"] = format!("{}{flipped}", &sealed[..sealed.len() - 1]).into();
    let found = run(case);
    assert!(!found.is_expected());
    assert_eq!(found.found, "no answer");
}
