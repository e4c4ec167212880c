//! `confonnx-vectors collect` writes every case of `vectors/` as one JSON array; `confonnx-vectors run` reads such an array and
//! writes what was found, as the WebAssembly does. Without an argument it does both, names the cases that are not as expected,
//! fails if there are any, and plays the scenes of the conversation.

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use confonnx_vectors::{collect, play, run, run_all, scenes};

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match env::args().nth(1).as_deref() {
        Some("collect") => serde_json::to_writer(&mut out, &collect()?)?,
        Some("run") => {
            let mut cases = String::new();
            io::stdin().read_to_string(&mut cases)?;
            out.write_all(run_all(&cases)?.as_bytes())?;
        }
        _ => {
            scenes().for_each(|scene| assert!(play(scene), "{scene}"));
            let found: Vec<_> = collect()?.into_iter().map(run).collect();
            for found in found.iter().filter(|found| !found.is_expected()) {
                let (suite, name) = (&found.suite, &found.name);
                writeln!(out, "{suite}/{name}: expected {}, found {}", found.expected, found.found)?;
            }
            let wrong = found.iter().filter(|found| !found.is_expected()).count();
            writeln!(out, "{} cases, {wrong} not as expected", found.len())?;
            return Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}
