//! The checks of what Intel says: of a platform's trusted computing base, and of the quoting enclave.

use dcap_qvl::intel::{PckExtension, parse_pck_extension};
use dcap_qvl::quote::{Report, TDReport10};
use dcap_qvl::{QeIdentity, TcbInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::behind;
use super::checks::{self, UNREADABLE, current_at, signed_by};
use super::collateral::Collateral;
use super::enclave::EnclaveReport;
use super::platform::Platform;
use super::quote::Quote;
use super::root::Root;
use super::status;
use crate::x509::{Certificate, certificates_from_pem};
use crate::{UnixTime, Verdict, digest};

/// What Intel said, as far as it can be read.
pub(super) struct Said {
    /// The certificates that signed, which may be revoked.
    pub(super) signers: Vec<Certificate>,
    info: Option<TcbInfo>,
    identity: Option<QeIdentity>,
}

impl Said {
    /// What Intel said comes to for the platform of a quote. It means something only when every check passed.
    pub(super) fn platform(&self, quote: &Quote) -> Option<Platform> {
        let [pck, ..] = &quote.chain;
        let pck = parse_pck_extension(pck.der()).ok()?;
        status::platform(quote, &pck, self.info.as_ref()?, self.identity.as_ref()?)
    }

    /// What the platform lacks of Intel's newest level.
    pub(super) fn behind(&self, quote: &Quote, collateral: &Collateral) -> Option<String> {
        let [pck, ..] = &quote.chain;
        let pck = parse_pck_extension(pck.der()).ok()?;
        behind::newest(quote, &pck, self.info.as_ref()?, &collateral.inner.tcb_info)
    }
}

/// Makes the checks.
pub(super) fn check(
    root: &Root,
    quote: &Quote,
    collateral: &Collateral,
    now: UnixTime,
    verdict: &mut Verdict,
) -> Said {
    let collateral = &collateral.inner;
    let info: Signed<'_> = Signed {
        names: ("tcb info", "tcb info validity"),
        chain: &collateral.tcb_info_issuer_chain,
        json: &collateral.tcb_info,
        signature: &collateral.tcb_info_signature,
        versions: &[3],
    };
    let (info, info_signer) =
        info.check(root, now, |info: &TcbInfo| (&info.issue_date, &info.next_update), verdict);
    check_platform(quote, info.as_ref(), &collateral.tcb_info, verdict);

    let identity: Signed<'_> = Signed {
        names: ("qe identity", "qe identity validity"),
        chain: &collateral.qe_identity_issuer_chain,
        json: &collateral.qe_identity,
        signature: &collateral.qe_identity_signature,
        versions: if quote.report.is_sgx() { &[2] } else { &[2, 3] },
    };
    let (identity, identity_signer) = identity.check(
        root,
        now,
        |identity: &QeIdentity| (&identity.issue_date, &identity.next_update),
        verdict,
    );
    check_quoting_enclave(quote, identity.as_ref(), verdict);
    Said { signers: info_signer.into_iter().chain(identity_signer).collect(), info, identity }
}

/// JSON that Intel signed.
struct Signed<'a> {
    /// The names of the checks of signature and age.
    names: (&'static str, &'static str),
    /// Who signed, and the root, as PEM.
    chain: &'a str,
    json: &'a str,
    /// The signature, r ‖ s.
    signature: &'a [u8],
    /// The versions of the format whose meaning is known.
    versions: &'static [u64],
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl Signed<'_> {
    fn check<T: DeserializeOwned>(
        &self,
        root: &Root,
        now: UnixTime,
        dates: impl Fn(&T) -> (&String, &String),
        verdict: &mut Verdict,
    ) -> (Option<T>, Option<Certificate>) {
        let (name, validity) = self.names;
        let signer = self.signer(root);
        let signed = signer.as_ref().map_err(String::clone);
        let signed = signed.and_then(|signer| signed_by(signer, self.json.as_bytes(), self.signature));
        let parsed = crate::json::from_str::<T>(self.json);
        let version = crate::json::from_str(self.json).map(|Versioned { version }| version);
        let unknown = version.ok().filter(|version| !self.versions.contains(version));
        if let (Ok(()), Some(version)) = (&signed, unknown) {
            // Intel's word, in a form that this verifier does not read: it speaks neither for the quote nor against it.
            let versions = self.versions.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ");
            let found =
                format!("version {version}: the server has to staple what Intel's API of version 4 gives");
            verdict.undecided(name, format!("signed by Intel, version {versions}"), found);
            verdict.undecided(validity, current_at(now), UNREADABLE);
            return (None, signer.ok());
        }
        let readable = parsed.as_ref().map(drop).map_err(|err| err.to_string());
        checks::passed(name, "signed by Intel", signed.and(readable), verdict);
        let period = parsed.as_ref().ok().and_then(|parsed| {
            let (issued, next) = dates(parsed);
            Some((unix_time(issued)?, unix_time(next)?))
        });
        match (&signer, period) {
            (Ok(signer), Some((issued, next))) => {
                let (from, until) = checks::validity(&[signer, &root.certificate]);
                checks::period(validity, now, from.max(issued), Some(until.min(next)), verdict);
            }
            _ => verdict.undecided(validity, current_at(now), UNREADABLE),
        }
        (parsed.ok(), signer.ok())
    }

    /// The certificate that Intel's root issued for signing such things.
    fn signer(&self, root: &Root) -> Result<Certificate, String> {
        let mut chain = certificates_from_pem(self.chain).map_err(|err| err.to_string())?.into_iter();
        let (Some(signer), Some(anchor), None) = (chain.next(), chain.next(), chain.next()) else {
            return Err("a chain that is not a signer and Intel's root".into());
        };
        if anchor != root.certificate {
            return Err(format!("another root: {}", anchor.subject()));
        }
        signer.issued_by(&root.certificate, 0).map_err(|err| err.to_string())?;
        if signer.common_name() != SIGNER {
            return Err(format!("signed by {}, not {SIGNER}", signer.common_name()));
        }
        Ok(signer)
    }
}

/// Whether TCB info is about this platform, and knows its level.
fn check_platform(quote: &Quote, info: Option<&TcbInfo>, json: &str, verdict: &mut Verdict) {
    let [pck, ..] = &quote.chain;
    let id = if quote.report.is_sgx() { "SGX" } else { "TDX" };
    let pck = match (parse_pck_extension(pck.der()), info) {
        (Ok(pck), Some(info)) => {
            let expected = described(id, &pck.fmspc, &pck.pce_id);
            let found = format!("{} {} {}", info.id, info.fmspc, info.pce_id).to_ascii_uppercase();
            verdict.equal("tcb info platform", expected, found);
            Some((pck, info))
        }
        (Ok(pck), None) => {
            verdict.undecided("tcb info platform", described(id, &pck.fmspc, &pck.pce_id), UNREADABLE);
            None
        }
        (Err(err), _) => {
            let found = format!("{err:#}");
            verdict.decide("tcb info platform", "a PCK certificate with Intel's extension", found, false);
            None
        }
    };
    let module = quote.report.as_td10().map(|report| {
        let expected = "Intel's TDX module";
        match info {
            Some(info) => checks::passed("tdx module", expected, tdx_module(report, info), verdict),
            None => verdict.undecided("tdx module", expected, UNREADABLE),
        }
    });
    let _: Option<()> = module;
    let expected = "a level that Intel's TCB info lists";
    match pck {
        Some((pck, info)) => {
            checks::passed("tcb level", expected, tcb_level(quote, &pck, info, json), verdict)
        }
        None => verdict.undecided("tcb level", expected, UNREADABLE),
    }
}

fn described(id: &str, fmspc: &[u8; 6], pce_id: &[u8]) -> String {
    format!("{id} {} {}", digest::encode(fmspc), digest::encode(pce_id)).to_ascii_uppercase()
}

/// Whether Intel signed the module that runs trust domains, with the attributes it says.
fn tdx_module(report: &TDReport10, info: &TcbInfo) -> Result<(), String> {
    // Modules since 1.5 have identities of their own; before that there is one.
    let identity = info.tdx_module_identity(&report.tee_tcb_svn).map_err(|err| format!("{err:#}"))?;
    let expected = match identity {
        Some(identity) => Some((&identity.mrsigner, &identity.attributes, &identity.attributes_mask)),
        None => info
            .tdx_module
            .as_ref()
            .map(|module| (&module.mrsigner, &module.attributes, &module.attributes_mask)),
    };
    let (signer, attributes, mask) = expected.ok_or("TCB info without a TDX module")?;
    let found = digest::encode(&report.mr_signer_seam);
    if !found.eq_ignore_ascii_case(signer) {
        return Err(format!("signed by {found}, not {signer}"));
    }
    let number = |text: &str| digest::decode_array::<8>(text).map(u64::from_le_bytes);
    let (expected, mask) = (number(attributes), number(mask));
    let (Ok(expected), Ok(mask)) = (expected, mask) else {
        return Err("TCB info with attributes that are not hex of 8 bytes".into());
    };
    // Bits that the mask leaves open have to be 0.
    if u64::from_le_bytes(report.seam_attributes) != expected & mask {
        return Err(format!("attributes {}, not {attributes}", digest::encode(&report.seam_attributes)));
    }
    let known = identity.is_none_or(|identity| {
        identity.tcb_levels.iter().any(|level| level.shortfall(&report.tee_tcb_svn).is_none())
    });
    if known { Ok(()) } else { Err("a module older than any that Intel lists".into()) }
}

/// Whether the platform reaches any of Intel's levels; if not, what the nearest one lacks.
fn tcb_level(quote: &Quote, pck: &PckExtension, info: &TcbInfo, json: &str) -> Result<(), String> {
    if info.tcb_levels.is_empty() {
        return Err("TCB info without levels".into());
    }
    let launch = quote.report.as_td10().map(|report| &report.tee_tcb_svn);
    let current = quote.report.as_td15().map(|report| &report.tee_tcb_svn2);
    for svn in [launch].into_iter().chain(current.map(Some)) {
        let mut reached = false;
        for level in &info.tcb_levels {
            let shortfalls =
                level.shortfalls(&pck.cpu_svn, pck.pce_svn, svn).map_err(|err| format!("{err:#}"))?;
            reached |= shortfalls.is_empty();
        }
        if !reached {
            let lacks = behind::nearest(quote, pck, info, json).unwrap_or_default();
            return Err(format!("no matching TCB level; the nearest one lacks {lacks}"));
        }
    }
    Ok(())
}

/// Whether the enclave that made the quote is the one that Intel's QE identity names.
fn check_quoting_enclave(quote: &Quote, identity: Option<&QeIdentity>, verdict: &mut Verdict) {
    let (name, expected) = ("qe identity match", "Intel's quoting enclave");
    let Some(identity) = identity else {
        return verdict.undecided(name, expected, UNREADABLE);
    };
    let report = EnclaveReport::parse(&quote.qe_report).map_err(|err| err.to_string());
    let result = report.and_then(|report| quoting_enclave(quote, &report, identity));
    checks::passed(name, expected, result, verdict);
}

fn quoting_enclave(quote: &Quote, report: &EnclaveReport, identity: &QeIdentity) -> Result<(), String> {
    let id = if matches!(quote.report, Report::SgxEnclave(_)) { "QE" } else { "TD_QE" };
    if identity.id != id {
        return Err(format!("identity of {}, not {id}", identity.id));
    }
    if report.mr_signer != identity.mrsigner || report.isv_prod_id != identity.isvprodid {
        let signer = digest::encode(&report.mr_signer);
        return Err(format!("enclave {} signed by {signer}", report.isv_prod_id));
    }
    if report.is_debug() {
        return Err("an enclave in debug mode".into());
    }
    let mask = u32::from_le_bytes(identity.miscselect_mask);
    if report.misc_select & mask != u32::from_le_bytes(identity.miscselect) & mask {
        return Err(format!("MISCSELECT {:#010x}", report.misc_select));
    }
    let mask = u128::from_le_bytes(identity.attributes_mask);
    if u128::from_le_bytes(report.attributes) & mask != u128::from_le_bytes(identity.attributes) & mask {
        return Err(format!("ATTRIBUTES {}", digest::encode(&report.attributes)));
    }
    if identity.tcb_levels.iter().any(|level| report.isv_svn >= level.tcb.isvsvn) {
        return Ok(());
    }
    Err(format!("ISVSVN {}, older than any that Intel lists", report.isv_svn))
}

/// A date of Intel's JSON, such as `2026-10-08T00:09:46Z`.
fn unix_time(text: &str) -> Option<UnixTime> {
    let date: der::DateTime = text.parse().ok()?;
    Some(UnixTime(date.unix_duration().as_secs()))
}

/// Common name of the certificates with which Intel signs TCB info and QE identities.
const SIGNER: &str = "Intel SGX TCB Signing";
