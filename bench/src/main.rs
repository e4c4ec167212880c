//! Measures sealed requests to a real server process beside bare ONNX Runtime in this one.
//!
//! Both have the model as the server loads it, with the server's default settings. Rounds alternate between the two, so
//! that whatever else the machine does meets both; medians and spreads are reported. Every answer is compared.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose output is its result")]

mod attestation;
mod cost;
mod load;
mod report;
mod server;
mod stats;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Parser;
use confonnx_engine::Runtime;
use confonnx_server::models;

use crate::{
    cost::{Cost, Probes},
    load::{Bare, SealedClient},
    report::{Pair, Row},
    server::Server,
};

/// Measure sealed requests beside bare ONNX Runtime.
#[derive(Parser)]
#[command(max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds of each measurement; medians are over these.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a round is.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// Measure one model alone: tiny, digits, squeezenet, or a file of your own.
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Where bench/models.py put its models.
    #[arg(long, default_value = ".cache/bench", value_name = "FOLDER")]
    models: PathBuf,
    /// Where to write the results.
    #[arg(long, default_value = "target/bench/results.json", value_name = "FILE")]
    out: PathBuf,
    /// The server [default: confonnx-server beside this program].
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Measure attestation with a slow device and many clients.
    Attestation(attestation::Args),
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Command::Attestation(args)) = &args.command {
        ensure!(!cfg!(debug_assertions), "this is a debug build; run `make bench-attestation`");
        return attestation::run(args);
    }
    let length = Duration::try_from_secs_f64(args.seconds).context("--seconds")?;
    // Clients rest for up to two rounds, and the server closes connections that rest for 30 s.
    ensure!(!length.is_zero() && args.seconds <= 10.0, "--seconds is {}; expected up to 10", args.seconds);
    ensure!(!cfg!(debug_assertions), "this is a debug build; run `make bench`");
    let executable = match &args.server {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("confonnx-server"),
    };
    let mut paths = vec![
        args.models.join("tiny.onnx"),
        PathBuf::from("examples/digits/digits.onnx"),
        args.models.join("squeezenet.onnx"),
    ];
    if let Some(model) = &args.model {
        paths.retain(|path| path.file_stem().is_some_and(|stem| stem == model.as_str()));
        if paths.is_empty() {
            paths.push(model.into());
        }
    }
    for path in &paths {
        ensure!(path.is_file(), "{} does not exist; run `make bench` in the repository", path.display());
    }
    // Per model and number of clients: a round of each, and half a round of each before, to warm up.
    let configurations = (paths.len() * CLIENTS.len()) as u32;
    let total = length * configurations * (2 * args.rounds + 1) + length * args.rounds;
    eprintln!(
        "{configurations} configurations, {} rounds of {length:?} each for bare and sealed: about {} s in all",
        args.rounds,
        total.as_secs()
    );

    let runtime = models::load_runtime(server::config(&paths[0])?.onnxruntime_library.as_deref())?;
    let bench = Bench { executable, runtime, rounds: args.rounds, length };
    let (mut rows, mut breakdown) = (Vec::new(), String::new());
    for path in &paths {
        let (model_rows, text) = bench.model(path, path.ends_with("tiny.onnx"))?;
        rows.extend(model_rows);
        breakdown.extend(text);
    }
    report::write(&rows, &args.out)?;
    println!("{}", report::machine(bench.runtime.version()));
    println!("rounds: {} of {length:?}; every sealed answer was bit-equal to the bare one\n", args.rounds);
    println!("{}\n{breakdown}", report::table(&rows));
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

struct Bench {
    executable: PathBuf,
    runtime: Runtime,
    rounds: u32,
    length: Duration,
}

impl Bench {
    /// All rows of the model at `path`, and the breakdown of one request if that is wanted.
    fn model(&self, path: &Path, break_down: bool) -> anyhow::Result<(Vec<Row>, Option<String>)> {
        let config = server::config(path)?;
        let name = &config.model_name;
        let bare = Bare::new(models::load(&config, &self.runtime)?.model)?;
        let server = Server::start(&self.executable, path)?;
        let (mut rows, mut text) = (Vec::new(), None);
        for clients in CLIENTS {
            let sealed = (0..clients).map(|_| SealedClient::new(&server.url));
            let mut sealed = sealed.collect::<anyhow::Result<Vec<_>>>()?;
            // One client alone shows where the time of a request goes: with more, they wait for each other.
            let probes = match clients {
                1 if break_down => Some(Probes::new(&config, &server.url, &bare)?),
                _ => None,
            };
            let (pairs, costs) = self.rounds(name, &bare, &mut sealed, probes.as_ref())?;
            rows.extend(report::rows(name, clients, &pairs));
            if let Some(probes) = probes {
                text = Some(report::breakdown(name, probes.sizes(), &pairs, &costs));
            }
        }
        Ok((rows, text))
    }

    /// Bare, sealed, bare, sealed …, with the probes in between.
    fn rounds(
        &self,
        name: &str,
        bare: &Bare,
        sealed: &mut [SealedClient],
        probes: Option<&Probes>,
    ) -> anyhow::Result<(Vec<Pair>, Vec<Cost>)> {
        let clients = sealed.len();
        let mut threads = vec![(); clients];
        let mut pair = |length| {
            let bare_round = load::round(&mut threads, length, |()| bare.ask())?;
            let sealed = load::round(sealed, length, |client| client.ask(name, bare))?;
            anyhow::Ok(Pair { bare: bare_round, sealed })
        };
        pair(self.length / 2)?;
        let (mut pairs, mut costs) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            let found = pair(self.length)?;
            eprintln!(
                "{name}, {clients} at once, round {round} of {}: bare {:.0}/s, sealed {:.0}/s",
                self.rounds, found.bare.requests_per_s, found.sealed.requests_per_s
            );
            pairs.push(found);
            if let Some(probes) = probes {
                costs.push(probes.round(self.length)?);
            }
        }
        Ok((pairs, costs))
    }
}

/// How many ask at once.
const CLIENTS: [usize; 2] = [1, 8];
