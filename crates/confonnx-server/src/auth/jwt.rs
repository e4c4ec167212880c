//! A signed JWT (RFC 7519, RFC 7515 section 3.1), judged with keys and a time that are given; as strict as RFC 8725 asks.
//!
//! `jsonwebtoken` makes keys and verifies signatures. The header and the claims are judged here: it reads the clock by
//! itself, passes over `crit`, and says less of what was wrong.

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::UnixTime;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::jwks::{Key, KeySet};

/// What a JWT has to be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud` has to be one of these.
    pub audiences: Vec<String>,
    /// `alg` has to be one of these.
    pub algorithms: Vec<Algorithm>,
    /// `typ` has to be one of these, in lower case; none at all is `jwt`.
    pub types: Vec<String>,
    /// Seconds by which clocks may differ.
    pub leeway: u64,
}

/// The claims of a JWT that is what was expected.
#[derive(Debug)]
pub struct Claims(Map<String, Value>);

/// Why a JWT is not accepted. Before its signature is found good, nothing of its content is in here but the header's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The token is longer than any should be.
    #[error("it has {found} bytes; expected at most {MAX_TOKEN}")]
    TooLong {
        /// The token's length.
        found: usize,
    },
    /// The token is not three base64url parts around JSON objects.
    #[error("its {0} is not base64url of a JSON object (RFC 7519)")]
    Malformed(&'static str),
    /// The token's algorithm is not one of those expected.
    #[error("it is signed with {found}; expected {expected}")]
    Algorithm {
        /// `alg`.
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// The token is of another kind.
    #[error("its type is {found}; expected {expected}")]
    Type {
        /// `typ`.
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// The token uses an extension that has to be understood (RFC 7515, section 4.1.11).
    #[error("it needs extensions (crit) that this server does not have")]
    Critical,
    /// The token does not say which of several keys it is signed with.
    #[error("it has no key id, and its issuer has {0} keys for its algorithm")]
    NoKeyId(usize),
    /// The token is signed with a key that the issuer does not publish.
    #[error("its issuer publishes no key {0} for its algorithm")]
    UnknownKey(String),
    /// The signature is not that key's.
    #[error("its signature is not that of its issuer's key")]
    Signature,
    /// The token has no such claim, or not of the kind it has to be.
    #[error("its claim {0} is missing or not of the right kind")]
    Claim(&'static str),
    /// Somebody else issued it.
    #[error("its issuer is {found}; expected {expected}")]
    Issuer {
        /// `iss`.
        found: String,
        /// The one accepted.
        expected: String,
    },
    /// The token is meant for somebody else.
    #[error("its audience is {found}; expected {expected}")]
    Audience {
        /// `aud`.
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// The token's time has passed.
    #[error("it expired at Unix time {}, and the server's clock says {}", at.0, now.0)]
    Expired {
        /// `exp`.
        at: UnixTime,
        /// The time by the server's clock.
        now: UnixTime,
    },
    /// The token's time has not come.
    #[error("it is not valid before Unix time {}, and the server's clock says {}", from.0, now.0)]
    NotYet {
        /// `nbf`.
        from: UnixTime,
        /// The time by the server's clock.
        now: UnixTime,
    },
    /// What names its caller is missing or cannot be a name.
    #[error("its claims give no name for the caller; the server's policy makes it of {0}")]
    Name(String),
}

/// Whether it has the form of one: three parts. Opaque tokens may have it too.
pub fn looks_like_one(token: &[u8]) -> bool {
    token.iter().filter(|byte| **byte == b'.').count() == 2
}

/// The claims of `token`, if it is what is `expected`, signed with one of `keys`, at `now`.
///
/// # Errors
/// See [`JwtError`].
pub fn verify(token: &[u8], keys: &KeySet, expected: &Expected, now: UnixTime) -> Result<Claims, JwtError> {
    if token.len() > MAX_TOKEN {
        return Err(JwtError::TooLong { found: token.len() });
    }
    let text = std::str::from_utf8(token).map_err(|_| JwtError::Malformed("text"))?;
    let (message, signature) = text.rsplit_once('.').ok_or(JwtError::Malformed("form"))?;
    let (header, payload) = message.split_once('.').ok_or(JwtError::Malformed("form"))?;
    if payload.contains('.') {
        // Encrypted ones have five parts.
        return Err(JwtError::Malformed("form"));
    }
    let head: Header = decode(header).ok_or(JwtError::Malformed("header"))?;
    let algorithm = head.check(expected)?;
    let key = choose(keys, algorithm, head.kid.as_deref())?;
    let genuine = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm);
    if !genuine.unwrap_or(false) {
        return Err(JwtError::Signature);
    }
    let claims = Claims(decode(payload).ok_or(JwtError::Malformed("payload"))?);
    claims.check(expected, now)?;
    Ok(claims)
}

/// What matters of a JOSE header. A member that comes twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    /// Whether it is there at all: `null` is no list of names either.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

impl Header {
    fn check(&self, expected: &Expected) -> Result<Algorithm, JwtError> {
        if self.crit {
            return Err(JwtError::Critical);
        }
        let typ = self.typ.as_deref().unwrap_or("jwt").to_ascii_lowercase();
        // RFC 7515, section 4.1.9: the prefix may be left out.
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if !expected.types.iter().any(|accepted| accepted == typ) {
            let expected = expected.types.join(" or ");
            return Err(JwtError::Type { found: shown(typ), expected });
        }
        let algorithm = self.alg.parse().ok().filter(|found| expected.algorithms.contains(found));
        algorithm.ok_or_else(|| {
            let names = expected.algorithms.iter().map(|algorithm| format!("{algorithm:?}"));
            let expected = names.collect::<Vec<_>>().join(" or ");
            JwtError::Algorithm { found: shown(&self.alg), expected }
        })
    }
}

impl Claims {
    /// The values of a claim: one for text, a number or a truth value, all of a list, and the words of `scope` and `scp`.
    /// A claim inside objects is named by its path, with dots.
    pub fn values(&self, name: &str) -> Vec<String> {
        let value = match self.0.get(name) {
            Some(value) => Some(value),
            None => path(&self.0, name),
        };
        let single = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        match value {
            None => Vec::new(),
            Some(Value::Array(list)) => list.iter().filter_map(single).collect(),
            Some(Value::String(words)) if matches!(name, "scope" | "scp") => {
                words.split_ascii_whitespace().map(str::to_owned).collect()
            }
            Some(value) => single(value).into_iter().collect(),
        }
    }

    fn check(&self, expected: &Expected, now: UnixTime) -> Result<(), JwtError> {
        let issuer = self.0.get("iss").and_then(Value::as_str).ok_or(JwtError::Claim("iss"))?;
        if issuer != expected.issuer {
            return Err(JwtError::Issuer { found: shown(issuer), expected: shown(&expected.issuer) });
        }
        let audiences = match self.0.get("aud") {
            Some(Value::String(_) | Value::Array(_)) => self.values("aud"),
            _ => return Err(JwtError::Claim("aud")),
        };
        if !audiences.iter().any(|audience| expected.audiences.contains(audience)) {
            let found = shown(&audiences.join(" "));
            return Err(JwtError::Audience { found, expected: shown(&expected.audiences.join(" or ")) });
        }
        let expires = self.time("exp")?.ok_or(JwtError::Claim("exp"))?;
        if now.0 >= expires.0.saturating_add(expected.leeway) {
            return Err(JwtError::Expired { at: expires, now });
        }
        match self.time("nbf")? {
            Some(from) if now.0.saturating_add(expected.leeway) < from.0 => {
                Err(JwtError::NotYet { from, now })
            }
            _ => Ok(()),
        }
    }

    /// A NumericDate (RFC 7519, section 2), whole seconds of it.
    fn time(&self, name: &'static str) -> Result<Option<UnixTime>, JwtError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                let seconds = number.as_u64().or_else(|| {
                    // Casts of floats saturate; what is no time is refused before.
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^53")]
                    let whole = |float: f64| (0.0..9e15).contains(&float).then_some(float as u64);
                    number.as_f64().and_then(whole)
                });
                seconds.map(|seconds| Some(UnixTime(seconds))).ok_or(JwtError::Claim(name))
            }
            Some(_) => Err(JwtError::Claim(name)),
        }
    }
}

fn path<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.as_object()?.get(step))
}

/// The key for a token with that header: by its id, or the only one there is.
fn choose<'k>(keys: &'k KeySet, algorithm: Algorithm, kid: Option<&str>) -> Result<&'k Key, JwtError> {
    let mut fitting = keys.keys().iter().filter(|key| key.fits(algorithm));
    match kid {
        Some(kid) => {
            fitting.find(|key| key.id.as_deref() == Some(kid)).ok_or_else(|| JwtError::UnknownKey(shown(kid)))
        }
        None => match (fitting.next(), fitting.count()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(JwtError::UnknownKey("without an id".into())),
            (Some(_), more) => Err(JwtError::NoKeyId(more.saturating_add(1))),
        },
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    let json = Zeroizing::new(Base64UrlUnpadded::decode_vec(part).ok()?);
    confonnx_attest::json::from_slice(&json).ok()
}

/// A peer's words in an error: bounded, visible.
fn shown(text: &str) -> String {
    let clean: String =
        text.chars().take(128).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if text.chars().nth(128).is_some() { clean + "..." } else { clean }
}

/// Bytes of the longest token. Issuers that put groups into theirs stay below 16 KiB, as HTTP servers do.
pub const MAX_TOKEN: usize = 16 << 10;

#[cfg(test)]
mod tests;
