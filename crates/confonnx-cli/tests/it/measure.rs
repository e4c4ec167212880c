use std::fs;

use crate::{confonnx, stderr, stdout};

const MRENCLAVE: &str = "e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1";

fn sigstruct_view() -> String {
    format!(
        r#"{{"mr_signer": "{}", "mr_enclave": "{MRENCLAVE}", "isv_prod_id": 1, "isv_svn": 2, "debug_enclave": false}}"#,
        "51".repeat(32)
    )
}

#[test]
fn the_old_name_of_an_sgx_hash_is_written_too() {
    let folder = tempfile::tempdir().unwrap();
    let (view, out) = (folder.path().join("view.json"), folder.path().join("enclave_info.json"));
    fs::write(&view, sigstruct_view()).unwrap();
    let output = confonnx(&["measure", "sgx", view.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), String::new()), "{}", stderr(&output));
    let info: serde_json::Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(info["tee"], "sgx");
    assert_eq!((&info["enclave_hash"], &info["mrenclave"]), (&MRENCLAVE.into(), &MRENCLAVE.into()));
    assert_eq!(info["details"]["isv_svn"], 2);
}

#[test]
fn without_out_it_prints() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let register = |byte: &str| byte.repeat(48);
    let (zero, one, two) = (register("0a"), register("01"), register("02"));
    fs::write(
        file.path(),
        format!(r#"{{"Measurements": {{"PCR0": "{zero}", "PCR1": "{one}", "PCR2": "{two}"}}}}"#),
    )
    .unwrap();
    let output = confonnx(&["measure", "nitro", file.path().to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((info["tee"].as_str(), info["details"]["pcr2"].as_str()), (Some("nitro"), Some(&*two)));
    assert_eq!(info["enclave_hash"].as_str().unwrap().len(), 96);
}

#[test]
fn what_cannot_be_measured_says_why() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), vec![0; 8192]).unwrap();
    let path = file.path().to_str().unwrap();
    let failed = |args: &[&str]| {
        let output = confonnx(args);
        (output.status.code(), stderr(&output))
    };
    let (code, error) =
        failed(&["measure", "snp", "--firmware", path, "--vcpus", "1", "--vcpu-type", "EPYC"]);
    assert_eq!(code, Some(1));
    assert!(error.contains(path) && error.contains("expected OVMF's GUID table in the firmware"), "{error}");
    let (code, error) = failed(&["measure", "tdx", "--firmware", path]);
    assert_eq!(code, Some(1));
    assert!(error.contains("expected OVMF's GUID table in the firmware"), "{error}");
    let (code, error) = failed(&["measure", "sgx", path]);
    assert_eq!(code, Some(1));
    assert!(error.contains("expected a SIGSTRUCT of 1808 bytes"), "{error}");

    let (code, error) =
        failed(&["measure", "snp", "--firmware", path, "--vcpus", "1", "--vcpu-type", "Skylake"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("EPYC-Milan"), "{error}");
    assert_eq!(failed(&["measure", "snp", "--firmware", path, "--vcpus", "1"]).0, Some(2));
    assert_eq!(failed(&["measure", "tdx", "--firmware", path, "--rtmrs", "00"]).0, Some(2));
}
