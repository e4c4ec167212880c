//! Where a server's keys come from, when a service outside of the TEE knows the secret they are derived from.

use std::fmt;

use serde::Deserialize;

use super::shown;
use crate::{Digest, KeySource, Verdict};

/// A service that may know the secret a server's keys are derived from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedKeyService {
    /// Its base URL, as in the claims.
    pub url: String,
    /// The authorities that certify its name, as in the claims. Another authority could certify another service.
    pub roots_sha256: Digest,
    /// The secret's name there; without one, any secret of the service.
    pub name: Option<String>,
}

impl AcceptedKeyService {
    fn is(&self, source: &KeySource) -> bool {
        source.service.as_ref().is_some_and(|service| {
            service.url == self.url
                && service.roots_sha256 == self.roots_sha256
                && self.name.as_ref().is_none_or(|name| *name == service.name)
        })
    }
}

impl fmt::Display for AcceptedKeyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, roots_sha256, name } = self;
        let name = name.as_deref().unwrap_or("any secret");
        write!(f, "{} of {} by authorities {roots_sha256}", shown(name), shown(url))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.kind))?;
        match &self.service {
            Some(service) => write!(
                f,
                ": {} of {} by authorities {}",
                shown(&service.name),
                shown(&service.url),
                service.roots_sha256
            ),
            None => Ok(()),
        }
    }
}

/// Keys that only TEEs know need no word of the policy. The operator of a service knows what it releases, and the host
/// chooses the service: so the caller has to name it.
pub(super) fn check(accepted: &[AcceptedKeyService], source: &KeySource, verdict: &mut Verdict) {
    let within = matches!(source.kind.as_str(), "local" | "peer") && source.service.is_none();
    if within {
        return;
    }
    let expected = match accepted {
        [] => "keys that only TEEs know, or the service named in the policy (key_services)".into(),
        accepted => accepted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    };
    let passed = accepted.iter().any(|service| service.is(source));
    verdict.decide("key source", expected, source.to_string(), passed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyService;

    fn source() -> KeySource {
        let service = KeyService {
            url: "https://kbs.example".into(),
            name: "default/confonnx/root".into(),
            roots_sha256: Digest([7; 32]),
            attestation_url: None,
        };
        KeySource { kind: "kbs".into(), service: Some(service), ..KeySource::default() }
    }

    fn named() -> AcceptedKeyService {
        AcceptedKeyService {
            url: "https://kbs.example".into(),
            roots_sha256: Digest([7; 32]),
            name: Some("default/confonnx/root".into()),
        }
    }

    fn passes(accepted: &[AcceptedKeyService], source: &KeySource) -> bool {
        let mut verdict = Verdict::default();
        check(accepted, source, &mut verdict);
        verdict.failed().next().is_none()
    }

    #[test]
    fn a_service_has_to_be_named() {
        assert!(!passes(&[], &source()));
        assert!(passes(&[named()], &source()));
        assert!(passes(&[AcceptedKeyService { name: None, ..named() }], &source()));
        for other in [
            AcceptedKeyService { url: "https://kbs.example.net".into(), ..named() },
            AcceptedKeyService { roots_sha256: Digest([8; 32]), ..named() },
            AcceptedKeyService { name: Some("default/confonnx/other".into()), ..named() },
        ] {
            assert!(!passes(std::slice::from_ref(&other), &source()), "{other}");
            assert!(passes(&[other, named()], &source()));
        }
    }

    #[test]
    fn other_kinds_cannot_pass_for_keys_of_a_tee() {
        for kind in ["local", "peer"] {
            let within = KeySource { kind: kind.into(), ..KeySource::default() };
            assert!(passes(&[], &within));
            assert!(passes(&[named()], &within));
            assert!(!passes(&[], &KeySource { service: source().service, ..within }));
        }
        for kind in ["kbs", "akv", "Local", ""] {
            assert!(!passes(&[named()], &KeySource { kind: kind.into(), ..KeySource::default() }), "{kind}");
        }
    }
}
