#![no_main]

use std::sync::LazyLock;

use confonnx_protocol::key_service::{
    AkvKey, KbsKey, key_vault as akv,
    trustee::{self as kbs, Challenge, Resource},
};
use getrandom::{SysRng, rand_core::UnwrapErr};
use libfuzzer_sys::fuzz_target;

static KBS: LazyLock<KbsKey> = LazyLock::new(|| KbsKey::generate(&mut UnwrapErr(SysRng)).expect("a key"));
static AKV: LazyLock<AkvKey> = LazyLock::new(|| AkvKey::generate().expect("a key"));

fuzz_target!(|answer: &[u8]| {
    // Nobody can make an answer that opens with a key that is new in each run.
    assert!(KBS.open(answer).is_err());
    assert!(AKV.open(answer).is_err());
    if let Ok(challenge) = Challenge::parse(answer) {
        let data = challenge.runtime_data(&KBS);
        assert!(serde_json::from_slice::<serde_json::Value>(&data).is_ok());
    }
    for text in [kbs::problem(answer), akv::problem(answer)] {
        assert!(text.chars().count() <= 201 && !text.contains(char::is_control));
    }
    let _ = (kbs::token(answer), akv::access_token(answer));
    if let Ok(text) = std::str::from_utf8(answer) {
        assert!(text.parse::<Resource>().is_err() || text.split('/').count() == 3);
    }
});
