#![no_main]

use confonnx_attest::{Document, Evidence, UnixTime};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_695_049_410);

fuzz_target!(|report: &[u8]| {
    let Ok(evidence) = Evidence::parse("nitro", report, &Default::default()) else { return };
    let document = Document::new(Vec::new(), b"{}".to_vec(), evidence, [0; 32], None);
    let refused = document.verify(None, NOW).expect_err("nobody but AWS makes genuine documents");
    // The check of the claims fails, for there are none; another one has to fail, too.
    assert!(refused.verdict.failed().count() > 1);
});
