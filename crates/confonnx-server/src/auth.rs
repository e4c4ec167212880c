//! Who may call: bearer tokens (RFC 6750) and JWTs (RFC 7519), checked inside the TEE from the sealed `authorization` field.
//!
//! What decides is read at the start and with SIGHUP, and its digest is in the claims: to change who may call changes the
//! keys, and clients see it.

mod allowance;
mod file;
pub mod jwks;
pub mod jwt;
mod limit;
mod oidc;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use confonnx_attest::{ClientAuth, Digest, UnixTime};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

pub use allowance::Allowance;
pub use file::{FileError, PolicyText, parse};

use crate::metrics::Metrics;
use allowance::{Bounds, Counts};
use jwt::JwtError;
use limit::{Full, Limiter, Rate};
use oidc::Oidc;

/// Who may ask.
pub struct Auth {
    who: Who,
    /// Rates of the callers of the file: bounded by their number.
    callers: Limiter,
    /// Rates of the callers whom an issuer names.
    subjects: Limiter,
    /// What the callers of the file have of language models.
    callers_generation: Arc<Counts>,
    /// What those whom an issuer names have, who may bear the name of one of the file.
    subjects_generation: Arc<Counts>,
}

enum Who {
    /// Anyone who can reach the server.
    Anyone,
    /// Every caller who knows one of the tokens; these are their SHA-256.
    Tokens(Vec<[u8; 32]>),
    /// The callers of a policy file.
    Policy(Policy),
}

/// A policy file's content.
struct Policy {
    tokens: Vec<Token>,
    oidc: Option<Oidc>,
    /// The digest of everything that decides, as the claims have it.
    digest: Digest,
}

struct Token {
    sha256: [u8; 32],
    caller: Caller,
}

/// Who asks, and what that allows.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The caller's name in the policy; none when the policy knows no names.
    name: Option<Arc<str>>,
    via: Via,
    grant: Arc<Grant>,
}

/// How a caller proved to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The caller proved nothing.
    Nothing,
    /// A bearer token of a file.
    Token,
    /// An issuer's JWT.
    Oidc,
}

/// What a caller may.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    models: Vec<Pattern>,
    may: Vec<Action>,
    rate: Option<Rate>,
    /// Bounds on the use of language models.
    generation: Bounds,
}

/// What there is to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Run a model, and see that it is there.
    Infer,
    /// Give an encrypted model its key.
    Unlock,
    /// Load and unload models.
    Manage,
}

/// A name, or with a final `*` all that start alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    prefix: bool,
}

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The request names no credentials.
    #[error("this server needs to know its callers: send `authorization: Bearer <token>` inside the seal")]
    Missing,
    /// The request's token is none of ours.
    #[error("the token in the request's authorization field is not one that this server knows")]
    Unknown,
    /// The request's JWT is not accepted.
    #[error("the request's JWT is not accepted: {0}")]
    Jwt(#[from] JwtError),
    /// The request's JWT cannot be judged.
    #[error("the request's JWT cannot be checked: {reason}; try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// What is missing.
        reason: &'static str,
        /// When the permit may be there.
        retry_after: Duration,
    },
    /// The request asks for what its caller may not.
    #[error("{0}")]
    Forbidden(#[from] Forbidden),
    /// The request's caller asks too often.
    #[error("more than {per_minute} requests a minute from this caller; try again in {} s", seconds(*retry_after))]
    RateLimited {
        /// How many requests a minute are allowed.
        per_minute: u32,
        /// When the next request is allowed.
        retry_after: Duration,
    },
    /// The request's caller has had its tokens.
    #[error("more than {per_minute} tokens a minute for this caller; try again in {} s", seconds(*retry_after))]
    TokensSpent {
        /// How many tokens a minute are allowed.
        per_minute: u32,
        /// When there will be enough tokens.
        retry_after: Duration,
    },
    /// The request asks for more tokens than its caller has in a minute.
    #[error(
        "the prompt has {prompt} tokens and {tokens} are to be answered; expected {per_minute} together at most, which this \
         caller may have in a minute: send less, or ask for fewer with max_tokens"
    )]
    Budget {
        /// Tokens of the prompts.
        prompt: u32,
        /// Tokens of the answers at most.
        tokens: u32,
        /// How many tokens a minute are allowed.
        per_minute: u32,
    },
    /// The request's caller would be given more answers than it may be at once.
    #[error(
        "{wanted} more answers; expected {most} at once at most for this caller: ask for fewer, or wait until one has ended"
    )]
    Answers {
        /// How many answers the request asks for.
        wanted: u32,
        /// How many answers are allowed at once.
        most: u32,
    },
    /// More callers have a limit to be kept than the server has room for.
    #[error("more callers than this server can count requests of; try again in {} s", seconds(*retry_after))]
    Crowded {
        /// When there may be room.
        retry_after: Duration,
    },
}

/// What a caller may not do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// No rule is about this JWT.
    #[error("the JWT is valid, but no rule of this server's policy matches its claims")]
    NoRule,
    /// The policy does not let it do this at all.
    #[error("this caller may not {0}; the server's policy has to say `may = [\"{0}\"]`")]
    Action(&'static str),
    /// The caller may not use the model, which may exist or not.
    #[error("this caller may not use a model named {model:?}, whether or not there is one")]
    Model {
        /// The name asked for.
        model: String,
    },
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("{what} {}: {source}", path.display())]
    Read {
        /// What kind of file it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has no token; starting would let anyone in, or no one.
    #[error("auth key file {} has no key; expected one a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A token cannot be sent in a header field.
    #[error("auth key file {}: line {line} is not a key; expected visible ASCII without spaces", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The policy file says what cannot be.
    #[error("auth file {}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: FileError,
    },
    /// Both kinds of file are given.
    #[error(
        "auth-key-file and auth-file are both given; expected one of them: a policy file can list tokens by their hash"
    )]
    Both,
}

impl Auth {
    /// What the settings say: a file of plain tokens, a policy file, or neither.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn load(
        tokens: Option<&Path>,
        policy: Option<&Path>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AuthError> {
        let who = match (tokens, policy) {
            (None, None) => Who::Anyone,
            (Some(path), None) => Who::Tokens(plain_tokens(path)?),
            (None, Some(path)) => Who::Policy(file::load(path, metrics)?),
            (Some(_), Some(_)) => return Err(AuthError::Both),
        };
        let known = if let Who::Policy(policy) = &who { policy.tokens.len() } else { 0 };
        Ok(Self {
            who,
            callers: Limiter::new(known),
            subjects: Limiter::new(MAX_SUBJECTS),
            callers_generation: Arc::new(Counts::new(known)),
            subjects_generation: Arc::new(Counts::new(MAX_SUBJECTS)),
        })
    }

    /// What the claims say of it.
    pub fn claim(&self) -> ClientAuth {
        let (kind, policy_sha256) = match &self.who {
            Who::Anyone => ("none", None),
            Who::Tokens(_) => ("bearer", None),
            Who::Policy(policy) => {
                let kind = match (&policy.oidc, policy.tokens.is_empty()) {
                    (None, _) => "bearer",
                    (Some(_), true) => "oidc",
                    (Some(_), false) => "bearer+oidc",
                };
                (kind, Some(policy.digest))
            }
        };
        ClientAuth { kind: kind.into(), policy_sha256 }
    }

    /// The issuer's keys, when they have to be fetched.
    pub fn remote_keys(&self) -> Option<Arc<jwks::Remote>> {
        let Who::Policy(Policy { oidc: Some(oidc), .. }) = &self.who else { return None };
        oidc.remote_keys()
    }

    /// Who asks, by the value of the `authorization` field. For tokens of a file, how long it takes depends on the number
    /// of tokens and the length of the value, not on their content.
    ///
    /// # Errors
    /// Those of [`Refused`] that are about credentials.
    pub fn identify(&self, authorization: Option<&[u8]>, now: UnixTime) -> Result<Caller, Refused> {
        if let Who::Anyone = self.who {
            return Ok(Caller::unnamed(Via::Nothing));
        }
        let token = bearer(authorization).ok_or(Refused::Missing)?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        match &self.who {
            Who::Anyone => Ok(Caller::unnamed(Via::Nothing)),
            Who::Tokens(known) => {
                let found = known.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest));
                if bool::from(found) { Ok(Caller::unnamed(Via::Token)) } else { Err(Refused::Unknown) }
            }
            Who::Policy(policy) => {
                let mut caller = None;
                for known in &policy.tokens {
                    if bool::from(known.sha256.ct_eq(&digest)) {
                        caller = Some(&known.caller);
                    }
                }
                match (caller, &policy.oidc) {
                    (Some(caller), _) => Ok(caller.clone()),
                    (None, Some(oidc)) if jwt::looks_like_one(token) => oidc.identify(token, now),
                    (None, _) => Err(Refused::Unknown),
                }
            }
        }
    }

    /// Counts a request of `caller`.
    ///
    /// # Errors
    /// [`Refused::RateLimited`] and [`Refused::Crowded`].
    pub fn admit(&self, caller: &Caller, now: Instant) -> Result<(), Refused> {
        let (Some(rate), Some(name)) = (caller.grant.rate, &caller.name) else { return Ok(()) };
        let limiter = match caller.via {
            Via::Nothing | Via::Token => &self.callers,
            Via::Oidc => &self.subjects,
        };
        limiter.take(name, rate, 1, now).map_err(|full| match full {
            Full::Crowded { retry_after } => Refused::Crowded { retry_after },
            Full::For { retry_after } => {
                Refused::RateLimited { per_minute: rate.per_minute.get(), retry_after }
            }
            // Every burst has room for one request.
            Full::Never => Refused::RateLimited { per_minute: rate.per_minute.get(), retry_after: MINUTE },
        })
    }

    /// What `caller` may have of a language model: `answers` with `prompt` tokens before them and `tokens` in them at most, all
    /// together.
    ///
    /// # Errors
    /// [`Refused::Answers`], [`Refused::Budget`], [`Refused::TokensSpent`] and [`Refused::Crowded`].
    pub fn promise(
        &self,
        caller: &Caller,
        answers: usize,
        prompt: usize,
        tokens: usize,
    ) -> Result<Allowance, Refused> {
        let bounds = caller.grant.generation;
        let Some(name) = caller.name.as_ref().filter(|_| bounds != Bounds::default()) else {
            return Ok(Allowance::unbounded());
        };
        let counts = match caller.via {
            Via::Nothing | Via::Token => &self.callers_generation,
            Via::Oidc => &self.subjects_generation,
        };
        counts.promise(name, bounds, answers, prompt, tokens)
    }
}

impl Caller {
    /// The caller of a kind that the server does not tell apart.
    fn unnamed(via: Via) -> Self {
        Self { name: None, via, grant: Arc::new(Grant::usual()) }
    }

    /// A server that proves by evidence what it is, and not by a token who it is.
    pub(crate) fn peer() -> Self {
        Self::unnamed(Via::Nothing)
    }

    /// The name to log.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How it proved who it is.
    pub fn via(&self) -> Via {
        self.via
    }

    /// Whether the caller may do this with a model of that name, which need not exist: so ask before looking for it.
    ///
    /// # Errors
    /// [`Forbidden`]
    pub fn permit(&self, action: Action, model: &str) -> Result<(), Forbidden> {
        self.permit_any(action)?;
        if self.may_see(model) { Ok(()) } else { Err(Forbidden::Model { model: model.into() }) }
    }

    /// Whether it may do this with models at all.
    ///
    /// # Errors
    /// [`Forbidden::Action`]
    pub fn permit_any(&self, action: Action) -> Result<(), Forbidden> {
        if self.grant.may.contains(&action) { Ok(()) } else { Err(Forbidden::Action(action.name())) }
    }

    /// Whether it may learn that a model of that name exists.
    pub fn may_see(&self, model: &str) -> bool {
        self.grant.models.iter().any(|pattern| pattern.matches(model))
    }
}

impl Via {
    /// A fixed word for the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Token => "token",
            Self::Oidc => "oidc",
        }
    }
}

impl Action {
    /// The action as the policy file spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Unlock => "unlock",
            Self::Manage => "manage",
        }
    }
}

impl Grant {
    /// The grant without a policy: every model, at any rate. Loading and unloading is not in it: whoever may do that is
    /// to be named.
    fn usual() -> Self {
        let any = Pattern { text: String::new(), prefix: true };
        Self {
            models: vec![any],
            may: vec![Action::Infer, Action::Unlock],
            rate: None,
            generation: Bounds::default(),
        }
    }
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

impl Refused {
    /// HTTP status and the body's `code`.
    pub fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Missing | Self::Unknown | Self::Jwt(_) => (401, "unauthorized"),
            Self::Forbidden(_) => (403, "forbidden"),
            Self::RateLimited { .. } | Self::TokensSpent { .. } | Self::Crowded { .. } => {
                (429, "rate-limited")
            }
            Self::Budget { .. } => (400, "prompt-too-long"),
            // The request asks in vain, however often.
            Self::Answers { wanted, most } if wanted > most => (400, "generation-invalid"),
            Self::Answers { .. } => (429, "rate-limited"),
            Self::Unavailable { .. } => (503, "auth-unavailable"),
        }
    }

    /// The value of `www-authenticate` (RFC 6750, section 3), for those that need one.
    pub fn challenge(&self) -> Option<String> {
        match self {
            Self::Missing => Some("Bearer".into()),
            Self::Unknown | Self::Jwt(_) => {
                // Characters that the grammar of `error_description` has.
                let allowed = |c| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') { c } else { '\'' };
                let description: String = self.to_string().chars().map(allowed).collect();
                Some(format!("Bearer error=\"invalid_token\", error_description=\"{description}\""))
            }
            Self::Forbidden(_) => Some("Bearer error=\"insufficient_scope\"".into()),
            Self::Unavailable { .. }
            | Self::RateLimited { .. }
            | Self::TokensSpent { .. }
            | Self::Budget { .. }
            | Self::Answers { .. }
            | Self::Crowded { .. } => None,
        }
    }

    /// The value of `retry-after` in seconds, for those that have one.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Unavailable { retry_after, .. }
            | Self::RateLimited { retry_after, .. }
            | Self::TokensSpent { retry_after, .. }
            | Self::Crowded { retry_after } => Some(seconds(*retry_after)),
            // How long an answer takes is not known.
            Self::Answers { wanted, most } if wanted <= most => Some(1),
            Self::Answers { .. }
            | Self::Budget { .. }
            | Self::Missing
            | Self::Unknown
            | Self::Jwt(_)
            | Self::Forbidden(_) => None,
        }
    }
}

/// Whole seconds, at least one and not too few.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// The token of a field of that scheme.
fn bearer(authorization: Option<&[u8]>) -> Option<&[u8]> {
    let (scheme, token) = authorization?.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// The hashes of the tokens in `path`, one a line; blank lines and spaces around them do not count.
fn plain_tokens(path: &Path) -> Result<Vec<[u8; 32]>, AuthError> {
    let path = path.to_owned();
    let text = match std::fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(source) => return Err(AuthError::Read { what: "auth key file", path, source }),
    };
    let mut digests = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let token = line.trim_ascii();
        if token.is_empty() {
            continue;
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(AuthError::Token { path, line: index.saturating_add(1) });
        }
        digests.push(Sha256::digest(token).into());
    }
    if digests.is_empty() {
        return Err(AuthError::Empty { path });
    }
    Ok(digests)
}

const MINUTE: Duration = Duration::from_secs(60);
/// Subjects of an issuer whose requests can be counted at a time.
const MAX_SUBJECTS: usize = 1 << 16;

#[cfg(test)]
mod tests;
