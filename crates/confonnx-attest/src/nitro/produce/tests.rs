use ciborium::cbor;

use super::super::tests::{Made, NOW, REPORT_DATA, encode_cbor};
use super::*;
use crate::Verdict;

/// A file at the device's place: it opens, and refuses the ioctl.
fn device() -> (tempfile::TempDir, Device) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join(DEVICE), "").unwrap();
    let device = Device::find(root.path()).unwrap().unwrap();
    (root, device)
}

fn answered(answer: &Value) -> Result<Evidence, DeviceError> {
    device().1.evidence_by(&REPORT_DATA, |_, _| Ok(encode_cbor(answer)))
}

#[test]
fn it_asks_with_the_report_data_and_takes_the_document() {
    let made = Made::new();
    let report = made.report();
    let (_root, device) = device();
    let answer = |_: &File, request: &[u8]| {
        // What `serde_cbor` makes of AWS's `Request::Attestation`, an enum variant with three optional byte strings.
        let expected = [
            b"\xa1\x6bAttestation\xa3\x69user_data\x58\x40".as_slice(),
            &REPORT_DATA,
            b"\x65nonce\xf6\x6apublic_key\xf6",
        ];
        assert_eq!(request, expected.concat());
        Ok(encode_cbor(&cbor!({ "Attestation" => { "document" => Value::Bytes(report.clone()) } }).unwrap()))
    };
    let evidence = device.evidence_by(&REPORT_DATA, answer).unwrap();
    let mut verdict = Verdict::default();
    evidence.verify_with(made.root(), &REPORT_DATA, NOW, &mut verdict);
    assert!(verdict.passes(), "{verdict}");
}

#[test]
fn every_other_answer_says_what_was_wrong() {
    let refused = answered(&cbor!({ "Error" => "InternalError" }).unwrap());
    assert!(matches!(refused, Err(DeviceError::Refused { code }) if code == "InternalError"));
    let document = answered(&cbor!({ "Attestation" => { "document" => Value::Bytes(vec![1]) } }).unwrap());
    assert!(matches!(document, Err(DeviceError::Document(_))));
    for other in [
        cbor!("LockPCR"),
        cbor!({ "Attestation" => {} }),
        cbor!({ "Attestation" => { "document" => "text" } }),
        cbor!({ "GetRandom" => { "random" => Value::Bytes(vec![1]) } }),
        cbor!({ "Error" => 1 }),
        cbor!({ "Error" => "InternalError", "more" => 1 }),
    ] {
        assert!(matches!(answered(&other.unwrap()), Err(DeviceError::Answer)));
    }
    let nothing = device().1.evidence_by(&REPORT_DATA, |_, _| Ok(Vec::new()));
    assert!(matches!(nothing, Err(DeviceError::Answer)));
}

#[test]
fn machines_that_are_no_enclave_and_other_files_differ() {
    let root = tempfile::tempdir().unwrap();
    assert!(Device::find(root.path()).unwrap().is_none());
    // The real call, on a file that is not the device.
    let error = device().1.evidence(&REPORT_DATA).unwrap_err();
    assert!(matches!(&error, DeviceError::Io { source, .. } if source.raw_os_error() == Some(25)), "{error}");
    std::fs::create_dir_all(root.path().join(DEVICE)).unwrap();
    assert!(matches!(Device::find(root.path()), Err(DeviceError::Open { .. })));
}
