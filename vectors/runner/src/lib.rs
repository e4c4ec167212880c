//! Runs the test vectors of `vectors/` and says what came of each, as JSON that has to be the same wherever it runs:
//! natively with either library for cryptography, in Node, in a browser.
//!
//! A case is what its folder holds: the text of its files. [`run`] gives what was found; whether that is what the case
//! expects is [`Found::is_expected`].

#![allow(clippy::restriction, reason = "runs vectors, and may panic at a wrong one")]

// What is shared with the tests that stand beside the code.
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

/// A case as it comes: the suite is the name of its folder's folder.
#[derive(Debug, Deserialize, Serialize)]
pub struct Given {
    /// Such as `sealing`; `proofs` are documents of docs/samples, `models` are models.
    pub suite: String,
    /// The folder's name, or the file's.
    pub name: String,
    /// `case.json`.
    #[serde(default)]
    pub case: Value,
    /// `document.json` where there is one, as text: its bytes count.
    #[serde(default)]
    pub document: String,
    /// Bytes of a file, base64.
    #[serde(default)]
    pub file: String,
}

/// What came of a case.
#[derive(Debug, Serialize)]
pub struct Found {
    /// As in [`Given`].
    pub suite: String,
    /// As in [`Given`].
    pub name: String,
    /// What the case says; nothing where it has only to be the same everywhere.
    pub expected: Value,
    /// What was found.
    pub found: Value,
}

impl Found {
    /// Whether that is what was expected.
    pub fn is_expected(&self) -> bool {
        self.expected.is_null() || self.expected == self.found
    }
}

/// The names of the scenes that the client's conversation and a key ring play in memory.
pub fn scenes() -> impl Iterator<Item = &'static str> {
    conversation::SCENES.iter().map(|(name, _)| *name)
}

/// Plays the scene of that name; whether there is one.
///
/// # Panics
/// The vector ends otherwise than it should.
pub fn play(name: &str) -> bool {
    let scene = conversation::SCENES.iter().find(|scene| scene.0 == name);
    scene.map(|(_, play)| play()).is_some()
}

/// Runs one case. What cannot even be read is found to be so.
pub fn run(given: Given) -> Found {
    let Given { suite, name, case, document, file } = given;
    let (expected, found) = match suite.as_str() {
        "sealing" | "session" => sealing::run(case),
        "binary-http" => decoders::binary_http(&case),
        "inference" => decoders::inference(&case),
        "attestation" => attestation::run(&case, document.as_bytes()),
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

/// Runs the cases of a JSON array; what was found, as one.
///
/// # Errors
/// The text is no such array.
pub fn run_all(cases: &str) -> Result<String, serde_json::Error> {
    let cases: Vec<Given> = serde_json::from_str(cases)?;
    serde_json::to_string(&cases.into_iter().map(run).collect::<Vec<_>>())
}
