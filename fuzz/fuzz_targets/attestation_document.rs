#![no_main]

use confonnx_attest::{Document, Expectations, Nonce, Policy, UnixTime};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_795_426_200);

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::parse(bytes) else { return };
    let again = Document::parse(&document.to_json()).expect("what is written can be read");
    assert!(again == document);
    let policy = Policy::new(Expectations::new().allow_debug(true)).expect("debug is allowed");
    for nonce in [None, Some(&Nonce([5; 32]))] {
        if let Ok(genuine) = document.verify(nonce, NOW) {
            let _ = genuine.appraise(&policy, NOW);
        }
    }
});
