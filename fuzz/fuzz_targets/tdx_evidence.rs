//! The input is a quote, or collateral and event log for a known quote: the first byte says which.
#![no_main]

use confonnx_attest::{Document, Evidence, UnixTime};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const QUOTE: &[u8] = include_bytes!("../../vectors/evidence/tdx/tdx_quote");
/// 2025-06-19T11:32:27Z, when the known quote's collateral is valid.
const THEN: UnixTime = UnixTime(1_750_332_747);

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let endorsement = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
    let parsed = match kind {
        b'q' => Evidence::parse("tdx", bytes, &Map::new()),
        b'c' => {
            let Ok(collateral) = serde_json::from_slice(bytes) else { return };
            Evidence::parse("tdx", QUOTE, &endorsement("collateral", collateral))
        }
        _ => {
            use base64ct::{Base64UrlUnpadded, Encoding};
            let log = Base64UrlUnpadded::encode_string(bytes);
            Evidence::parse("tdx", QUOTE, &endorsement("event_log", log.into()))
        }
    };
    let Ok(evidence) = parsed else { return };
    let _ = evidence.collateral_requests();
    let document = Document::new(Vec::new(), Vec::new(), evidence, [0; 32], None);
    let again = Document::parse(&document.to_json()).expect("what is written can be read");
    assert!(again == document);
    assert!(document.verify(None, THEN).is_err(), "nothing is bound to this document");
});
