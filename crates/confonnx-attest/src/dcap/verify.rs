//! Whether a quote is genuine: the checks in their order, and `dcap-qvl`'s own answer.

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuotePolicy};

use super::checks::{self, Crls};
use super::collateral::Collateral;
use super::policy::TcbStatus;
use super::quote::Quote;
use super::tcb;
use crate::x509::Certificate;
use crate::{Outcome, UnixTime, Verdict, digest};

/// The certificate to which every chain has to lead.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(super) certificate: Certificate,
}

/// What verification found out about the platform that made a quote.
#[derive(Clone, Debug)]
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
}

impl Root {
    /// Intel's, from its provisioning certification service; valid until 2049.
    pub(crate) fn intel() -> Option<Self> {
        // A test reads it.
        Certificate::from_der(include_bytes!("intel-sgx-root-ca.der")).ok().map(Self::new)
    }

    pub(super) fn new(certificate: Certificate) -> Self {
        Self { certificate }
    }
}

/// Makes every check. What the quote reports is genuine when all of them pass; then it says about which platform.
pub(crate) fn verify(
    root: &Root,
    quote: &Quote,
    collateral: Option<&Collateral>,
    report_data: &[u8; 64],
    now: UnixTime,
    verdict: &mut Verdict,
) -> Option<Platform> {
    let start = verdict.checks.len();
    verdict.equal("report data", digest::encode(report_data), digest::encode(&quote.report_data()));
    checks::signatures(quote, verdict);
    checks::chain(root, quote, now, verdict);
    match collateral {
        Some(collateral) => {
            let crls = Crls::check(root, quote, collateral, now, verdict);
            let signers = tcb::check(root, quote, collateral, now, verdict);
            crls.check_revocation(quote, &signers, verdict);
        }
        None => checks::without_collateral(quote, verdict),
    }
    checks::td_attributes(quote, verdict);
    let claims = library(root, quote, collateral?, now, start, verdict)?;
    let made = verdict.checks.get(start..).unwrap_or_default();
    made.iter().all(|check| check.outcome == Outcome::Passed).then(|| Platform::new(claims))
}

/// Asks `dcap-qvl`, which is the authority. What a policy decides is allowed here.
fn library(
    root: &Root,
    quote: &Quote,
    collateral: &Collateral,
    now: UnixTime,
    start: usize,
    verdict: &mut Verdict,
) -> Option<QuoteClaims> {
    let verifier =
        QuoteVerifier::new(root.certificate.der().to_vec()).allow_debug(true).allow_service_td(true);
    let (name, expected) = ("dcap", "accepted by dcap-qvl");
    // Statuses, advisories and flags are left to our policies; it refuses status Revoked all the same.
    let any = QuotePolicy::claims_only(now.0);
    match verifier.verify_with_policy(quote.bytes(), collateral.inner.clone(), now.0, &any) {
        Ok(claims) => {
            verdict.decide(name, expected, expected, true);
            Some(claims)
        }
        Err(err) => {
            let found: String = format!("{err:#}").chars().filter(|c| !c.is_control()).take(256).collect();
            let made = verdict.checks.get(start..).unwrap_or_default();
            let has = |outcome| made.iter().any(|check| check.outcome == outcome);
            // It stops at the first error. When that is collateral that is too old, nothing speaks against the quote.
            if has(Outcome::Undecided) && !has(Outcome::Failed) {
                verdict.undecided(name, expected, found);
            } else {
                verdict.decide(name, expected, found, false);
            }
            None
        }
    }
}

impl Platform {
    fn new(claims: QuoteClaims) -> Self {
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
        }
    }
}
