#![no_main]

use confonnx_protocol::oip::InferRequest;
use libfuzzer_sys::fuzz_target;

// The first two bytes say how many of the others are JSON; 0 says all of them, without a binary part.
fuzz_target!(|input: &[u8]| {
    let Some((len, body)) = input.split_first_chunk() else { return };
    let header_len = Some(usize::from(u16::from_be_bytes(*len))).filter(|&len| len > 0);
    if let Ok(request) = InferRequest::decode(body, header_len) {
        let encoded = request.encode().expect("what decodes encodes");
        let again = encoded.parts().concat();
        let same = InferRequest::decode(&again, encoded.json_len()).expect("what encodes decodes");
        assert!(same == request);
    }
});
