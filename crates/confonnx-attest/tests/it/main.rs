//! Documents and policies, used through the public API as clients and servers use it.

#![allow(clippy::restriction, reason = "a test may panic")]

mod document;
mod flaws;
mod policy;
mod samples;
mod vectors;

use confonnx_attest::merkle::Tree;
use confonnx_attest::produce::Attester;
use confonnx_attest::{Claims, Digest, Document, Expectations, Nonce, Policy, UnixTime, report_data};

const NOW: UnixTime = UnixTime(1_795_426_200);
const NONCE: Nonce = Nonce([7; 32]);
const MEASUREMENT: Digest = Digest([0xe1; 32]);

/// A good document for [`NONCE`].
fn document() -> Vec<u8> {
    document_of(&Claims::example(NOW), b"key configs")
}

fn document_of(claims: &Claims, key_configs: &[u8]) -> Vec<u8> {
    let tree = Tree::new(vec![Nonce([1; 32]), NONCE, Nonce([2; 32])]).unwrap();
    let claims = claims.to_bytes();
    let evidence =
        Attester::insecure(MEASUREMENT).evidence(&report_data(&tree.root(), key_configs, &claims)).unwrap();
    Document::new(key_configs.to_vec(), claims, evidence, tree.root(), tree.proof(1)).to_json()
}

fn allow_debug() -> Expectations {
    Expectations::new().allow_debug(true)
}

fn policy(expected: Expectations) -> Policy {
    Policy::new(expected).unwrap()
}
