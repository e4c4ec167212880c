//! What a caller expects of a guest and its platform.

use serde::{Deserialize, Serialize};

use super::Facts;
use super::report::{Product, Tcb, shown_raw_tcb};
use crate::contract::Section;
use crate::digest::Hex;
use crate::list::at_least_one;
use crate::shown::shown;
use crate::{EnclaveHash, Verdict};

/// The `[snp]` section of a policy. A list that is not given accepts any value, which the verdict then
/// states; but for `vmpl`, which is then 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Accepted launch digests: MEASUREMENT, 48 bytes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub measurements: Vec<Hex<48>>,
    /// Keys of which one has to have signed the guest's ID block: SHA-384 of the key in AMD's format, as reports have it.
    /// Names programs only together with `minimum_guest_svn`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub id_keys: Vec<Hex<48>>,
    /// Keys of which one has to have signed the ID key, in the same form.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub author_keys: Vec<Hex<48>>,
    /// Accepted HOST_DATA: 32 bytes that the host gave at launch, such as the digest of a configuration.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub host_data: Vec<Hex<32>>,
    /// Accepted chips: CHIP_ID, 64 bytes; Turin's 8 bytes are followed by zeros.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub chips: Vec<Hex<64>>,
    /// Accepted cloud providers, by the CSP id of the VLEK. Reports signed by a chip's VCEK then fail.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub providers: Vec<String>,
    /// Lowest accepted security version that the ID block gives the guest.
    pub minimum_guest_svn: Option<u32>,
    /// Lowest accepted security versions of the platform.
    pub minimum_tcb: MinimumTcb,
    /// Accepted privilege levels of the program that asked for the report, 0 being the highest.
    #[serde(deserialize_with = "at_least_one")]
    pub vmpl: Vec<u32>,
    /// Bits of mitigations, by the numbers that AMD's bulletins give them, that the firmware must have had in place when
    /// the guest was launched, and still has. Reports say so since version 5; others then fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mitigations: Vec<u32>,
    /// Accepts guests whose memory the host may read and write.
    pub debug: bool,
    /// Accepts guests that a migration agent may move to another machine.
    pub migration: bool,
    /// Accepts platforms whose cores run two threads, which share caches.
    pub smt: bool,
    /// Demands that AMD's revocation list is stapled. One that is stapled is checked in any case.
    pub require_crl: bool,
    /// Demands that the firmware found no aliases of memory (AMD-SB-3015).
    pub require_alias_check: bool,
    /// Demands that DRAM hides ciphertexts from the host; Turin and later.
    pub require_ciphertext_hiding: bool,
}

/// Lowest accepted security versions, whose numbers mean something else on each processor family. When one family is
/// given, those not given are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinimumTcb {
    /// `[snp.minimum_tcb.milan]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milan: Option<Tcb>,
    /// `[snp.minimum_tcb.genoa]`, with Bergamo and Siena.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genoa: Option<Tcb>,
    /// `[snp.minimum_tcb.turin]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turin: Option<Tcb>,
}

impl Policy {
    /// No debug, no migration, no SMT, asked for at VMPL 0, memory checked for aliases, revocation checked, SEV-SNP firmware
    /// that AMD's bulletins ask for ([`MinimumTcb::published`]).
    pub fn strict() -> Self {
        Self {
            measurements: Vec::new(),
            id_keys: Vec::new(),
            author_keys: Vec::new(),
            host_data: Vec::new(),
            chips: Vec::new(),
            providers: Vec::new(),
            minimum_guest_svn: None,
            minimum_tcb: MinimumTcb::published(),
            vmpl: vec![0],
            mitigations: Vec::new(),
            debug: false,
            migration: false,
            smt: false,
            require_crl: true,
            require_alias_check: true,
            require_ciphertext_hiding: false,
        }
    }

    /// As [`strict`](Self::strict), but concedes: SMT, which clouds have on (threads of one core share caches, so side
    /// channels between guests are wider); firmware that did not check memory for aliases, as before 2025 (who can open
    /// the machine could replay memory); firmware of any version, which clouds update months after AMD's bulletins; and no
    /// revocation list.
    pub fn cloud() -> Self {
        Self {
            smt: true,
            minimum_tcb: MinimumTcb::default(),
            require_crl: false,
            require_alias_check: false,
            ..Self::strict()
        }
    }

    /// Checks the mitigations. Versions do not say all: some do nothing until the host has the firmware verify them.
    fn check_mitigations(&self, stated: Option<[u64; 2]>, verdict: &mut Verdict) {
        let name = "mitigations";
        let found = stated.map_or_else(
            || "not stated, as in reports before version 5".into(),
            |[launch, now]| format!("{launch:#x} at launch, {now:#x} now"),
        );
        if self.mitigations.is_empty() {
            return verdict.info(name, found);
        }
        let has = |vector: u64, bit: u32| vector.checked_shr(bit).is_some_and(|bits| bits & 1 == 1);
        let all = |vector| self.mitigations.iter().all(|bit| has(vector, *bit));
        let bits = self.mitigations.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let passed = stated.is_some_and(|vectors| vectors.into_iter().all(all));
        verdict.decide(name, format!("bits {bits}, at launch and now"), found, passed);
    }

    fn check_platform(&self, facts: &Facts, verdict: &mut Verdict) {
        let report = &facts.report;
        let tcbs = [
            ("tcb", report.reported_tcb),
            ("launch tcb", report.launch_tcb),
            ("committed tcb", report.committed_tcb),
            ("current tcb", report.current_tcb),
        ];
        for (name, tcb) in tcbs {
            self.minimum_tcb.check(name, tcb, facts.product, verdict);
        }
        verdict.info("firmware", report.shown_firmware());
        self.check_mitigations(report.mitigations(), verdict);
        one_of("chip", &self.chips, Hex(report.chip_id), verdict);
        let provider = facts.csp.as_deref();
        let found = provider.map_or_else(|| "none: signed by a VCEK".into(), shown);
        if self.providers.is_empty() {
            verdict.info("provider", found);
        } else {
            let accepted = provider.is_some_and(|csp| self.providers.iter().any(|provider| provider == csp));
            verdict.decide("provider", self.providers.join(" or "), found, accepted);
        }
        off("smt", self.smt, report.platform.smt(), verdict);
        let demands = [
            ("alias check", self.require_alias_check, report.platform.alias_check()),
            ("ciphertext hiding", self.require_ciphertext_hiding, report.platform.ciphertext_hiding()),
        ];
        for (name, demanded, found) in demands {
            let found_word = if found { "on" } else { "off" };
            match demanded {
                true => verdict.decide(name, "on", found_word, found),
                false => verdict.info(name, found_word),
            }
        }
        let found = if facts.revocation_checked { "checked" } else { "no revocation list stapled" };
        match (self.require_crl, facts.revocation_checked) {
            (true, false) => verdict.undecided("revocation list", "checked", found),
            (true, true) => verdict.decide("revocation list", "checked", found, true),
            (false, _) => verdict.info("revocation list", found),
        }
    }
}

impl Section for Policy {
    type Facts = Facts;

    /// Whether the section says which programs are accepted: by measurement, or by who signed them and from which
    /// version on. A signer alone does not: it has signed old ones.
    fn names_program(&self) -> bool {
        !self.measurements.is_empty() || (!self.id_keys.is_empty() && self.narrows_signer())
    }

    fn narrows_signer(&self) -> bool {
        self.minimum_guest_svn.is_some()
    }

    fn allows_debug(&self, _facts: &Facts) -> bool {
        self.debug
    }

    fn check(&self, facts: &Facts, _enclave_hash: &EnclaveHash, verdict: &mut Verdict) {
        let report = &facts.report;
        one_of("measurement", &self.measurements, Hex(report.measurement), verdict);
        one_of("id key", &self.id_keys, Hex(report.id_key_digest), verdict);
        one_of("author key", &self.author_keys, Hex(report.author_key_digest), verdict);
        match self.minimum_guest_svn {
            Some(minimum) => {
                let (expected, found) = (format!("at least {minimum}"), report.guest_svn.to_string());
                verdict.decide("guest svn", expected, found, report.guest_svn >= minimum);
            }
            None => verdict.info("guest svn", report.guest_svn.to_string()),
        }
        one_of("host data", &self.host_data, Hex(report.host_data), verdict);
        verdict.info("family id", Hex(report.family_id).to_string());
        verdict.info("image id", Hex(report.image_id).to_string());
        let expected = self.vmpl.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
        verdict.decide("vmpl", expected, report.vmpl.to_string(), self.vmpl.contains(&report.vmpl));
        off("migration", self.migration, report.policy.allows_migration(), verdict);
        self.check_platform(facts, verdict);
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::strict()
    }
}

impl MinimumTcb {
    /// The floors that AMD's bulletins ask for, as of October 2026: of Milan AMD-SB-3030 (12 May 2026, CVE-2025-61971, TCB\[SNP\]
    /// 0x1D), of Genoa AMD-SB-3034 (14 April 2026, CVE-2025-54510, 0x1C), of Turin AMD-SB-3020 (October 2025, CVE-2025-0033,
    /// 0x04). The floors are of SEV-SNP's firmware alone: microcode counts differently in processors of one family, so that no
    /// one number is right for all of them.
    pub fn published() -> Self {
        let snp = |snp| Some(Tcb { snp, ..Tcb::default() });
        Self { milan: snp(0x1D), genoa: snp(0x1C), turin: snp(0x04) }
    }

    fn check(&self, name: &'static str, tcb: [u8; 8], product: Option<Product>, verdict: &mut Verdict) {
        let decoded = product.and_then(|product| Tcb::decode(tcb, product));
        let found = decoded.map_or_else(|| shown_raw_tcb(tcb), |tcb| tcb.to_string());
        if *self == Self::default() {
            return verdict.info(name, found);
        }
        let minimum = product.and_then(|product| match product {
            Product::Milan => self.milan,
            Product::Genoa => self.genoa,
            Product::Turin => self.turin,
        });
        let processor = product.map_or("an unknown processor", Product::name);
        let expected = match minimum {
            Some(minimum) => format!("at least {minimum}"),
            None => format!("a minimum for {processor} in the policy"),
        };
        let passed = decoded.zip(minimum).is_some_and(|(tcb, minimum)| tcb.at_least(&minimum));
        let behind = decoded.zip(minimum).map(|(tcb, minimum)| tcb.behind(&minimum)).unwrap_or_default();
        let found = if behind.is_empty() { found } else { format!("{found}; behind: {behind}") };
        verdict.decide(name, expected, found, passed);
    }
}

/// A value that has to be one of those accepted, when there are any.
fn one_of<const N: usize>(name: &'static str, accepted: &[Hex<N>], found: Hex<N>, verdict: &mut Verdict) {
    if accepted.is_empty() {
        return verdict.info(name, found.to_string());
    }
    let expected = accepted.iter().map(Hex::to_string).collect::<Vec<_>>().join(" or ");
    // Zero is the digest of no key and of no data: it names nothing.
    let named = accepted.contains(&found) && found.0 != [0; N];
    verdict.decide(name, expected, found.to_string(), named);
}

/// A property that has to be off unless it is accepted.
fn off(name: &'static str, accepted: bool, found: bool, verdict: &mut Verdict) {
    let expected = if accepted { "on or off" } else { "off" };
    verdict.decide(name, expected, if found { "on" } else { "off" }, accepted || !found);
}
