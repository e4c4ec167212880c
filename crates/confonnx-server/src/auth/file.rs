//! The policy file: which callers there are, by token or by what an issuer says of them, and what each may.

use std::{
    collections::BTreeMap,
    fmt::Write,
    io::Read,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use confonnx_attest::Digest;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Deserializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use super::{
    Action, AuthError, Caller, Grant, Pattern, Policy, Token, Via,
    allowance::Bounds,
    jwks::{self, JwksError, KeySet, Keys, Remote},
    jwt::Expected,
    limit::Rate,
    oidc::{Match, Oidc, Rule, Template},
};
use crate::{config::TomlError, metrics::Metrics};

/// What is wrong with a policy file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not TOML, or with keys or values that it has not.
    #[error("{0}")]
    Toml(#[from] TomlError),
    /// The policy lets nobody in.
    #[error("it names no caller; expected [[caller]], or [oidc] with [[oidc.rule]]")]
    Nobody,
    /// A list is empty.
    #[error("{place}: `{key}` is an empty list; expected at least one value, or no such key")]
    EmptyList {
        /// The caller or rule.
        place: String,
        /// The key.
        key: &'static str,
    },
    /// A name cannot be one.
    #[error("{place}: `name` is {found:?}; expected 1 to 128 visible characters")]
    Name {
        /// The caller or rule.
        place: String,
        /// The name.
        found: String,
    },
    /// A name or a token is there twice.
    #[error("{place}: its {what} is there twice, in this caller or another; expected each once")]
    Twice {
        /// The caller.
        place: String,
        /// `name` or `token_sha256`.
        what: &'static str,
    },
    /// A burst without a rate.
    #[error("{place}: `burst` without `requests_per_minute`, which it is a burst of")]
    BurstAlone {
        /// The caller or rule.
        place: String,
    },
    /// An issuer without a way to its keys, or with two.
    #[error("[oidc]: expected either `jwks_file`, or `jwks_url` together with `ca_file`")]
    Keys,
    /// The keys' URL is none that proves who answers.
    #[error(
        "[oidc]: `jwks_url` is {found:?}; expected https://, without user name: the keys are only as good as who sends them"
    )]
    Url {
        /// The URL.
        found: String,
    },
    /// A setting is out of its range.
    #[error("[oidc]: `{key}` is {found}; expected {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value.
        found: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// The file is too long.
    #[error("it has more than {MAX_FILE} bytes")]
    TooLong,
    /// A file that it names cannot be used.
    #[error("`{key}` names {}: {source}", path.display())]
    Named {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A policy file that was read, before the files it names are.
#[derive(Debug)]
pub struct PolicyText {
    callers: Vec<ParsedCaller>,
    oidc: Option<ParsedOidc>,
}

#[derive(Debug)]
struct ParsedCaller {
    name: String,
    tokens: Vec<Digest>,
    grant: Grant,
}

#[derive(Debug)]
struct ParsedOidc {
    expected: Expected,
    rules: Vec<Rule>,
    keys: KeysFrom,
}

#[derive(Debug)]
enum KeysFrom {
    File(PathBuf),
    Url { url: String, ca_file: PathBuf, refresh: Duration, max_age: Duration },
}

/// Reads `path` and what it names.
pub(super) fn load(path: &Path, metrics: &Arc<Metrics>) -> Result<Policy, AuthError> {
    let bytes =
        read(path).map_err(|source| AuthError::Read { what: "auth file", path: path.into(), source })?;
    let wrong = |source| AuthError::Policy { path: path.into(), source };
    let text = std::str::from_utf8(&bytes)
        .map_err(|err| wrong(TomlError::of("", &toml::de::Error::custom(err)).into()))?;
    let parsed = parse(text).map_err(wrong)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut manifest = Manifest::new(&bytes);
    let oidc =
        parsed.oidc.map(|oidc| with_keys(oidc, folder, &mut manifest, metrics)).transpose().map_err(wrong)?;
    let tokens = parsed.callers.into_iter().flat_map(|caller| {
        let ParsedCaller { name, tokens, grant } = caller;
        let caller = Caller { name: Some(name.into()), via: Via::Token, grant: Arc::new(grant) };
        tokens.into_iter().map(move |token| Token { sha256: token.0, caller: caller.clone() })
    });
    Ok(Policy { tokens: tokens.collect(), oidc, digest: manifest.digest() })
}

/// Reads a policy file's text.
///
/// # Errors
/// See [`FileError`].
pub fn parse(text: &str) -> Result<PolicyText, FileError> {
    if text.len() > MAX_FILE {
        return Err(FileError::TooLong);
    }
    let file: File = toml::from_str(text).map_err(|err| TomlError::of(text, &err))?;
    if file.caller.is_empty() && file.oidc.is_none() {
        return Err(FileError::Nobody);
    }
    let (mut names, mut hashes) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let mut callers = Vec::new();
    for (index, entry) in file.caller.into_iter().enumerate() {
        let place = format!("[[caller]] {}", index.saturating_add(1));
        check_name(&place, &entry.name)?;
        if entry.token_sha256.0.is_empty() {
            return Err(FileError::EmptyList { place, key: "token_sha256" });
        }
        if !names.insert(entry.name.clone()) {
            return Err(FileError::Twice { place, what: "name" });
        }
        if !entry.token_sha256.0.iter().all(|hash| hashes.insert(*hash)) {
            return Err(FileError::Twice { place, what: "token_sha256" });
        }
        let generation =
            Bounds { tokens_per_minute: entry.tokens_per_minute, answers_at_once: entry.answers_at_once };
        let rate = (entry.requests_per_minute, entry.burst);
        let grant = grant(&place, entry.models, entry.may, rate, generation)?;
        callers.push(ParsedCaller { name: entry.name, tokens: entry.token_sha256.0, grant });
    }
    let oidc = file.oidc.map(oidc).transpose()?;
    Ok(PolicyText { callers, oidc })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    caller: Vec<CallerEntry>,
    oidc: Option<OidcEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerEntry {
    name: String,
    token_sha256: Several<Digest>,
    models: Option<Vec<Pattern>>,
    may: Option<Vec<Action>>,
    requests_per_minute: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    answers_at_once: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OidcEntry {
    issuer: String,
    audience: Several<String>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    ca_file: Option<PathBuf>,
    jwks_refresh_s: Option<u64>,
    jwks_max_age_s: Option<u64>,
    algorithms: Option<Vec<AlgorithmName>>,
    types: Option<Vec<String>>,
    leeway_s: Option<u64>,
    #[serde(default)]
    rule: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    #[serde(rename = "match", default)]
    claims: BTreeMap<String, Several<Pattern>>,
    name: Option<String>,
    models: Option<Vec<Pattern>>,
    may: Option<Vec<Action>>,
    requests_per_minute: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    answers_at_once: Option<NonZeroU32>,
}

/// Those of RFC 7518 and RFC 8037 that sign with a private key, but for ES512, which the library lacks: neither `none`, nor
/// HMAC, whose key an issuer would share.
#[derive(Clone, Copy, Deserialize)]
enum AlgorithmName {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// One value, or a list of values.
struct Several<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Several<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Several<T>, E> {
                let value = serde::de::value::StrDeserializer::new(text);
                T::deserialize(value).map(|value| Several(vec![value]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Several<T>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Several(values))
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (start, prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text.as_str(), false),
        };
        if text.is_empty() || start.contains('*') {
            return Err(D::Error::custom(format!(
                "{text:?} is no pattern; expected a name, or the start of one and a final *"
            )));
        }
        Ok(Self { text: start.into(), prefix })
    }
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::RS256 => Self::RS256,
            AlgorithmName::RS384 => Self::RS384,
            AlgorithmName::RS512 => Self::RS512,
            AlgorithmName::PS256 => Self::PS256,
            AlgorithmName::PS384 => Self::PS384,
            AlgorithmName::PS512 => Self::PS512,
            AlgorithmName::ES256 => Self::ES256,
            AlgorithmName::ES384 => Self::ES384,
            AlgorithmName::EdDSA => Self::EdDSA,
        }
    }
}

fn oidc(entry: OidcEntry) -> Result<ParsedOidc, FileError> {
    let place = || "[oidc]".to_owned();
    let algorithms = entry.algorithms.unwrap_or_else(|| vec![AlgorithmName::RS256, AlgorithmName::ES256]);
    let types = entry.types.unwrap_or_else(|| TYPES.map(str::to_owned).into());
    for (key, empty) in [
        ("audience", entry.audience.0.is_empty()),
        ("algorithms", algorithms.is_empty()),
        ("types", types.is_empty()),
        ("rule", entry.rule.is_empty()),
    ] {
        if empty {
            return Err(FileError::EmptyList { place: place(), key });
        }
    }
    let expected = Expected {
        issuer: entry.issuer,
        audiences: entry.audience.0,
        algorithms: algorithms.into_iter().map(Algorithm::from).collect(),
        types: types.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
        leeway: range("leeway_s", entry.leeway_s, 60, 0..=600, "0 to 600")?,
    };
    let refresh = range("jwks_refresh_s", entry.jwks_refresh_s, 3600, 30..=DAY, "30 to 86400")?;
    let max_age =
        range("jwks_max_age_s", entry.jwks_max_age_s, DAY, refresh..=30 * DAY, "jwks_refresh_s to 2592000")?;
    let keys = match (entry.jwks_file, entry.jwks_url, entry.ca_file) {
        (Some(file), None, None) => KeysFrom::File(file),
        (None, Some(url), Some(ca_file)) => {
            if !jwks::is_https(&url) {
                return Err(FileError::Url { found: url });
            }
            let (refresh, max_age) = (Duration::from_secs(refresh), Duration::from_secs(max_age));
            KeysFrom::Url { url, ca_file, refresh, max_age }
        }
        _ => return Err(FileError::Keys),
    };
    let rules = entry.rule.into_iter().enumerate().map(|(index, entry)| rule(index, entry));
    Ok(ParsedOidc { expected, rules: rules.collect::<Result<_, _>>()?, keys })
}

fn rule(index: usize, entry: RuleEntry) -> Result<Rule, FileError> {
    let place = format!("[[oidc.rule]] {}", index.saturating_add(1));
    let mut matches = Vec::new();
    for (claim, patterns) in entry.claims {
        if patterns.0.is_empty() {
            return Err(FileError::EmptyList { place, key: "match" });
        }
        matches.push(Match { claim, patterns: patterns.0 });
    }
    let name = entry.name.unwrap_or_else(|| "{sub}".into());
    check_name(&place, &name)?;
    let name = Template::parse(&name).ok_or(FileError::Name { place: place.clone(), found: name })?;
    let generation =
        Bounds { tokens_per_minute: entry.tokens_per_minute, answers_at_once: entry.answers_at_once };
    let rate = (entry.requests_per_minute, entry.burst);
    let grant = grant(&place, entry.models, entry.may, rate, generation)?;
    Ok(Rule { matches, name, grant: Arc::new(grant) })
}

fn grant(
    place: &str,
    models: Option<Vec<Pattern>>,
    may: Option<Vec<Action>>,
    rate: (Option<NonZeroU32>, Option<NonZeroU32>),
    generation: Bounds,
) -> Result<Grant, FileError> {
    let place = || place.to_owned();
    let models = models.unwrap_or_else(|| vec![Pattern { text: String::new(), prefix: true }]);
    let may = may.unwrap_or_else(|| vec![Action::Infer]);
    for (key, empty) in [("models", models.is_empty()), ("may", may.is_empty())] {
        if empty {
            return Err(FileError::EmptyList { place: place(), key });
        }
    }
    let rate = match rate {
        (None, None) => None,
        (None, Some(_)) => return Err(FileError::BurstAlone { place: place() }),
        // Six seconds' worth.
        (Some(per_minute), burst) => {
            let usual = NonZeroU32::new(per_minute.get() / 10).unwrap_or(NonZeroU32::MIN);
            Some(Rate { per_minute, burst: burst.unwrap_or(usual) })
        }
    };
    Ok(Grant { models, may, rate, generation })
}

fn check_name(place: &str, name: &str) -> Result<(), FileError> {
    if super::oidc::is_name(name) {
        return Ok(());
    }
    Err(FileError::Name { place: place.into(), found: name.chars().take(128).collect() })
}

fn range(
    key: &'static str,
    given: Option<u64>,
    usual: u64,
    allowed: std::ops::RangeInclusive<u64>,
    expected: &'static str,
) -> Result<u64, FileError> {
    let found = given.unwrap_or(usual);
    if allowed.contains(&found) { Ok(found) } else { Err(FileError::Range { key, found, expected }) }
}

fn with_keys(
    parsed: ParsedOidc,
    folder: &Path,
    manifest: &mut Manifest,
    metrics: &Arc<Metrics>,
) -> Result<Oidc, FileError> {
    let open = |key, path: &Path| {
        let path = folder.join(path);
        match read(&path) {
            Ok(content) => Ok((path, content)),
            Err(source) => Err(FileError::Named { key, path, source: source.into() }),
        }
    };
    let unusable = |key, path| move |source: JwksError| FileError::Named { key, path, source: source.into() };
    let keys = match parsed.keys {
        KeysFrom::File(path) => {
            let (path, json) = open("jwks_file", &path)?;
            manifest.add("jwks_file", &json);
            Keys::Fixed(Arc::new(KeySet::parse(&json).map_err(unusable("jwks_file", path))?))
        }
        KeysFrom::Url { url, ca_file, refresh, max_age } => {
            let (path, pem) = open("ca_file", &ca_file)?;
            manifest.add("ca_file", &pem);
            let remote = Remote::new(&url, &pem, refresh, max_age, Arc::clone(metrics));
            Keys::Remote(Arc::new(remote.map_err(unusable("ca_file", path))?))
        }
    };
    Ok(Oidc::new(parsed.expected, parsed.rules, keys))
}

/// What the policy's digest is of: the bytes of the file, and of the file it names.
struct Manifest(String);

impl Manifest {
    fn new(file: &[u8]) -> Self {
        let mut manifest = Self("confonnx auth policy v1\n".into());
        manifest.add("auth_file", file);
        manifest
    }

    fn add(&mut self, key: &str, content: &[u8]) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{}  {key}", Digest(Sha256::digest(content).into()));
    }

    fn digest(&self) -> Digest {
        Digest(Sha256::digest(&self.0).into())
    }
}

/// A file's content, if it is not too long.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    std::fs::File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() > MAX_FILE {
        return Err(std::io::Error::other(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(content)
}

/// Bytes of the longest file.
const MAX_FILE: usize = 1 << 20;
const DAY: u64 = 24 * 3600;
/// RFC 7519 section 5.1, RFC 9068 section 2.1.
const TYPES: [&str; 2] = ["jwt", "at+jwt"];
