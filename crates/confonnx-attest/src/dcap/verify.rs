//! Whether a quote is genuine: the checks in their order, and `dcap-qvl`'s own answer.

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuotePolicy};

use super::checks::{self, Crls};
use super::collateral::Collateral;
use super::platform::Platform;
use super::quote::Quote;
use super::root::Root;
use super::tcb;
use crate::bound::Bound;
use crate::{Outcome, UnixTime, Verdict, digest};

/// Makes every check. What the quote reports is genuine when all of them pass; then it says about which platform.
pub(crate) fn verify(
    root: &Root,
    quote: &Quote,
    collateral: Option<&Collateral>,
    bound: Bound<'_>,
    now: UnixTime,
    verdict: &mut Verdict,
) -> Option<Platform> {
    let start = verdict.checks.len();
    verdict.equal(bound.name, digest::encode(bound.bytes), digest::encode(&quote.report_data()));
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
