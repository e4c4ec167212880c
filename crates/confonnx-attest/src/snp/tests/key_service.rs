//! Reports as services that release secrets read them, with `sev` as an independent peer.

use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use serde_json::Value;

use super::*;
use crate::x509::certificates_from_pem;

/// `sev` reads our JSON as the same report as the bytes, so its verifier sees what the processor signed.
#[test]
fn trustees_crate_reads_the_same_report() {
    for product in ["Milan", "Genoa", "Turin"] {
        for version in [3, 5] {
            let made = Made { product, ..Made::new() };
            let mut bytes = made.evidence().1.report();
            bytes[0] = version;
            if version == 5 {
                bytes[0x1F8..0x208].copy_from_slice(&[7; 16]);
            }
            // Every field that is not checked elsewhere gets a value of its own.
            for (at, len) in
                [(0x04, 4), (0x10, 32), (0xC0, 32), (0xE0, 96), (0x140, 64), (0x1E8, 3), (0x1EC, 3)]
            {
                (at..at + len).for_each(|at| bytes[at] = at as u8);
            }
            let evidence = Evidence::new(&bytes, Default::default()).unwrap();
            let sent = evidence.trustee().unwrap();
            assert_eq!(sent["cert_chain"], Value::Null);
            let read: AttestationReport = serde_json::from_value(sent["attestation_report"].clone()).unwrap();
            let expected = AttestationReport::from_bytes(&bytes).unwrap();
            assert_eq!(read, expected, "{product} version {version}");
            // The crate's report has no member that ours left out.
            assert_eq!(serde_json::to_value(expected).unwrap(), sent["attestation_report"]);
        }
    }
}

#[test]
fn the_certificate_goes_along_when_it_is_there() {
    let (_, evidence) = Made::new().evidence();
    let sent = evidence.trustee().unwrap();
    let chain: Vec<sev::firmware::host::CertTableEntry> =
        serde_json::from_value(sent["cert_chain"].clone()).unwrap();
    assert_eq!(chain.len(), 1);
    assert_eq!(chain[0].cert_type, sev::firmware::host::CertType::VCEK);
    assert_eq!(chain[0].data, evidence.endorsements.vcek.as_ref().unwrap().der());
}

#[test]
fn azure_gets_report_and_chain() {
    let (_, evidence) = Made::new().evidence();
    let pem = evidence.chain_pem().unwrap();
    let chain = certificates_from_pem(&pem).unwrap();
    assert_eq!(chain.len(), 3);
    assert_eq!(Some(&chain[0]), evidence.endorsements.vcek.as_ref());
    let bare = Evidence::new(&evidence.report(), Default::default()).unwrap();
    assert_eq!(bare.chain_pem(), Err(FormError::Certificate));
    assert_eq!(evidence.report.report_data, REPORT_DATA);
}

#[test]
fn a_report_that_does_not_say_its_processor_is_refused() {
    let mut bytes = Made::new().evidence().1.report();
    bytes[0] = 2;
    let evidence = Evidence::new(&bytes, Default::default()).unwrap();
    let error = evidence.trustee().unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}
