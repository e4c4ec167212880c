//! The sections of a policy, one for each kind of TEE.

use crate::evidence::{Facts, Measured};
use crate::{Tee, Verdict, azure, nitro, sgx, snp, tdx, tpm};

/// What each kind of TEE has to be beyond the enclave hash. A kind without a section is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Platforms {
    /// `[azure]`.
    pub azure: Option<azure::Policy>,
    /// `[nitro]`.
    pub nitro: Option<nitro::Policy>,
    /// `[sgx]`.
    pub sgx: Option<sgx::Policy>,
    /// `[snp]`.
    pub snp: Option<snp::Policy>,
    /// `[tdx]`.
    pub tdx: Option<tdx::Policy>,
    /// `[tpm]`.
    pub tpm: Option<tpm::Policy>,
}

impl Platforms {
    /// Every kind of TEE, on platforms without known weaknesses.
    pub fn strict() -> Self {
        Self {
            azure: Some(azure::Policy::strict()),
            nitro: Some(nitro::Policy::strict()),
            sgx: Some(sgx::Policy::strict()),
            snp: Some(snp::Policy::strict()),
            tdx: Some(tdx::Policy::strict()),
            tpm: Some(tpm::Policy::strict()),
        }
    }

    /// Every kind of TEE, on platforms as real clouds run them. What that concedes, each section's `cloud` says.
    pub fn cloud() -> Self {
        Self {
            azure: Some(azure::Policy::cloud()),
            nitro: Some(nitro::Policy::cloud()),
            sgx: Some(sgx::Policy::cloud()),
            snp: Some(snp::Policy::cloud()),
            tdx: Some(tdx::Policy::cloud()),
            tpm: Some(tpm::Policy::cloud()),
        }
    }

    /// The same, of that kind of TEE alone.
    pub fn only(self, tee: Tee) -> Self {
        Self {
            azure: self.azure.filter(|_| tee == Tee::Azure),
            nitro: self.nitro.filter(|_| tee == Tee::Nitro),
            sgx: self.sgx.filter(|_| tee == Tee::Sgx),
            snp: self.snp.filter(|_| tee == Tee::Snp),
            tdx: self.tdx.filter(|_| tee == Tee::Tdx),
            tpm: self.tpm.filter(|_| tee == Tee::Tpm),
        }
    }

    /// Whether it expects of that kind of TEE just what the preset `cloud` does.
    pub(crate) fn is_cloud(&self, tee: Tee) -> bool {
        self.clone().only(tee) == Self::cloud().only(tee)
    }

    /// The kinds that have a section.
    pub(crate) fn accepted(&self) -> Vec<Tee> {
        let all = [
            (Tee::Azure, self.azure.is_some()),
            (Tee::Nitro, self.nitro.is_some()),
            (Tee::Sgx, self.sgx.is_some()),
            (Tee::Snp, self.snp.is_some()),
            (Tee::Tdx, self.tdx.is_some()),
            (Tee::Tpm, self.tpm.is_some()),
        ];
        all.into_iter().filter_map(|(tee, accepted)| accepted.then_some(tee)).collect()
    }

    /// The kinds whose section does not say which programs it accepts.
    pub(crate) fn without_program(&self) -> Vec<Tee> {
        let all = [
            (Tee::Azure, self.azure.as_ref().map(azure::Policy::names_program)),
            (Tee::Nitro, self.nitro.as_ref().map(nitro::Policy::names_program)),
            (Tee::Sgx, self.sgx.as_ref().map(sgx::Policy::names_program)),
            (Tee::Snp, self.snp.as_ref().map(snp::Policy::names_program)),
            (Tee::Tdx, self.tdx.as_ref().map(tdx::Policy::names_program)),
            (Tee::Tpm, self.tpm.as_ref().map(tpm::Policy::names_program)),
        ];
        all.into_iter().filter_map(|(tee, named)| (named == Some(false)).then_some(tee)).collect()
    }

    /// The section that `facts` are about.
    pub(crate) fn section<'a>(&'a self, facts: &'a Facts) -> Option<Section<'a>> {
        Some(match facts {
            #[cfg(feature = "insecure-dev")]
            Facts::Insecure => return None,
            Facts::Azure(facts) => Section::Azure(self.azure.as_ref()?, facts),
            Facts::Nitro(facts) => Section::Nitro(self.nitro.as_ref()?, facts),
            Facts::Sgx(facts) => Section::Sgx(self.sgx.as_ref()?, facts),
            Facts::Snp(facts) => Section::Snp(self.snp.as_ref()?, facts),
            Facts::Tdx(facts) => Section::Tdx(self.tdx.as_ref()?, facts),
            Facts::Tpm(facts) => Section::Tpm(self.tpm.as_ref()?, facts),
        })
    }
}

impl Default for Platforms {
    fn default() -> Self {
        Self::strict()
    }
}

/// A section with the facts it is about.
#[derive(Clone, Copy)]
pub(crate) enum Section<'a> {
    Azure(&'a azure::Policy, &'a azure::Facts),
    Nitro(&'a nitro::Policy, &'a nitro::Facts),
    Sgx(&'a sgx::Policy, &'a sgx::Facts),
    Snp(&'a snp::Policy, &'a snp::Facts),
    Tdx(&'a tdx::Policy, &'a tdx::Facts),
    Tpm(&'a tpm::Policy, &'a tpm::Facts),
}

impl Section<'_> {
    pub(crate) fn names_program(&self) -> bool {
        match self {
            Self::Azure(policy, _) => policy.names_program(),
            Self::Nitro(policy, _) => policy.names_program(),
            Self::Sgx(policy, _) => policy.names_program(),
            Self::Snp(policy, _) => policy.names_program(),
            Self::Tdx(policy, _) => policy.names_program(),
            Self::Tpm(policy, _) => policy.names_program(),
        }
    }

    pub(crate) fn allows_debug(&self) -> bool {
        match self {
            Self::Azure(policy, facts) => policy.allows_debug(facts),
            Self::Nitro(policy, _) => policy.allows_debug(),
            Self::Sgx(policy, _) => policy.allows_debug(),
            Self::Snp(policy, _) => policy.allows_debug(),
            Self::Tdx(policy, _) => policy.allows_debug(),
            Self::Tpm(policy, _) => policy.allows_debug(),
        }
    }

    pub(crate) fn check(&self, measured: &Measured, verdict: &mut Verdict) {
        match self {
            Self::Azure(policy, facts) => policy.check(facts, measured, verdict),
            Self::Nitro(policy, facts) => policy.check(facts, measured, verdict),
            Self::Sgx(policy, facts) => policy.check(facts, measured, verdict),
            Self::Snp(policy, facts) => policy.check(facts, measured, verdict),
            Self::Tdx(policy, facts) => policy.check(facts, measured, verdict),
            Self::Tpm(policy, facts) => policy.check(facts, measured, verdict),
        }
    }
}
