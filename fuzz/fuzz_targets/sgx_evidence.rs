//! The input is a quote, or collateral for a known quote: the first byte says which.
#![no_main]

use confonnx_attest::{Document, Evidence, UnixTime};
use libfuzzer_sys::fuzz_target;
use serde_json::Map;

const QUOTE: &[u8] = include_bytes!("../../vectors/evidence/sgx/sgx_quote");
/// 2025-06-19T11:56:11Z, when the known quote's collateral is valid.
const THEN: UnixTime = UnixTime(1_750_334_171);

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let parsed = match kind {
        b'q' => Evidence::parse("sgx", bytes, &Map::new()),
        _ => {
            let Ok(collateral) = serde_json::from_slice(bytes) else { return };
            Evidence::parse("sgx", QUOTE, &Map::from_iter([("collateral".to_owned(), collateral)]))
        }
    };
    let Ok(evidence) = parsed else { return };
    let _ = evidence.collateral_requests();
    let document = Document::new(Vec::new(), Vec::new(), evidence, [0; 32], None);
    let again = Document::parse(&document.to_json()).expect("what is written can be read");
    assert!(again == document);
    assert!(document.verify(None, THEN).is_err(), "nothing is bound to this document");
});
