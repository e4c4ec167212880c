//! The KBS attestation protocol of Confidential Containers Trustee, version 0.4.0 (`kbs/docs/kbs_attestation_protocol.md`
//! there; shapes as in its crate `kbs-types` 0.18).
//!
//! `POST /kbs/v0/auth` gives a [`Challenge`] and a session cookie; `POST /kbs/v0/attest` takes evidence that carries the
//! digest of [`Challenge::runtime_data`]; `GET /kbs/v0/resource/…` then gives a JWE for the key in that data
//! ([`KbsKey::open`]).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{KbsKey, jwe::PublicJwk, shown};

/// The version that is spoken. Trustee takes this one alone.
pub const VERSION: &str = "0.4.0";

/// What evidence has to be bound to.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    nonce: String,
}

/// The name of a secret: `REPOSITORY/TYPE/TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource(String);

/// Text that names no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected REPOSITORY/TYPE/TAG, each of letters, digits, `_`, `-` and, not first, `.`; found {0:?}")]
pub struct ResourceError(String);

/// Bytes that are no challenge.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// Not the JSON of one.
    #[error("expected a challenge with a nonce: {0}")]
    Json(#[from] serde_json::Error),
    /// A nonce that does not keep its form in JSON.
    #[error("expected a nonce of 1 to {MAX_NONCE} visible ASCII characters, found {0} bytes")]
    Nonce(usize),
    /// The service wants another digest.
    #[error("expected the hash algorithm sha384, found `{0}`: the service and this version do not fit")]
    Hash(String),
}

impl Challenge {
    /// Reads the answer to [`auth`].
    ///
    /// # Errors
    /// See [`ChallengeError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ChallengeError> {
        let Received { nonce, extra_params } = confonnx_attest::json::from_slice(bytes)?;
        let plain = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || !(1..=MAX_NONCE).contains(&nonce.len()) {
            return Err(ChallengeError::Nonce(nonce.len()));
        }
        match extra_params.get("selected-hash-algorithm") {
            None => Ok(Self { nonce }),
            Some(Value::String(name)) if name.eq_ignore_ascii_case("sha384") => Ok(Self { nonce }),
            Some(other) => Err(ChallengeError::Hash(shown(&other.to_string()))),
        }
    }

    /// What the evidence's report data is the digest of: canonical JSON (RFC 8785).
    pub fn runtime_data(&self, key: &KbsKey) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Primary<'a> {
            additional_evidence: &'static str,
            nonce: &'a str,
            tee_pubkey: PublicJwk<'a>,
        }
        let data = Primary { additional_evidence: "", nonce: &self.nonce, tee_pubkey: key.public() };
        // Strings of ASCII in sorted members: canonical as it is, and sure to serialize.
        serde_json::to_vec(&data).unwrap_or_default()
    }

    /// The body of `POST /kbs/v0/attest`, with `evidence` in the form of the service.
    pub fn attestation(&self, key: &KbsKey, evidence: &Value) -> Vec<u8> {
        json!({
            "init-data": null,
            "runtime-data": { "nonce": self.nonce, "tee-pubkey": key.public() },
            "tee-evidence": { "primary_evidence": evidence, "additional_evidence": "" },
        })
        .to_string()
        .into_bytes()
    }
}

/// The body of `POST /kbs/v0/auth` for a TEE that Trustee calls `tee`.
pub fn auth(tee: &str) -> Vec<u8> {
    json!({ "version": VERSION, "tee": tee, "extra-params": { "supported-hash-algorithms": ["sha384"] } })
        .to_string()
        .into_bytes()
}

/// The token in the answer to the attestation, if there is one.
pub fn token(bytes: &[u8]) -> Option<String> {
    let Answer { token } = confonnx_attest::json::from_slice(bytes).ok()?;
    is_token(&token).then_some(token)
}

/// Whether it has the letters of a JWT, and no others.
pub(super) fn is_token(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// What a service says went wrong, for people; empty when it says nothing.
pub fn problem(bytes: &[u8]) -> String {
    let Problem { r#type, detail } = confonnx_attest::json::from_slice(bytes).unwrap_or_default();
    let name = r#type.rsplit('/').next().unwrap_or_default();
    match (name, detail.as_str()) {
        ("", detail) => shown(detail),
        (name, "") => shown(name),
        (name, detail) => shown(&format!("{name}: {detail}")),
    }
}

impl FromStr for Resource {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if text.len() <= MAX_RESOURCE && text.split('/').count() == 3 && text.split('/').all(part) {
            Ok(Self(text.into()))
        } else {
            Err(ResourceError(shown(text)))
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Received {
    nonce: String,
    #[serde(default)]
    extra_params: Value,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

/// RFC 7807.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    r#type: String,
    detail: String,
}

const MAX_NONCE: usize = 512;
const MAX_RESOURCE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge() -> Challenge {
        Challenge::parse(br#"{"nonce":"bm9uY2U=","extra-params":""}"#).unwrap()
    }

    #[test]
    fn a_challenge_has_a_plain_nonce() {
        assert_eq!(challenge().nonce, "bm9uY2U=");
        let parse = |text: &str| Challenge::parse(text.as_bytes());
        assert!(parse(r#"{"nonce":"a"}"#).is_ok());
        assert!(parse(r#"{"nonce":"a","extra-params":{"selected-hash-algorithm":"SHA384"}}"#).is_ok());
        for nonce in ["", "two words", "\u{e9}", "a\\u0000b", &"x".repeat(MAX_NONCE + 1)] {
            let error = parse(&format!(r#"{{"nonce":"{nonce}"}}"#)).unwrap_err();
            assert!(matches!(error, ChallengeError::Nonce(_)), "{nonce:?}: {error}");
        }
        let error = parse(r#"{"nonce":"a","extra-params":{"selected-hash-algorithm":"sha512"}}"#);
        assert!(matches!(error, Err(ChallengeError::Hash(found)) if found.contains("sha512")));
        for garbage in ["", "{}", "[]", r#"{"nonce":1}"#, r#"{"nonce":"a"} x"#] {
            assert!(matches!(parse(garbage), Err(ChallengeError::Json(_))), "{garbage}");
        }
    }

    /// The bytes are those of the canonical form of Trustee's own structure.
    #[test]
    fn runtime_data_is_canonical_and_matches_what_is_sent() {
        let key = KbsKey::generate(&mut getrandom::rand_core::UnwrapErr(getrandom::SysRng)).unwrap();
        let data = challenge().runtime_data(&key);
        let value: Value = serde_json::from_slice(&data).unwrap();
        let coordinate = |name: &str| value["tee-pubkey"][name].as_str().unwrap().to_owned();
        let (x, y) = (coordinate("x"), coordinate("y"));
        let expected = format!(
            r#"{{"additional-evidence":"","nonce":"bm9uY2U=","tee-pubkey":{{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}}}"#
        );
        assert_eq!(String::from_utf8(data).unwrap(), expected);
        let sent: Value = serde_json::from_slice(&challenge().attestation(&key, &json!({"a": 1}))).unwrap();
        assert_eq!(sent["runtime-data"]["nonce"], value["nonce"]);
        assert_eq!(sent["runtime-data"]["tee-pubkey"], value["tee-pubkey"]);
        assert_eq!(sent["tee-evidence"]["additional_evidence"], value["additional-evidence"]);
        assert_eq!(sent["tee-evidence"]["primary_evidence"], json!({"a": 1}));
    }

    #[test]
    fn a_resource_has_three_parts() {
        for good in ["default/key/1", "a-b/c_d/e.f"] {
            assert_eq!(good.parse::<Resource>().unwrap().to_string(), good);
        }
        for bad in ["", "a/b", "a/b/c/d", "a//c", "a/../c", "a/b/.c", "a/b/c?x", "a b/c/d", "/a/b/c"] {
            assert!(bad.parse::<Resource>().is_err(), "{bad}");
        }
    }

    #[test]
    fn problems_are_for_people() {
        let body = br#"{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"no\u0007"}"#;
        assert_eq!(problem(body), "PolicyDeny: no ");
        assert_eq!(problem(b"<html>"), "");
        assert_eq!(problem(br#"{"detail":"why"}"#), "why");
        assert_eq!(token(br#"{"token":"a.b-c.d_e"}"#).unwrap(), "a.b-c.d_e");
        assert_eq!(token(br#"{"token":"a b"}"#), None);
        assert_eq!(token(b"{}"), None);
    }
}
