use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::azure::HclReport;

const VAR_DATA: &[u8] = include_bytes!("../../../../../vectors/evidence/azure/var-data.bin");
const SNP_REPORT: &[u8] = include_bytes!("../../../../../vectors/evidence/azure/hcl-report-snp.bin");
const TDX_REPORT: &[u8] = include_bytes!("../../../../../vectors/evidence/azure/hcl-report-tdx.bin");

fn parse(value: &Value) -> Result<RuntimeData, RuntimeDataError> {
    RuntimeData::parse(value.to_string().as_bytes())
}

/// Runtime data as an early paravisor wrote it, with the members changed.
fn with(change: impl FnOnce(&mut Value)) -> Result<RuntimeData, RuntimeDataError> {
    let mut value = serde_json::from_slice(VAR_DATA).unwrap();
    change(&mut value);
    parse(&value)
}

#[test]
fn paravisors_of_every_age_are_understood() {
    let flags = |bytes: &[u8]| {
        let runtime = RuntimeData::parse(bytes).unwrap();
        assert_eq!(runtime.bytes(), bytes);
        let vm = runtime.vm;
        (
            vm.secure_boot,
            vm.console_enabled,
            vm.interactive_console_enabled,
            vm.tpm_enabled,
            vm.vm_unique_id.unwrap(),
        )
    };
    let id = |text: &str| text.to_owned();
    // The early report has no endorsement key, and "encrypt" as the use of the attestation key.
    let early = HclReport::parse(SNP_REPORT).unwrap().runtime_data;
    let expected = (Some(true), Some(true), None, Some(true), id("BAEFD3E1-184B-4C4C-AB88-0BDAD260505F"));
    assert_eq!(flags(&early), expected);
    let expected = (Some(true), Some(true), None, Some(true), id("3404EF27-32A2-4A07-A4C7-1A1171624C5D"));
    assert_eq!(flags(VAR_DATA), expected);
    let later = HclReport::parse(TDX_REPORT).unwrap().runtime_data;
    let expected = (Some(false), Some(true), None, Some(true), id("D270E56B-F668-4990-A5BC-9B624576841D"));
    assert_eq!(flags(&later), expected);
    let latest =
        with(|value| value["vm-configuration"]["interactive-console-enabled"] = json!(false)).unwrap();
    assert_eq!(latest.vm.interactive_console_enabled, Some(false));
}

#[test]
fn there_is_one_attestation_key() {
    // Runtime data made for the release of a key names another key, which must not pass for a vTPM's.
    let other = with(|value| value["keys"][0]["kid"] = json!("HCLTransferKey"));
    assert!(matches!(other, Err(RuntimeDataError::Keys { found: 0 })));
    let two = with(|value| value["keys"][1]["kid"] = json!("HCLAkPub"));
    assert!(matches!(two, Err(RuntimeDataError::Keys { found: 2 })));
    let elliptic = with(|value| value["keys"][0]["kty"] = json!("EC"));
    assert!(matches!(elliptic, Err(RuntimeDataError::KeyType { found }) if found == "EC"));
    for member in ["n", "e"] {
        let broken = with(|value| value["keys"][0][member] = json!("AQAB="));
        assert!(matches!(broken, Err(RuntimeDataError::Base64 { member: at }) if at == member));
    }
    let short = with(|value| value["keys"][0]["n"] = json!("AQAB"));
    assert!(matches!(short, Err(RuntimeDataError::Key(_))));
}

#[test]
fn members_are_of_their_type_and_there_once() {
    for member in ["keys", "vm-configuration"] {
        let absent = with(|value| drop(value.as_object_mut().unwrap().remove(member)));
        assert!(matches!(absent, Err(RuntimeDataError::Json(_))), "{member}");
    }
    let typed = with(|value| value["vm-configuration"]["secure-boot"] = json!("true"));
    assert!(matches!(typed, Err(RuntimeDataError::Json(_))));
    let text = String::from_utf8(VAR_DATA.to_vec()).unwrap();
    let twice = text.replace(r#""secure-boot":true"#, r#""secure-boot":true,"secure-boot":false"#);
    assert!(matches!(RuntimeData::parse(twice.as_bytes()), Err(RuntimeDataError::Json(_))));
    assert!(RuntimeData::parse(&[VAR_DATA, b" {}"].concat()).is_err());
    assert!(RuntimeData::parse(b"").is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), at in 0..VAR_DATA.len()) {
        let _ = RuntimeData::parse(&bytes);
        let _ = RuntimeData::parse(&[&VAR_DATA[..at], &bytes].concat());
    }
}
