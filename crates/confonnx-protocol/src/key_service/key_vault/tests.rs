//! Answers with keys that the Python package `cryptography` wrapped: `vectors/release`.

use base64ct::Base64UrlUnpadded;
use proptest::prelude::*;

use super::*;

struct Vectors {
    key: AkvKey,
    file: Value,
}

fn vectors() -> Vectors {
    let file = include_str!("../../../../../vectors/release/akv/cryptography.json");
    let file: Value = serde_json::from_str(file).unwrap();
    let private = decode(file["private"].as_str().unwrap()).unwrap();
    let key = AkvKey::new(PrivateDecryptingKey::from_pkcs8(&private).unwrap()).unwrap();
    Vectors { key, file }
}

impl Vectors {
    fn case(&self, name: &str) -> &Value {
        let case = &self.file["answers"][name];
        assert!(case.is_object(), "{name}");
        case
    }

    fn open(&self, name: &str) -> Result<Released, AkvError> {
        self.key.open(self.case(name)["answer"].to_string().as_bytes())
    }

    fn expected(&self, name: &str, member: &str) -> Zeroizing<Vec<u8>> {
        decode(self.case(name)[member].as_str().unwrap()).unwrap()
    }

    /// Opens `oct` with its payload changed.
    fn open_changed(&self, change: impl FnOnce(&mut Value)) -> Result<Released, AkvError> {
        let jws = self.case("oct")["answer"]["value"].as_str().unwrap();
        let [header, payload, signature] = jws.split('.').collect::<Vec<_>>()[..] else { panic!() };
        let mut payload: Value = serde_json::from_slice(&decode(payload).unwrap()).unwrap();
        change(&mut payload);
        let payload = encode(payload.to_string().as_bytes());
        self.key.open(json!({ "value": format!("{header}.{payload}.{signature}") }).to_string().as_bytes())
    }
}

#[test]
fn what_another_implementation_wrapped_unwraps() {
    let vectors = vectors();
    let Released::Bytes(bytes) = vectors.open("oct").unwrap() else { panic!() };
    assert_eq!(bytes.as_slice(), vectors.expected("oct", "octets").as_slice());
    for name in ["p256", "p384"] {
        let Released::Scalar(scalar) = vectors.open(name).unwrap() else { panic!("{name}") };
        assert_eq!(scalar.as_slice(), vectors.expected(name, "scalar").as_slice(), "{name}");
    }
    assert_eq!(format!("{bytes:?}"), "Erased");
}

#[test]
fn the_runtime_data_have_the_public_key() {
    let vectors = vectors();
    let data: Value = serde_json::from_slice(&vectors.key.runtime_data()).unwrap();
    let modulus = &vectors.file["modulus"];
    assert_eq!(
        data,
        json!({"keys": [{"e": "AQAB", "key_ops": ["encrypt"], "kid": "confonnx", "kty": "RSA", "n": modulus}]})
    );
    let (one, other) = (AkvKey::generate().unwrap(), AkvKey::generate().unwrap());
    assert_ne!(one.runtime_data(), other.runtime_data());
    assert!(!format!("{one:?}").contains("private"));
}

#[test]
fn what_is_not_usable_says_why() {
    let vectors = vectors();
    assert!(matches!(vectors.open("other-key"), Err(AkvError::Unwrap)));
    assert!(matches!(vectors.open("sha1-mislabelled"), Err(AkvError::Unwrap)));
    assert!(matches!(vectors.open("sha1"), Err(AkvError::Enc(found)) if found == "CKM_RSA_AES_KEY_WRAP"));
    assert!(matches!(vectors.open("rsa"), Err(AkvError::Kind(found)) if found == "RSA-HSM"));
    assert!(matches!(vectors.open("not-pkcs8"), Err(AkvError::Private)));
    let open = |text: &str| vectors.key.open(text.as_bytes()).unwrap_err();
    for garbage in ["", "{}", "[]", r#"{"value":1}"#] {
        assert!(matches!(open(garbage), AkvError::Json { part: "the vault's answer", .. }), "{garbage}");
    }
    for garbage in ["", "a", "e30.e30", "e30.e30.e30.e30", "e30.+.e30"] {
        assert!(matches!(open(&json!({ "value": garbage }).to_string()), AkvError::Jws), "{garbage}");
    }
    assert!(matches!(open(r#"{"value":"e30.e30.e30"}"#), AkvError::Json { .. }));
}

#[test]
fn a_changed_key_does_not_unwrap() {
    let vectors = vectors();
    assert!(vectors.open_changed(|_| {}).is_ok());
    let with_key_hsm = |text: String| {
        vectors
            .open_changed(|payload| payload["response"]["key"]["key"]["key_hsm"] = text.into())
            .unwrap_err()
    };
    assert!(matches!(with_key_hsm("+".into()), AkvError::Base64("key_hsm")));
    assert!(matches!(with_key_hsm(encode(b"{}")), AkvError::Json { part: "`key_hsm`", .. }));
    assert!(matches!(with_key_hsm(encode(br#"{"ciphertext":"+"}"#)), AkvError::Base64("ciphertext")));
    for len in [0, 1, 255, 256, 257, 264, 272, 296] {
        let ciphertext = encode(&vec![0x17; len]);
        let error = with_key_hsm(encode(json!({ "ciphertext": ciphertext }).to_string().as_bytes()));
        assert!(matches!(error, AkvError::Unwrap), "{len}: {error}");
    }
}

#[test]
fn a_key_name_is_one_path() {
    let path = |text: &str| text.parse::<KeyName>().map(|name| name.release_path());
    assert_eq!(path("root").unwrap(), "/keys/root/release?api-version=7.4");
    assert_eq!(path("root/0a1b").unwrap(), "/keys/root/0a1b/release?api-version=7.4");
    for bad in ["", "/", "a/", "/a", "a/b/c", "a?b", "a.b", "a b", ".."] {
        assert!(path(bad).is_err(), "{bad}");
    }
    assert_eq!("a/b".parse::<KeyName>().unwrap().to_string(), "a/b");
}

#[test]
fn small_answers() {
    assert_eq!(problem(br#"{"error":{"code":"Forbidden","message":"no\nway"}}"#), "Forbidden: no way");
    assert_eq!(problem(b"<html>"), "");
    assert_eq!(access_token(br#"{"access_token":"abc","expires_in":"1"}"#).unwrap().as_str(), "abc");
    assert!(access_token(br#"{"access_token":"a b"}"#).is_none());
    assert!(access_token(br#"{"access_token":""}"#).is_none());
    let asked: Value = serde_json::from_slice(&release("a.b.c")).unwrap();
    assert_eq!(asked, json!({ "enc": "RSA_AES_KEY_WRAP_256", "target": "a.b.c" }));
}

proptest! {
    #[test]
    fn whatever_comes_is_refused(raw: Vec<u8>, ciphertext: Vec<u8>, kty: String) {
        let vectors = vectors();
        prop_assert!(vectors.key.open(&raw).is_err());
        let key_hsm = encode(json!({ "ciphertext": encode(&ciphertext) }).to_string().as_bytes());
        let changed = vectors.open_changed(|payload| {
            payload["response"]["key"]["key"]["key_hsm"] = key_hsm.into();
            payload["response"]["key"]["key"]["kty"] = kty.into();
        });
        prop_assert!(changed.is_err());
    }
}

#[test]
fn a_token_opens_with_its_key_alone() {
    let sealed = |key: &[u8], text: &str| {
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        let mut bytes = text.as_bytes().to_vec();
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(b"Transport Key"), &mut bytes).unwrap();
        json!({
            "EncryptedInnerKey": Base64::encode_string(b"inner"),
            "EncryptionParams": { "Iv": Base64::encode_string(&[7; 12]), "Cipher": "AES" },
            "AuthenticationData": Base64::encode_string(tag.as_ref()),
            "Jwt": Base64::encode_string(&bytes),
        })
    };
    let parse = |token: &Value| {
        let token = Base64UrlUnpadded::encode_string(token.to_string().as_bytes());
        let padding = "=".repeat((4 - token.len() % 4) % 4);
        SealedToken::parse(json!({ "token": token + &padding }).to_string().as_bytes())
    };
    for key in [&[1; 16][..], &[1; 32]] {
        let token = parse(&sealed(key, "a.b.c")).unwrap();
        assert_eq!(token.encrypted_key(), b"inner");
        assert_eq!(token.open(key).as_deref(), Some("a.b.c"));
        let again = || parse(&sealed(key, "a.b.c")).unwrap();
        assert_eq!(again().open(&[2; 32]), None, "another key");
        assert_eq!(again().open(&key[1..]), None, "no key");
    }
    assert_eq!(parse(&sealed(&[1; 32], "a token\r\nx: y")).unwrap().open(&[1; 32]), None, "no token");
    let good = sealed(&[1; 32], "a.b.c");
    for (member, bad) in [
        ("EncryptedInnerKey", json!("*")),
        ("EncryptionParams", json!({ "Iv": Base64::encode_string(&[7; 11]) })),
        ("EncryptionParams", json!([Base64::encode_string(&[7; 12])])),
        ("AuthenticationData", json!(Base64::encode_string(&[7; 15]))),
        ("Jwt", json!(7)),
    ] {
        let mut bad_token = good.clone();
        bad_token[member] = bad;
        assert!(parse(&bad_token).is_none(), "{member}");
    }
    assert!(SealedToken::parse(br#"{"token": "a.b.c"}"#).is_none(), "one that is not encrypted");
}
