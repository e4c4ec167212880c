//! How long a client takes to decide about one attestation document, for each TEE. The evidence is not bound to the
//! document, so `report data` fails; all checks are made whatever the others say, so the time is that of genuine
//! evidence.

#![allow(clippy::restriction, reason = "a tool for this repository, which may panic")]

use std::hint::black_box;
use std::path::PathBuf;

use confonnx_attest::azure::{HardwareReport, HclReport};
use confonnx_attest::{Document, Evidence, UnixTime};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};

/// 2026-01-01.
const NOW: UnixTime = UnixTime(1_767_225_600);
/// When the document of a Nitro enclave was made, 2023-09-18: its certificate lived three hours.
const NITRO_NOW: UnixTime = UnixTime(1_695_049_410);

fn verify(criterion: &mut Criterion) {
    measure(criterion, "snp", snp(), NOW);
    measure(criterion, "tpm", tpm(), NOW);
    if let Some(evidence) = azure() {
        measure(criterion, "azure", evidence, NOW);
    }
    if let Some(evidence) = nitro() {
        measure(criterion, "nitro", evidence, NITRO_NOW);
    }
    measure(criterion, "sgx", dcap("sgx", SGX_QUOTE, SGX_COLLATERAL), UnixTime(1_750_334_171));
    measure(criterion, "tdx", dcap("tdx", TDX_QUOTE, TDX_COLLATERAL), UnixTime(1_750_332_747));
}

fn measure(criterion: &mut Criterion, tee: &str, evidence: Evidence, now: UnixTime) {
    let document = Document::new(Vec::new(), b"{}".to_vec(), evidence, [0; 32], None).to_json();
    let err = Document::parse(&document).unwrap().verify(None, now).unwrap_err();
    let failed: Vec<_> = err.verdict.failed().map(|check| check.name).collect();
    assert_eq!(failed, ["report data", "claims"], "{tee}");
    criterion.bench_function(&format!("verify/{tee}"), |bencher| {
        bencher.iter(|| Document::parse(black_box(&document)).unwrap().verify(None, now).is_err());
    });
}

/// A quote and Intel's collateral, of which a member `collateral` is made.
fn dcap(tee: &str, quote: &[u8], collateral: &str) -> Evidence {
    let collateral = serde_json::from_str(collateral).unwrap();
    Evidence::parse(tee, quote, &Map::from_iter([("collateral".into(), collateral)])).unwrap()
}

fn snp() -> Evidence {
    let report = hex(include_str!("../../../vectors/evidence/snp/report_milan.hex"));
    let vcek = base64(include_bytes!("../../../vectors/evidence/snp/vcek_milan.der"));
    Evidence::parse("snp", &report, &Map::from_iter([("vcek".into(), Value::from(vcek))])).unwrap()
}

fn tpm() -> Evidence {
    let report = include_bytes!("../../../vectors/evidence/tpm/evidence.json");
    Evidence::parse("tpm", report, &Map::new()).unwrap()
}

fn azure() -> Option<Evidence> {
    let layout: Value =
        serde_json::from_slice(&shared("azure/trustee_az-snp-vtpm_evidence-v1.json")?).unwrap();
    let unpadded = |text: &Value| text.as_str().unwrap().trim_end_matches('=').to_owned();
    let report = HclReport::parse(&unbase64(&unpadded(&layout["hcl_report"]))).unwrap();
    let HardwareReport::Snp(hardware_report) = &report.hardware else { panic!("a report of SEV-SNP") };
    let quote = &layout["tpm_quote"];
    let bytes = |text: &Value| hex(text.as_str().unwrap());
    // RSASSA with SHA-256, 256 bytes.
    let signature = [&[0, 0x14, 0, 0x0b, 1, 0], &bytes(&quote["signature"])[..]].concat();
    let report = json!({
        "hardware": "snp",
        "hardware_report": base64(hardware_report),
        "runtime_data": base64(&report.runtime_data),
        "quote": base64(&bytes(&quote["message"])),
        "signature": base64(&signature),
        "pcrs": quote["pcrs"].as_array().unwrap().iter().map(|pcr| base64(&bytes(pcr))).collect::<Vec<_>>(),
    });
    let endorsements = Map::from_iter([("vcek".into(), Value::from(unpadded(&layout["vcek"])))]);
    Some(Evidence::parse("azure", report.to_string().as_bytes(), &endorsements).unwrap())
}

fn nitro() -> Option<Evidence> {
    use base64ct::{Base64, Encoding};
    let text = String::from_utf8(shared("nitro/valid-attestation-doc-base64")?).unwrap();
    Some(Evidence::parse("nitro", &Base64::decode_vec(text.trim()).unwrap(), &Map::new()).unwrap())
}

/// A file of the vectors that may not be committed; says so when it is absent.
#[allow(clippy::print_stderr)]
fn shared(name: &str) -> Option<Vec<u8>> {
    let beside = || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors/shared-only").into();
    let root: PathBuf = std::env::var_os("CONFONNX_SHARED_VECTORS").map_or_else(beside, PathBuf::from);
    let read = std::fs::read(root.join(name)).ok();
    if read.is_none() {
        eprintln!("skipped: shared vector {name} is absent");
    }
    read
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.trim().chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Base64UrlUnpadded::encode_string(bytes)
}

fn unbase64(text: &str) -> Vec<u8> {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Base64UrlUnpadded::decode_vec(text).unwrap()
}

const SGX_QUOTE: &[u8] = include_bytes!("../../../vectors/evidence/sgx/sgx_quote");
const SGX_COLLATERAL: &str = include_str!("../../../vectors/evidence/sgx/sgx_quote_collateral.json");
const TDX_QUOTE: &[u8] = include_bytes!("../../../vectors/evidence/tdx/tdx_quote");
const TDX_COLLATERAL: &str = include_str!("../../../vectors/evidence/tdx/tdx_quote_collateral.json");

criterion_group!(benches, verify);
criterion_main!(benches);
