//! `--help` is part of the interface. After a wanted change: `UPDATE_HELP=1 cargo test -p confonnx-cli help`.

use std::path::Path;
use std::{env, fs};

use crate::{confonnx, stdout};

#[test]
fn help_is_as_recorded() {
    let commands = [
        "",
        "predict",
        "chat",
        "top",
        "verify",
        "proxy",
        "measure",
        "measure snp",
        "measure tdx",
        "measure sgx",
        "measure nitro",
        "measure uki",
        "models",
        "load",
        "unload",
        "hash-model",
        "model-info",
        "create-test-inputs",
        "create-token",
        "hash-token",
        "completions",
        "man",
    ];
    for command in commands {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let found = stdout(&confonnx(&args));
        let name = if command.is_empty() { "confonnx".into() } else { command.replace(' ', "-") };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/help/{name}.txt"));
        if env::var_os("UPDATE_HELP").is_some() {
            fs::write(&file, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&file).unwrap(), "{}", file.display());
    }
}
