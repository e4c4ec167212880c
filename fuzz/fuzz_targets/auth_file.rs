#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(error) = confonnx_server::auth::parse(text) {
        // Every error has a text.
        assert!(!error.to_string().is_empty());
    }
});
