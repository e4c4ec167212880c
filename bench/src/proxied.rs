//! What the proxy adds: the same request to the same server by the published client, by a plain one through
//! `confonnx proxy`, and to plaintext servers.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use confonnx_engine::Engine;
use confonnx_server::models;

use crate::{
    http::Connection,
    inputs::Bare,
    load::{self, Arrivals, Round},
    peers::{Peer, Places, v2_binary},
    process::Group,
    report::Machine,
    server::{self, Server},
    stats::median,
    table::executable,
    target::Target,
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Times that each is measured, in turns; medians are over these.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a round is.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    seconds: f64,
    /// Requests over which the proxy's memory should stay flat.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Connections that do nothing.
    #[arg(long, default_value_t = 1000)]
    idle: usize,
    /// Plaintext servers to put beside.
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    peers: Vec<Peer>,
    /// Where bench/models.py put its models.
    #[arg(long, default_value = ".cache/bench", value_name = "FOLDER")]
    models: PathBuf,
    /// The server [default: confonnx-server beside this program].
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// The command [default: confonnx beside the server].
    #[arg(long, value_name = "FILE")]
    command: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let server = executable(args.server.as_deref())?;
    let command = args.command.clone().unwrap_or_else(|| server.with_file_name("confonnx"));
    let tiny = args.models.join("tiny.onnx");
    let runtime =
        Engine::InProcess(models::load_runtime(server::config(&tiny)?.onnxruntime_library.as_deref())?);
    println!("{}", Machine::new(runtime.version()));
    let bench = Bench { args, server, command, runtime, length: Duration::try_from_secs_f64(args.seconds)? };
    bench.times(&tiny, 1)?;
    bench.times(&args.models.join("squeezenet.onnx"), 8)?;
    bench.memory(&tiny)
}

struct Bench<'a> {
    args: &'a Args,
    server: PathBuf,
    command: PathBuf,
    runtime: Engine,
    length: Duration,
}

/// A server, the proxy before it, and what its model says.
struct Both {
    server: Server,
    proxy: Group,
    address: SocketAddr,
    name: String,
    bare: Bare,
}

impl Bench<'_> {
    fn start(&self, path: &Path) -> anyhow::Result<Both> {
        let model = models::load(&server::config(path)?, &self.runtime)?.model;
        let bare = Bare::new(model)?;
        let server = Server::start(&self.server, path, &[], &self.args.models.join("proxied.log"))?;
        let arguments = ["proxy", "--url", &server.url, "--enclave-allow-debug", "--listen", "127.0.0.1:0"];
        let arguments = arguments.map(str::to_owned);
        let log = self.args.models.join("proxy.log");
        let mut proxy = Group::start(&self.command, &arguments, &[], &log)?;
        let listens = |said: &str| {
            let (_, address) = said.split_once("proxy on http://")?;
            address.lines().next()?.trim().parse().ok()
        };
        let address = proxy.wait_for(listens)?;
        let name = path.file_stem().context("no name")?.to_string_lossy().into_owned();
        Ok(Both { server, proxy, address, name, bare })
    }

    /// Direct and through the proxy, in turns.
    fn times(&self, path: &Path, clients: usize) -> anyhow::Result<()> {
        let both = self.start(path)?;
        let direct = Target::Library { url: both.server.url.clone(), model: both.name.clone() };
        let mut targets = vec![("direct", direct), ("through the proxy", both.through()?)];
        let places = Places { scripts: "bench/peers".into(), installed: self.args.models.join("peers") };
        let mut running = Vec::new();
        for peer in &self.args.peers {
            match peer.start(&places, path, &both.bare, peer.best()) {
                Ok(found) => {
                    for (_, target) in found.targets(*peer, &both.bare)?.into_iter().take(1) {
                        targets.push((peer.name(), target));
                    }
                    running.push(found);
                }
                Err(error) => println!("absent: {}: {error:#}", peer.name()),
            }
        }
        let mut found: Vec<Vec<Round>> = targets.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.args.rounds {
            for ((_, target), rounds) in targets.iter().zip(&mut found) {
                rounds.push(round(target, &both.bare, clients, self.length)?);
            }
        }
        println!("\n{}, {clients} at once\n", both.name);
        println!("| | requests/s | of direct | p50 µs | beside direct | p99 µs |\n|---|---|---|---|---|---|");
        let of = |rounds: &[Round], number: fn(&Round) -> f64| median(rounds.iter().map(number));
        let rate = of(&found[0], |round| round.requests_per_s);
        let p50 = of(&found[0], |round| round.p50_us);
        for ((name, _), rounds) in targets.iter().zip(&found) {
            let (here, middle) = (of(rounds, |round| round.requests_per_s), of(rounds, |round| round.p50_us));
            println!(
                "| {name} | {here:.0} | {:.2} | {middle:.0} | {:+.0} | {:.0} |",
                here / rate,
                middle - p50,
                of(rounds, |round| round.p99_us)
            );
        }
        Ok(())
    }

    /// The proxy's memory: over many requests, and of connections that do nothing.
    fn memory(&self, path: &Path) -> anyhow::Result<()> {
        let both = self.start(path)?;
        let target = both.through()?;
        // What it grows to by itself.
        let warm = self.args.requests / 10;
        many(&target, &both.bare, warm)?;
        let before = both.proxy.memory("VmRSS")?;
        many(&target, &both.bare, self.args.requests)?;
        let after = both.proxy.memory("VmRSS")?;
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        println!(
            "\nmemory of the proxy: {:.0} KiB after {warm} requests, {:.0} KiB after {} more",
            kib(before),
            kib(after),
            self.args.requests
        );
        let mut idle = Vec::new();
        for _ in 0..self.args.idle {
            let mut connection = Connection::open(both.address)?;
            let live = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
            connection.exchange(&[live])?;
            idle.push(connection);
        }
        let with = both.proxy.memory("VmRSS")?;
        let took = round(&target, &both.bare, 1, self.length)?;
        println!(
            "{} idle connections: {:.1} KiB each; p50 beside them {:.0} µs",
            idle.len(),
            kib(with.saturating_sub(after)) / idle.len().max(1) as f64,
            took.p50_us
        );
        Ok(())
    }
}

impl Both {
    fn through(&self) -> anyhow::Result<Target> {
        v2_binary(self.address, &self.name, &self.bare)
    }
}

fn round(target: &Target, bare: &Bare, clients: usize, length: Duration) -> anyhow::Result<Round> {
    let none = || Ok(Duration::ZERO);
    load::round(clients, length, Arrivals::Closed, none, || target.open(), |worker| target.ask(worker, bare))
}

/// So many requests by eight clients.
fn many(target: &Target, bare: &Bare, requests: u64) -> anyhow::Result<()> {
    const CLIENTS: u64 = 8;
    std::thread::scope(|scope| {
        let client = || -> anyhow::Result<()> {
            let mut worker = target.open()?;
            for _ in 0..requests / CLIENTS {
                target.ask(&mut worker, bare)?;
            }
            Ok(())
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })
}
