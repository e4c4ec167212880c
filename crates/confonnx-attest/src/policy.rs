//! What a caller expects of a server.

use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::evidence::Facts;
use crate::measured::{Measured, Signer};
use crate::release_log::{self, ReleaseLog};
use crate::shown::{one_of, shown};
use crate::{Digest, EnclaveHash, Genuine, PROTOCOL, Tee, UnixTime, Verdict};

mod expectations;
mod file;
mod key_source;
mod model;
mod platforms;
mod server;
mod signing_key;
mod stated;

pub use file::{PolicyFileError, Preset};
pub use key_source::AcceptedKeyService;
pub use model::{Called, ModelPin, ModelRefused};
pub use platforms::Platforms;
pub use server::{AcceptedEngine, Maxima, Refusal, ServerExpectations};
pub use signing_key::{SigningKey, SigningKeyError};

/// What a server has to be. Whatever is given is always compared; nothing is skipped.
#[derive(Clone, Debug)]
pub struct Policy {
    expected: Expectations,
    /// It is not earlier, whatever a clock says.
    not_before: UnixTime,
}

/// The parts of a [`Policy`]. In each list one value has to match; an empty one expects nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Expectations {
    /// What the TEE has to have measured.
    pub enclave_hashes: Vec<EnclaveHash>,
    /// The key that has to have signed the program. A TEE whose programs are not signed then fails.
    pub signing_keys: Vec<SigningKey>,
    /// The hash of the model that is called, which the server has to serve under its name.
    pub model_hashes: Vec<ModelPin>,
    /// Accepts debug mode, and with it the insecure TEE, without confidentiality. Alone it accepts the insecure TEE
    /// only.
    pub allow_debug: bool,
    /// Accepts documents without the caller's nonce when they say they are no older. That rests on the host's clock.
    pub max_age: Option<Duration>,
    /// The digest of the policy by which the server lets clients in.
    pub client_auth: Vec<Digest>,
    /// Services that may know the secret which the keys are derived from; without one, only TEEs may.
    pub key_services: Vec<AcceptedKeyService>,
    /// What members of the server's group may demand of each other, by digest. Without it: to be the same program, which
    /// is enough only if [`platforms`](Self::platforms) expects no more of the TEE than [`Platforms::cloud`].
    pub peer_policies: Vec<Digest>,
    /// What the claims have to say of the server's program, settings and keys.
    pub server: ServerExpectations,
    /// The log that has to have the program's release. It names no program: whoever may write to a log names them.
    pub release_log: Option<ReleaseLog>,
    /// What each kind of TEE has to be beyond that; [`Platforms::strict`] by default.
    pub platforms: Platforms,
}

/// Expectations that would accept programs of anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyBuildError {
    /// Nothing was expected.
    #[error(
        "nothing is expected of the server: give the enclave hash or the enclave signing key (or, for development \
         only, allow debug)"
    )]
    NoExpectation,
    /// Only a model hash was expected, which any program may claim.
    #[error(
        "a model hash alone proves nothing, because any program may claim it: give the enclave hash or the enclave \
         signing key too (or, for development only, allow debug)"
    )]
    ModelHashAlone,
    /// Only a signing key was expected, and it has signed old programs, and others.
    #[error(
        "an enclave signing key alone names no program, because it has signed old ones and others: give the enclave hash \
         too, or in the policy's section `isv_prod_id` and `minimum_isv_svn` (`sgx`), `minimum_guest_svn` (`snp`)"
    )]
    SignerAlone,
    /// Some kinds of TEE are expected to run certain programs, others are not.
    #[error(
        "any program would be accepted in {}: name the accepted programs in the policy's section, or give the \
         enclave hash. (Programs are named in `tpm` and `azure` by `measurements`, or by `pcrs` 0, 2 and 4 with 11, or with \
         8 and 9; a signer names them in `sgx` with `isv_prod_id` and `minimum_isv_svn`, in `snp` with \
         `minimum_guest_svn`)",
        names(.tees)
    )]
    AnyProgram {
        /// Kinds of TEE whose section names no program.
        tees: Vec<Tee>,
    },
    /// Two sources of expectations have nothing in common.
    #[error(
        "the policy accepts the {what} {accepted}, and {given} is asked for besides: nothing can be both"
    )]
    Contradiction {
        /// What they are about, such as `enclave hash`.
        what: &'static str,
        /// Accepted before.
        accepted: String,
        /// Given besides.
        given: String,
    },
}

/// Genuine evidence that is not what the policy wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Every check of both steps.
    pub verdict: Verdict,
}

impl Expectations {
    /// From now on accepts only those enclave hashes that are in both lists; an empty list says nothing.
    pub fn narrow_enclave_hashes(&mut self, accepted: Vec<EnclaveHash>) -> Result<(), PolicyBuildError> {
        narrow("enclave hash", &mut self.enclave_hashes, accepted, EnclaveHash::to_string)
    }

    /// From now on accepts only those signing keys that are in both lists; an empty list says nothing.
    pub fn narrow_signing_keys(&mut self, accepted: Vec<SigningKey>) -> Result<(), PolicyBuildError> {
        narrow("enclave signing key", &mut self.signing_keys, accepted, |key| format!("{key:?}"))
    }

    /// From now on accepts only those model hashes that are in both lists; an empty list says nothing.
    pub fn narrow_model_hashes(&mut self, accepted: Vec<ModelPin>) -> Result<(), PolicyBuildError> {
        model::narrow(&mut self.model_hashes, accepted)
    }

    /// From now on accepts documents without the caller's nonce up to the lesser age.
    pub fn narrow_max_age(&mut self, max_age: Duration) {
        self.max_age = Some(self.max_age.map_or(max_age, |known| known.min(max_age)));
    }
}

impl Policy {
    /// A policy with those expectations; an error when programs of anybody would satisfy them.
    pub fn new(expected: Expectations) -> Result<Self, PolicyBuildError> {
        let signed = !expected.signing_keys.is_empty();
        if !expected.enclave_hashes.is_empty() || expected.allow_debug {
            return Ok(Self { expected, not_before: UnixTime(0) });
        }
        let (accepted, tees) = (expected.platforms.accepted(), expected.platforms.without_program(signed));
        if tees.is_empty() && !accepted.is_empty() {
            return Ok(Self { expected, not_before: UnixTime(0) });
        }
        Err(if signed {
            PolicyBuildError::SignerAlone
        } else if tees.len() < accepted.len() {
            PolicyBuildError::AnyProgram { tees }
        } else if expected.model_hashes.is_empty() {
            PolicyBuildError::NoExpectation
        } else {
            PolicyBuildError::ModelHashAlone
        })
    }

    /// This policy, which takes `own` for the least that others have to show: no older word of the vendor, by the number of
    /// TCB recovery events, and none that had ended when the vendor stated what makes `own` genuine ([`time`](Self::time)).
    #[must_use]
    pub fn no_older_than(mut self, own: &Genuine) -> Self {
        self.not_before = self.not_before.max(own.stated_at().unwrap_or(UnixTime(0)));
        if let Some(number) = own.measured.facts.tcb_evaluation() {
            self.expected.platforms.raise_tcb_evaluation(number);
        }
        self
    }

    /// The time by which to judge when the clock says `now`: clocks are the host's, and the vendor's last word was not spoken
    /// in the future.
    pub fn time(&self, now: UnixTime) -> UnixTime {
        now.max(self.not_before)
    }

    /// SHA-256 of all that the policy expects: the same for the same expectations, however they were given.
    pub fn digest(&self) -> Digest {
        let expected = &self.expected;
        let mut lines: Vec<String> =
            expected.enclave_hashes.iter().map(|hash| format!("hash {hash}")).collect();
        lines.extend(expected.signing_keys.iter().map(|key| format!("signer {key:?}")));
        lines.extend(expected.model_hashes.iter().map(|pin| format!("model {pin}")));
        lines.extend(expected.client_auth.iter().map(|digest| format!("client auth {digest}")));
        lines.extend(expected.key_services.iter().map(|service| format!("key service {service}")));
        lines.extend(expected.peer_policies.iter().map(|digest| format!("peer policy {digest}")));
        lines.sort_unstable();
        lines.push(format!("debug {}", expected.allow_debug));
        if let Some(log) = &expected.release_log {
            lines.push(format!("release log {log}"));
        }
        lines.push(format!("age {:?}", expected.max_age.map(|age| age.as_secs())));
        lines.push(format!("server {:?}", expected.server));
        lines.push(expected.platforms.to_toml());
        Digest(Sha256::digest(format!("confonnx policy v1\n{}", lines.join("\n"))).into())
    }

    /// The longest a document may be old when it was not made for the caller's nonce.
    pub fn max_age(&self) -> Option<Duration> {
        self.expected.max_age
    }

    /// Makes every check, whatever the others say.
    pub(crate) fn check(&self, genuine: &Genuine, now: UnixTime, verdict: &mut Verdict) {
        self.check_platform(genuine.tee, &genuine.measured, verdict);
        self.check_model(genuine, verdict);
        self.check_release(genuine, verdict);
        self.check_client_auth(genuine, verdict);
        key_source::check(&self.expected, genuine, verdict);
        self.expected.server.check(&genuine.claims, verdict);
        self.check_age(genuine, now, verdict);
        verdict.equal("protocol", PROTOCOL, shown(&genuine.claims.protocol));
    }

    /// The checks of the TEE and of what it measured.
    pub(crate) fn check_platform(&self, tee: Tee, measured: &Measured<Facts>, verdict: &mut Verdict) {
        self.check_tee(tee, verdict);
        self.check_program(tee, measured, verdict);
    }

    fn check_tee(&self, tee: Tee, verdict: &mut Verdict) {
        if tee == Tee::Insecure {
            let expected = if self.expected.allow_debug { "insecure, allowed" } else { "a hardware TEE" };
            return verdict.decide("tee", expected, tee.name(), self.expected.allow_debug);
        }
        let accepted = self.expected.platforms.accepted();
        verdict.decide("tee", names(&accepted), tee.name(), accepted.contains(&tee));
    }

    fn check_program(&self, tee: Tee, measured: &Measured<Facts>, verdict: &mut Verdict) {
        let platforms = &self.expected.platforms;
        let (hashes, keys) = (&self.expected.enclave_hashes, &self.expected.signing_keys);
        let named_by_section = platforms.names_program(&measured.facts, !keys.is_empty());
        let found = measured.enclave_hash.to_string();
        if !hashes.is_empty() {
            let expected = one_of(hashes.iter().map(EnclaveHash::to_string));
            verdict.decide("enclave hash", expected, found, hashes.contains(&measured.enclave_hash));
        } else if !named_by_section && tee != Tee::Insecure {
            // Debug permission alone names no program, so it is enough for the insecure TEE only; nor does a signer.
            let expected = "an enclave hash in the policy, or a section that names programs";
            verdict.decide("enclave hash", expected, found, false);
        } else {
            verdict.info("enclave hash", found);
        }
        let found = measured.signer.as_ref().map_or("none".into(), Signer::to_string);
        if keys.is_empty() {
            verdict.info("enclave signer", found);
        } else {
            let accepted: Vec<_> = keys.iter().map(|key| key.expected(measured.signer.as_ref())).collect();
            let passed = accepted.contains(&found);
            verdict.decide("enclave signer", one_of(accepted.into_iter()), found, passed);
        }
        let allowed = self.expected.allow_debug || platforms.allows_debug(&measured.facts);
        let expected = if allowed { "on, allowed" } else { "off" };
        let found = if measured.debug { "on" } else { "off" };
        verdict.decide("debug", expected, found, allowed || !measured.debug);
        platforms.check(measured, verdict);
    }

    fn check_release(&self, genuine: &Genuine, verdict: &mut Verdict) {
        let proof = genuine.release_proof.as_deref();
        match (&self.expected.release_log, proof) {
            (Some(log), proof) => log.check(proof, genuine.tee, &genuine.measured.enclave_hash, verdict),
            (None, Some(proof)) => release_log::stated(proof, verdict),
            (None, None) => {}
        }
    }

    fn check_model(&self, genuine: &Genuine, verdict: &mut Verdict) {
        let models = &genuine.claims.models;
        let list = models.iter().map(ToString::to_string);
        let found = if models.is_empty() { "none".into() } else { list.collect::<Vec<_>>().join(", ") };
        let accepted = &self.expected.model_hashes;
        if accepted.is_empty() {
            return verdict.info("model hash", found);
        }
        // The hash has to be that of some model: which one is called is known only with the call ([`Policy::model`]).
        let served = models.iter().any(|model| accepted.iter().any(|pin| pin.matches(model)));
        verdict.decide("model hash", one_of(accepted.iter().map(ModelPin::to_string)), found, served);
    }

    fn check_client_auth(&self, genuine: &Genuine, verdict: &mut Verdict) {
        let claimed = &genuine.claims.client_auth;
        let accepted = &self.expected.client_auth;
        if accepted.is_empty() {
            return verdict.info("client auth", claimed.to_string());
        }
        let passed = claimed.policy_sha256.is_some_and(|policy| accepted.contains(&policy));
        let expected = format!("policy {}", one_of(accepted.iter().map(Digest::to_string)));
        verdict.decide("client auth", expected, claimed.to_string(), passed);
    }

    fn check_age(&self, genuine: &Genuine, now: UnixTime, verdict: &mut Verdict) {
        let issued_at = genuine.claims.issued_at;
        let age = match now.0.checked_sub(issued_at.0) {
            Some(seconds) => format!("{seconds} s"),
            None => format!("{} s in the future", issued_at.0.saturating_sub(now.0)),
        };
        if genuine.fresh {
            return verdict.info("age", format!("made for our nonce ({age} by the server's clock)"));
        }
        let (expected, passed) = match self.expected.max_age {
            Some(max_age) => {
                let oldest = now.0.saturating_sub(max_age.as_secs());
                let newest = now.0.saturating_add(CLOCK_TOLERANCE);
                let expected = format!("at most {} s", max_age.as_secs());
                (expected, (oldest..=newest).contains(&issued_at.0))
            }
            None => ("a document made for our nonce, or a maximum age in the policy".into(), false),
        };
        verdict.decide("age", expected, age, passed);
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tee = self.verdict.checks.iter().find(|check| check.name == "tee");
        let what = if tee.is_some_and(|check| check.found == Tee::Insecure.name()) {
            "the server is a stand-in without a TEE, which proves nothing, and not what was asked for"
        } else if self.verdict.is_undecided() {
            "the server's evidence is genuine, but whether it is what was asked for cannot be decided"
        } else {
            "the server's evidence is genuine but not what was asked for"
        };
        write!(f, "{what}: {}", self.verdict.summary())
    }
}

impl std::error::Error for PolicyError {}

/// Keeps of `accepted` what is also in `given`.
fn narrow<T: Clone + PartialEq>(
    what: &'static str,
    accepted: &mut Vec<T>,
    given: Vec<T>,
    show: impl Fn(&T) -> String,
) -> Result<(), PolicyBuildError> {
    if given.is_empty() {
        return Ok(());
    }
    if accepted.is_empty() {
        *accepted = given;
        return Ok(());
    }
    let before = std::mem::take(accepted);
    *accepted = before.iter().filter(|value| given.contains(value)).cloned().collect();
    if accepted.is_empty() {
        let (accepted, given) = (one_of(before.iter().map(&show)), one_of(given.iter().map(&show)));
        return Err(PolicyBuildError::Contradiction { what, accepted, given });
    }
    Ok(())
}

fn names(tees: &[Tee]) -> String {
    tees.iter().map(|tee| tee.name()).collect::<Vec<_>>().join(", ")
}

/// Seconds a document may come from the future: clocks differ.
const CLOCK_TOLERANCE: u64 = 300;
