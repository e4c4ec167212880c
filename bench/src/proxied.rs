//! What the proxy adds: the same request by the published client to the server, by a plain client through `confonnx
//! proxy`, and by a plain client to plaintext servers.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use confonnx_engine::Engine;
use confonnx_server::models;
use serde::Serialize;

use crate::{
    http::Connection,
    inputs::Bare,
    load::{self, Arrivals, Round},
    peers::{Peer, Places, v2_binary},
    process::Group,
    report::{self, Absent, Machine},
    server::{self, Server},
    stats::Spread,
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
    #[arg(long, value_delimiter = ',', default_values = ["fastapi", "triton"], value_name = "PEER,…")]
    peers: Vec<Peer>,
    /// Where to write what was found.
    #[arg(long, default_value = "target/bench/proxy.json", value_name = "FILE")]
    out: PathBuf,
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

/// `proxy.json`
#[derive(Serialize)]
struct Found {
    machine: Machine,
    rounds: u32,
    seconds: f64,
    loads: Vec<Load>,
    absent: Vec<Absent>,
    memory: Memory,
}

/// One model, and so many clients.
#[derive(Serialize)]
struct Load {
    model: String,
    clients: usize,
    rows: Vec<Row>,
}

/// One way to ask; each of its rounds is beside the direct one that was made at about the same time.
#[derive(Serialize)]
struct Row {
    way: String,
    requests_per_s: Spread,
    of_direct: Spread,
    p50_us: Spread,
    added_us: Spread,
    p99_us: Spread,
}

/// The proxy's memory, in bytes.
#[derive(Serialize)]
struct Memory {
    warm_requests: u64,
    after_warm: u64,
    requests: u64,
    after: u64,
    idle_connections: usize,
    each_connection: f64,
    /// Beside those.
    p50_us: f64,
}

/// Measures, prints, writes.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let server = executable(args.server.as_deref())?;
    let command = args.command.clone().unwrap_or_else(|| server.with_file_name("confonnx"));
    let tiny = args.models.join("tiny.onnx");
    let runtime =
        Engine::InProcess(models::load_runtime(server::config(&tiny)?.onnxruntime_library.as_deref())?);
    let machine = Machine::new(runtime.version());
    println!("{machine}");
    let bench = Bench { args, server, command, runtime, length: Duration::try_from_secs_f64(args.seconds)? };
    let mut absent = Vec::new();
    let loads = [(tiny.clone(), 1), (args.models.join("squeezenet.onnx"), 8)];
    let loads = loads.iter().map(|(model, clients)| bench.times(model, *clients, &mut absent));
    let loads = loads.collect::<anyhow::Result<Vec<_>>>()?;
    let memory = bench.memory(&tiny)?;
    let found = Found { machine, rounds: args.rounds, seconds: args.seconds, loads, absent, memory };
    report::write(&found, &args.out)?;
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

struct Bench<'a> {
    args: &'a Args,
    server: PathBuf,
    command: PathBuf,
    runtime: Engine,
    length: Duration,
}

/// A server, the proxy before it, and the answer that its model gives.
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

    /// Times of direct requests and of those through the proxy, in turns.
    fn times(&self, path: &Path, clients: usize, absent: &mut Vec<Absent>) -> anyhow::Result<Load> {
        let both = self.start(path)?;
        let direct = Target::Library { url: both.server.url.clone(), model: both.name.clone() };
        let mut targets =
            vec![("direct".to_owned(), direct), ("through the proxy".to_owned(), both.through()?)];
        let places = Places { scripts: "bench/peers".into(), installed: self.args.models.join("peers") };
        let mut running = Vec::new();
        for peer in &self.args.peers {
            match peer.start(&places, path, &both.bare, peer.best()) {
                Ok(found) => {
                    for (mode, target) in found.targets(*peer, &both.bare)?.into_iter().take(1) {
                        targets.push((format!("{}, {mode}", peer.name()), target));
                    }
                    running.push(found);
                }
                Err(error) => {
                    let (model, server) = (both.name.clone(), peer.name().to_owned());
                    let reason = format!("{error:#}");
                    println!("absent: {server}: {reason}");
                    absent.push(Absent { model, server, reason });
                }
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
        let direct = found.first().cloned().unwrap_or_default();
        let row = |((way, _), rounds): (&(String, Target), &Vec<Round>)| {
            let of = |number: fn(&Round) -> f64| Spread::of(rounds.iter().map(number));
            let beside = |pair: fn(&Round, &Round) -> f64| {
                Spread::of(rounds.iter().zip(&direct).map(|(here, there)| pair(here, there)))
            };
            let row = Row {
                way: way.clone(),
                requests_per_s: of(|round| round.requests_per_s),
                of_direct: beside(|here, there| here.requests_per_s / there.requests_per_s),
                p50_us: of(|round| round.p50_us),
                added_us: beside(|here, there| here.p50_us - there.p50_us),
                p99_us: of(|round| round.p99_us),
            };
            println!(
                "| {way} | {:.0} | {:.2} | {:.0} | {:+.0} | {:.0} |",
                row.requests_per_s.median,
                row.of_direct.median,
                row.p50_us.median,
                row.added_us.median,
                row.p99_us.median
            );
            row
        };
        let rows = targets.iter().zip(&found).map(row).collect();
        Ok(Load { model: both.name.clone(), clients, rows })
    }

    /// The proxy's memory: over many requests, and of connections that do nothing.
    fn memory(&self, path: &Path) -> anyhow::Result<Memory> {
        let both = self.start(path)?;
        let target = both.through()?;
        // What memory the proxy grows to by itself is not counted.
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
        let found = Memory {
            warm_requests: warm,
            after_warm: before,
            requests: self.args.requests,
            after,
            idle_connections: idle.len(),
            each_connection: with.saturating_sub(after) as f64 / idle.len().max(1) as f64,
            p50_us: took.p50_us,
        };
        println!(
            "{} idle connections: {:.1} KiB each; p50 beside them {:.0} µs",
            found.idle_connections,
            found.each_connection / 1024.0,
            found.p50_us
        );
        Ok(found)
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

/// Sends so many requests by eight clients.
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
