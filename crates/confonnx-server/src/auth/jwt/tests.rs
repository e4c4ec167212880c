use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;

#[derive(Deserialize)]
struct Case {
    name: String,
    token: String,
    at: u64,
    keys: String,
    algorithms: Vec<Algorithm>,
    expected: String,
}

fn vectors() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/jwt")
}

fn keys(name: &str) -> KeySet {
    KeySet::parse(&fs::read(vectors().join(format!("{name}.json"))).unwrap()).unwrap()
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&fs::read(vectors().join("cases.json")).unwrap()).unwrap()
}

fn expected(algorithms: Vec<Algorithm>) -> Expected {
    Expected {
        issuer: "https://issuer.example/realms/lab".into(),
        audiences: vec!["confonnx".into()],
        algorithms,
        types: vec!["jwt".into(), "at+jwt".into()],
        leeway: 60,
    }
}

/// The word that the vectors have for the error.
fn word(error: &JwtError) -> String {
    match error {
        JwtError::TooLong { .. } => "too-long",
        JwtError::Malformed(_) => "malformed",
        JwtError::Algorithm { .. } => "algorithm",
        JwtError::Type { .. } => "type",
        JwtError::Critical => "critical",
        JwtError::NoKeyId(_) => "no-key-id",
        JwtError::UnknownKey(_) => "unknown-key",
        JwtError::Signature => "signature",
        JwtError::Claim(claim) => return format!("claim {claim}"),
        JwtError::Issuer { .. } => "issuer",
        JwtError::Audience { .. } => "audience",
        JwtError::Expired { .. } => "expired",
        JwtError::NotYet { .. } => "not-yet",
        JwtError::Name(_) => "name",
    }
    .into()
}

#[test]
fn tokens_of_another_implementation_are_judged_as_it_says() {
    let cases = cases();
    assert!(cases.len() > 70);
    let mut wrong = Vec::new();
    for case in cases {
        let expected = expected(case.algorithms);
        let found = verify(case.token.as_bytes(), &keys(&case.keys), &expected, UnixTime(case.at));
        let found = found.map_or_else(|error| word(&error), |_| "ok".into());
        if found != case.expected {
            wrong.push(format!("{}: expected {}, found {found}", case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_values_of_claims() {
    let json = serde_json::json!({
        "sub": "ada", "groups": ["lab", 7, {"no": 1}, true], "scope": "infer  manage", "number": 3, "yes": true, "null": null,
        "realm_access": {"roles": ["ml"]}, "https://x.example/groups": ["dotted"], "name": "two words",
    });
    let Value::Object(map) = json else { panic!() };
    let claims = Claims(map);
    for (name, values) in [
        ("sub", &["ada"][..]),
        ("groups", &["lab", "7", "true"]),
        ("scope", &["infer", "manage"]),
        ("number", &["3"]),
        ("yes", &["true"]),
        ("null", &[]),
        ("realm_access.roles", &["ml"]),
        ("realm_access", &[]),
        ("realm_access.roles.ml", &[]),
        ("https://x.example/groups", &["dotted"]),
        ("name", &["two words"]),
        ("absent", &[]),
        ("", &[]),
    ] {
        assert_eq!(claims.values(name), values, "{name}");
    }
}

#[test]
fn no_error_quotes_a_token() {
    for case in cases() {
        let expected = expected(case.algorithms);
        if let Err(error) = verify(case.token.as_bytes(), &keys(&case.keys), &expected, UnixTime(case.at)) {
            let text = format!("{error} {error:?}");
            for part in case.token.split('.').filter(|part| part.len() > 20) {
                assert!(!text.contains(&part[..20]), "{}: {text}", case.name);
            }
            assert!(text.len() < 1000, "{}: {text}", case.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_judged(token in proptest::collection::vec(any::<u8>(), 0..200), now in any::<u64>()) {
        verify(&token, &keys("keys-one"), &expected(vec![Algorithm::RS256]), UnixTime(now)).unwrap_err();
    }

    #[test]
    fn a_changed_octet_is_noticed(index in 0_usize..10_000, with in any::<u8>()) {
        let case = cases().swap_remove(0);
        let mut token = case.token.into_bytes();
        let index = index % token.len();
        prop_assume!(token[index] != with);
        token[index] = with;
        let expected = expected(case.algorithms);
        prop_assert!(verify(&token, &keys(&case.keys), &expected, UnixTime(case.at)).is_err());
    }

    #[test]
    fn any_header_and_payload_are_judged(header in "[ -~]{0,80}", payload in "[ -~]{0,80}", signature in "[A-Za-z0-9_-]{0,90}") {
        let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
        let token = format!("{}.{}.{signature}", encode(&header), encode(&payload));
        verify(token.as_bytes(), &keys("keys"), &expected(vec![Algorithm::ES256]), UnixTime(0)).unwrap_err();
    }
}

/// RFC 7515, section 4.1.11: a list of names. Whatever else is there is no reason to take the token for one without.
#[test]
fn whatever_crit_is_it_is_refused() {
    for crit in ["null", "[]", "\"exp\"", "[\"exp\"]", "false", "{}"] {
        let header = format!("{{\"alg\":\"RS256\",\"typ\":\"JWT\",\"crit\":{crit}}}");
        let token = format!("{}.e30.AA", Base64UrlUnpadded::encode_string(header.as_bytes()));
        let expected = expected(vec![Algorithm::RS256]);
        let refused = verify(token.as_bytes(), &keys("keys"), &expected, UnixTime(0)).unwrap_err();
        assert_eq!(refused, JwtError::Critical, "{crit}");
    }
}
