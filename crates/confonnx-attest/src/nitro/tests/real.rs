//! Documents of real enclaves. Both are in debug mode and carry somebody else's user data.

use base64ct::{Base64, Encoding};

use super::*;
use crate::testing::shared;

/// The verdict under AWS's root, with the document's own user data as what is expected if it has 64 bytes.
fn verdict_of(report: &[u8], now: &str) -> (Verdict, Measured<Facts>) {
    let now = UnixTime(now.parse::<der::DateTime>().unwrap().unix_duration().as_secs());
    let mut verdict = Verdict::default();
    let evidence = Evidence::parse(report, &Map::new()).unwrap();
    let measured = evidence.verify(&REPORT_DATA, now, &mut verdict).unwrap();
    (verdict, measured)
}

fn expect(report: &[u8], made: &str, before: &str, after: &str) {
    let (verdict, measured) = verdict_of(report, made);
    // The data is not ours; everything else is good at that time.
    assert_eq!(bad(&verdict), [("report data", Outcome::Failed)], "{verdict}");
    assert!(measured.debug);
    let facts = &measured.facts;
    assert_eq!(facts.age_s, 0);
    assert_eq!(facts.pcrs.len(), 16);

    let foreign = ("report data", Outcome::Failed);
    let (early, _) = verdict_of(report, before);
    let failed = Outcome::Failed;
    assert_eq!(bad(&early), [("chain validity", failed), ("document time", failed), foreign], "{early}");
    let (late, _) = verdict_of(report, after);
    assert_eq!(bad(&late), [("chain validity", Outcome::Undecided), foreign], "{late}");

    let last = report.len() - 1;
    for position in [last, last / 2, 100] {
        let mut flipped = report.to_vec();
        flipped[position] ^= 1;
        if let Ok(evidence) = Evidence::parse(&flipped, &Map::new()) {
            let mut verdict = Verdict::default();
            evidence.verify(&REPORT_DATA, UnixTime(0), &mut verdict);
            assert_ne!(verdict.check("signature").unwrap().outcome, Outcome::Passed, "byte {position}");
        }
    }
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_document_of_2023_is_genuine_then_and_in_debug_mode() {
    let text = shared("nitro/valid-attestation-doc-base64");
    let report = Base64::decode_vec(std::str::from_utf8(&text).unwrap().trim()).unwrap();
    expect(&report, "2023-09-18T15:03:30Z", "2023-09-18T14:37:08Z", "2023-09-18T17:37:13Z");
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_document_of_2022_is_genuine_then_and_in_debug_mode() {
    let report = shared("nitro/debug-mode-attestation-doc-bytes");
    expect(&report, "2022-10-12T13:50:06Z", "2022-10-12T13:44:41Z", "2022-10-12T16:49:55Z");
}

#[test]
fn the_built_in_root_is_the_published_one() {
    let pem = include_str!("../../../../../vectors/evidence/nitro/nitro.pem");
    let certificates = crate::x509::certificates_from_pem(pem).unwrap();
    assert_eq!(certificates.len(), 1);
    assert_eq!(certificates[0].der(), AWS_ROOT);
}
