//! `cargo run` writes the code that the interface says; `cargo run -- --check` only compares it.

use std::path::Path;
use std::process::ExitCode;
use std::{env, error, fs};

fn main() -> Result<ExitCode, Box<dyn error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let interface = protox::compile(["inference.proto"], [here.join("proto")])?;
    let folder = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .build_client(false)
        .bytes(".")
        .out_dir(folder.path())
        .compile_fds(interface)?;
    let made = fs::read_to_string(folder.path().join("inference.rs"))?;
    let file = here.join("src/grpc/inference.rs.inc");
    if !env::args().any(|argument| argument == "--check") {
        fs::write(&file, made)?;
    } else if fs::read_to_string(&file)? != made {
        eprintln!("{}: not what proto/inference.proto says; run this without --check", file.display());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
