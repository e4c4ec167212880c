//! Tokens: made, and hashed from standard input.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::{confonnx, stderr, stdout};

fn hash(input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_confonnx"))
        .arg("hash-token")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_token_is_new_each_time_and_comes_with_its_hash() {
    let made = || stdout(&confonnx(&["create-token"]));
    let (first, second) = (made(), made());
    assert_ne!(first, second);
    let (token, digest) = first.split_once('\n').unwrap();
    let (token, digest) =
        (token.split_whitespace().last().unwrap(), digest.split_whitespace().last().unwrap());
    assert!(token.starts_with("cfx_") && token.len() == 47, "{token}");
    assert_eq!(stdout(&hash(&format!("{token}\n"))).trim(), digest);
    // The digest that sha256sum gives for this token.
    let known = "553d00c34e6f23283597ae9dd5b2aee18bfc4f1cf4444a3ae5f9f7ebdbeb32c6";
    assert_eq!(stdout(&hash("a-token-that-is-long-enough")).trim(), known);
}

#[test]
fn what_is_no_token_or_a_weak_one_is_refused() {
    for (input, expected) in [
        ("", "found 0"),
        ("correct-horse", "found 13; `confonnx create-token`"),
        ("two words, and many more of them", "without spaces"),
        (&"x".repeat(5000), "expected a token of 22 to 4095"),
    ] {
        let output = hash(input);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn a_token_can_go_to_a_file_that_nobody_else_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let args = ["create-token", "--out", path.to_str().unwrap()];
    let digest = stdout(&confonnx(&args));
    let token = std::fs::read_to_string(&path).unwrap();
    assert!(token.starts_with("cfx_") && !digest.contains(token.trim()), "{digest}");
    assert_eq!(stdout(&hash(&token)), digest);
    let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // A token's file that exists stays as it is.
    let again = confonnx(&args);
    assert!(!again.status.success() && stderr(&again).contains("cannot write"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), token);
}
