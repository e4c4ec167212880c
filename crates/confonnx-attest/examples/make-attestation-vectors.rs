//! Writes `vectors/attestation`: `cargo run -p confonnx-attest --example make-attestation-vectors`.

#![allow(clippy::restriction, reason = "a tool for this repository, which may panic")]

use std::path::Path;
use std::{fs, io};

use confonnx_attest::merkle::Tree;
use confonnx_attest::produce::Attester;
use confonnx_attest::{Claims, Digest, Document, Nonce, UnixTime, report_data};
use serde_json::{Value, json};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/attestation");
    for case in cases() {
        let folder = root.join(case.name);
        fs::create_dir_all(&folder)?;
        let nonce = case.nonce.then(|| nonces()[LEAF].to_string());
        let about = json!({
            "description": case.description,
            "clause": format!("docs/protocol.md {}", case.clause),
            "now": NOW + case.seconds_later,
            "nonce": nonce,
            "policy": case.policy,
            "expected": case.expected,
            "failed_checks": case.failed,
            "pad_document_to": case.pad_document_to,
        });
        fs::write(folder.join("case.json"), format!("{about:#}\n"))?;
        fs::write(folder.join("document.json"), case.document)?;
    }
    Ok(())
}

struct Case {
    name: &'static str,
    description: &'static str,
    clause: &'static str,
    document: Vec<u8>,
    /// The length to which spaces after the document bring it.
    pad_document_to: Option<usize>,
    nonce: bool,
    seconds_later: u64,
    policy: Value,
    expected: &'static str,
    failed: Vec<&'static str>,
}

fn cases() -> Vec<Case> {
    let good = document(&claims(), true);
    let cached = document(&claims(), false);
    let edit = |edit: &dyn Fn(&mut Value)| {
        let mut wire: Value = serde_json::from_slice(&good).expect("our own JSON");
        edit(&mut wire);
        wire.to_string().into_bytes()
    };
    let trusted = |name, description, clause, document: &[u8], policy| Case {
        name,
        description,
        clause,
        document: document.to_vec(),
        pad_document_to: None,
        nonce: true,
        seconds_later: 5,
        policy,
        expected: "trusted",
        failed: Vec::new(),
    };
    let debug = || json!({ "allow_debug": true });
    let invalid = |name, description, clause, document: Vec<u8>| Case {
        expected: "document-invalid",
        ..trusted(name, description, clause, &document, debug())
    };
    let forged = |name, description, clause, document: Vec<u8>, failed: &[&'static str]| Case {
        expected: "not-genuine",
        failed: failed.to_vec(),
        ..trusted(name, description, clause, &document, debug())
    };
    let refused = |name, description, clause, document: &[u8], policy, failed: &[&'static str]| Case {
        expected: "not-trusted",
        failed: failed.to_vec(),
        ..trusted(name, description, clause, document, policy)
    };
    let with_claims = |edit: &dyn Fn(&mut Claims)| {
        let mut claims = claims();
        edit(&mut claims);
        document(&claims, true)
    };
    let flip = |text: &mut Value, at: usize| {
        let mut bytes = text.as_str().expect("text").as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        *text = String::from_utf8(bytes).expect("ASCII").into();
    };
    let sibling = "0".repeat(64);
    vec![
        trusted("good", "Evidence made for our nonce, insecure TEE allowed", "2.5", &good, debug()),
        trusted(
            "good-enclave-hash",
            "The right enclave hash",
            "2.5",
            &good,
            json!({ "allow_debug": true, "enclave_hash": MEASUREMENT.to_string() }),
        ),
        trusted(
            "good-model-hash",
            "The hash of a served model",
            "2.5",
            &good,
            json!({ "allow_debug": true, "model_hash": Digest([0x3d; 32]).to_string() }),
        ),
        trusted(
            "unknown-members",
            "Members a client does not know are ignored",
            "2.2",
            &edit(&|d| d["future"] = json!({ "a": [1] })),
            debug(),
        ),
        Case {
            nonce: false,
            policy: json!({ "allow_debug": true, "max_age_s": 60 }),
            ..trusted("cached", "No nonce, young enough", "2.6", &cached, debug())
        },
        invalid("empty", "No bytes at all", "2.2", Vec::new()),
        invalid("truncated", "Half a document", "2.2", good[..good.len() / 2].to_vec()),
        invalid("trailing-bytes", "Bytes after the document", "2.2", [&good[..], b"x"].concat()),
        Case {
            pad_document_to: Some((1 << 20) + 1),
            ..invalid("too-long", "Longer than 1 MiB", "2.2", good.clone())
        },
        invalid("version-2", "A version we do not speak", "2.2", edit(&|d| d["version"] = json!(2))),
        invalid("tee-unknown", "A TEE nobody knows", "2.2", edit(&|d| d["evidence"]["tee"] = json!("magic"))),
        invalid("evidence-absent", "No evidence at all", "2.2", edit(&|d| d["evidence"] = Value::Null)),
        invalid(
            "report-absent",
            "Evidence without a report",
            "2.2",
            edit(&|d| d["evidence"]["report"] = Value::Null),
        ),
        invalid("report-empty", "An empty report", "2.7", edit(&|d| d["evidence"]["report"] = json!(""))),
        invalid("freshness-absent", "No root", "2.2", edit(&|d| d["freshness"] = json!({}))),
        invalid(
            "key-configs-base64",
            "Key configs with base64 padding",
            "2.2",
            edit(&|d| d["key_configs"] = json!("AA==")),
        ),
        invalid(
            "path-hash-short",
            "A path hash of 31 bytes",
            "2.2",
            edit(&|d| d["freshness"]["proof"]["path"] = json!(["00".repeat(31)])),
        ),
        forged(
            "key-configs-flipped",
            "Other key configs than the evidence vouches for",
            "2.3",
            edit(&|d| flip(&mut d["key_configs"], 3)),
            &["report data"],
        ),
        forged(
            "claims-flipped",
            "Other claims than the evidence vouches for",
            "2.3",
            edit(&|d| flip(&mut d["claims"], 40)),
            &["report data", "claims"],
        ),
        forged(
            "claims-swapped",
            "Well-formed claims of another document",
            "2.3",
            edit(&|d| {
                let other: Value =
                    serde_json::from_slice(&with_claims(&|c| c.models[0].sha256 = Some(Digest([9; 32]))))
                        .expect("our own JSON");
                d["claims"] = other["claims"].clone();
            }),
            &["report data"],
        ),
        forged(
            "claims-not-json",
            "Claims that are not a JSON object, properly bound",
            "2.4",
            raw_document(b"[]".to_vec(), true),
            &["claims"],
        ),
        forged(
            "root-flipped",
            "Another root",
            "2.3",
            edit(&|d| d["freshness"]["root"] = json!(sibling)),
            &["report data", "nonce"],
        ),
        forged("proof-absent", "A cached document in answer to a nonce", "2.3", cached.clone(), &["nonce"]),
        forged(
            "proof-of-another-leaf",
            "The proof of somebody else's nonce",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["leaf_index"] = json!(LEAF - 1)),
            &["nonce"],
        ),
        forged(
            "path-flipped",
            "A path to another root",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["path"][1] = json!(sibling)),
            &["nonce"],
        ),
        forged(
            "path-short",
            "A hash of the path is missing",
            "2.3",
            edit(&|d| {
                d["freshness"]["proof"]["path"].as_array_mut().expect("path").pop();
            }),
            &["nonce"],
        ),
        forged(
            "path-long",
            "A hash too many",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["path"].as_array_mut().expect("path").push(json!(sibling))),
            &["nonce"],
        ),
        forged(
            "path-huge",
            "A thousand hashes",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["path"] = json!(vec![sibling.clone(); 1_000])),
            &["nonce"],
        ),
        forged(
            "tree-size-zero",
            "A proof in an empty tree",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["tree_size"] = json!(0)),
            &["nonce"],
        ),
        forged(
            "tree-size-huge",
            "A tree of 2^64 - 1 nonces",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["tree_size"] = json!(u64::MAX)),
            &["nonce"],
        ),
        forged(
            "leaf-outside",
            "A leaf outside the tree",
            "2.3",
            edit(&|d| d["freshness"]["proof"]["leaf_index"] = json!(9)),
            &["nonce"],
        ),
        refused(
            "tee-not-allowed",
            "The insecure TEE is not allowed by name",
            "2.7",
            &good,
            json!({ "enclave_hash": MEASUREMENT.to_string() }),
            &["tee", "debug"],
        ),
        refused(
            "enclave-hash-other",
            "Another program",
            "2.5",
            &good,
            json!({ "allow_debug": true, "enclave_hash": Digest([0; 32]).to_string() }),
            &["enclave hash"],
        ),
        refused(
            "enclave-hash-longer",
            "The right hash with more bytes",
            "2.5",
            &good,
            json!({ "allow_debug": true, "enclave_hash": format!("{MEASUREMENT}00") }),
            &["enclave hash"],
        ),
        refused(
            "signer-absent",
            "A signer is expected where programs are not signed",
            "2.5",
            &good,
            json!({ "allow_debug": true, "signing_key_pem": PEM }),
            &["enclave signer"],
        ),
        refused(
            "model-hash-other",
            "Another model",
            "2.5",
            &good,
            json!({ "allow_debug": true, "model_hash": Digest([0; 32]).to_string() }),
            &["model hash"],
        ),
        refused(
            "model-absent",
            "A server without models",
            "2.5",
            &with_claims(&|c| c.models.clear()),
            json!({ "allow_debug": true, "model_hash": Digest([0x3d; 32]).to_string() }),
            &["model hash"],
        ),
        refused(
            "protocol-other",
            "Another protocol",
            "2.4",
            &with_claims(&|c| c.protocol = "confonnx/2".into()),
            debug(),
            &["protocol"],
        ),
        Case {
            nonce: false,
            ..refused(
                "cached-without-max-age",
                "No nonce and no maximum age",
                "2.6",
                &cached,
                debug(),
                &["age"],
            )
        },
        Case {
            nonce: false,
            seconds_later: 61,
            ..refused(
                "cached-too-old",
                "Older than the maximum age",
                "2.6",
                &cached,
                json!({ "allow_debug": true, "max_age_s": 60 }),
                &["age"],
            )
        },
        Case {
            nonce: false,
            ..refused(
                "cached-from-the-future",
                "An hour in the future",
                "2.6",
                &document(&Claims::example(UnixTime(NOW + 3600)), false),
                json!({ "allow_debug": true, "max_age_s": 60 }),
                &["age"],
            )
        },
    ]
}

fn claims() -> Claims {
    Claims::example(UnixTime(NOW))
}

fn document(claims: &Claims, proof: bool) -> Vec<u8> {
    raw_document(claims.to_bytes(), proof)
}

fn raw_document(claims: Vec<u8>, proof: bool) -> Vec<u8> {
    let tree = Tree::new(nonces()).expect("nine nonces");
    let evidence = Attester::insecure(MEASUREMENT)
        .evidence(&report_data(&tree.root(), KEY_CONFIGS, &claims))
        .expect("software evidence");
    let proof = proof.then(|| tree.proof(LEAF)).flatten();
    Document::new(KEY_CONFIGS.to_vec(), claims, evidence, tree.root(), proof).to_json()
}

fn nonces() -> Vec<Nonce> {
    (0..9).map(|i| Nonce([i; 32])).collect()
}

const NOW: u64 = 1_795_426_200;
const LEAF: usize = 3;
const MEASUREMENT: Digest = Digest([0xe1; 32]);
/// Key configs are opaque here: these cases end before keys are used.
const KEY_CONFIGS: &[u8] = b"opaque key configs";
const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
