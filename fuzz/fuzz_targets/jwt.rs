#![no_main]

use std::sync::LazyLock;

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::UnixTime;
use confonnx_server::auth::{
    jwks::KeySet,
    jwt::{Expected, verify},
};
use jsonwebtoken::Algorithm;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::parse(include_bytes!("../../vectors/jwt/keys.json")).expect("a set"));
static EXPECTED: LazyLock<Expected> = LazyLock::new(|| Expected {
    issuer: "https://issuer.example/realms/lab".into(),
    audiences: vec!["confonnx".into()],
    algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
    types: vec!["jwt".into(), "at+jwt".into()],
    leeway: 60,
});

// The input is a token; or, after a zero byte, a token's parts before base64url; or, after a one, a set of keys.
fuzz_target!(|input: &[u8]| {
    let at = UnixTime(1_800_000_000);
    match input {
        [0, parts @ ..] => {
            let encoded: Vec<_> = parts.split(|byte| *byte == 0).map(Base64UrlUnpadded::encode_string).collect();
            let _ = verify(encoded.join(".").as_bytes(), &KEYS, &EXPECTED, at);
        }
        [1, set @ ..] => {
            if let Ok(keys) = KeySet::parse(set) {
                let _ = verify(include_str!("../seeds/jwt/good").as_bytes(), &keys, &EXPECTED, at);
            }
        }
        token => {
            let _ = verify(token, &KEYS, &EXPECTED, at);
        }
    }
});
