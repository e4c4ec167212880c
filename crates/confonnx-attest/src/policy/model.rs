//! Which model a call may go to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error};

use super::PolicyBuildError;
use crate::shown::{one_of, shown};
use crate::{Claims, Digest, HexError, ModelClaim, Policy};

/// The hash that a model has to have: whichever is called, or the one of that name. `HEX` or `NAME=HEX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPin {
    /// The name of the model that the pin is about; absent: any model.
    pub name: Option<String>,
    /// The model's hash, or that of its encrypted file.
    pub hash: Digest,
}

/// The model that a call goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// The model's name.
    pub name: String,
    /// The model's version; absent when the server may choose.
    pub version: Option<String>,
}

/// No model that a call could go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelRefused {
    /// No model was named, and there is not exactly one.
    #[error("name a model: the server has {}", list(available))]
    Unnamed {
        /// The names in the claims.
        available: Vec<String>,
    },
    /// Hashes are expected, and the server claims none of them for what is called.
    #[error(
        "the server does not prove the expected model: expected {expected} for {called}, found {found}; nothing was sent"
    )]
    Hash {
        /// Model and version, as they were asked for.
        called: String,
        /// The hashes that are accepted.
        expected: String,
        /// What the claims say.
        found: String,
    },
}

impl ModelPin {
    fn is_about(&self, model: &str) -> bool {
        self.name.as_deref().is_none_or(|name| name == model)
    }

    /// Whether the model of `claim` satisfies the pin.
    pub(super) fn matches(&self, claim: &ModelClaim) -> bool {
        self.is_about(&claim.name) && claim.hashes().any(|hash| *hash == self.hash)
    }

    /// The pin that satisfies both.
    fn and(&self, other: &Self) -> Option<Self> {
        match (&self.name, &other.name) {
            _ if self.hash != other.hash => None,
            (_, None) => Some(self.clone()),
            (None, _) => Some(other.clone()),
            (name, also) => (name == also).then(|| self.clone()),
        }
    }
}

impl From<Digest> for ModelPin {
    fn from(hash: Digest) -> Self {
        Self { name: None, hash }
    }
}

impl FromStr for ModelPin {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let (name, hash) = match text.split_once('=') {
            Some((name, hash)) => (Some(name.to_owned()), hash),
            None => (None, text),
        };
        Ok(Self { name, hash: hash.parse()? })
    }
}

impl fmt::Display for ModelPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}={}", shown(name), self.hash),
            None => self.hash.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for ModelPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Policy {
    /// The model that a call of `name` and `version` goes to; without a name, the only one in the claims.
    ///
    /// With model hashes in the policy, it is the highest version of that model that has one of them: other models and
    /// versions may be there, and their hashes do not count.
    ///
    /// # Errors
    /// [`ModelRefused`]: nothing may be sent.
    pub fn model(
        &self,
        claims: &Claims,
        name: Option<&str>,
        version: Option<&str>,
    ) -> Result<Called, ModelRefused> {
        let models = &claims.models;
        let name = match (name, models.as_slice()) {
            (Some(name), _) => name,
            (None, [first, rest @ ..]) if rest.iter().all(|model| model.name == first.name) => &first.name,
            (None, _) => {
                let mut available: Vec<_> = models.iter().map(|model| shown(&model.name)).collect();
                available.dedup();
                return Err(ModelRefused::Unnamed { available });
            }
        };
        let pins = &self.expected.model_hashes;
        if pins.is_empty() {
            return Ok(Called { name: name.into(), version: version.map(Into::into) });
        }
        let is_called = |model: &&ModelClaim| {
            model.name == name && version.is_none_or(|version| model.version == version)
        };
        let called = || models.iter().filter(is_called);
        let proved = called().filter(|model| pins.iter().any(|pin| pin.matches(model)));
        let number = |model: &&ModelClaim| model.version.parse::<u64>().unwrap_or_default();
        let chosen = |model: &ModelClaim| Called { name: name.into(), version: Some(model.version.clone()) };
        proved.max_by_key(number).map(chosen).ok_or_else(|| {
            let about: Vec<_> =
                pins.iter().filter(|pin| pin.is_about(name)).map(ModelPin::to_string).collect();
            let found: Vec<_> = called().map(ToString::to_string).collect();
            let version = version.map(|version| format!(" version {}", shown(version))).unwrap_or_default();
            ModelRefused::Hash {
                called: format!("model {}{version}", shown(name)),
                expected: if about.is_empty() { "no hash at all".into() } else { one_of(about.into_iter()) },
                found: if found.is_empty() { "none".into() } else { found.join(", ") },
            }
        })
    }
}

/// Keeps of `accepted` what is also in `given`.
pub(super) fn narrow(accepted: &mut Vec<ModelPin>, given: Vec<ModelPin>) -> Result<(), PolicyBuildError> {
    if given.is_empty() {
        return Ok(());
    }
    if accepted.is_empty() {
        *accepted = given;
        return Ok(());
    }
    let both: Vec<_> =
        accepted.iter().flat_map(|pin| given.iter().filter_map(|other| pin.and(other))).collect();
    if both.is_empty() {
        return Err(PolicyBuildError::Contradiction {
            what: "model hash",
            accepted: one_of(accepted.iter().map(ModelPin::to_string)),
            given: one_of(given.iter().map(ModelPin::to_string)),
        });
    }
    *accepted = both;
    Ok(())
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expectations, UnixTime};

    fn claims(models: &[(&str, &str, u8)]) -> Claims {
        let model = |(name, version, byte): &(&str, &str, u8)| ModelClaim {
            name: (*name).into(),
            version: (*version).into(),
            sha256: Some(Digest([*byte; 32])),
            ciphertext_sha256: None,
            batching: None,
        };
        Claims { models: models.iter().map(model).collect(), ..Claims::example(UnixTime(0)) }
    }

    fn policy(pins: &[&str]) -> Policy {
        let model_hashes = pins.iter().map(|pin| pin.parse().unwrap()).collect();
        Policy::new(Expectations { model_hashes, allow_debug: true, ..Expectations::default() }).unwrap()
    }

    fn hex(byte: u8) -> String {
        Digest([byte; 32]).to_string()
    }

    #[test]
    fn one_models_hash_is_not_anothers() {
        let claims = claims(&[("a", "1", 1), ("b", "1", 2)]);
        let chosen =
            |pins: &[&str], name| policy(pins).model(&claims, Some(name), None).map(|called| called.version);
        assert_eq!(chosen(&[&hex(1)], "a"), Ok(Some("1".into())));
        let error = chosen(&[&hex(2)], "a").unwrap_err().to_string();
        assert!(error.contains(&format!("expected {} for model a, found {}", hex(2), hex(1))), "{error}");
        // A pin without a name is about whatever is called; one with a name is about that model alone.
        let (swapped, own) = ([format!("a={}", hex(2)), format!("b={}", hex(1))], [format!("a={}", hex(1))]);
        let swapped: Vec<_> = swapped.iter().map(String::as_str).collect();
        assert!(chosen(&swapped, "a").is_err() && chosen(&swapped, "b").is_err());
        assert_eq!(chosen(&[&own[0]], "a"), Ok(Some("1".into())));
        let error = chosen(&[&own[0]], "b").unwrap_err().to_string();
        assert!(error.contains("expected no hash at all for model b"), "{error}");
        assert!(chosen(&[&hex(1)], "c").unwrap_err().to_string().contains("found none"));
        assert_eq!(chosen(&[], "a"), Ok(None));
    }

    #[test]
    fn the_highest_version_with_the_hash_is_called() {
        let claims = claims(&[("a", "2", 1), ("a", "9", 1), ("a", "10", 1), ("a", "11", 7)]);
        let chosen =
            |pins: &[&str], version| policy(pins).model(&claims, None, version).map(|called| called.version);
        assert_eq!(chosen(&[&hex(1)], None), Ok(Some("10".into())));
        assert_eq!(chosen(&[&hex(1)], Some("2")), Ok(Some("2".into())));
        assert!(chosen(&[&hex(1)], Some("11")).is_err() && chosen(&[&hex(1)], Some("3")).is_err());
    }

    #[test]
    fn without_a_name_there_has_to_be_one_model() {
        let error = policy(&[]).model(&claims(&[("a", "1", 1), ("b", "1", 2)]), None, None).unwrap_err();
        assert_eq!(error.to_string(), "name a model: the server has a, b");
        assert!(policy(&[]).model(&claims(&[]), None, None).is_err());
    }

    #[test]
    fn narrowing_keeps_what_satisfies_both() {
        let pins = |pins: &[String]| pins.iter().map(|pin| pin.parse().unwrap()).collect::<Vec<ModelPin>>();
        let named = format!("a={}", hex(1));
        let mut expected =
            Expectations { model_hashes: pins(&[named.clone(), hex(2)]), ..Expectations::default() };
        expected.narrow_model_hashes(pins(&[hex(1), format!("b={}", hex(2))])).unwrap();
        assert_eq!(expected.model_hashes, pins(&[named, format!("b={}", hex(2))]));
        let error = expected.narrow_model_hashes(pins(&[format!("b={}", hex(1))])).unwrap_err();
        assert!(error.to_string().contains("nothing can be both"), "{error}");
    }
}
