#![no_main]

use confonnx_attest::azure::HclReport;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = HclReport::parse(bytes) {
        // What is written again is what the bytes start with; nothing but zeros is left out.
        let padded = [bytes, &[0; 64]].concat();
        assert!(HclReport::parse(&padded).is_ok_and(|again| again == report));
    }
});
