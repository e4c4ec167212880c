//! Where a server's keys come from, when a service outside of the TEE knows the secret they are derived from.

use std::fmt;

use serde::Deserialize;

use super::Expectations;
use crate::shown::{one_of, shown};
use crate::{Digest, Genuine, KeySource, Verdict};

/// A service that may know the secret a server's keys are derived from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptedKeyService {
    /// The service's base URL, as in the claims.
    pub url: String,
    /// The authorities that certify the service's name, as in the claims. Another authority could certify another
    /// service.
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

/// Keys that only this TEE knows need no word of the policy. The operator of a service knows what it releases, and whoever a
/// group lets in has its keys; the host chooses the service and what the group demands. So the caller has to name them, unless
/// members are what the caller accepts anyway.
pub(super) fn check(expected: &Expectations, genuine: &Genuine, verdict: &mut Verdict) {
    let source = &genuine.claims.key_source;
    match source.kind.as_str() {
        "local" if source.service.is_none() => {}
        "peer" if source.service.is_none() => check_group(expected, genuine, verdict),
        _ => {
            let accepted = &expected.key_services;
            let passed = accepted.iter().any(|service| service.is(source));
            let expected = match &accepted[..] {
                [] => "keys that only TEEs know, or the service named in the policy (key_services)".into(),
                accepted => accepted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            };
            verdict.decide("key source", expected, source.to_string(), passed);
        }
    }
}

fn check_group(expected: &Expectations, genuine: &Genuine, verdict: &mut Verdict) {
    let found = genuine.claims.key_source.peer_policy_sha256;
    let mut accepted = expected.peer_policies.clone();
    // Members on lesser platforms than the caller wants would have the keys, too.
    if accepted.is_empty() && expected.platforms.is_cloud(genuine.tee) {
        accepted.push(genuine.same_program());
    }
    let passed = found.is_some_and(|found| accepted.contains(&found));
    let wanted = match &accepted[..] {
        [] => "the group's policy named in the policy (peer_policy_sha256), or the preset cloud unchanged"
            .into(),
        accepted => format!("peer policy {}", one_of(accepted.iter().map(Digest::to_string))),
    };
    let found = found.map_or_else(|| "none".into(), |digest| digest.to_string());
    verdict.decide("key source", wanted, format!("peer policy {found}"), passed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Facts;
    use crate::measured::Measured;
    use crate::{Claims, EnclaveHash, KeyService, Platforms, Tee, UnixTime};

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

    /// Genuine evidence of the insecure TEE with that source.
    fn genuine(source: &KeySource) -> Genuine {
        Genuine {
            key_configs: Vec::new(),
            claims: Claims { key_source: source.clone(), ..Claims::example(UnixTime(5)) },
            tee: Tee::Insecure,
            measured: Measured {
                enclave_hash: EnclaveHash::from(Digest([7; 32])),
                signer: None,
                debug: true,
                facts: Facts::Insecure,
            },
            fresh: true,
            release_proof: None,
            verdict: Verdict::default(),
        }
    }

    fn is_accepted(expected: &Expectations, genuine: &Genuine) -> bool {
        let mut verdict = Verdict::default();
        check(expected, genuine, &mut verdict);
        verdict.failed().next().is_none()
    }

    fn passes(accepted: &[AcceptedKeyService], source: &KeySource) -> bool {
        let expected = Expectations { key_services: accepted.to_vec(), ..Expectations::default() };
        is_accepted(&expected, &genuine(source))
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
        let group = genuine(&source()).same_program();
        for (kind, peer_policy_sha256) in [("local", None), ("peer", Some(group))] {
            let within = KeySource { kind: kind.into(), peer_policy_sha256, ..KeySource::default() };
            assert!(passes(&[], &within));
            assert!(passes(&[named()], &within));
            assert!(!passes(&[], &KeySource { service: source().service, ..within }));
        }
        for kind in ["kbs", "akv", "Local", ""] {
            assert!(!passes(&[named()], &KeySource { kind: kind.into(), ..KeySource::default() }), "{kind}");
        }
    }

    #[test]
    fn a_group_lets_in_none_but_the_same_program_unless_its_policy_is_named() {
        let peer = |peer_policy_sha256| {
            let source = KeySource { kind: "peer".into(), peer_policy_sha256, ..KeySource::default() };
            Genuine { tee: Tee::Snp, ..genuine(&source) }
        };
        let same = peer(None).same_program();
        let other = Digest([9; 32]);
        let cloud = Expectations { platforms: Platforms::cloud(), ..Expectations::default() };
        assert!(is_accepted(&cloud, &peer(Some(same))));
        assert!(!is_accepted(&cloud, &peer(Some(other))));
        assert!(!is_accepted(&cloud, &peer(None)));
        // Members are held to the preset cloud; a caller who wants more of them has to name their policy.
        let mut more = cloud.clone();
        more.platforms.snp.as_mut().unwrap().minimum_guest_svn = Some(3);
        for strict in [Expectations::default(), more] {
            assert!(!is_accepted(&strict, &peer(Some(same))));
            let named = Expectations { peer_policies: vec![other], ..strict };
            assert!(is_accepted(&named, &peer(Some(other))));
            assert!(!is_accepted(&named, &peer(Some(same))));
        }
        // With another kind of TEE, program or runtime, `same_program` is another digest.
        let mut others = [Genuine { tee: Tee::Tdx, ..peer(None) }, peer(None), peer(None), peer(None)];
        others[1].measured.enclave_hash = EnclaveHash::from(Digest([8; 32]));
        others[2].claims.build.sha256 = other;
        others[3].claims.runtime.sha256 = other;
        assert!(others.iter().all(|genuine| genuine.same_program() != same));
    }
}
