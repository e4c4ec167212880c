//! The `[tpm]` section of a policy.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pcrs::{Pcrs, list};
use super::{AkRoots, Facts, SecureBoot};
use crate::contract::Section;
use crate::list::at_least_one;
use crate::{EnclaveHash, Hex, Verdict};

/// The `[tpm]` section of a policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Attestation keys that are trusted, each by the SHA-256 in its TPM name. Evidence by a key that is neither named
    /// here nor certified by one of `ak_roots` does not pass.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub aks: Vec<Hex<32>>,
    /// Certificate authorities whose certificates for attestation keys are trusted. Revocation is not looked up.
    #[serde(skip_serializing_if = "AkRoots::is_empty")]
    pub ak_roots: AkRoots,
    /// Accepted enclave hashes. Empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub measurements: Vec<Hex<32>>,
    /// The values accepted of each PCR named, SHA-256 bank.
    pub pcrs: BTreeMap<PcrIndex, Vec<Hex<32>>>,
    /// Requires Secure Boot, by the firmware's event log. The PCRs pin the programs that ran without it; it matters when
    /// only some PCRs are pinned.
    pub secure_boot: bool,
    /// Lowest accepted firmware version of the TPM, in its vendor's encoding. None: any.
    pub minimum_firmware_version: Option<u64>,
}

/// The index of a PCR that software cannot reset: 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PcrIndex(u8);

impl Policy {
    /// Accepts no attestation key: a policy has to name one. Boot state is judged by the enclave hash, `measurements`
    /// and `pcrs`.
    pub fn strict() -> Self {
        Self::default()
    }

    /// The same as [`strict`](Self::strict): a TPM has nothing to concede.
    pub fn cloud() -> Self {
        Self::strict()
    }

    fn check_secure_boot(&self, facts: &Facts, verdict: &mut Verdict) {
        let found = match facts.secure_boot {
            SecureBoot::On => "on",
            SecureBoot::Off => "off",
            SecureBoot::Unknown => "unknown: no event log says it",
        };
        match (self.secure_boot, facts.secure_boot) {
            (false, _) => verdict.info("secure boot", found),
            (true, SecureBoot::Unknown) => verdict.undecided("secure boot", "on", found),
            (true, _) => verdict.equal("secure boot", "on", found),
        }
    }

    fn check_ak(&self, facts: &Facts, verdict: &mut Verdict) {
        let name = facts.ak.name().map(Hex);
        let found = name.map_or_else(|| "a key without TPM name".into(), |name| name.to_string());
        if self.aks.is_empty() && self.ak_roots.is_empty() {
            let expected = "an attestation key or an authority that certifies it (`aks` or `ak_roots`)";
            return verdict.undecided("ak", expected, found);
        }
        let named = name.is_some_and(|name| self.aks.contains(&name));
        if named || self.ak_roots.is_empty() {
            return verdict.decide("ak", one_of(&self.aks), found, named);
        }
        // The two checks of `ak_roots` say whether the key is trusted; this one says which key it is.
        if self.ak_roots.check(&facts.ak, &facts.ak_chain, facts.verified_at, verdict) {
            let expected = format!("a key certified by {}", self.ak_roots);
            return verdict.decide("ak", expected, format!("{found}, certified"), true);
        }
        verdict.info("ak", found);
    }
}

impl Section for Policy {
    type Facts = Facts;

    /// Whether the section says which programs are accepted: by whole measurements, or by enough PCRs.
    fn names_program(&self) -> bool {
        !self.measurements.is_empty() || pcrs_name_program(&self.pcrs)
    }

    fn allows_debug(&self, _facts: &Facts) -> bool {
        false
    }

    fn check(&self, facts: &Facts, enclave_hash: &EnclaveHash, verdict: &mut Verdict) {
        self.check_ak(facts, verdict);
        let found = enclave_hash.to_string();
        if self.measurements.is_empty() {
            verdict.info("measurement", found);
        } else {
            let accepted = self.measurements.iter().any(|hash| hash.0 == enclave_hash.as_bytes());
            verdict.decide("measurement", one_of(&self.measurements), found, accepted);
        }
        check_pcrs(&self.pcrs, &facts.pcrs, verdict);
        self.check_secure_boot(facts, verdict);
        let quoted = &facts.quoted;
        let version = format!("{:#018x}", quoted.firmware_version);
        match self.minimum_firmware_version {
            Some(minimum) => {
                let expected = format!("at least {minimum:#018x}");
                verdict.decide("tpm firmware", expected, version, quoted.firmware_version >= minimum);
            }
            None => verdict.info("tpm firmware", version),
        }
        let (resets, restarts) = (quoted.reset_count, quoted.restart_count);
        verdict.info("tpm clock", format!("{resets} resets, {restarts} restarts since, {} ms", quoted.clock));
    }
}

/// Whether PCRs say all of what runs: the firmware (0) with its option ROMs (2), what it started (4), and either the unified
/// kernel image (11), or what a boot loader loaded (8 and 9). Any one of them alone is extended by programs that another
/// one measures: PCR 11 by any kernel, PCR 4 ends at a boot loader that starts any kernel.
pub(crate) fn pcrs_name_program(pcrs: &BTreeMap<PcrIndex, Vec<Hex<32>>>) -> bool {
    let named = |index| pcrs.get(&PcrIndex(index)).is_some_and(|accepted| !accepted.is_empty());
    let firmware = named(0) && named(2);
    firmware && named(4) && (named(11) || (named(8) && named(9)))
}

/// Compares the values of PCRs with those accepted of each one named.
pub(crate) fn check_pcrs(accepted: &BTreeMap<PcrIndex, Vec<Hex<32>>>, pcrs: &Pcrs, verdict: &mut Verdict) {
    if accepted.is_empty() {
        return verdict.info("pcrs", list(pcrs.0.keys()));
    }
    let mut expected = Vec::new();
    let mut found = Vec::new();
    let mut all = true;
    for (index, accepted) in accepted {
        let value = pcrs.0.get(&index.0).copied().map(Hex);
        let passed = value.is_some_and(|value| accepted.contains(&value));
        all &= passed;
        expected.push(format!("{index}: {}", one_of(accepted)));
        let value = value.map_or("not quoted".into(), |value| value.to_string());
        let differs = if passed { String::new() } else { format!(" (differs: {})", index.stands_for()) };
        found.push(format!("{index}: {value}{differs}"));
    }
    verdict.decide("pcrs", expected.join(", "), found.join(", "), all);
}

impl PcrIndex {
    /// The index, when software cannot reset that PCR.
    pub fn new(index: u8) -> Option<Self> {
        (index <= LAST_STATIC).then_some(Self(index))
    }

    /// What is measured into that PCR: by the firmware up to 7 (TCG PC Client Platform Firmware Profile, 2.3.4), from 8 on by
    /// what it started (UAPI Group, Linux TPM PCR Registry).
    fn stands_for(self) -> &'static str {
        STANDS_FOR.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for PcrIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PcrIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let index = text.parse().ok().filter(|index: &u8| index.to_string() == text).and_then(Self::new);
        index.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "expected the index of a PCR that software cannot reset, 0 to {LAST_STATIC}, found {}",
                crate::shown::shown(&text)
            ))
        })
    }
}

fn one_of(accepted: &[Hex<32>]) -> String {
    match accepted {
        [] => "none".into(),
        [one] => one.to_string(),
        several => {
            let list = several.iter().map(Hex::to_string).collect::<Vec<_>>();
            format!("one of {}", list.join(", "))
        }
    }
}

const STANDS_FOR: [&str; 16] = [
    "the firmware",
    "the firmware's settings and the machine's devices",
    "drivers that came with devices",
    "settings of those drivers",
    "the programs that the firmware started: the image, and the kernel in it",
    "the partition table, and how the firmware was left",
    "what is the machine's maker's",
    "the firmware's variables of Secure Boot: whether it is on, and whom it trusts",
    "commands of a boot loader",
    "the kernel's command line and initial file system, by the kernel",
    "files that the kernel measured",
    "the parts of the image: kernel, command line, and the initial file system with server, settings and model",
    "command line and credentials from outside of the image",
    "extensions from outside of the image",
    "keys that the boot loader shim trusts",
    "the system's identity and volumes",
];
/// PCRs from 16 on can be reset without restarting the machine (PC Client Platform TPM Profile, 4.6.2).
const LAST_STATIC: u8 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_differing_pcr_is_named_and_what_it_stands_for() {
        let pcrs = Pcrs([(4, [4; 32]), (7, [7; 32]), (11, [11; 32])].into());
        let accepted =
            [(4, 4), (7, 8), (11, 12)].map(|(index, byte)| (PcrIndex(index), vec![Hex([byte; 32])])).into();
        let mut verdict = Verdict::default();
        check_pcrs(&accepted, &pcrs, &mut verdict);
        let found = &verdict.check("pcrs").unwrap().found;
        let differing: Vec<_> = found.split("differs: ").skip(1).collect();
        assert_eq!(differing.len(), 2, "{found}");
        assert!(differing[0].starts_with("the firmware's variables of Secure Boot"), "{found}");
        assert!(differing[1].starts_with("the parts of the image"), "{found}");
        assert!((0..=LAST_STATIC).all(|index| !PcrIndex(index).stands_for().is_empty()));
    }
}
