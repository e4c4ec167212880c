//! Quotes of real platforms, at instants when Intel's collateral for them was valid.

use proptest::prelude::*;

use super::*;
use crate::dcap::checks;
use crate::dcap::{Kind, Quote, QuoteError, TcbStatus};
use crate::measured::Measured;
use crate::{digest, testing};
use Outcome::{Failed, Undecided};

/// 2025-06-19T11:56:11Z.
const SGX_THEN: UnixTime = UnixTime(1_750_334_171);
/// 2025-06-19T11:32:27Z.
const TDX_THEN: UnixTime = UnixTime(1_750_332_747);
/// 2026-10-08T01:09:46Z.
const TD15_THEN: UnixTime = UnixTime(1_791_421_786);
/// 2026-02-18T11:58:51Z.
const OUTDATED_THEN: UnixTime = UnixTime(1_771_415_931);

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../../../../vectors/evidence/", $name))
    };
}

const SGX: &[u8] = vector!("sgx/sgx_quote");
const SGX_COLLATERAL: &[u8] = vector!("sgx/sgx_quote_collateral.json");
const TDX: &[u8] = vector!("tdx/tdx_quote");
const TDX_COLLATERAL: &[u8] = vector!("tdx/tdx_quote_collateral.json");

fn endorsements(collateral: &[u8]) -> Map<String, Value> {
    [("collateral".into(), serde_json::from_slice(collateral).unwrap())].into_iter().collect()
}

fn tdx(quote: &[u8], collateral: &[u8]) -> tdx::Evidence {
    tdx::Evidence::parse(quote, &endorsements(collateral)).unwrap()
}

fn sgx(quote: &[u8], collateral: &[u8]) -> sgx::Evidence {
    sgx::Evidence::parse(quote, &endorsements(collateral)).unwrap()
}

fn report_data(quote: &[u8], kind: Kind) -> [u8; 64] {
    Quote::parse(quote, kind).unwrap().report_data()
}

fn verify_tdx(quote: &[u8], collateral: &[u8], now: UnixTime) -> (Verdict, Option<Measured<tdx::Facts>>) {
    let mut verdict = Verdict::default();
    let measured = tdx(quote, collateral).verify(&report_data(quote, Kind::Tdx), now, &mut verdict);
    (verdict, measured)
}

fn verify_sgx(quote: &[u8], collateral: &[u8], now: UnixTime) -> (Verdict, Option<Measured<sgx::Facts>>) {
    let mut verdict = Verdict::default();
    let measured = sgx(quote, collateral).verify(&report_data(quote, Kind::Sgx), now, &mut verdict);
    (verdict, measured)
}

/// Appraises by a section; the checks that failed.
fn appraise_tdx(policy: &tdx::Policy, measured: &Measured<tdx::Facts>) -> Vec<&'static str> {
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    verdict.failed().map(|check| check.name).collect()
}

fn appraise_sgx(policy: &sgx::Policy, measured: &Measured<sgx::Facts>) -> Vec<&'static str> {
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    verdict.failed().map(|check| check.name).collect()
}

#[test]
fn an_sgx_quote_is_genuine_and_needs_its_status_tolerated() {
    let (verdict, measured) = verify_sgx(SGX, SGX_COLLATERAL, SGX_THEN);
    assert!(verdict.passes(), "{verdict}");
    let measured = measured.unwrap();
    let facts = &measured.facts;
    assert_eq!(facts.platform.status, TcbStatus::ConfigurationAndSWHardeningNeeded);
    assert_eq!(facts.platform.advisories, ["INTEL-SA-00289", "INTEL-SA-00615"]);
    assert_eq!(digest::encode(&facts.platform.fmspc), "00a067110000");
    assert!(!measured.debug);
    assert_eq!(measured.enclave_hash.as_bytes(), &SGX[48 + 64..48 + 96]);
    assert_eq!(measured.signer.as_ref().unwrap().to_string(), digest::encode(&SGX[48 + 128..48 + 160]));

    // Intel's lists of that day are of a TCB recovery event that `strict` has left behind.
    let strict = ["tcb status", "advisories", "tcb evaluation"];
    assert_eq!(appraise_sgx(&sgx::Policy::strict(), &measured), strict);
    assert_eq!(appraise_sgx(&sgx::Policy::cloud(), &measured), ["tcb status", "advisories"]);
    let tolerant = sgx::Policy {
        tcb_statuses: vec![TcbStatus::ConfigurationAndSWHardeningNeeded],
        advisories: vec!["INTEL-SA-00289".into(), "intel-sa-00615".into()],
        minimum_tcb_evaluation: Some(17),
        ..sgx::Policy::strict()
    };
    assert_eq!(appraise_sgx(&tolerant, &measured), [""; 0]);
}

#[test]
fn a_tdx_quote_is_genuine_and_up_to_date_with_all_platform_flags() {
    let (verdict, measured) = verify_tdx(TDX, TDX_COLLATERAL, TDX_THEN);
    assert!(verdict.passes(), "{verdict}");
    let measured = measured.unwrap();
    let strict = ["tcb evaluation", "dynamic platform", "cached keys", "smt"];
    assert_eq!(appraise_tdx(&tdx::Policy::strict(), &measured), strict);
    assert_eq!(appraise_tdx(&tdx::Policy::cloud(), &measured), [""; 0]);
    let facts = &measured.facts;
    assert_eq!(facts.platform.status, TcbStatus::UpToDate);
    assert!(!measured.debug && measured.signer.is_none());
    // python: sha384(quote[184:232] + quote[376:568])
    assert_eq!(measured.enclave_hash.to_string(), TDX_ENCLAVE_HASH);
}

#[test]
fn a_quote_of_td_15_is_genuine() {
    let (quote, collateral) =
        (vector!("tdx/tdx_quote_td15ex"), vector!("tdx/tdx_quote_td15ex_collateral.json"));
    let (verdict, measured) = verify_tdx(quote, collateral, TD15_THEN);
    assert!(verdict.passes(), "{verdict}");
    let measured = measured.unwrap();
    let facts = &measured.facts;
    assert_eq!(facts.platform.status, TcbStatus::UpToDate);
    assert!(facts.tee_tcb_svn2.is_some());
    assert_eq!(appraise_tdx(&tdx::Policy::cloud(), &measured), [""; 0]);
}

#[test]
fn a_platform_below_every_level_is_refused() {
    let (quote, collateral) =
        (vector!("tdx/tdx_quote_outdated"), vector!("tdx/tdx_quote_outdated_collateral.json"));
    let (verdict, measured) = verify_tdx(quote, collateral, OUTDATED_THEN);
    assert_eq!(failures(&verdict), [("tcb level", Failed), ("dcap", Failed)]);
    assert!(measured.is_none());
    let found = &verdict.check("tcb level").unwrap().found;
    assert!(found.starts_with("no matching TCB level; the nearest one lacks "), "{found}");
}

#[test]
fn collateral_that_is_too_old_decides_nothing() {
    // A year later: TCB info, QE identity and revocation lists have expired, the PCK chain has not.
    let (verdict, measured) = verify_tdx(TDX, TDX_COLLATERAL, UnixTime(TDX_THEN.0 + 365 * 86_400));
    let expired = ["pck crl age", "root crl age", "tcb info validity", "qe identity validity", "dcap"];
    assert_eq!(failures(&verdict), expired.map(|name| (name, Undecided)));
    assert!(measured.is_none() && verdict.is_undecided());
}

#[test]
fn collateral_from_the_future_is_refused() {
    let (verdict, _) = verify_tdx(TDX, TDX_COLLATERAL, UnixTime(1_700_000_000));
    let future = ["pck crl age", "root crl age", "tcb info validity", "qe identity validity", "dcap"];
    for name in future {
        assert_eq!(verdict.check(name).unwrap().outcome, Failed, "{name}");
    }
}

/// What no one staples cannot be decided; everything that the quote itself proves is still checked.
#[test]
fn without_collateral_nothing_is_decided() {
    for (mut verdict, checks) in [(Verdict::default(), 13)] {
        let evidence = tdx::Evidence::parse(TDX, &Map::new()).unwrap();
        let data = report_data(TDX, Kind::Tdx);
        assert!(evidence.verify(&data, TDX_THEN, &mut verdict).is_none());
        assert!(verdict.is_undecided(), "{verdict}");
        assert_eq!(verdict.failed().count(), checks + 1);
        for name in ["report data", "signature", "attestation key", "quoting enclave", "chain"] {
            assert_eq!(verdict.check(name).unwrap().outcome, Outcome::Passed, "{name}");
        }
    }
}

/// Names are the same with and without collateral, and unique.
#[test]
fn every_verdict_names_the_same_checks_once() {
    let names = |verdict: &Verdict| {
        let mut names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
        names.sort_unstable();
        names
    };
    let (with, _) = verify_tdx(TDX, TDX_COLLATERAL, TDX_THEN);
    let mut without = Verdict::default();
    let evidence = tdx::Evidence::parse(TDX, &Map::new()).unwrap();
    evidence.verify(&[0; 64], TDX_THEN, &mut without);
    assert_eq!(names(&with), names(&without));
    let mut unique = names(&with);
    unique.dedup();
    assert_eq!(unique, names(&with));
}

#[test]
fn other_report_data_fails() {
    let mut verdict = Verdict::default();
    tdx(TDX, TDX_COLLATERAL).verify(&[0; 64], TDX_THEN, &mut verdict);
    assert_eq!(failures(&verdict), [("report data", Failed)]);
}

#[test]
fn a_quote_of_another_kind_is_not_read() {
    let error = tdx::Evidence::parse(SGX, &Map::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        "expected a TDX quote (version 4 or 5 of TEE type 0x81), found version 3 of TEE type 0x00"
    );
    assert_eq!(
        Quote::parse(TDX, Kind::Sgx).unwrap_err(),
        QuoteError::Kind { expected: Kind::Sgx, version: 4, tee: 0x81 }
    );
}

#[test]
fn collateral_of_another_platform_or_kind_fails() {
    let (verdict, _) = verify_tdx(TDX, SGX_COLLATERAL, TDX_THEN);
    let failed = failures(&verdict);
    for name in ["pck crl", "tcb info platform", "qe identity match", "dcap"] {
        assert!(failed.contains(&(name, Failed)), "{name}: {verdict}");
    }
}

#[test]
fn nothing_but_zeros_may_follow_a_quote() {
    let len = Quote::parse(TDX, Kind::Tdx).unwrap().bytes().len();
    assert_eq!((TDX.len(), len), (5006, 4936));
    let mut longer = TDX[..len].to_vec();
    longer.push(1);
    assert_eq!(Quote::parse(&longer, Kind::Tdx).unwrap_err(), QuoteError::Trailing("signature data"));
    assert!(Quote::parse(&TDX[..len - 1], Kind::Tdx).is_err());
    assert!(Quote::parse(&vec![0; 1 << 20], Kind::Tdx).is_err());
}

#[test]
fn a_flipped_bit_of_collateral_never_verifies() {
    let json: Value = serde_json::from_slice(TDX_COLLATERAL).unwrap();
    for member in
        ["tcb_info", "qe_identity", "tcb_info_signature", "qe_identity_signature", "pck_crl", "root_ca_crl"]
    {
        let text = json[member].as_str().unwrap();
        for at in (0..text.len()).step_by(text.len() / 40) {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let mut json = json.clone();
            json[member] = changed.into();
            let Ok(evidence) =
                tdx::Evidence::parse(TDX, &[("collateral".into(), json)].into_iter().collect())
            else {
                continue;
            };
            let mut verdict = Verdict::default();
            let measured = evidence.verify(&report_data(TDX, Kind::Tdx), TDX_THEN, &mut verdict);
            assert!(measured.is_none() && !verdict.passes(), "{member} {at}");
        }
    }
}

/// ECDSA has two signatures of the same statement, and hardware makes both: bytes of evidence are not unique.
#[test]
fn the_other_signature_of_the_same_statement_is_one_too() {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    // Header, report, length of the signature data, r.
    let at = 48 + 584 + 4 + 32;
    let mut other = TDX.to_vec();
    let mut borrow = 0;
    for i in (0..32).rev() {
        let difference = i16::from(ORDER[i]) - i16::from(TDX[at + i]) - borrow;
        borrow = i16::from(difference < 0);
        other[at + i] = difference.rem_euclid(256) as u8;
    }
    assert_ne!(other, TDX);
    let ((first, measured), (second, again)) =
        (verify_tdx(TDX, TDX_COLLATERAL, TDX_THEN), verify_tdx(&other, TDX_COLLATERAL, TDX_THEN));
    assert_eq!(first, second);
    assert_eq!(measured.unwrap().enclave_hash, again.unwrap().enclave_hash);
}

#[test]
fn hex_of_collateral_has_one_form_and_what_is_not_used_is_not_read() {
    let mut json: Value = serde_json::from_slice(TDX_COLLATERAL).unwrap();
    json["pck_crl_issuer_chain"] = 5.into();
    json["pck_certificate_chain"] = true.into();
    let read = |json: &Value| {
        tdx::Evidence::parse(TDX, &[("collateral".into(), json.clone())].into_iter().collect())
    };
    assert!(read(&json).is_ok());
    json["tcb_info_signature"] = json["tcb_info_signature"].as_str().unwrap().to_uppercase().into();
    let error = read(&json).unwrap_err().to_string();
    assert_eq!(error, "collateral: tcb_info_signature: expected hex in lower case, found upper case");
}

/// One bit of every byte of a quote, its padding included; which one varies.
#[test]
fn no_flipped_bit_of_a_tdx_quote_verifies() {
    let one_of_each = (0..TDX.len()).map(|at| at * 8 + at % 8);
    assert_eq!(flips_that_verify(TDX, one_of_each, verify_flipped_tdx), [0; 0]);
}

#[test]
fn no_flipped_bit_of_an_sgx_quote_verifies() {
    let one_of_each = (0..SGX.len()).map(|at| at * 8 + at % 8);
    assert_eq!(flips_that_verify(SGX, one_of_each, verify_flipped_sgx), [0; 0]);
}

#[test]
#[ignore = "takes minutes: every bit of both quotes"]
fn no_flipped_bit_at_all_verifies() {
    assert_eq!(flips_that_verify(TDX, 0..TDX.len() * 8, verify_flipped_tdx), [0; 0]);
    assert_eq!(flips_that_verify(SGX, 0..SGX.len() * 8, verify_flipped_sgx), [0; 0]);
}

/// The sweep can fail: with nothing checked but that it parses, flips of signatures go through.
#[test]
fn the_sweep_finds_what_is_not_checked() {
    let found = flips_that_verify(SGX, 0..SGX.len() * 8, |quote| Quote::parse(quote, Kind::Sgx).is_ok());
    assert!(found.len() > 1000, "{}", found.len());
}

/// Whether the checks of signatures or chain refuse the quote already. The whole verification is some ten times as much
/// work, and refuses what any check refuses: it is run on what is left, and on every eighth byte.
fn refused_early(quote: &[u8], kind: Kind, now: UnixTime) -> bool {
    let Ok(quote) = Quote::parse(quote, kind) else { return true };
    let mut verdict = Verdict::default();
    checks::signatures(&quote, &mut verdict);
    checks::chain(&Root::intel().unwrap(), &quote, now, &mut verdict);
    !verdict.passes()
}

fn flipped_at(quote: &[u8], original: &[u8]) -> usize {
    quote.iter().zip(original).position(|(a, b)| a != b).unwrap_or(0)
}

fn verify_flipped_tdx(quote: &[u8]) -> bool {
    if !flipped_at(quote, TDX).is_multiple_of(8) && refused_early(quote, Kind::Tdx, TDX_THEN) {
        return false;
    }
    let Ok(evidence) = tdx::Evidence::parse(quote, &endorsements(TDX_COLLATERAL)) else { return false };
    let mut verdict = Verdict::default();
    let data = report_data(quote, Kind::Tdx);
    evidence.verify(&data, TDX_THEN, &mut verdict).is_some() || verdict.passes()
}

fn verify_flipped_sgx(quote: &[u8]) -> bool {
    if !flipped_at(quote, SGX).is_multiple_of(8) && refused_early(quote, Kind::Sgx, SGX_THEN) {
        return false;
    }
    let Ok(evidence) = sgx::Evidence::parse(quote, &endorsements(SGX_COLLATERAL)) else { return false };
    let mut verdict = Verdict::default();
    let data = report_data(quote, Kind::Sgx);
    evidence.verify(&data, SGX_THEN, &mut verdict).is_some() || verdict.passes()
}

/// The bits whose change is accepted.
fn flips_that_verify(
    quote: &[u8],
    bits: impl Iterator<Item = usize>,
    accepts: impl Fn(&[u8]) -> bool,
) -> Vec<usize> {
    assert!(accepts(quote));
    let flipped = |bit: &usize| {
        let mut quote = quote.to_vec();
        quote[bit / 8] ^= 1 << (bit % 8);
        accepts(&quote)
    };
    bits.filter(flipped).collect()
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_trust_domain_under_debug_needs_to_be_allowed_by_name() {
    let (quote, collateral) = (
        testing::shared("tdx/trustee_tdx_quote_4_DEBUG.dat"),
        testing::shared("tdx/gotdx_50806f000000_collateral.json"),
    );
    // 2023-06-20T00:00:00Z.
    let (verdict, measured) = verify_tdx(&quote, &collateral, UnixTime(1_687_219_200));
    assert!(verdict.passes(), "{verdict}");
    let measured = measured.unwrap();
    assert!(measured.debug);
    let facts = &measured.facts;
    assert_eq!(facts.platform.status, TcbStatus::UpToDate);
    assert!(!tdx::Policy::cloud().allows_debug(facts));
    assert!(tdx::Policy { debug: true, ..tdx::Policy::cloud() }.allows_debug(facts));
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_production_quote_with_old_firmware_matches_no_level() {
    let (quote, collateral) = (
        testing::shared("tdx/gotdx_tdx_prod_quote_SPR_E4.dat"),
        testing::shared("tdx/gotdx_50806f000000_collateral.json"),
    );
    // The file has 39 bytes of text after the quote.
    assert_eq!(Quote::parse(&quote, Kind::Tdx).unwrap_err(), QuoteError::Trailing("signature data"));
    // 2023-06-18T09:42:58Z.
    let (verdict, _) = verify_tdx(&quote[..4935], &collateral, UnixTime(1_687_081_378));
    let failed = [("tcb level", Failed), ("dcap", Failed)];
    assert_eq!(failures(&verdict), failed, "{verdict}");
    assert!(verdict.check("dcap").unwrap().found.contains("No matching TCB level found"));
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_quote_from_azure_has_everything_but_collateral() {
    let quote = testing::shared("azure/trustee_az-tdx-vtpm_td-quote.bin");
    let evidence = tdx::Evidence::parse(&quote, &Map::new()).unwrap();
    let mut verdict = Verdict::default();
    evidence.verify(&report_data(&quote, Kind::Tdx), TDX_THEN, &mut verdict);
    for name in ["signature", "attestation key", "quoting enclave", "chain", "chain validity"] {
        assert_eq!(verdict.check(name).unwrap().outcome, Outcome::Passed, "{name}");
    }
    assert_eq!(verdict.check("td attributes").unwrap().outcome, Outcome::Passed);
    assert_eq!(evidence.collateral_requests()[0].path, "/tdx/certification/v4/tcb?fmspc=00806F050000");
}

proptest! {
    /// What is read is read as a whole: written again, it is the same but for padding.
    #[test]
    fn no_bytes_make_reading_a_quote_panic(at in 0..TDX.len(), bytes: [u8; 8], cut in 0..TDX.len()) {
        let mut quote = TDX.to_vec();
        quote.splice(at..(at + 8).min(TDX.len()), bytes);
        for quote in [&quote[..], &quote[..cut], &quote[cut..]] {
            if let Ok(read) = Quote::parse(quote, Kind::Tdx) {
                let padding = quote.strip_prefix(read.bytes()).unwrap();
                prop_assert!(padding.iter().all(|&byte| byte == 0));
            }
        }
    }
}

/// Names of checks are unique across both steps, so that tools can look checks up by name.
#[test]
fn no_name_is_used_twice() {
    let (mut verdict, measured) = verify_tdx(TDX, TDX_COLLATERAL, TDX_THEN);
    let measured = measured.unwrap();
    let facts = &measured.facts;
    tdx::Policy::strict().check(facts, &measured.enclave_hash, &mut verdict);
    let (mut other, measured) = verify_sgx(SGX, SGX_COLLATERAL, SGX_THEN);
    let measured = measured.unwrap();
    let facts = &measured.facts;
    sgx::Policy::strict().check(facts, &measured.enclave_hash, &mut other);
    for verdict in [verdict, other] {
        let mut names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
        let made = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), made, "{verdict}");
    }
}

#[test]
fn evidence_is_written_as_it_is_read() {
    let evidence = tdx(TDX, TDX_COLLATERAL);
    assert_eq!(evidence.report(), TDX[..4936]);
    assert_eq!(tdx::Evidence::parse(&evidence.report(), &evidence.endorsements()).unwrap(), evidence);
    let evidence = sgx(SGX, SGX_COLLATERAL);
    assert_eq!(sgx::Evidence::parse(&evidence.report(), &evidence.endorsements()).unwrap(), evidence);
}

/// The root in `dcap-qvl` is not public, so ours is compared with it by what both verify.
#[test]
fn the_pinned_root_is_the_one_of_dcap_qvl() {
    let collateral = serde_json::from_slice(SGX_COLLATERAL).unwrap();
    assert!(dcap_qvl::verify::verify(SGX, &collateral, SGX_THEN.0).is_ok());
    let ours = Root::intel().unwrap();
    assert_eq!(Quote::parse(SGX, Kind::Sgx).unwrap().chain[2], ours.certificate);
    assert_eq!(ours.certificate.common_name(), "Intel SGX Root CA");
}

const TDX_ENCLAVE_HASH: &str =
    "fa13bff786ec94614334ea98d2b49c80d3d029670e86b5615c02afcf50ad9d7a3b02f453567bb20d598b5acf7014d598";
