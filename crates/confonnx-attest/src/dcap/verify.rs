//! Whether a quote is genuine: the checks in their order, and `dcap-qvl`'s own answer.

use dcap_qvl::QuotePolicy;
use dcap_qvl::verify::QuoteVerifier;

use super::checks::{self, Crls};
use super::collateral::Collateral;
use super::platform::Platform;
use super::quote::Quote;
use super::root::Root;
use super::tcb::{self, Said};
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
    let said = match collateral {
        Some(collateral) => {
            let crls = Crls::check(root, quote, collateral, now, verdict);
            let said = tcb::check(root, quote, collateral, now, verdict);
            crls.check_revocation(quote, &said.signers, verdict);
            Some(said)
        }
        None => {
            checks::without_collateral(quote, verdict);
            None
        }
    };
    checks::td_attributes(quote, verdict);
    let (said, collateral) = (said?, collateral?);
    // The library does not look at the report data, whose check is the first: its answer is compared with the others.
    let after_bound = start.saturating_add(1);
    let platform = library(root, quote, collateral, &said, now, after_bound, verdict)?;
    let made = verdict.checks.get(start..).unwrap_or_default();
    let behind = said.behind(quote, collateral);
    made.iter().all(|check| check.outcome == Outcome::Passed).then_some(Platform { behind, ..platform })
}

/// Asks `dcap-qvl`, which is the authority. What a policy decides is allowed here.
fn library(
    root: &Root,
    quote: &Quote,
    collateral: &Collateral,
    said: &Said,
    now: UnixTime,
    start: usize,
    verdict: &mut Verdict,
) -> Option<Platform> {
    let verifier =
        QuoteVerifier::new(root.certificate.der().to_vec()).allow_debug(true).allow_service_td(true);
    let (name, expected) = ("dcap", "accepted by dcap-qvl");
    // Statuses, advisories and flags are left to our policies; it refuses status Revoked all the same.
    let any = QuotePolicy::claims_only(now.0);
    match verifier.verify_with_policy(quote.bytes(), collateral.inner.clone(), now.0, &any) {
        Ok(claims) => {
            verdict.decide(name, expected, expected, true);
            let platform = Platform::new(claims);
            #[cfg(test)]
            assert_eq!(
                said.platform(quote).as_ref(),
                Some(&platform),
                "two answers of how a platform stands"
            );
            Some(platform)
        }
        // The library looks at these attributes last, and cannot leave them to policies: everything else is as it
        // should be.
        Err(err) if LEFT_TO_POLICIES.contains(&err.to_string().as_str()) => {
            let platform = said.platform(quote);
            let found = format!("accepted but for what policies judge: {err}");
            verdict.decide(name, expected, found, platform.is_some());
            platform
        }
        Err(err) => {
            let found: String = format!("{err:#}").chars().filter(|c| !c.is_control()).take(256).collect();
            let made = verdict.checks.get(start..).unwrap_or_default();
            let has = |outcome| made.iter().any(|check| check.outcome == outcome);
            // The library stops at the first error. When that is collateral that is too old, nothing speaks against the quote.
            if has(Outcome::Undecided) && !has(Outcome::Failed) {
                verdict.undecided(name, expected, found);
            } else {
                verdict.decide(name, expected, found, false);
            }
            None
        }
    }
}

/// What `dcap-qvl` says of attributes that it refuses after all other checks. A release that says it in other words
/// refuses.
const LEFT_TO_POLICIES: [&str; 2] = ["TD migration is enabled", "SEPT_VE_DISABLE is not enabled"];
