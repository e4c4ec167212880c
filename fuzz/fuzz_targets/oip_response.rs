#![no_main]

use confonnx_protocol::oip::InferResponse;
use libfuzzer_sys::fuzz_target;

// The first two bytes say how many of the others are JSON; 0 says all of them, without a binary part.
fuzz_target!(|input: &[u8]| {
    let Some((len, body)) = input.split_first_chunk() else { return };
    let header_len = Some(usize::from(u16::from_be_bytes(*len))).filter(|&len| len > 0);
    if let Ok(response) = InferResponse::decode(body, header_len) {
        // Answers with NaN and the like have no JSON form.
        for binary in [true, false] {
            let Ok(encoded) = response.encode(|_| binary) else { continue };
            let again = encoded.parts().concat();
            let same = InferResponse::decode(&again, encoded.json_len()).expect("what encodes decodes");
            assert!(same == response);
        }
        assert!(response.encode(|_| true).is_ok());
    }
});
