//! Collateral as Intel's service and caching services send it.

use super::*;
use crate::collateral::{Answer, StapleError, Vendor};

const TDX: &[u8] = include_bytes!("../../../../../vectors/evidence/tdx/tdx_quote");
const TDX_COLLATERAL: &[u8] = include_bytes!("../../../../../vectors/evidence/tdx/tdx_quote_collateral.json");
const SGX: &[u8] = include_bytes!("../../../../../vectors/evidence/sgx/sgx_quote");

fn evidence() -> tdx::Evidence {
    tdx::Evidence::parse(TDX, &Map::new()).unwrap()
}

fn collateral() -> Value {
    let mut collateral: Value = serde_json::from_slice(TDX_COLLATERAL).unwrap();
    // The quote has the issuer, so nobody asks for its chain.
    collateral["pck_crl_issuer_chain"] = "".into();
    collateral
}

/// The four answers that the collateral was made of.
fn answers() -> [Answer; 4] {
    let collateral = collateral();
    let text = |member: &str| collateral[member].as_str().unwrap().to_owned();
    let encoded = |member: &str| text(member).replace(' ', "%20").replace('\n', "%0A").replace('=', "%3D");
    let answer = |headers: &[(&str, String)], body: Vec<u8>| Answer {
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        body,
    };
    let signed = |name: &str, member: &str| {
        let signature = text(&format!("{member}_signature"));
        format!("{{\"{name}\":{},\"signature\":\"{signature}\"}}", text(member)).into_bytes()
    };
    let der = |member: &str| crate::digest::decode(&text(member)).unwrap();
    [
        answer(&[("tcb-info-issuer-chain", encoded("tcb_info_issuer_chain"))], signed("tcbInfo", "tcb_info")),
        answer(
            &[("sgx-enclave-identity-issuer-chain", encoded("qe_identity_issuer_chain"))],
            signed("enclaveIdentity", "qe_identity"),
        ),
        answer(&[], der("pck_crl")),
        answer(&[], der("root_ca_crl")),
    ]
}

fn stapled(answers: &[Answer; 4]) -> Result<tdx::Evidence, StapleError> {
    let mut evidence = evidence();
    evidence.staple(&answers.each_ref().map(Some))?;
    Ok(evidence)
}

#[test]
fn quotes_say_what_to_ask_for() {
    let paths = |requests: Vec<crate::collateral::Request>| {
        assert!(requests.iter().all(|request| request.vendor == Vendor::Intel));
        requests.into_iter().map(|request| request.path).collect::<Vec<_>>()
    };
    let tdx = [
        "/tdx/certification/v4/tcb?fmspc=B0C06F000000",
        "/tdx/certification/v4/qe/identity",
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "/sgx/certification/v4/rootcacrl",
    ];
    assert_eq!(paths(evidence().collateral_requests()), tdx);
    let sgx = [
        "/sgx/certification/v4/tcb?fmspc=00A067110000",
        "/sgx/certification/v4/qe/identity",
        "/sgx/certification/v4/pckcrl?ca=processor&encoding=der",
        "/sgx/certification/v4/rootcacrl",
    ];
    assert_eq!(paths(sgx::Evidence::parse(SGX, &Map::new()).unwrap().collateral_requests()), sgx);
}

#[test]
fn answers_become_the_collateral_they_were_made_of() {
    let evidence = stapled(&answers()).unwrap();
    assert_eq!(evidence.endorsements()["collateral"], collateral());
}

/// Caching services send revocation lists as hex, and once called the chain otherwise.
#[test]
fn caching_services_are_understood() {
    let mut answers = answers();
    for answer in &mut answers[2..] {
        answer.body = format!("{}\n", crate::digest::encode(&answer.body)).into_bytes();
    }
    answers[0].headers[0].0 = "sgx-tcb-info-issuer-chain".into();
    assert_eq!(stapled(&answers).unwrap().endorsements()["collateral"], collateral());
}

/// The last good collateral stays while an answer is absent.
#[test]
fn a_part_of_the_answers_changes_nothing() {
    let mut evidence = stapled(&answers()).unwrap();
    let before = evidence.clone();
    let answers = answers();
    evidence.staple(&[Some(&answers[0]), None, Some(&answers[2]), Some(&answers[3])]).unwrap();
    assert_eq!(evidence, before);
    let error = evidence.staple(&[Some(&answers[0])]).unwrap_err();
    assert_eq!(error, StapleError::Count { expected: 4, found: 1 });
}

#[test]
fn answers_of_another_form_are_errors_that_name_the_request() {
    let error = |edit: fn(&mut [Answer; 4])| {
        let mut answers = answers();
        edit(&mut answers);
        stapled(&answers).unwrap_err().to_string()
    };
    let tcb = "the vendor's answer to /tdx/certification/v4/tcb?fmspc=B0C06F000000";
    assert_eq!(error(|answers| answers[0].body = b"{}".to_vec()), format!("{tcb} is not signed TCB info"));
    let header = format!("{tcb} has no header field tcb-info-issuer-chain");
    assert_eq!(error(|answers| answers[0].headers.clear()), header);
    assert!(error(|answers| answers[0].headers[0].1 = "%zz".into()).contains("percent-encoded chain"));
    assert!(error(|answers| answers[1].body = b"<html>".to_vec()).contains("is not a signed QE identity"));
    assert!(error(|answers| answers[2].body = b"<html>".to_vec()).contains("is not a DER revocation list"));
    assert!(error(|answers| answers[3].body.clear()).contains("rootcacrl is not a DER revocation list"));
}
