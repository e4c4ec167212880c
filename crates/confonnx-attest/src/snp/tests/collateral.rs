//! What AMD's service is asked for, and what becomes of its answers.

use super::*;

fn paths(evidence: &Evidence) -> Vec<String> {
    evidence.collateral_requests().into_iter().map(|request| request.path).collect()
}

fn answer(body: &[u8]) -> Answer {
    Answer { headers: Vec::new(), body: body.to_vec() }
}

fn staple(evidence: &mut Evidence, answers: &[Answer]) -> Result<(), StapleError> {
    evidence.staple(&answers.iter().map(Some).collect::<Vec<_>>())
}

fn bare(made: &Made) -> Evidence {
    Evidence::new(&made.evidence().1.report(), Endorsements::default()).unwrap()
}

fn pem(certificate: &Certificate) -> String {
    use base64ct::{Base64, Encoding};
    let body = Base64::encode_string(certificate.der());
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[test]
fn paths_are_those_of_the_service() {
    let chip = "c4".repeat(64);
    let vcek = format!("/vcek/v1/Genoa/{chip}?blSPL=03&teeSPL=00&snpSPL=24&ucodeSPL=219");
    assert_eq!(paths(&bare(&Made::new())), [vcek, "/vcek/v1/Genoa/crl".into()]);
    let chip = "c4".repeat(8);
    let vcek = format!("/vcek/v1/Turin/{chip}?fmcSPL=07&blSPL=03&teeSPL=00&snpSPL=24&ucodeSPL=219");
    assert_eq!(paths(&bare(&Made::turin())), [vcek, "/vcek/v1/Turin/crl".into()]);
    assert_eq!(paths(&bare(&Made::vlek())), ["/vlek/v1/Genoa/cert_chain", "/vlek/v1/Genoa/crl"]);
    // The platform gave the VCEK of this TCB; one of another TCB does not help.
    assert_eq!(paths(&Made::new().evidence().1), ["/vcek/v1/Genoa/crl"]);
    let outdated = Made { extensions: vec![(&[3, 3], vec![2, 1, 23])], ..Made::new() };
    assert_eq!(paths(&outdated.evidence().1).len(), 2);
    let unknown = Made { edit_report: |report| report[0x188] = 0x42, ..Made::new() };
    assert!(paths(&bare(&unknown)).is_empty());
    let unsigned = Made { edit_report: |report| report[0x48] = 7 << 2, ..Made::new() };
    assert!(paths(&bare(&unsigned)).is_empty());
}

#[test]
fn stapled_answers_make_evidence_verify() {
    let (roots, full) = Made::crl().evidence();
    let Endorsements { vcek, ask, crl, .. } = full.endorsements.as_ref().clone();
    let (vcek, crl) = (vcek.unwrap(), crl.unwrap());
    let mut evidence =
        Evidence::new(&full.report(), Endorsements { ask, ..Endorsements::default() }).unwrap();
    staple(&mut evidence, &[answer(vcek.der()), answer(crl.der())]).unwrap();
    assert_eq!(evidence, full);
    // What the service did not answer stays as it was.
    evidence.staple(&[None]).unwrap();
    assert_eq!(evidence, full);
    let mut verdict = Verdict::default();
    evidence.verify_with(&roots, &REPORT_DATA, NOW, &mut verdict);
    assert!(verdict.passes(), "{verdict}");
}

#[test]
fn a_vlek_comes_from_the_platform_and_its_chain_from_the_service() {
    let (_, full) = Made { crl: Made::crl().crl, ..Made::vlek() }.evidence();
    let Endorsements { vlek, asvk, crl, .. } = full.endorsements.as_ref().clone();
    let (asvk, crl) = (asvk.unwrap(), crl.unwrap());
    let mut evidence =
        Evidence::new(&full.report(), Endorsements { vlek, ..Endorsements::default() }).unwrap();
    let chain = pem(&asvk) + &pem(&asvk);
    staple(&mut evidence, &[answer(chain.as_bytes()), answer(crl.der())]).unwrap();
    assert_eq!(evidence, full);
}

#[test]
fn answers_that_are_something_else_change_nothing() {
    let mut evidence = bare(&Made::new());
    let before = evidence.clone();
    assert_eq!(evidence.staple(&[]), Err(StapleError::Count { expected: 2, found: 0 }));
    let (vcek, other) = (Made::new().evidence().1.endorsements.vcek.unwrap(), answer(b"{}"));
    let refused = staple(&mut evidence, &[answer(vcek.der()), other.clone()]);
    assert!(matches!(refused, Err(StapleError::Malformed { expected: "a DER revocation list", .. })));
    let refused = staple(&mut evidence, &[other.clone(), other.clone()]);
    assert!(matches!(refused, Err(StapleError::Malformed { expected: "a DER certificate", .. })));
    assert_eq!(evidence, before);
    let mut evidence = bare(&Made::vlek());
    assert!(staple(&mut evidence, &[other.clone(), other]).is_err());
}
