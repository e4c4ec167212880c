//! JWEs that the Python package `jwcrypto` made: `vectors/release`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::key_service::encode;

struct Vectors {
    key: KbsKey,
    jwe: Value,
}

fn vectors() -> Vectors {
    let file = include_str!("../../../../../vectors/release/kbs-jwe/jwcrypto.json");
    let file: Value = serde_json::from_str(file).unwrap();
    let d: [u8; 32] = decode(file["d"].as_str().unwrap()).unwrap()[..].try_into().unwrap();
    Vectors { key: KbsKey::from_bytes(&d).unwrap(), jwe: file["jwe"].clone() }
}

impl Vectors {
    fn open(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, JweError> {
        self.open_changed(name, |_| {})
    }

    fn open_changed(
        &self,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<Zeroizing<Vec<u8>>, JweError> {
        let mut jwe = self.jwe[name].clone();
        assert!(jwe.is_object(), "{name}");
        change(&mut jwe);
        self.key.open(jwe.to_string().as_bytes())
    }
}

/// `name` with its protected header changed, which then no longer authenticates.
fn with_header(change: impl FnOnce(&mut Value)) -> impl FnOnce(&mut Value) {
    move |jwe| {
        let mut header: Value =
            serde_json::from_slice(&decode(jwe["protected"].as_str().unwrap()).unwrap()).unwrap();
        change(&mut header);
        jwe["protected"] = encode(header.to_string().as_bytes()).into();
    }
}

#[test]
fn what_another_implementation_made_opens() {
    let vectors = vectors();
    for (name, expected) in
        [("plain", "attack at dawn"), ("party", "with party info"), ("aad", "with aad"), ("empty", "")]
    {
        assert_eq!(vectors.open(name).unwrap().as_slice(), expected.as_bytes(), "{name}");
    }
}

#[test]
fn other_algorithms_are_named() {
    let vectors = vectors();
    for (name, member, found) in [
        ("a128kw", "alg", "ECDH-ES+A128KW"),
        ("direct", "alg", "ECDH-ES"),
        ("rsa", "alg", "RSA-OAEP-256"),
        ("cbc", "enc", "A256CBC-HS512"),
        ("p521", "crv", "P-521"),
    ] {
        let error = vectors.open(name).unwrap_err().to_string();
        assert!(error.contains(&format!("`{member}` is `{found}`")), "{name}: {error}");
    }
    assert!(matches!(vectors.open("zip"), Err(JweError::Unsupported("zip"))));
    let crit = vectors.open_changed("plain", with_header(|header| header["crit"] = json!(["b64"])));
    assert!(matches!(crit, Err(JweError::Unsupported("crit"))));
    let missing = vectors.open_changed("plain", with_header(|header| header["epk"] = Value::Null));
    assert!(matches!(missing, Err(JweError::Missing("epk"))));
}

#[test]
fn nothing_else_opens() {
    let vectors = vectors();
    assert!(matches!(vectors.open("other"), Err(JweError::Open)));
    for member in ["encrypted_key", "iv", "ciphertext", "tag"] {
        let flipped = vectors.open_changed("plain", |jwe| {
            let mut bytes = decode(jwe[member].as_str().unwrap()).unwrap();
            bytes[0] ^= 1;
            jwe[member] = encode(&bytes).into();
        });
        assert!(matches!(flipped, Err(JweError::Open)), "{member}");
        let short = vectors.open_changed("plain", |jwe| {
            let bytes = decode(jwe[member].as_str().unwrap()).unwrap();
            jwe[member] = encode(&bytes[1..]).into();
        });
        assert!(matches!(short, Err(JweError::Open)), "{member}");
        let text = vectors.open_changed("plain", |jwe| jwe[member] = "a+b/".into());
        assert!(matches!(text, Err(JweError::Base64(found)) if found == member), "{member}");
        let absent = vectors.open_changed("plain", |jwe| drop(jwe.as_object_mut().unwrap().remove(member)));
        assert!(matches!(absent, Err(JweError::Json(_))), "{member}");
    }
    // The header is authenticated, even where a change makes no other difference.
    let header = vectors.open_changed("plain", with_header(|header| header["note"] = "x".into()));
    assert!(matches!(header, Err(JweError::Open)));
    let aad = vectors.open_changed("plain", |jwe| jwe["aad"] = "bW9yZQ".into());
    assert!(matches!(aad, Err(JweError::Open)));
    let point =
        vectors.open_changed("plain", with_header(|header| header["epk"]["y"] = header["epk"]["x"].clone()));
    assert!(matches!(point, Err(JweError::Open)));
    for garbage in ["", "{}", "null", "\"a.b.c.d.e\""] {
        assert!(matches!(vectors.key.open(garbage.as_bytes()), Err(JweError::Json(_))), "{garbage}");
    }
}

#[test]
fn debug_shows_no_private_key() {
    let shown = format!("{:?}", vectors().key);
    assert!(shown.starts_with("KbsKey { x: ") && !shown.contains("private"), "{shown}");
}

proptest! {
    #[test]
    fn whatever_comes_is_refused(header: String, members: [Vec<u8>; 4], raw: Vec<u8>) {
        let key = vectors().key;
        prop_assert!(key.open(&raw).is_err());
        let [encrypted_key, iv, ciphertext, tag] = members.map(|bytes| encode(&bytes));
        let protected = encode(header.as_bytes());
        let jwe = json!({
            "protected": protected, "encrypted_key": encrypted_key, "iv": iv, "ciphertext": ciphertext, "tag": tag,
        });
        prop_assert!(key.open(jwe.to_string().as_bytes()).is_err());
    }
}
