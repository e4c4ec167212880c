//! Real evidence, which needs two answers, and these.

use std::collections::BTreeSet;

use confonnx_attest::{Document, Evidence};
use serde_json::{Map, Value};

fn vector(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/evidence");
    std::fs::read(folder.join(name)).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
    text.trim().as_bytes().as_chunks().0.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect()
}

/// A report without endorsements, whose microcode is `level` newer than it was.
pub(super) fn evidence(level: u8) -> Evidence {
    let mut report = unhex(std::str::from_utf8(&vector("snp/report_milan.hex")).unwrap());
    // REPORTED_TCB is at 0x180, and its last byte is the microcode's.
    report[0x187] += level;
    Evidence::parse("snp", &report, &Map::new()).unwrap()
}

/// A report of the stand-in.
pub(super) fn insecure() -> Vec<u8> {
    let (data, measurement) = ("00".repeat(64), "11".repeat(32));
    format!(r#"{{"report_data":"{data}","measurement":"{measurement}","debug":true}}"#).into()
}

/// The names of the endorsements.
pub(super) fn stapled(evidence: &Evidence) -> BTreeSet<String> {
    let document = Document::new(Vec::new(), Vec::new(), evidence.clone(), [0; 32], None).to_json();
    let document: Value = serde_json::from_slice(&document).unwrap();
    document["evidence"]["endorsements"].as_object().unwrap().keys().cloned().collect()
}

pub(super) fn certificate() -> Vec<u8> {
    vector("snp/vcek_milan.der")
}

/// A revocation list that expires on 2027-02-26, or on 2026-11-07. Whose list it is matters to clients alone.
pub(super) fn list(outdated: bool) -> Vec<u8> {
    let collateral: Value = serde_json::from_slice(&vector("tdx/tdx_quote_td15ex_collateral.json")).unwrap();
    unhex(collateral[if outdated { "pck_crl" } else { "root_ca_crl" }].as_str().unwrap())
}

/// A real quote without endorsements, for which [`intel`] has the collateral.
pub(super) fn quote() -> Evidence {
    Evidence::parse("tdx", &vector("tdx/tdx_quote_td15ex"), &Map::new()).unwrap()
}

pub(super) fn quote_collateral() -> Value {
    serde_json::from_slice(&vector("tdx/tdx_quote_td15ex_collateral.json")).unwrap()
}

/// What a PCCS answers to a path: header field and body.
pub(super) fn intel(path: &str) -> (String, Vec<u8>) {
    let collateral = quote_collateral();
    let text = |member: &str| collateral[member].as_str().unwrap().to_owned();
    let chain = |field: &str, member: &str| {
        let encoded = text(member);
        let encoded = encoded.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        });
        format!("{field}: {}\r\n", encoded.collect::<String>())
    };
    let signed = |name: &str, member: &str| {
        let signature = text(&format!("{member}_signature"));
        format!("{{\"{name}\":{},\"signature\":\"{signature}\"}}", text(member)).into_bytes()
    };
    match path {
        path if path.starts_with("/tdx/certification/v4/tcb?fmspc=") => {
            (chain("TCB-Info-Issuer-Chain", "tcb_info_issuer_chain"), signed("tcbInfo", "tcb_info"))
        }
        "/tdx/certification/v4/qe/identity" => (
            chain("SGX-Enclave-Identity-Issuer-Chain", "qe_identity_issuer_chain"),
            signed("enclaveIdentity", "qe_identity"),
        ),
        path if path.starts_with("/sgx/certification/v4/pckcrl?ca=platform") => {
            (chain("SGX-PCK-CRL-Issuer-Chain", "pck_crl_issuer_chain"), unhex(&text("pck_crl")))
        }
        "/sgx/certification/v4/rootcacrl" => (String::new(), text("root_ca_crl").into_bytes()),
        other => panic!("nobody asks a PCCS for {other}"),
    }
}

/// The endorsement of that name.
pub(super) fn endorsement(evidence: &Evidence, name: &str) -> Value {
    let document = Document::new(Vec::new(), Vec::new(), evidence.clone(), [0; 32], None).to_json();
    serde_json::from_slice::<Value>(&document).unwrap()["evidence"]["endorsements"][name].clone()
}
