//! The cases, from the files of this checkout.

use std::path::{Path, PathBuf};
use std::{fs, io};

use base64ct::{Base64, Encoding};

use crate::Given;

const SUITES: [&str; 10] = [
    "sealing",
    "session",
    "binary-http",
    "inference",
    "attestation",
    "called",
    "claims",
    "exchange",
    "padding",
    "release-log",
];

const MODEL: &str = "examples/digits/digits.onnx";

/// The cases, in the order of their names.
///
/// # Errors
/// A file that cannot be read.
pub fn collect() -> io::Result<Vec<Given>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut cases = Vec::new();
    for suite in SUITES {
        for (name, path) in entries(&root.join("vectors").join(suite))? {
            let Ok(case) = fs::read(path.join("case.json")) else { continue };
            let case = serde_json::from_slice(&case)?;
            let document = fs::read_to_string(path.join("document.json")).unwrap_or_default();
            cases.push(Given { suite: suite.into(), name, case, document, file: String::new() });
        }
    }
    for folder in ["docs/samples/proofs", "vectors/documents"] {
        for (name, path) in entries(&root.join(folder))? {
            if name.ends_with(".document.json") {
                let document = fs::read_to_string(path)?;
                let suite = "proofs".into();
                cases.push(Given { suite, name, case: Default::default(), document, file: String::new() });
            }
        }
    }
    let file = Base64::encode_string(&fs::read(root.join(MODEL))?);
    let (suite, name, case) = ("models".into(), MODEL.into(), Default::default());
    cases.push(Given { suite, name, case, document: String::new(), file });
    Ok(cases)
}

fn entries(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut entries = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
        .collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}
