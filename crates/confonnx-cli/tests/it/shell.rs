use std::fs;

use crate::{confonnx, stderr, stdout};

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = stdout(&confonnx(&["completions", shell]));
        for command in ["predict", "verify", "create-test-inputs", "completions"] {
            assert!(text.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    assert!(confonnx(&["man", folder.path().to_str().unwrap()]).status.success());
    for page in ["confonnx.1", "confonnx-predict.1", "confonnx-verify.1", "confonnx-measure-snp.1"] {
        let text = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn a_word_that_is_nearly_right_is_suggested() {
    let output = confonnx(&["verfy", "--url", "http://localhost"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("a similar subcommand exists: 'verify'"), "{}", stderr(&output));
    let output = confonnx(&["predict", "--ur", "http://localhost"]);
    assert!(stderr(&output).contains("--url"), "{}", stderr(&output));
}

#[test]
fn without_inputs_both_ways_to_give_them_are_named() {
    let output = confonnx(&["predict", "--url", "http://localhost", "--enclave-allow-debug"]);
    let said = stderr(&output);
    assert!(said.contains("--pb-in") && said.contains("--json-in"), "{said}");
}
