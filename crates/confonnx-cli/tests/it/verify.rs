use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use confonnx_attest::merkle::Tree;
use confonnx_attest::produce::Attester;
use confonnx_attest::{Claims, Digest, Document, Nonce, UnixTime, report_data};

use crate::{confonnx, stderr, stdout};

const NONCE: Nonce = Nonce([7; 32]);
const MEASUREMENT: Digest = Digest([0xe1; 32]);

fn document() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (tree, claims) = (Tree::new(vec![NONCE]).unwrap(), Claims::example(UnixTime(now)).to_bytes());
    let evidence =
        Attester::insecure(MEASUREMENT).evidence(&report_data(&tree.root(), b"keys", &claims)).unwrap();
    Document::new(b"keys".to_vec(), claims, evidence, tree.root(), tree.proof(0)).to_json()
}

/// Exit code, stdout, stderr of verifying `document`.
fn verify(document: &[u8], args: &[&str]) -> (Option<i32>, String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), document).unwrap();
    let output = confonnx(&[&["verify", "--document", file.path().to_str().unwrap()], args].concat());
    (output.status.code(), stdout(&output), stderr(&output))
}

#[test]
fn exit_codes_tell_the_outcomes_apart() {
    let (nonce, other) = (NONCE.to_string(), Nonce([8; 32]).to_string());
    let (code, table, _) = verify(&document(), &["--nonce", &nonce, "--enclave-allow-debug"]);
    assert_eq!(code, Some(0));
    assert!(table.contains("✓ report data") && table.ends_with("Trusted.\n"), "{table}");

    let (code, table, error) = verify(&document(), &["--nonce", &other, "--enclave-allow-debug"]);
    assert_eq!(code, Some(3));
    assert!(table.contains("✗ nonce"), "{table}");
    assert_eq!(error, "confonnx: the evidence is not genuine: nonce\n");

    let hash = Digest([0; 32]).to_string();
    let (code, table, error) = verify(&document(), &["--nonce", &nonce, "--enclave-hash", &hash]);
    assert_eq!(code, Some(4));
    assert_eq!(error, "confonnx: genuine, but not what was asked for: tee, enclave hash, debug\n");
    assert!(table.contains("✗ enclave hash") && table.contains(&MEASUREMENT.to_string()), "{table}");

    assert_eq!(verify(b"<html>", &["--nonce", &nonce, "--enclave-allow-debug"]).0, Some(3));
    let unreachable = confonnx(&["verify", "--url", "http://127.0.0.1:1", "--enclave-allow-debug"]);
    assert_eq!(unreachable.status.code(), Some(5), "{}", stderr(&unreachable));
    assert!(stderr(&unreachable).contains("http://127.0.0.1:1"), "{}", stderr(&unreachable));
}

#[test]
fn nothing_expected_is_wrong_usage() {
    let (code, table, error) = verify(&document(), &["--nonce", &NONCE.to_string()]);
    assert_eq!((code, &*table), (Some(2), ""));
    assert!(error.contains("nothing is expected of the server: give the enclave hash"), "{error}");
    assert_eq!(confonnx(&["verify", "--enclave-hash", "12"]).status.code(), Some(2));
}

#[test]
fn without_nonce_only_a_maximum_age_will_do() {
    assert_eq!(verify(&document(), &["--enclave-allow-debug"]).0, Some(4));
    assert_eq!(verify(&document(), &["--enclave-allow-debug", "--max-age", "60"]).0, Some(0));
}

#[test]
fn json_has_outcome_and_checks() {
    let args = ["--nonce", &NONCE.to_string(), "--enclave-allow-debug", "--json"];
    let (code, json, _) = verify(&document(), &args);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &report["outcome"], &report["tee"]), (Some(0), &"trusted".into(), &"insecure".into()));
    assert_eq!(report["checks"].as_array().unwrap().len(), 12);
    assert_eq!(report["models"][0]["name"], "digits");
}

#[test]
fn a_saved_document_is_judged_at_any_instant() {
    let args = ["--enclave-allow-debug", "--max-age", "60", "--at"];
    let at = |time: &str| verify(&document(), &[&args[..], &[time]].concat());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(at(&now.to_string()).0, Some(0));
    let (code, table, _) = at("2100-01-01T00:00:00Z");
    assert_eq!(code, Some(4));
    assert!(table.contains("✗ age"), "{table}");
    let (code, _, error) = at("yesterday");
    assert_eq!(code, Some(2));
    assert!(error.contains("expected Unix seconds or a time in UTC such as"), "{error}");
}

#[test]
fn flags_narrow_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (MEASUREMENT.to_string(), Digest([0; 32]).to_string());
    let info = file("enclave_info.json", format!(r#"{{"mrenclave": "{right}"}}"#));
    let policy = file(
        "policy.toml",
        format!(
            "allow_debug = true\nenclave_hashes = [\"{wrong}\"]\nenclave_info_files = [\"enclave_info.json\"]"
        ),
    );
    let nonce = NONCE.to_string();
    let run = |args: &[&str]| verify(&document(), &[&["--nonce", &nonce], args].concat());

    assert_eq!(run(&["--policy", &policy]).0, Some(0));
    assert_eq!(run(&["--policy", &policy, "--enclave-hash", &info]).0, Some(0));
    let (code, table, _) = run(&["--policy", &policy, "--enclave-hash", &wrong]);
    assert_eq!((code, table.contains("✗ enclave hash")), (Some(4), true), "{table}");
    let other = Digest([1; 32]).to_string();
    let (code, table, error) = run(&["--policy", &policy, "--enclave-hash", &other]);
    assert_eq!((code, &*table), (Some(2), ""));
    assert!(error.contains("nothing can be both"), "{error}");

    let (code, table, _) = run(&["--policy", "cloud", "--enclave-hash", &right]);
    assert_eq!(code, Some(4));
    assert!(table.contains("✗ tee") && table.contains("✓ enclave hash"), "{table}");
    assert_eq!(run(&["--policy", "strict"]).0, Some(2));
    assert_eq!(run(&["--policy", &policy, "--enclave-allow-debug"]).0, Some(2));
    let (code, _, error) = run(&["--policy", &file("bad.toml", "model_hash = 1".into())]);
    assert_eq!(code, Some(2));
    assert!(error.contains("bad.toml") && error.contains("unknown field `model_hash`"), "{error}");
}

#[test]
fn any_of_several_values_will_do() {
    let (nonce, wrong, right) =
        (NONCE.to_string(), Digest([0; 32]).to_string(), Digest([0x3d; 32]).to_string());
    let args = ["--nonce", &nonce, "--enclave-allow-debug", "--enclave-model-hash", &wrong];
    let (code, table, _) = verify(&document(), &args);
    assert_eq!((code, table.contains("✗ model hash")), (Some(4), true), "{table}");
    let args = [&args[..], &["--enclave-model-hash", &right]].concat();
    assert_eq!(verify(&document(), &args).0, Some(0));
}
