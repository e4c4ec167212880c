//! The `[sgx]` section of a policy.

use serde::{Deserialize, Serialize};

use super::Facts;
use crate::contract::Section;
use crate::dcap::{CLOUD_EVALUATION, PlatformPolicy, STRICT_EVALUATION, TcbStatus, check_list};
use crate::list::at_least_one;
use crate::{EnclaveHash, Hex, Verdict, digest};

/// The `[sgx]` section of a policy. In each list of values one has to match; a list that is not given expects nothing.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// MRENCLAVE: the program.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_enclave: Vec<Hex<32>>,
    /// MRSIGNER: who signed the program. Names programs only together with `isv_prod_id` and `minimum_isv_svn`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_signer: Vec<Hex<32>>,
    /// ISVPRODID: which of the signer's programs.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub isv_prod_id: Vec<u16>,
    /// Least ISVSVN: the signer's security version of the program.
    pub minimum_isv_svn: Option<u16>,
    /// CONFIGID: what the host says of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub config_id: Vec<Hex<64>>,
    /// Least CONFIGSVN.
    pub minimum_config_svn: Option<u16>,
    /// Accepts enclaves that the host can debug.
    pub debug: bool,
    /// Accepted states of the platform's TCB. Never `Revoked`.
    pub tcb_statuses: Vec<TcbStatus>,
    /// Advisories of Intel that are tolerated although they are not mitigated, such as `INTEL-SA-00615`.
    pub advisories: Vec<String>,
    /// Least number of Intel's TCB recovery event that the collateral has to know of. By default 19 (May 2025), with `cloud`
    /// 17 (March 2024); 0 accepts any.
    pub minimum_tcb_evaluation: Option<u32>,
    /// Accepts platforms to which processor packages can be added.
    pub dynamic_platform: bool,
    /// Accepts platforms whose root keys Intel keeps.
    pub cached_keys: bool,
    /// Accepts platforms with simultaneous multithreading.
    pub smt: bool,
    /// Accepted families of processors.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub fmspc: Vec<Hex<6>>,
    /// Accepted processor packages.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub ppid: Vec<Hex<16>>,
    /// Accepted machines, where a machine has several packages.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub platform_instance_id: Vec<Hex<16>>,
}

impl Policy {
    /// Accepts only platforms without known weaknesses: TCB up to date, no advisories, no platform flag set.
    pub fn strict() -> Self {
        Self {
            mr_enclave: Vec::new(),
            mr_signer: Vec::new(),
            isv_prod_id: Vec::new(),
            minimum_isv_svn: None,
            config_id: Vec::new(),
            minimum_config_svn: None,
            debug: false,
            tcb_statuses: vec![TcbStatus::UpToDate],
            advisories: Vec::new(),
            minimum_tcb_evaluation: Some(STRICT_EVALUATION),
            dynamic_platform: false,
            cached_keys: false,
            smt: false,
            fmspc: Vec::new(),
            ppid: Vec::new(),
            platform_instance_id: Vec::new(),
        }
    }

    /// Accepts what real clouds run. Concedes the three platform flags, and status `SWHardeningNeeded` with
    /// INTEL-SA-00334 (load value injection) and INTEL-SA-00615 (stale data of MMIO), of which Intel never clears the
    /// processors concerned: the program has to be built with mitigations. Statuses that blame a setting or missing
    /// updates of the platform stay refused.
    pub fn cloud() -> Self {
        Self {
            tcb_statuses: vec![TcbStatus::UpToDate, TcbStatus::SWHardeningNeeded],
            advisories: vec!["INTEL-SA-00334".into(), "INTEL-SA-00615".into()],
            minimum_tcb_evaluation: Some(CLOUD_EVALUATION),
            dynamic_platform: true,
            cached_keys: true,
            smt: true,
            ..Self::strict()
        }
    }

    fn platform(&self) -> PlatformPolicy<'_> {
        PlatformPolicy {
            tcb_statuses: &self.tcb_statuses,
            advisories: &self.advisories,
            minimum_tcb_evaluation: self.minimum_tcb_evaluation,
            dynamic_platform: self.dynamic_platform,
            cached_keys: self.cached_keys,
            smt: self.smt,
            fmspc: &self.fmspc,
            ppid: &self.ppid,
            platform_instance_id: &self.platform_instance_id,
        }
    }
}

impl Section for Policy {
    type Facts = Facts;

    /// Whether the section says which programs are accepted. A signer alone does not: it may sign other programs, and
    /// has signed old ones.
    fn names_program(&self) -> bool {
        !self.mr_enclave.is_empty() || (!self.mr_signer.is_empty() && self.narrows_signer())
    }

    fn narrows_signer(&self) -> bool {
        !self.isv_prod_id.is_empty() && self.minimum_isv_svn.is_some()
    }

    fn allows_debug(&self, _facts: &Facts) -> bool {
        self.debug
    }

    fn check(&self, facts: &Facts, _enclave_hash: &EnclaveHash, verdict: &mut Verdict) {
        let report = &facts.report;
        check_list("mr enclave", &self.mr_enclave, &report.mr_enclave, verdict);
        check_list("mr signer", &self.mr_signer, &report.mr_signer, verdict);
        let found = report.isv_prod_id.to_string();
        if self.isv_prod_id.is_empty() {
            verdict.info("isv prod id", found);
        } else {
            let accepted: Vec<_> = self.isv_prod_id.iter().map(u16::to_string).collect();
            let passed = self.isv_prod_id.contains(&report.isv_prod_id);
            verdict.decide("isv prod id", accepted.join(" or "), found, passed);
        }
        check_min("isv svn", self.minimum_isv_svn, report.isv_svn, verdict);
        check_list("config id", &self.config_id, &report.config_id, verdict);
        check_min("config svn", self.minimum_config_svn, report.config_svn, verdict);
        verdict.info("attributes", digest::encode(&report.attributes));
        self.platform().check(&facts.platform, verdict);
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::strict()
    }
}

fn check_min(name: &'static str, min: Option<u16>, found: u16, verdict: &mut Verdict) {
    match min {
        Some(min) => verdict.decide(name, format!("at least {min}"), found.to_string(), found >= min),
        None => verdict.info(name, found.to_string()),
    }
}
