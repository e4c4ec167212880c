use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

const SNP_REPORT: &[u8] = include_bytes!("../../../../../vectors/evidence/azure/hcl-report-snp.bin");
const TDX_REPORT: &[u8] = include_bytes!("../../../../../vectors/evidence/azure/hcl-report-tdx.bin");

/// Reads a good report in which the little-endian number at `at` is replaced.
fn with(at: usize, number: u32) -> Result<HclReport, HclError> {
    let mut bytes = SNP_REPORT.to_vec();
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    HclReport::parse(&bytes)
}

#[test]
fn a_processors_report_carries_the_hash_of_its_runtime_data() {
    let snp = HclReport::parse(SNP_REPORT).unwrap();
    let HardwareReport::Snp(report) = snp.hardware else { panic!("an SNP report") };
    assert_eq!(report[0x50..0x70], *Sha256::digest(&snp.runtime_data));
    assert_eq!(report[0x70..0x90], [0; 32]);
    let tdx = HclReport::parse(TDX_REPORT).unwrap();
    let HardwareReport::Tdx(report) = tdx.hardware else { panic!("a TDREPORT") };
    assert_eq!(report.len(), 1024);
    assert_eq!(report[128..160], *Sha256::digest(&tdx.runtime_data));
}

#[test]
fn the_index_may_be_longer_than_the_report() {
    let report = HclReport::parse(SNP_REPORT).unwrap();
    let length = 32 + 1184 + 20 + report.runtime_data.len();
    assert_eq!(HclReport::parse(&SNP_REPORT[..length]), Ok(report.clone()));
    assert_eq!(HclReport::parse(&[SNP_REPORT, &[0; 100]].concat()), Ok(report));
    let error = HclError::NotZero { field: "bytes after the runtime data" };
    assert_eq!(HclReport::parse(&[SNP_REPORT, &[1]].concat()), Err(error));
}

#[test]
fn every_number_of_the_headers_is_checked() {
    let cases = [
        (0, "signature"),
        (4, "version"),
        (8, "report size"),
        (12, "request type"),
        (16, "status"),
        (1216, "data size"),
        (1220, "data version"),
        (1224, "report type"),
        (1228, "hash type"),
    ];
    for (at, name) in cases {
        let found = with(at, 77);
        assert!(
            matches!(found, Err(HclError::Field { field, found: 77, .. }) if field == name),
            "{name}: {found:?}"
        );
    }
    for at in [20, 24, 28] {
        assert_eq!(with(at, 1), Err(HclError::NotZero { field: "reserved" }));
    }
    assert!(matches!(with(1232, u32::MAX), Err(HclError::Truncated { what: "runtime data", .. })));
    assert!(
        matches!(with(1232, 10), Err(HclError::Field { field: "data size", expected, .. }) if expected == "30")
    );
}

#[test]
fn a_tdreport_is_padded_with_zeros() {
    let mut bytes = TDX_REPORT.to_vec();
    bytes[32 + 1024] = 1;
    assert_eq!(HclReport::parse(&bytes), Err(HclError::NotZero { field: "padding of the TDREPORT" }));
}

#[test]
fn no_cut_report_is_read() {
    let length = 32 + 1184 + 20 + HclReport::parse(SNP_REPORT).unwrap().runtime_data.len();
    for length in 0..length {
        let found = HclReport::parse(&SNP_REPORT[..length]);
        assert!(matches!(found, Err(HclError::Truncated { .. })), "{length} bytes: {found:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = HclReport::parse(&bytes);
        let _ = HclReport::parse(&[&SNP_REPORT[..1216], &bytes].concat());
    }
}
