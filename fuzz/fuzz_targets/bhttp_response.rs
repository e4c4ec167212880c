#![no_main]

use confonnx_protocol::bhttp::{decode_response, encode_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Ok((head, body)) = decode_response(message) {
        let body = body.bytes(message);
        let mut again = Vec::new();
        encode_response(&head, &[body], &mut again).expect("what decodes encodes");
        let (same_head, same_body) = decode_response(&again).expect("what encodes decodes");
        assert!(same_head == head && same_body.bytes(&again) == body);
    }
});
