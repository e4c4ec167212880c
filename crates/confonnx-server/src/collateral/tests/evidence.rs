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
    // REPORTED_TCB is at 0x180, and its last octet is the microcode's.
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
