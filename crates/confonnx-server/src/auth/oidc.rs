//! Callers that an issuer vouches for (OpenID Connect): its JWTs, and rules that make callers of their claims.

use std::{sync::Arc, time::Instant};

use confonnx_attest::UnixTime;

use super::{
    Caller, Forbidden, Grant, Pattern, Refused, Via,
    jwks::{Keys, Remote},
    jwt::{self, Claims, Expected, JwtError},
};

/// An issuer and what its word is worth.
pub(super) struct Oidc {
    expected: Expected,
    rules: Vec<Rule>,
    keys: Keys,
}

/// Makes a caller of claims that match.
#[derive(Debug)]
pub(super) struct Rule {
    /// The claims of the token, all of which have to match.
    pub(super) matches: Vec<Match>,
    pub(super) name: Template,
    pub(super) grant: Arc<Grant>,
}

/// A claim one of whose values has to be as one of the patterns.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) claim: String,
    pub(super) patterns: Vec<Pattern>,
}

/// Text with claims in braces.
#[derive(Debug)]
pub(super) struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Claim(String),
}

impl Oidc {
    pub(super) fn new(expected: Expected, rules: Vec<Rule>, keys: Keys) -> Self {
        Self { expected, rules, keys }
    }

    pub(super) fn remote_keys(&self) -> Option<Arc<Remote>> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Remote(remote) => Some(Arc::clone(remote)),
        }
    }

    /// The caller that `token` stands for, at `now`: the first rule that matches decides.
    pub(super) fn identify(&self, token: &[u8], now: UnixTime) -> Result<Caller, Refused> {
        let keys = self.keys.current(Instant::now())?;
        let claims = match jwt::verify(token, &keys, &self.expected, now) {
            Ok(claims) => claims,
            Err(error @ JwtError::UnknownKey(_)) => {
                return Err(self.keys.miss(Instant::now()).unwrap_or_else(|| error.into()));
            }
            Err(error) => return Err(error.into()),
        };
        let rule = self.rules.iter().find(|rule| rule.matches.iter().all(|wanted| wanted.holds(&claims)));
        let rule = rule.ok_or(Forbidden::NoRule)?;
        let name = rule.name.fill(&claims).ok_or_else(|| JwtError::Name(rule.name.text.clone()))?;
        Ok(Caller { name: Some(name.into()), via: Via::Oidc, grant: Arc::clone(&rule.grant) })
    }
}

impl Match {
    fn holds(&self, claims: &Claims) -> bool {
        let values = claims.values(&self.claim);
        values.iter().any(|value| self.patterns.iter().any(|pattern| pattern.matches(value)))
    }
}

impl Template {
    /// Reads `team-{azp}`; `None` when braces are not in pairs or name nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (claim, after) = after.split_once('}')?;
            if before.contains('}') || claim.is_empty() || claim.contains('{') {
                return None;
            }
            pieces.extend([Piece::Text(before.into()), Piece::Claim(claim.into())]);
            rest = after;
        }
        if rest.contains('}') {
            return None;
        }
        pieces.push(Piece::Text(rest.into()));
        Some(Self { text: text.into(), pieces })
    }

    /// The text with the claims' values; `None` when one has none or several, or the text is no name.
    fn fill(&self, claims: &Claims) -> Option<String> {
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Claim(claim) => match claims.values(claim).as_slice() {
                    [value] if value.len() <= MAX_NAME => name.push_str(value),
                    _ => return None,
                },
            }
        }
        is_name(&name).then_some(name)
    }
}

/// Whether a caller can be called that.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && name.trim() == name
}

/// Characters of the longest name.
const MAX_NAME: usize = 128;
