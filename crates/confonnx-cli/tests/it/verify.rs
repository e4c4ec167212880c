use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use confonnx_attest::merkle::Tree;
use confonnx_attest::produce::Attester;
use confonnx_attest::{Claims, Digest, Document, Nonce, UnixTime, report_data};

use serde_json::Value;

use crate::{confonnx, repository::Server, stderr, stdout};

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
    assert!(table.contains("✓ report data") && table.contains("INSECURE: accepted"), "{table}");
    // Evidence of the insecure TEE is never called trusted or genuine, whatever comes out.
    let never = |shown: &str| {
        let shown = shown.to_lowercase().replace("is the evidence genuine?", "");
        assert!(!shown.contains("trusted") && !shown.contains("genuine"), "{shown}");
    };
    never(&table);

    let (code, table, error) = verify(&document(), &["--nonce", &other, "--enclave-allow-debug"]);
    assert_eq!(code, Some(3));
    assert!(table.contains("✗ nonce"), "{table}");
    assert_eq!(error, "confonnx: INSECURE, a stand-in without a TEE, and not what was asked for: nonce\n");
    never(&table);

    let hash = Digest([0; 32]).to_string();
    let (code, table, error) = verify(&document(), &["--nonce", &nonce, "--enclave-hash", &hash]);
    assert_eq!(code, Some(4));
    let expected = "confonnx: INSECURE, a stand-in without a TEE, and not what was asked for: tee, enclave hash, debug\n";
    assert_eq!(error, expected);
    assert!(table.contains("✗ enclave hash") && table.contains(&MEASUREMENT.to_string()), "{table}");
    never(&table);

    // Of a damaged document nothing is told, neither a table nor checks.
    let cut = &document()[..500];
    for damaged in [&b"<html>"[..], b"", b"{}", cut] {
        let (code, table, error) = verify(damaged, &["--nonce", &nonce, "--enclave-allow-debug"]);
        assert_eq!((code, &*table), (Some(5), ""), "{error}");
        let (code, json, _) = verify(damaged, &["--nonce", &nonce, "--enclave-allow-debug", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((code, &report["outcome"]), (Some(5), &"undecided".into()));
        assert!(report["error"].as_str().is_some_and(|error| !error.is_empty()), "{json}");
    }
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
    assert_eq!((code, &report["outcome"], &report["tee"]), (Some(0), &"insecure".into(), &"insecure".into()));
    assert_eq!(report["models"][0]["name"], "digits");
    // The report has all claims, and names those that no policy judged.
    let now = report["at"].as_u64().unwrap();
    let claims =
        serde_json::to_value(Claims::example(UnixTime(report["claims"]["issued_at"].as_u64().unwrap())))
            .unwrap();
    assert_eq!((&report["claims"], &report["claims_genuine"]), (&claims, &true.into()));
    assert!(claims["issued_at"].as_u64().unwrap() <= now);
    let not_judged: Vec<_> =
        report["not_judged"].as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    for name in ["build", "runtime", "engine", "batching", "audit log", "keys", "key source", "model hash"] {
        assert!(not_judged.contains(&name), "{name}: {not_judged:?}");
    }
    let (_, table, _) = verify(&document(), &args[..3]);
    assert!(table.contains("Not judged (! is not as by default):"), "{table}");
    assert!(table.contains("! engine ") && table.contains("· keys "), "{table}");
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

#[test]
fn a_proof_verifies_itself_later() {
    let folder = tempfile::tempdir().unwrap();
    let (now, nonce) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(), NONCE.to_string());
    let document: serde_json::Value = serde_json::from_slice(&document()).unwrap();
    let policy = folder.path().join("policy.toml");
    fs::write(&policy, "allow_debug = true\n").unwrap();
    let policy = policy.to_str().unwrap();
    // `confonnx verify --url` saves proofs by the same code. The policy's digest is taken from a first run.
    let digest = {
        let (_, json, _) =
            verify(document.to_string().as_bytes(), &["--nonce", &nonce, "--policy", policy, "--json"]);
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["policy_sha256"].clone()
    };
    let proof = serde_json::json!({
        "confonnx_proof": 1, "nonce": nonce, "at": now, "policy_sha256": digest, "document": document,
    });
    let (code, table, error) = verify(proof.to_string().as_bytes(), &["--policy", policy]);
    assert_eq!(code, Some(0), "{error}");
    assert!(table.contains("✓ nonce") && table.contains("by the policy of then"), "{table}");
    // Another policy than the proof's is applied all the same, and the table says so.
    let hash = MEASUREMENT.to_string();
    let args = ["--policy", policy, "--enclave-hash", &hash];
    let (code, table, _) = verify(proof.to_string().as_bytes(), &args);
    assert_eq!((code, table.contains("by another policy than then")), (Some(0), true), "{table}");
    // A year later the proof is still judged as of when it was made, unless `--at` says otherwise.
    let mut old = proof.clone();
    old["at"] = 1_000.into();
    let (_, json, _) = verify(old.to_string().as_bytes(), &["--policy", policy, "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["at"], 1_000);
    let (_, json, _) = verify(old.to_string().as_bytes(), &["--policy", policy, "--json", "--at", "now"]);
    assert!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["at"].as_u64().unwrap() >= now);
    let mut newer = proof;
    newer["confonnx_proof"] = 2.into();
    let (code, _, error) = verify(newer.to_string().as_bytes(), &["--policy", policy]);
    assert_eq!(
        (code, error.contains("expected a proof of version 1, found version 2")),
        (Some(5), true),
        "{error}"
    );
}

/// Saved from a live server, and verified when that is gone, from another folder, with a policy and nothing else.
#[test]
fn a_proof_of_a_live_server_verifies_elsewhere_when_that_is_gone() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |folder: &tempfile::TempDir, name: &str| folder.path().join(name).display().to_string();
    let (policy, saved) = (file(&here, "policy.toml"), file(&here, "proof.json"));
    fs::write(&policy, "allow_debug = true\n").unwrap();
    let server = Server::start(&[("one", "mlp")]);
    let output = confonnx(&["verify", "--url", &server.url, "--policy", &policy, "--save", &saved, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let then: Value = serde_json::from_str(&stdout(&output)).unwrap();
    drop(server);

    let elsewhere = file(&there, "renamed");
    fs::rename(&saved, &elsewhere).unwrap();
    fs::rename(&policy, file(&there, "policy.toml")).unwrap();
    drop(here);
    let policy = file(&there, "policy.toml");
    let judge = |path: &str| {
        let output = confonnx(&["verify", "--document", path, "--policy", &policy, "--json"]);
        (output.status.code(), serde_json::from_str::<Value>(&stdout(&output)).unwrap())
    };
    // The whole report is the same: nonce, instant, policy, checks and claims.
    assert_eq!(judge(&elsewhere), (Some(0), then));
    let output = confonnx(&["verify", "--document", &elsewhere, "--policy", &policy]);
    assert!(stdout(&output).contains("by the policy of then"), "{}", stdout(&output));

    // What the file says beside the document is judged as the rest is: a nonce of somebody else is not the document's.
    let mut forged: Value = serde_json::from_slice(&fs::read(&elsewhere).unwrap()).unwrap();
    forged["nonce"] = Nonce([9; 32]).to_string().into();
    let other = file(&there, "forged");
    fs::write(&other, forged.to_string()).unwrap();
    let (code, report) = judge(&other);
    assert_eq!((code, &report["outcome"]), (Some(3), &"not-genuine".into()));
}

#[test]
fn evidence_of_hardware_is_judged_by_itself() {
    let evidence = |name: &str| format!("{}/../../vectors/evidence/{name}", env!("CARGO_MANIFEST_DIR"));
    let (report, vcek, chain) =
        (evidence("snp/report_milan.hex"), evidence("snp/vcek_milan.der"), evidence("snp/cert_chain_milan"));
    let hash = "ab".repeat(48);
    let common = ["--policy", "cloud", "--enclave-hash", &hash, "--at", "2026-11-23T00:00:00Z"];
    let run = |args: &[&str]| {
        let output = confonnx(&[&["verify"], args, &common[..]].concat());
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, table, error) = run(&["--raw", "snp", &report, &vcek, &chain]);
    assert_eq!((code, &*error), (Some(4), "confonnx: not accepted: enclave hash\n"), "{table}");
    assert!(table.contains("✓ signature") && table.contains("· chip"), "{table}");
    // Without certificates nothing is decided, but the table still shows the measurement.
    let (code, table, _) = run(&["--raw", "snp", &report]);
    assert_eq!((code, table.contains("· measured")), (Some(5), true), "{table}");
    let (code, json, _) = run(&["--json", "--raw", "snp", &report, &vcek, &chain]);
    let judged: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &judged["outcome"]), (Some(4), &"not-accepted".into()));
    assert!(judged["decided_until"].as_u64().is_some(), "{json}");
    let outcome = |name: &str| {
        let check = judged["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        check.unwrap()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!((outcome("signature"), outcome("enclave hash")), ("passed".into(), "failed".into()), "{json}");
    // One digit of the measurement is another: nobody signed that.
    let mut digits = std::fs::read_to_string(&report).unwrap();
    let other = if digits[0x120..].starts_with('0') { "1" } else { "0" };
    digits.replace_range(0x120..0x121, other);
    let changed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(changed.path(), digits).unwrap();
    let changed = changed.path().to_str().unwrap();
    let (code, _, error) = run(&["--raw", "snp", changed, &vcek, &chain]);
    assert_eq!((code, &*error), (Some(3), "confonnx: not genuine: signature\n"));
    let (code, _, error) = run(&["--raw", "snp", &vcek]);
    assert_eq!((code, error.contains("vcek_milan.der")), (Some(5), true), "{error}");
    let (code, _, error) = run(&["--raw", "snp", &report, &report]);
    assert_eq!((code, error.contains("expected certificates")), (Some(5), true), "{error}");
}
