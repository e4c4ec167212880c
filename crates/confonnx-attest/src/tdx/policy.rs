//! The `[tdx]` section of a policy.

use serde::{Deserialize, Serialize};

use super::Facts;
use crate::contract::Section;
use crate::dcap::{CLOUD_EVALUATION, PlatformPolicy, STRICT_EVALUATION, TcbStatus, check_list};
use crate::list::at_least_one;
use crate::{EnclaveHash, Hex, Verdict, digest};

/// The `[tdx]` section of a policy. In each list of values one has to match; a list that is not given expects
/// nothing, but for `mr_service_td`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// MRTD: the virtual firmware as it was when the trust domain was built.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_td: Vec<Hex<48>>,
    /// RTMR0: the firmware's configuration, among it the ACPI tables, which the host makes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub rtmr0: Vec<Hex<48>>,
    /// RTMR1: boot loader and kernel.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub rtmr1: Vec<Hex<48>>,
    /// RTMR2: kernel command line and initial RAM disk.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub rtmr2: Vec<Hex<48>>,
    /// RTMR3: left to the running system.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub rtmr3: Vec<Hex<48>>,
    /// MRSEAM: Intel's TDX module.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_seam: Vec<Hex<48>>,
    /// MRCONFIGID: what the host says of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_config_id: Vec<Hex<48>>,
    /// MROWNER: what the host says of the owner.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_owner: Vec<Hex<48>>,
    /// MROWNERCONFIG: what the host says of the owner's configuration.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub mr_owner_config: Vec<Hex<48>>,
    /// MR_SERVICETD and, where the quote has it, CUR_SERVICE_TD_HASH: the service trust domains that may be bound to this
    /// one, and read and write it. If the list is empty or not given, none may be.
    pub mr_service_td: Vec<Hex<48>>,
    /// Extended features that the trust domain may use (XFAM), as the quote has them: little-endian.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub xfam: Vec<Hex<8>>,
    /// Attributes that may be on besides SEPT_VE_DISABLE.
    pub attributes: Vec<Attribute>,
    /// Accepts trust domains without SEPT_VE_DISABLE: the host can inject exceptions where a kernel does not expect them.
    /// Azure's paravisor runs so.
    pub sept_ve: bool,
    /// Accepts trust domains that the host can debug or profile.
    pub debug: bool,
    /// Least versions of the TDX module and SEAM loader, byte by byte (TEE_TCB_SVN, and TEE_TCB_SVN2 where there is
    /// one).
    pub minimum_tee_tcb_svn: Option<Hex<16>>,
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

/// An attribute of a trust domain (Intel TDX Module ABI, TD_ATTRIBUTES), by Intel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attribute {
    /// Defends against single-stepping by counting instructions.
    #[serde(rename = "ICSSD")]
    Icssd,
    /// The report names the service trust domains.
    #[serde(rename = "SERVTD_EXT")]
    ServtdExt,
    /// The trust domain may use linear address space separation.
    #[serde(rename = "LASS")]
    Lass,
    /// A migration trust domain may move it to another machine, with its memory.
    #[serde(rename = "MIGRATABLE")]
    Migratable,
    /// The trust domain may use protection keys for supervisor pages.
    #[serde(rename = "PKS")]
    Pks,
    /// The trust domain may use Key Locker.
    #[serde(rename = "KL")]
    KeyLocker,
    /// The trust domain provisions devices for TDX Connect.
    #[serde(rename = "TPA")]
    Tpa,
    /// The trust domain may use performance counters, by which other parts of the machine can be observed.
    #[serde(rename = "PERFMON")]
    Perfmon,
}

impl Policy {
    /// Accepts only platforms without known weaknesses: TCB up to date, no advisories, no platform flag set.
    pub fn strict() -> Self {
        Self {
            mr_td: Vec::new(),
            rtmr0: Vec::new(),
            rtmr1: Vec::new(),
            rtmr2: Vec::new(),
            rtmr3: Vec::new(),
            mr_seam: Vec::new(),
            mr_config_id: Vec::new(),
            mr_owner: Vec::new(),
            mr_owner_config: Vec::new(),
            mr_service_td: Vec::new(),
            xfam: Vec::new(),
            attributes: vec![Attribute::Icssd, Attribute::Lass, Attribute::Pks],
            sept_ve: false,
            debug: false,
            minimum_tee_tcb_svn: None,
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

    /// Accepts what real clouds run. Concedes the three platform flags, which servers with several processor packages
    /// and SMT set (packages can be added, Intel keeps the root keys, neighbours on a core can be observed through what
    /// they share), and the attributes KL and PERFMON. The TCB still has to be up to date, without advisories.
    pub fn cloud() -> Self {
        Self {
            attributes: vec![
                Attribute::Icssd,
                Attribute::Lass,
                Attribute::Pks,
                Attribute::KeyLocker,
                Attribute::Perfmon,
            ],
            minimum_tcb_evaluation: Some(CLOUD_EVALUATION),
            dynamic_platform: true,
            cached_keys: true,
            smt: true,
            ..Self::strict()
        }
    }

    fn check_attributes(&self, attributes: [u8; 8], verdict: &mut Verdict) {
        let allowed: Vec<&str> = self.attributes.iter().map(|attribute| attribute.name()).collect();
        // Debugging and SEPT_VE_DISABLE have checks of their own.
        let open = u64::from_le_bytes(attributes) & !(UNDER_DEBUG | SEPT_VE_DISABLE);
        let mut found: Vec<String> = Vec::new();
        let mut passed = true;
        for bit in (0..u64::BITS).filter(|bit| open.checked_shr(*bit).is_some_and(|rest| rest & 1 == 1)) {
            let known = Attribute::ALL.iter().find(|attribute| attribute.bit() == bit);
            passed &= known.is_some_and(|attribute| self.attributes.contains(attribute));
            found.push(known.map_or_else(|| format!("bit {bit}"), |attribute| attribute.name().into()));
        }
        let none = |names: String| if names.is_empty() { "none".into() } else { names };
        let expected = format!("none but {}", none(allowed.join(", ")));
        verdict.decide("attributes", expected, none(found.join(", ")), passed);
        let disabled = u64::from_le_bytes(attributes) & SEPT_VE_DISABLE != 0;
        let expected = if self.sept_ve { "on or off" } else { "on" };
        let found = if disabled { "on" } else { "off" };
        verdict.decide("sept ve disable", expected, found, self.sept_ve || disabled);
    }

    /// Checks one service trust domain. The one that was bound at creation and the one that is bound now can both read
    /// the trust domain's memory, so neither stands for the other.
    fn check_service_td(&self, name: &'static str, found: &[u8; 48], verdict: &mut Verdict) {
        if *found == [0; 48] || self.mr_service_td.is_empty() {
            return verdict.equal(name, digest::encode(&[0; 48]), digest::encode(found));
        }
        check_list(name, &self.mr_service_td, found, verdict);
    }

    fn check_svn(&self, facts: &Facts, verdict: &mut Verdict) {
        let svns = [Some(facts.report.tee_tcb_svn), facts.tee_tcb_svn2];
        let found: Vec<_> = svns.iter().flatten().map(|svn| digest::encode(svn)).collect();
        let Some(min) = self.minimum_tee_tcb_svn else {
            return verdict.info("tee tcb svn", found.join(", now "));
        };
        let reached = |svn: &[u8; 16]| svn.iter().zip(min.0).all(|(&found, min)| found >= min);
        let passed = svns.iter().flatten().all(reached);
        verdict.decide("tee tcb svn", format!("at least {min}, byte by byte"), found.join(", now "), passed);
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

    /// Whether the section says which programs are accepted: firmware, its configuration, kernel and initial RAM disk.
    /// One of them open leaves all open.
    fn names_program(&self) -> bool {
        [&self.mr_td, &self.rtmr0, &self.rtmr1, &self.rtmr2].iter().all(|list| !list.is_empty())
    }

    fn allows_debug(&self, _facts: &Facts) -> bool {
        self.debug
    }

    fn check(&self, facts: &Facts, _enclave_hash: &EnclaveHash, verdict: &mut Verdict) {
        let report = &facts.report;
        check_list("mr td", &self.mr_td, &report.mr_td, verdict);
        check_list("rtmr0", &self.rtmr0, &report.rt_mr0, verdict);
        check_list("rtmr1", &self.rtmr1, &report.rt_mr1, verdict);
        check_list("rtmr2", &self.rtmr2, &report.rt_mr2, verdict);
        check_list("rtmr3", &self.rtmr3, &report.rt_mr3, verdict);
        check_list("mr seam", &self.mr_seam, &report.mr_seam, verdict);
        check_list("mr config id", &self.mr_config_id, &report.mr_config_id, verdict);
        check_list("mr owner", &self.mr_owner, &report.mr_owner, verdict);
        check_list("mr owner config", &self.mr_owner_config, &report.mr_owner_config, verdict);
        self.check_service_td("service td", &facts.mr_service_td, verdict);
        if let Some(current) = &facts.current_service_td {
            self.check_service_td("current service td", current, verdict);
        }
        check_list("xfam", &self.xfam, &report.xfam, verdict);
        self.check_attributes(report.td_attributes, verdict);
        self.check_svn(facts, verdict);
        self.platform().check(&facts.platform, verdict);
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::strict()
    }
}

impl Attribute {
    const ALL: [Self; 8] = [
        Self::Icssd,
        Self::ServtdExt,
        Self::Lass,
        Self::Migratable,
        Self::Pks,
        Self::KeyLocker,
        Self::Tpa,
        Self::Perfmon,
    ];

    fn bit(self) -> u32 {
        match self {
            Self::Icssd => 16,
            Self::ServtdExt => 17,
            Self::Lass => 27,
            Self::Migratable => 29,
            Self::Pks => 30,
            Self::KeyLocker => 31,
            Self::Tpa => 62,
            Self::Perfmon => 63,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Icssd => "ICSSD",
            Self::ServtdExt => "SERVTD_EXT",
            Self::Lass => "LASS",
            Self::Migratable => "MIGRATABLE",
            Self::Pks => "PKS",
            Self::KeyLocker => "KL",
            Self::Tpa => "TPA",
            Self::Perfmon => "PERFMON",
        }
    }
}

const UNDER_DEBUG: u64 = 0xff;
const SEPT_VE_DISABLE: u64 = 1 << 28;
