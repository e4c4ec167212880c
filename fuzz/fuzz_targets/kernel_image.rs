#![no_main]

use confonnx_attest::measure::uki;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = uki(input);
});
