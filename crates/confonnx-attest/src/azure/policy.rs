//! What a caller expects of an Azure confidential VM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::runtime::VmConfiguration;
use super::{Facts, Processor};
use crate::contract::Section;
use crate::list::at_least_one;
use crate::shown::shown;
use crate::tpm::{PcrIndex, Quoted, check_pcrs, pcrs_name_program};
use crate::{EnclaveHash, Hex, Verdict, snp, tdx};

/// The `[azure]` section of a policy.
///
/// The vTPM is software: the paravisor that the host started in the virtual machine. So what the PCRs say is worth what
/// that paravisor is worth, and `snp` or `tdx` has to name it, by its measurement or by the key that signed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Accepted enclave hashes. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub measurements: Vec<Hex<32>>,
    /// The values accepted of each PCR named, SHA-256 bank.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pcrs: BTreeMap<PcrIndex, Vec<Hex<32>>>,
    /// Accepted virtual machines, by `vmUniqueId`. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub vms: Vec<String>,
    /// Demands Secure Boot. What booted is in the PCRs all the same.
    pub require_secure_boot: bool,
    /// Accepts a serial console into which the host can type.
    pub console: bool,
    /// What an SEV-SNP processor's report has to be; it is about the paravisor.
    pub snp: snp::Policy,
    /// What a TDX processor's quote has to be; it is about the paravisor.
    pub tdx: tdx::Policy,
}

impl Policy {
    /// Secure Boot, no interactive console, and [`snp::Policy::strict`] or [`tdx::Policy::strict`] of the processor.
    pub fn strict() -> Self {
        Self {
            measurements: Vec::new(),
            pcrs: BTreeMap::new(),
            vms: Vec::new(),
            require_secure_boot: true,
            console: false,
            snp: snp::Policy::strict(),
            tdx: tdx::Policy::strict(),
        }
    }

    /// What [`snp::Policy::cloud`] and [`tdx::Policy::cloud`] concede, Secure Boot off, and a serial console, which Azure
    /// turns on: the host can then type at it what a login there lets it.
    pub fn cloud() -> Self {
        Self {
            require_secure_boot: false,
            console: true,
            snp: snp::Policy::cloud(),
            tdx: tdx::Policy::cloud(),
            ..Self::strict()
        }
    }

    fn check_hardware(&self, hardware: &Processor, verdict: &mut Verdict) {
        let named = match hardware {
            Processor::Snp(measured) => {
                self.snp.check(&measured.facts, &measured.enclave_hash, verdict);
                self.snp.names_program()
            }
            Processor::Tdx(measured) => {
                self.tdx.check(&measured.facts, &measured.enclave_hash, verdict);
                self.tdx.names_program()
            }
        };
        let found = hardware.enclave_hash().to_string();
        if named {
            // The checks of `[azure.snp]` or `[azure.tdx]` have compared the paravisor.
            verdict.info("paravisor", found);
        } else {
            verdict.undecided("paravisor", "one that [azure.snp] or [azure.tdx] of the policy names", found);
        }
    }

    fn check_vm(&self, vm: &VmConfiguration, verdict: &mut Verdict) {
        let id = vm.vm_unique_id.as_deref().map_or("unknown".into(), shown);
        if self.vms.is_empty() {
            verdict.info("vm", id);
        } else {
            let accepted = self.vms.iter().any(|vm| vm.eq_ignore_ascii_case(&id));
            verdict.decide("vm", self.vms.join(" or "), id, accepted);
        }
        let on = |flag: Option<bool>| match flag {
            Some(true) => "on",
            Some(false) => "off",
            None => "unknown",
        };
        let expected = if self.require_secure_boot { "on" } else { "off, allowed" };
        let secure = !self.require_secure_boot || vm.secure_boot == Some(true);
        verdict.decide("secure boot", expected, on(vm.secure_boot), secure);
        // A paravisor that does not say whether a console is interactive may have one that is.
        let console = match vm.console_enabled {
            Some(false) => Some(false),
            _ => vm.interactive_console_enabled.or(vm.console_enabled),
        };
        let expected = if self.console { "on, allowed" } else { "off" };
        verdict.decide("console", expected, on(console), self.console || console == Some(false));
    }
}

impl Section for Policy {
    type Facts = Facts;

    /// Whether the section says which programs are accepted: by whole measurements, or by enough PCRs.
    fn names_program(&self) -> bool {
        !self.measurements.is_empty() || pcrs_name_program(&self.pcrs)
    }

    fn allows_debug(&self, facts: &Facts) -> bool {
        match &facts.hardware {
            Processor::Snp(measured) => self.snp.allows_debug(&measured.facts),
            Processor::Tdx(measured) => self.tdx.allows_debug(&measured.facts),
        }
    }

    fn check(&self, facts: &Facts, enclave_hash: &EnclaveHash, verdict: &mut Verdict) {
        self.check_hardware(&facts.hardware, verdict);
        let found = enclave_hash.to_string();
        match self.measurements.as_slice() {
            [] => verdict.info("boot measurement", found),
            accepted => {
                let expected = accepted.iter().map(Hex::to_string).collect::<Vec<_>>().join(" or ");
                let matches = accepted.iter().any(|hash| hash.0 == enclave_hash.as_bytes());
                verdict.decide("boot measurement", expected, found, matches);
            }
        }
        check_pcrs(&self.pcrs, &facts.pcrs, verdict);
        self.check_vm(&facts.vm, verdict);
        let Quoted { reset_count, restart_count, clock, .. } = facts.quoted;
        verdict
            .info("tpm clock", format!("{reset_count} resets, {restart_count} restarts since, {clock} ms"));
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::strict()
    }
}

#[cfg(test)]
mod tests;
