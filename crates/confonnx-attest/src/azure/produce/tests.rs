//! Against a real TPM in software, prepared as Azure's paravisor prepares its own.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};

use super::super::imds::tests as service;
use super::super::tests::jwk;
use super::*;
use crate::tpm::tests::emulator::Emulator;
use crate::{UnixTime, Verdict};

const REPORT_DATA: [u8; 64] = [0x5a; 64];
/// An instant at which the made SEV-SNP report is valid.
const NOW: UnixTime = UnixTime(1_795_426_200);
const TDX_REPORT: &[u8] = include_bytes!("../../../../../vectors/evidence/azure/hcl-report-tdx.bin");

const TD_QUOTE: &[u8] = include_bytes!("../../../../../vectors/evidence/tdx/tdx_quote");

/// The report in the NV index: what `HclReport` reads.
pub(super) fn hcl_report(kind: u32, hardware: &[u8], runtime_data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(runtime_data.len()).unwrap();
    let numbers =
        |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let mut padded = hardware.to_vec();
    padded.resize(1184, 0);
    [
        b"HCLA".to_vec(),
        numbers(&[2, 32 + 1184 + 20 + len, 2, 0, 0, 0, 0]),
        padded,
        numbers(&[20 + len, 1, kind, 1, len]),
        runtime_data.to_vec(),
        // The index is longer than the report.
        vec![0; 100],
    ]
    .concat()
}

/// A TPM with an attestation key at its place; that key as runtime data has it.
pub(super) fn emulator() -> Option<(Emulator, Value)> {
    let emulator = Emulator::start()?;
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
    emulator
        .tool(&format!("tpm2_createprimary -Q -C e -G rsa2048:rsassa-sha256:null -a {attributes} -c ak.ctx"));
    emulator.tool("tpm2_evictcontrol -Q -C o -c ak.ctx 0x81000003");
    emulator.tool("tpm2_readpublic -Q -c 0x81000003 -f der -o ak.der");
    let key = jwk(&emulator.read("ak.der"));
    Some((emulator, key))
}

pub(super) fn store(emulator: &Emulator, report: &[u8]) {
    emulator.write("hcl.bin", report);
    emulator.tool(&format!("tpm2_nvdefine -Q -C o -s {} -a ownerread|ownerwrite 0x01400001", report.len()));
    emulator.tool("tpm2_nvwrite -Q -C o -i hcl.bin 0x01400001");
}

#[test]
fn a_confidential_vm_gives_evidence_that_verifies() {
    let Some((emulator, key)) = emulator() else { return };
    let runtime_data = json!({ "keys": [key], "vm-configuration": { "secure-boot": true } }).to_string();
    let bound = [&Sha256::digest(&runtime_data)[..], &[0; 32]].concat().try_into().unwrap();
    let (roots, hardware) = snp::tests::evidence_for(bound);
    store(&emulator, &hcl_report(2, &hardware.report(), runtime_data.as_bytes()));

    let device = Device::find(emulator.root()).unwrap().unwrap();
    let produced = device.evidence(&REPORT_DATA).unwrap();
    assert_eq!(
        produced.collateral_requests().len(),
        2,
        "the certificate of the key, and the revocation list"
    );
    // The evidence as in a document, with the endorsements that the server would have fetched.
    let evidence = Evidence::parse(&produced.report(), &hardware.endorsements()).unwrap();
    let mut verdict = Verdict::default();
    let measured = evidence.verify_with(&roots, &Sha256::digest(REPORT_DATA), NOW, &mut verdict);
    assert!(verdict.passes() && measured.is_some(), "{verdict}");
    let mut verdict = Verdict::default();
    evidence.verify_with(&roots, &Sha256::digest([0; 64]), NOW, &mut verdict);
    let failed: Vec<_> = verdict.failed().map(|check| check.name).collect();
    assert_eq!(failed, ["report data"], "{verdict}");
    // More evidence is made than the TPM has room for keys and sessions, so none of these leaks.
    for _ in 0..10 {
        device.evidence(&REPORT_DATA).unwrap();
    }
}

#[test]
fn on_tdx_the_host_quotes_the_report_once() {
    let Some((emulator, key)) = emulator() else { return };
    let HardwareReport::Tdx(report) = HclReport::parse(TDX_REPORT).unwrap().hardware else {
        panic!("a TDREPORT")
    };
    // Azure's index is longer than swtpm can have them, so the runtime data are short.
    let runtime_data = json!({ "keys": [key], "vm-configuration": {} }).to_string();
    store(&emulator, &hcl_report(4, &report, runtime_data.as_bytes()));
    // The service answers once: if it were asked again, nobody would answer.
    let (imds, asked) = service::service(service::ok(TD_QUOTE));
    let device = Device::find_with(emulator.root(), imds).unwrap().unwrap();
    let evidence = device.evidence(&REPORT_DATA).unwrap();
    let asked = asked.join().unwrap();
    let encoded = Base64UrlUnpadded::encode_string(&report);
    assert!(asked.ends_with(&format!("{{\"report\":\"{encoded}\"}}")), "{asked}");
    let Hardware::Tdx(hardware) = &evidence.hardware else { panic!("evidence of tdx") };
    assert!(TD_QUOTE.starts_with(&hardware.report()), "but for zeros at the end");
    device.evidence(&[1; 64]).unwrap();
}

#[test]
fn machines_that_are_no_confidential_vm_and_broken_ones_differ() {
    let nothing = tempfile::tempdir().unwrap();
    assert!(Device::find(nothing.path()).unwrap().is_none());
    let Some((emulator, _)) = emulator() else { return };
    assert!(Device::find(emulator.root()).unwrap().is_none(), "a TPM without the report");
    store(&emulator, &[1; 64]);
    let error = Device::find(emulator.root()).unwrap_err();
    assert!(matches!(error, DeviceError::Hcl(HclError::Field { field: "signature", .. })), "{error}");
}
