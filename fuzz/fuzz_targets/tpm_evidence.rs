#![no_main]

use confonnx_attest::tpm::{AkPublic, Quote};
use confonnx_attest::{Document, Evidence, UnixTime};
use libfuzzer_sys::fuzz_target;
use serde_json::Map;

// The input is a report; or a key's description; or the length of a quote in two bytes, the quote, its signature.
fuzz_target!(|input: &[u8]| {
    if let Ok(evidence) = Evidence::parse("tpm", input, &Map::new()) {
        let document = Document::new(Vec::new(), Vec::new(), evidence, [0; 32], None);
        let again = Document::parse(&document.to_json()).expect("what was read can be written");
        assert!(again == document);
        let _ = document.verify(None, UnixTime(1_795_426_200));
    }
    if let Ok(ak) = AkPublic::from_tpmt(input) {
        assert_eq!(ak.tpmt(), Some(input));
    }
    let Some((len, rest)) = input.split_first_chunk() else { return };
    let Some((message, signature)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))) else { return };
    if let Ok(quote) = Quote::parse(message, signature) {
        assert_eq!((quote.message(), quote.signature()), (message, signature));
    }
});
