#![no_main]

use confonnx_model::encrypted::Unpacker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plaintext: &[u8]| {
    let unpack = |piece: usize| {
        let mut unpacker = Unpacker::new(plaintext.len());
        plaintext.chunks(piece).try_for_each(|piece| unpacker.push(piece))?;
        unpacker.finish()
    };
    let (whole, pieces) = (unpack(plaintext.len().max(1)), unpack(7));
    match (whole, pieces) {
        (Ok((onnx, files)), Ok((same, others))) => {
            assert!(*onnx == *same && files.len() == others.len());
            let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(onnx.len() + total <= plaintext.len());
            for (name, _) in files {
                let joined = std::path::Path::new("/models").join(&name);
                assert!(joined.starts_with("/models") && joined.components().all(|c| c.as_os_str() != ".."));
            }
        }
        (Err(_), Err(_)) => {}
        _ => panic!("how the bytes are split made a difference"),
    }
});
