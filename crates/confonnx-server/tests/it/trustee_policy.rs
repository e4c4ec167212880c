//! The resource policy of docs/guides/key-services.md, decided by the interpreter that Trustee's Key Broker Service has
//! (`regorus`), as that service asks it: the path of a secret as data, the attestation service's token as input.

use regorus::{Engine, Value};
use serde_json::json;

const PAGE: &str = include_str!("../../../../docs/guides/key-services.md");

/// The page's policy.
fn policy() -> &'static str {
    let mut blocks = PAGE.split("```rego\n").skip(1);
    let block = blocks.next().unwrap().split("```").next().unwrap();
    assert_eq!(blocks.next(), None, "the page has one policy");
    block
}

/// Whether the secret of that path is given to whoever has that token.
fn decides(path: &serde_json::Value, token: &serde_json::Value) -> bool {
    let mut engine = Engine::new();
    engine.add_policy("policy.rego".into(), policy().into()).unwrap();
    let data = json!({ "plugin": "resource", "resource-path": path, "query": {} });
    engine.add_data(Value::from_json_str(&data.to_string()).unwrap()).unwrap();
    engine.set_input_json(&token.to_string()).unwrap();
    engine.eval_bool_query("data.policy.allow".into(), false).unwrap()
}

/// What the attestation service says of a part of a machine: an appraisal (EAR), and the evidence that it was of.
fn part(status: &str, evidence: serde_json::Value) -> serde_json::Value {
    json!({ "ear.status": status, "ear.veraison.annotated-evidence": evidence })
}

fn cpu(status: &str, evidence: serde_json::Value) -> serde_json::Value {
    json!({ "submods": { "cpu0": part(status, evidence) } })
}

#[test]
fn only_affirmed_servers_get_the_secret() {
    let path = json!("/default/confonnx/model-key");
    let snp = || json!({ "snp": { "vmpl": 0, "measurement": "…" } });
    let tdx = || json!({ "tdx": { "quote": {}, "td_attributes": { "debug": false } } });
    for (given, what, token) in [
        (true, "SEV-SNP, measured as expected", cpu("affirming", snp())),
        (
            true,
            "SEV-SNP, as newer versions tell it",
            cpu("affirming", json!({ "snp": { "evidence": { "vmpl": 0 } } })),
        ),
        (
            true,
            "SEV-SNP, as older versions tell it",
            cpu("affirming", json!({ "snp": { "measurement": "…" } })),
        ),
        (true, "TDX, measured as expected", cpu("affirming", tdx())),
        (false, "SEV-SNP, another measurement", cpu("warning", snp())),
        (false, "SEV-SNP, with debugging", cpu("contraindicated", snp())),
        (false, "SEV-SNP, above somebody", cpu("affirming", json!({ "snp": { "vmpl": 1 } }))),
        (false, "the same in text", cpu("affirming", json!({ "snp": { "vmpl": "2" } }))),
        (false, "the same, nested", cpu("affirming", json!({ "snp": { "evidence": { "vmpl": 3 } } }))),
        (false, "TDX, another measurement", cpu("contraindicated", tdx())),
        (false, "TDX, nothing compared", cpu("none", tdx())),
        (false, "a sample", cpu("contraindicated", json!({ "sample": { "svn": "1" } }))),
        (false, "a sample that reference values name", cpu("affirming", json!({ "sample": { "svn": "1" } }))),
        (false, "no status", json!({ "submods": { "cpu0": { "ear.veraison.annotated-evidence": snp() } } })),
        (false, "no part", json!({ "submods": {} })),
        (false, "no appraisal", json!({})),
    ] {
        assert_eq!(decides(&path, &token), given, "{what}");
    }
    let mut both = cpu("affirming", snp());
    both["submods"]["gpu0"] = part("affirming", json!({ "nvidia": {} }));
    assert!(decides(&path, &both), "every part is affirmed");
    both["submods"]["gpu0"] = part("warning", json!({ "nvidia": {} }));
    assert!(!decides(&path, &both), "one part is not");
}

#[test]
fn only_the_secret_that_is_named_is_given() {
    let token = cpu("affirming", json!({ "tdx": {} }));
    for (given, path) in [
        (true, json!("/default/confonnx/model-key")),
        (true, json!("default/confonnx/model-key")),
        (true, json!(["default", "confonnx", "model-key"])),
        (false, json!("/default/confonnx/model-key2")),
        (false, json!("/default/confonnx/root")),
        (false, json!("/another/default/confonnx/model-key")),
        (false, json!("/default/confonnx")),
        (false, json!(["default", "confonnx", "root"])),
        (false, json!(["another", "default", "confonnx", "model-key"])),
        (false, json!(["model-key", "confonnx", "default"])),
        (false, json!([])),
        (false, json!("")),
        (false, json!(null)),
        (false, json!({ "default": "confonnx/model-key" })),
    ] {
        assert_eq!(decides(&path, &token), given, "{path}");
    }
}
