#![no_main]

use confonnx_model::ModelInfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|onnx: &[u8]| {
    if let Ok(info) = ModelInfo::parse(onnx) {
        for location in info.external_data {
            let joined = std::path::Path::new("/models").join(&location);
            assert!(joined.starts_with("/models") && joined.components().all(|c| c.as_os_str() != ".."));
        }
    }
});
