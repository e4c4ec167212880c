#![no_main]

use confonnx_protocol::KeyConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|list: &[u8]| {
    if let Ok(configs) = KeyConfig::parse_list(list) {
        let again = KeyConfig::encode_list(&configs);
        assert!(KeyConfig::parse_list(&again).expect("what encodes decodes") == configs);
    }
});
