//! How long a client takes to decide about one attestation document, for each TEE. Nothing here is bound to the document, so
//! `report data` fails; all checks are made whatever the others say, so the time is that of a genuine one.

use std::hint::black_box;

use confonnx_attest::{Document, Evidence, UnixTime};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value};

/// 2026-01-01.
const NOW: UnixTime = UnixTime(1_767_225_600);

fn verify(criterion: &mut Criterion) {
    measure(criterion, "snp", snp());
    measure(criterion, "tpm", tpm());
}

fn measure(criterion: &mut Criterion, tee: &str, evidence: Evidence) {
    let document = Document::new(Vec::new(), b"{}".to_vec(), evidence, [0; 32], None).to_json();
    let err = Document::parse(&document).unwrap().verify(None, NOW).unwrap_err();
    let failed: Vec<_> = err.verdict.failed().map(|check| check.name).collect();
    assert_eq!(failed, ["report data", "claims"], "{tee}");
    criterion.bench_function(&format!("verify/{tee}"), |bencher| {
        bencher.iter(|| Document::parse(black_box(&document)).unwrap().verify(None, NOW).is_err());
    });
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

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.trim().chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Base64UrlUnpadded::encode_string(bytes)
}

criterion_group!(benches, verify);
criterion_main!(benches);
