#![no_main]

use confonnx_attest::{Document, Evidence, UnixTime};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_748_736_000);

fuzz_target!(|report: &[u8]| {
    let Ok(evidence) = Evidence::parse("azure", report, &Default::default()) else { return };
    let document = Document::new(Vec::new(), b"{}".to_vec(), evidence, [0; 32], None);
    let again = Document::parse(&document.to_json()).expect("what is written can be read");
    assert!(again == document);
    let refused = document.verify(None, NOW).expect_err("no processor vouches for it");
    // The check of the claims fails, for `{}` has none; another one has to fail, too.
    assert!(refused.verdict.failed().count() > 1);
});
