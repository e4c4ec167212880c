//! What SGX and TDX sections of a policy say of platforms.

use std::fmt::Display;

use super::platform::{Platform, TcbStatus};
use crate::{Hex, Verdict, digest};

/// Intel's TCB recovery event of 13 May 2025, by Intel's list of such events of 3 June 2025.
pub(crate) const STRICT_EVALUATION: u32 = 19;
/// Intel's TCB recovery event of 12 March 2024, the oldest by which Intel evaluated platforms when that list was made.
pub(crate) const CLOUD_EVALUATION: u32 = 17;

/// The platform's part of a section, borrowed from it.
#[derive(Debug)]
pub(crate) struct PlatformPolicy<'a> {
    pub(crate) tcb_statuses: &'a [TcbStatus],
    pub(crate) advisories: &'a [String],
    pub(crate) minimum_tcb_evaluation: Option<u32>,
    pub(crate) dynamic_platform: bool,
    pub(crate) cached_keys: bool,
    pub(crate) smt: bool,
    pub(crate) fmspc: &'a [Hex<6>],
    pub(crate) ppid: &'a [Hex<16>],
    pub(crate) platform_instance_id: &'a [Hex<16>],
}

impl PlatformPolicy<'_> {
    /// Makes every check.
    pub(crate) fn check(&self, platform: &Platform, verdict: &mut Verdict) {
        let accepted = self.tcb_statuses.contains(&platform.status);
        let found = match (&platform.behind, accepted) {
            (Some(behind), false) => format!("{}; {behind}", platform.status),
            _ => platform.status.to_string(),
        };
        verdict.decide("tcb status", one_of(self.tcb_statuses), found, accepted);

        let found = match platform.advisories.as_slice() {
            [] => "none".into(),
            advisories => advisories.join(", "),
        };
        let tolerated = |id: &String| self.advisories.iter().any(|known| known.eq_ignore_ascii_case(id));
        let expected = match self.advisories {
            [] => "none".into(),
            advisories => format!("none but {}", advisories.join(", ")),
        };
        verdict.decide("advisories", expected, found, platform.advisories.iter().all(tolerated));

        let evaluation = platform.tcb_evaluation;
        match self.minimum_tcb_evaluation {
            Some(min) => {
                let expected = format!("at least {min}");
                verdict.decide("tcb evaluation", expected, evaluation.to_string(), evaluation >= min);
            }
            None => verdict.info("tcb evaluation", evaluation.to_string()),
        }
        check_flag("dynamic platform", self.dynamic_platform, platform.dynamic_platform, verdict);
        check_flag("cached keys", self.cached_keys, platform.cached_keys, verdict);
        check_flag("smt", self.smt, platform.smt, verdict);
        check_list("fmspc", self.fmspc, &platform.fmspc, verdict);
        check_list("ppid", self.ppid, &platform.ppid, verdict);
        let instance = platform.platform_instance_id.as_ref().map_or(&[][..], |id| &id[..]);
        check_list("platform instance", self.platform_instance_id, instance, verdict);
    }
}

/// Records whether a value is among those accepted; with none given it is only stated.
pub(crate) fn check_list<const N: usize>(
    name: &'static str,
    accepted: &[Hex<N>],
    found: &[u8],
    verdict: &mut Verdict,
) {
    let shown = if found.is_empty() { "none".into() } else { digest::encode(found) };
    if accepted.is_empty() {
        return verdict.info(name, shown);
    }
    let passed = accepted.iter().any(|accepted| accepted.0 == found);
    verdict.decide(name, one_of(accepted), shown, passed);
}

fn check_flag(name: &'static str, allowed: bool, found: Option<bool>, verdict: &mut Verdict) {
    let shown = match found {
        Some(true) => "on",
        Some(false) => "off",
        None => "not stated",
    };
    let expected = if allowed { "on, allowed" } else { "off" };
    verdict.decide(name, expected, shown, allowed || found != Some(true));
}

fn one_of(accepted: &[impl Display]) -> String {
    accepted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}
