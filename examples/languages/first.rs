//! Verifies a server, sends it an image of a one, and prints what it read: first URL insecure|ENCLAVE_HASH.

#![allow(clippy::restriction, reason = "an example, which prints")]

use std::error::Error;
use std::process::ExitCode;

use confonnx_client::blocking::Client;
use confonnx_client::{DataType, Expectations, Options, Policy, Shape, Tensor};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, expected] = &arguments[..] else { return ExitCode::from(2) };
    match digit(url, expected) {
        Ok(digit) => println!("digit {digit}"),
        Err(refused) => {
            eprintln!("{refused}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn digit(url: &str, expected: &str) -> Result<usize, Box<dyn Error>> {
    let program = match expected {
        "insecure" => Expectations::new().allow_debug(true),
        hash => Expectations::new().enclave_hash(hash.parse()?),
    };
    let client = Client::new(url, Policy::new(program)?, Options::new())?;

    let mut pixels = [0_f32; 28 * 28];
    for row in pixels.chunks_mut(28).take(24).skip(4) {
        row[13..15].fill(1.0);
    }
    let pixels: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let image = Tensor::new(DataType::Fp32, Shape::new([1, 1, 28, 28])?, pixels)?;
    // Attests first, and sends nothing if the server is not what is expected.
    let answer = client.infer(None, vec![("image".into(), image)], &[])?;

    let (_, scores) = answer.iter().find(|(name, _)| name == "probabilities").ok_or("no such output")?;
    let scores = scores.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let best = scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(digit, _)| digit).ok_or_else(|| "no scores".into())
}
