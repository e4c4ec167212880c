//! Runs the test vectors of `vectors/` and says what came of each, as JSON that has to be the same wherever it runs:
//! natively with either library for cryptography, in Node, in a browser.
//!
//! A case is what its folder holds: the text of its files. [`run`] gives what was found; whether that is what the case
//! expects is [`Found::is_expected`].

#![allow(clippy::restriction, reason = "runs vectors, and may panic at a wrong one")]

// The file is shared with the tests of confonnx-protocol.
#[path = "../../../crates/confonnx-protocol/tests/it/case.rs"]
mod case;
#[path = "../../../crates/confonnx-client/tests/it/conversation.rs"]
mod conversation;

mod attestation;
mod claims;
mod decoders;
mod exchange;
#[cfg(not(target_family = "wasm"))]
mod files;
mod hashes;
mod sealing;
mod support;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::support::{document, policy, rng};

#[cfg(not(target_family = "wasm"))]
pub use self::files::collect;

/// A case as it comes; its suite is the name of the folder that its own folder is in.
#[derive(Debug, Deserialize, Serialize)]
pub struct Given {
    /// The suite, such as `sealing`; `proofs` has documents of docs/samples/proofs and vectors/documents, `models` has
    /// models.
    pub suite: String,
    /// The name of the case's folder or file.
    pub name: String,
    /// The case's `case.json`.
    #[serde(default)]
    pub case: Value,
    /// The case's `document.json`, if it has one, as text, since its bytes count.
    #[serde(default)]
    pub document: String,
    /// The bytes of the case's file, base64.
    #[serde(default)]
    pub file: String,
}

/// What a case expects and what was found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// As in [`Given`].
    pub suite: String,
    /// As in [`Given`].
    pub name: String,
    /// What the case expects; null where it only has to give the same everywhere.
    pub expected: Value,
    /// What was found.
    pub found: Value,
}

impl Found {
    /// Whether what was found is what the case expects.
    pub fn is_expected(&self) -> bool {
        self.expected.is_null() || self.expected == self.found
    }
}

/// The names of the scenes that the client's conversation and a key ring play in memory.
pub fn scenes() -> impl Iterator<Item = &'static str> {
    conversation::SCENES.iter().map(|(name, _)| *name)
}

/// Plays the scene of that name; false if there is none.
///
/// # Panics
/// The scene ends otherwise than it should.
pub fn play(name: &str) -> bool {
    let scene = conversation::SCENES.iter().find(|scene| scene.0 == name);
    scene.map(|(_, play)| play()).is_some()
}

/// Runs one case. A case that cannot be read is found to be so.
pub fn run(given: Given) -> Found {
    let Given { suite, name, case, document, file } = given;
    let (expected, found) = match suite.as_str() {
        "sealing" | "session" => sealing::run(case),
        "binary-http" => decoders::binary_http(&case),
        "inference" => decoders::inference(&case),
        "attestation" => attestation::run(&case, document.as_bytes()),
        "release-log" => {
            let document = case["document"].as_str().unwrap_or_default().to_owned();
            attestation::run(&case, document.as_bytes())
        }
        "called" => claims::called(&case),
        "claims" => claims::binding(&case),
        "exchange" => exchange::run(&case),
        "padding" => claims::padding(&case),
        "proofs" => (Value::Null, attestation::checks(document.as_bytes())),
        "models" => (Value::Null, hashes::run(&file)),
        _ => (Value::Null, "an unknown suite".into()),
    };
    Found { suite, name, expected, found }
}

/// Runs the cases of a JSON array; gives what was found as another one.
///
/// # Errors
/// The text is no such array.
pub fn run_all(cases: &str) -> Result<String, serde_json::Error> {
    let cases: Vec<Given> = serde_json::from_str(cases)?;
    serde_json::to_string(&cases.into_iter().map(run).collect::<Vec<_>>())
}
