//! What Intel says of a platform.

use std::fmt::{self, Display};

use dcap_qvl::{PckCertFlag, QuoteClaims};
use serde::{Deserialize, Serialize};

/// What verification found out about the platform that made a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// The worst of platform, TDX module and quoting enclave, as Intel's own library combines them.
    pub(crate) status: TcbStatus,
    /// Intel's advisories that are not mitigated.
    pub(crate) advisories: Vec<String>,
    /// Intel's count of TCB recoveries in the collateral; the lower one of TCB info and QE identity.
    pub(crate) tcb_evaluation: u32,
    /// Family, model and stepping of the processor, among others.
    pub(crate) fmspc: [u8; 6],
    /// The processor package.
    pub(crate) ppid: Vec<u8>,
    /// The machine, where it has several packages.
    pub(crate) platform_instance_id: Option<[u8; 16]>,
    /// Processor packages can be added later. Absent on single-package platforms, like the two below.
    pub(crate) dynamic_platform: Option<bool>,
    /// Intel keeps the platform's root keys.
    pub(crate) cached_keys: Option<bool>,
    /// Simultaneous multithreading is on.
    pub(crate) smt: Option<bool>,
    /// What is older than Intel's newest level, for people.
    pub(crate) behind: Option<String>,
}

/// How a platform's trusted computing base stands, in Intel's words (Intel PCS API v4, TCB info). Status `Revoked` is
/// not among them: such platforms are not genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Nothing is known to be missing.
    UpToDate,
    /// The program has to mitigate the advisories itself.
    SWHardeningNeeded,
    /// A setting of the platform (such as SMT) exposes it to the advisories.
    ConfigurationNeeded,
    /// Configuration and hardening of software are needed.
    ConfigurationAndSWHardeningNeeded,
    /// Updates are missing.
    OutOfDate,
    /// Updates are missing, and a setting exposes the platform.
    OutOfDateConfigurationNeeded,
    /// The platform is up to date, but the trust domain was started before that.
    TDRelaunchAdvised,
    /// As `TDRelaunchAdvised`, and a setting exposes the platform.
    TDRelaunchAdvisedConfigurationNeeded,
    /// The platform's keys are compromised. No policy can accept it.
    #[serde(skip)]
    Revoked,
}

impl Platform {
    pub(super) fn new(claims: QuoteClaims) -> Self {
        let QuoteClaims { tcb, platform, .. } = claims;
        let mut advisories = tcb.advisory_ids;
        // The advisories of the TDX module that runs now, which is not the one that started the trust domain.
        for advisory in platform.current_tcb_level.into_iter().flat_map(|level| level.advisory_ids) {
            if !advisories.contains(&advisory) {
                advisories.push(advisory);
            }
        }
        let flag = |flag| match flag {
            PckCertFlag::True => Some(true),
            PckCertFlag::False => Some(false),
            PckCertFlag::Undefined => None,
        };
        Self {
            status: tcb.status.into(),
            advisories,
            tcb_evaluation: tcb.eval_data_number,
            fmspc: platform.pck.fmspc,
            ppid: platform.pck.ppid,
            platform_instance_id: platform.pck.platform_instance_id,
            dynamic_platform: flag(platform.pck.dynamic_platform),
            cached_keys: flag(platform.pck.cached_keys),
            smt: flag(platform.pck.smt_enabled),
            behind: None,
        }
    }
}

impl Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants are named as Intel names them.
        write!(f, "{self:?}")
    }
}

impl From<dcap_qvl::TcbStatus> for TcbStatus {
    fn from(status: dcap_qvl::TcbStatus) -> Self {
        use dcap_qvl::TcbStatus as Intel;
        match status {
            Intel::UpToDate => Self::UpToDate,
            Intel::SWHardeningNeeded => Self::SWHardeningNeeded,
            Intel::ConfigurationNeeded => Self::ConfigurationNeeded,
            Intel::ConfigurationAndSWHardeningNeeded => Self::ConfigurationAndSWHardeningNeeded,
            Intel::OutOfDate => Self::OutOfDate,
            Intel::OutOfDateConfigurationNeeded => Self::OutOfDateConfigurationNeeded,
            Intel::TDRelaunchAdvised => Self::TDRelaunchAdvised,
            Intel::TDRelaunchAdvisedConfigurationNeeded => Self::TDRelaunchAdvisedConfigurationNeeded,
            Intel::Revoked => Self::Revoked,
        }
    }
}
