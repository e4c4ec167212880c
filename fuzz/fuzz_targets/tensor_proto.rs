#![no_main]

use confonnx_model::{read_tensor_proto, write_tensor_proto};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    if let Ok((name, tensor)) = read_tensor_proto(file) {
        let again = write_tensor_proto(&name, &tensor);
        assert!(read_tensor_proto(&again).expect("what is written reads") == (name, tensor));
    }
});
