#![no_main]

use confonnx_protocol::bhttp::{decode_request, encode_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Ok((head, body)) = decode_request(message) {
        let body = body.bytes(message);
        let mut again = Vec::new();
        encode_request(&head, &[body], &mut again).expect("what decodes encodes");
        let (same_head, same_body) = decode_request(&again).expect("what encodes decodes");
        assert!(same_head == head && same_body.bytes(&again) == body);
    }
});
