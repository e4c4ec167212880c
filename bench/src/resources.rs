//! What the server takes besides time: memory, start, connections. Each finding is printed beside its target.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, ensure};
use confonnx_attest::Nonce;
use confonnx_engine::Engine;
use confonnx_protocol::Kem;
use confonnx_server::models;
use confonnx_tensor::{DataType, Shape, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    http::{Connection, get},
    inputs::{Bare, same},
    load::{self, Arrivals},
    process::memory,
    report,
    sealed::{self, Library, SealedClient, Sealer},
    server::{self, Server},
    stats::{Spread, median},
    table::executable,
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure, all by default.
    #[arg(long, value_delimiter = ',', default_values = ["memory", "start", "connections", "idle", "resumptions", "requests", "resumed", "attestation", "threads", "large"], value_name = "WHAT,…")]
    only: Vec<What>,
    /// Times that each is measured; medians are over these.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a round of load is.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// Requests over which memory should stay flat.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    requests: u64,
    /// Where bench/models.py put its models.
    #[arg(long, default_value = ".cache/bench", value_name = "FOLDER")]
    models: PathBuf,
    /// Where to write what was found.
    #[arg(long, default_value = "target/bench/resources.json", value_name = "FILE")]
    out: PathBuf,
    /// The server [default: confonnx-server beside this program].
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Most memory at once, under load.
    Memory,
    /// Time from start to the first sealed answer.
    Start,
    /// Throughput from 8 to 512 connections.
    Connections,
    /// Memory of connections that do nothing.
    Idle,
    /// Memory of resumptions.
    Resumptions,
    /// Memory over many requests, each to an encapsulated key of its own.
    Requests,
    /// Memory over many resumed requests.
    Resumed,
    /// What a fresh attestation document costs.
    Attestation,
    /// Throughput by how a model's sessions share the cores.
    Threads,
    /// Most memory for one input of 1 GiB, sent in chunks.
    Large,
}

/// Arguments of `confonnx-bench bare`, a process that runs the model and does nothing else.
#[derive(clap::Args)]
pub(crate) struct BareArgs {
    #[arg(long)]
    model: PathBuf,
    /// How long eight threads run the model after that.
    #[arg(long)]
    seconds: f64,
}

/// What the bare process prints.
#[derive(Serialize, Deserialize)]
struct BareSaid {
    load_ms: f64,
    peak_bytes: u64,
}

/// What was measured, beside its target.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    /// The target; empty where there is none.
    target: &'static str,
    measured: String,
    met: bool,
    /// The numbers that docs/measurements/scaling.md needs.
    numbers: BTreeMap<&'static str, f64>,
}

/// Runs the model in this process, which does nothing else.
pub(crate) fn bare(args: &BareArgs) -> anyhow::Result<()> {
    let config = server::config(&args.model)?;
    let start = Instant::now();
    let runtime = Engine::InProcess(models::load_runtime(config.onnxruntime_library.as_deref())?);
    let model = models::load(&config, &runtime)?.model;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let bare = Bare::new(model)?;
    let length = Duration::try_from_secs_f64(args.seconds)?;
    let ask = |(): &mut ()| bare.ask();
    load::round(CLIENTS, length, Arrivals::Closed, || Ok(Duration::ZERO), || Ok(()), ask)?;
    let said = BareSaid { load_ms, peak_bytes: memory("self", "VmHWM")? };
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}

/// Measures, prints, and writes the file.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (tiny, squeezenet) = (args.models.join("tiny.onnx"), args.models.join("squeezenet.onnx"));
    let runtime =
        Engine::InProcess(models::load_runtime(server::config(&tiny)?.onnxruntime_library.as_deref())?);
    let bench = Bench {
        executable: executable(args.server.as_deref())?,
        runtime,
        rounds: args.rounds,
        length: Duration::try_from_secs_f64(args.seconds).context("--seconds")?,
        log: args.models.join("resources.log"),
    };
    println!("{}\n", report::Machine::new(bench.runtime.version()));
    let mut findings = Vec::new();
    for what in &args.only {
        let finding = match what {
            What::Memory => bench.memory(&squeezenet),
            What::Start => bench.start(&tiny),
            What::Connections => bench.connections(&tiny),
            What::Idle => bench.idle(&tiny),
            What::Resumptions => bench.resumptions(&tiny),
            What::Attestation => bench.attestation(&tiny),
            What::Threads => bench.threads(&squeezenet),
            What::Large => bench.large(&args.models.join("total.onnx")),
            What::Requests => bench.requests(&tiny, args.requests, false),
            What::Resumed => bench.requests(&tiny, args.requests, true),
        }?;
        let Finding { what, target, measured, met, .. } = &finding;
        match (target.is_empty(), met) {
            (true, _) => println!("{what}: {measured}"),
            (false, true) => println!("{what}: {measured} (target: {target}): met"),
            (false, false) => println!("{what}: {measured} (target: {target}): MISSED"),
        }
        findings.push(finding);
    }
    report::write(&findings, &args.out)?;
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

struct Bench {
    executable: PathBuf,
    runtime: Engine,
    rounds: u32,
    length: Duration,
    log: PathBuf,
}

/// A server, its key, and the answer that it should give.
struct Asked<'a> {
    server: &'a Server,
    sealer: Sealer,
    bare: &'a Bare,
}

impl Asked<'_> {
    fn open(&self) -> anyhow::Result<SealedClient> {
        Sealer::open(sealed::address(&self.server.url)?)
    }

    fn round(&self, clients: usize, length: Duration) -> anyhow::Result<load::Round> {
        let ask = |client: &mut SealedClient| self.sealer.ask(client, self.bare);
        load::round(clients, length, Arrivals::Closed, || self.server.group.cpu(), || self.open(), ask)
    }
}

impl Bench {
    fn load(&self, path: &Path) -> anyhow::Result<(String, Bare)> {
        let config = server::config(path)?;
        let bare = Bare::new(models::load(&config, &self.runtime)?.model)?;
        Ok((config.models.name().into(), bare))
    }

    fn serve(&self, path: &Path, flags: &[&str]) -> anyhow::Result<Server> {
        Server::start(&self.executable, path, flags, &self.log)
    }

    fn bare_process(path: &Path, length: Duration) -> anyhow::Result<BareSaid> {
        let output = Command::new(std::env::current_exe()?)
            .args(["bare", "--model"])
            .arg(path)
            .args(["--seconds", &length.as_secs_f64().to_string()])
            .output()?;
        let failed = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the bare process failed: {}", failed());
        serde_json::from_slice(&output.stdout).with_context(failed)
    }

    /// Most memory at once of the server and of a bare process, eight requests at a time.
    fn memory(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let mut more = Vec::new();
        for _ in 0..self.rounds {
            let alone = Self::bare_process(path, self.length)?.peak_bytes;
            let server = self.serve(path, &[])?;
            let sealer = Sealer::new(&server.url, &name, Kem::XWing)?;
            Asked { server: &server, sealer, bare: &bare }.round(CLIENTS, self.length)?;
            more.push((mebibytes(server.group.memory("VmHWM")?), mebibytes(alone)));
        }
        let over = Spread::of(more.iter().map(|(server, alone)| server - alone));
        let bytes: usize = bare.inputs.iter().map(|(_, tensor)| tensor.data().len()).sum();
        Ok(Finding {
            what: "peak memory with 600 KB inputs, 8 clients",
            target: "bare + 40 MB",
            measured: format!(
                "{name} ({bytes} bytes): server {:.1} MiB, bare process {:.1} MiB, {:+.1} MiB ({:.1}–{:.1})",
                median(more.iter().map(|pair| pair.0)),
                median(more.iter().map(|pair| pair.1)),
                over.median,
                over.min,
                over.max
            ),
            met: over.median * (1 << 20) as f64 <= 40e6,
            numbers: BTreeMap::new(),
        })
    }

    /// From the server's start to its first sealed answer, less what a bare process takes to load library and model.
    fn start(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let (mut whole, mut loading) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            loading.push(Self::bare_process(path, Duration::ZERO)?.load_ms);
            let start = Instant::now();
            let server = self.serve(path, &[])?;
            let sealer = Sealer::new(&server.url, &name, Kem::XWing)?;
            let asked = Asked { server: &server, sealer, bare: &bare };
            asked.sealer.ask(&mut asked.open()?, &bare)?;
            whole.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let over = Spread::of(whole.iter().zip(&loading).map(|(whole, loading)| whole - loading));
        Ok(Finding {
            what: "cold start to the first sealed answer",
            target: "model load + 150 ms",
            measured: format!(
                "{name}: {:.0} ms, of which loading {:.0} ms; {:+.0} ms ({:.0}–{:.0})",
                median(whole.iter().copied()),
                median(loading.iter().copied()),
                over.median,
                over.min,
                over.max
            ),
            met: over.median <= 150.0,
            numbers: BTreeMap::new(),
        })
    }

    /// Throughput with more and more connections.
    fn connections(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        // Each connection has a request waiting: more than the default queue takes.
        let server = self.serve(path, &["--max-queue", "1024"])?;
        let asked =
            Asked { server: &server, sealer: Sealer::new(&server.url, &name, Kem::XWing)?, bare: &bare };
        let mut found = vec![Vec::new(); CONNECTIONS.len()];
        for _ in 0..self.rounds {
            for (clients, found) in CONNECTIONS.into_iter().zip(&mut found) {
                found.push(asked.round(clients, self.length)?.requests_per_s);
            }
        }
        let least = |few: usize, many: usize| {
            median(found[many].iter().zip(&found[few]).map(|(many, few)| many / few))
        };
        let ratio = (1..CONNECTIONS.len()).map(|many| least(0, many)).fold(f64::INFINITY, f64::min);
        let rates = CONNECTIONS.iter().zip(&found);
        let rates =
            rates.map(|(clients, rates)| format!("{clients}: {:.0}/s", median(rates.iter().copied())));
        Ok(Finding {
            what: "throughput by connections",
            target: "no less than 0.9 of that of 8",
            measured: format!("{name}: {}; at least {ratio:.2}", rates.collect::<Vec<_>>().join(", ")),
            met: ratio >= 0.9,
            numbers: BTreeMap::new(),
        })
    }

    /// Memory that connections take which have asked once.
    fn idle(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let server = self.serve(path, &[])?;
        let asked =
            Asked { server: &server, sealer: Sealer::new(&server.url, &name, Kem::XWing)?, bare: &bare };
        asked.round(CLIENTS, self.length)?;
        let before = server.group.memory("VmRSS")?;
        let mut connections = Vec::new();
        for _ in 0..IDLE {
            let mut connection = asked.open()?;
            asked.sealer.ask(&mut connection, &bare)?;
            connections.push(connection);
        }
        let each = server.group.memory("VmRSS")?.saturating_sub(before) as f64 / IDLE as f64;
        Ok(Finding {
            what: "memory of an idle connection",
            target: "",
            measured: format!("{name}: {each:.0} bytes, over {IDLE}"),
            met: true,
            numbers: BTreeMap::from([("bytes_a_connection", each)]),
        })
    }

    /// Memory that a resumption takes, with the entry in the replay table of the request that opened it.
    fn resumptions(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let server = self.serve(path, &[])?;
        let sealer = Sealer::new(&server.url, &name, Kem::XWing)?.resuming();
        let asked = Asked { server: &server, sealer, bare: &bare };
        asked.round(CLIENTS, self.length)?;
        let before = server.group.memory("VmRSS")?;
        let mut client = asked.open()?;
        for _ in 0..RESUMPTIONS {
            asked.sealer.ask(&mut client, &bare)?;
            client.forget();
        }
        let each = server.group.memory("VmRSS")?.saturating_sub(before) as f64 / f64::from(RESUMPTIONS);
        Ok(Finding {
            what: "memory of a resumption",
            target: "",
            measured: format!("{name}: {each:.0} bytes, over {RESUMPTIONS}"),
            met: true,
            numbers: BTreeMap::from([("bytes_a_resumption", each)]),
        })
    }

    /// CPU time of the server for a document with a nonce of the client's own. The stand-in's evidence costs next to
    /// nothing: it is the document around it that is measured.
    fn attestation(&self, path: &Path) -> anyhow::Result<Finding> {
        let server = self.serve(path, &[])?;
        let address = sealed::address(&server.url)?;
        let bytes = AtomicU64::new(0);
        let ask = |connection: &mut Connection| {
            let mut nonce = Nonce([0; 32]);
            getrandom::fill(&mut nonce.0).context("no random bytes")?;
            let start = Instant::now();
            let answer =
                connection.exchange(&[&get(&format!("/.well-known/confonnx/attestation?nonce={nonce}"))])?;
            ensure!(answer.status == 200, "status {}", answer.status);
            bytes.fetch_max(answer.body.len() as u64, Relaxed);
            Ok(start.elapsed())
        };
        let cpu = || server.group.cpu();
        let open = || Connection::open(address);
        let found = load::round(ATTESTING, self.length, Arrivals::Closed, cpu, open, ask)?;
        Ok(Finding {
            what: "a fresh attestation document",
            target: "",
            measured: format!(
                "{:.0} µs of CPU, {} bytes, {:.0} documents/s to {ATTESTING} clients",
                found.server_cpu_us,
                bytes.into_inner(),
                found.requests_per_s
            ),
            met: true,
            numbers: BTreeMap::from([("document_cpu_us", found.server_cpu_us)]),
        })
    }

    /// Sealed answers to one client and to many, by the settings of sessions and threads.
    fn threads(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let cores = std::thread::available_parallelism()?.to_string();
        let settings: [(&str, &[&str]); 4] = [
            ("by default", &[]),
            ("1 thread a session", &["--threads-per-session", "1"]),
            ("all cores in each session", &["--threads-per-session", &cores]),
            ("one session with all cores", &["--num-sessions", "1"]),
        ];
        let mut found = [const { [const { Vec::new() }; 2] }; 4];
        for _ in 0..self.rounds {
            for ((_, flags), found) in settings.iter().zip(&mut found) {
                let server = self.serve(path, flags)?;
                let sealer = Sealer::new(&server.url, &name, Kem::XWing)?;
                let asked = Asked { server: &server, sealer, bare: &bare };
                for (clients, found) in [1, CLIENTS].into_iter().zip(found) {
                    found.push(asked.round(clients, self.length)?.requests_per_s);
                }
            }
        }
        let said = settings.iter().zip(found).map(|((what, _), [one, many])| {
            format!("{what} {:.0} and {:.0}", median(one.into_iter()), median(many.into_iter()))
        });
        Ok(Finding {
            what: "sealed answers a second to 1 and to 8 clients",
            target: "",
            measured: format!("{name}: {}", said.collect::<Vec<_>>().join("; ")),
            met: true,
            numbers: BTreeMap::new(),
        })
    }

    /// Most memory of the server beside what it has at its start, for an input that the published client sends in chunks.
    fn large(&self, path: &Path) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let server = self.serve(path, &["--max-request-bytes", &(2 * LARGE).to_string()])?;
        let before = server.group.memory("VmRSS")?;
        let values = (0..LARGE / 4).flat_map(|at| ((at % 251) as f32).to_le_bytes()).collect::<Vec<u8>>();
        let shape = Shape::new([LARGE as u64 / 4])?;
        let tensor = Tensor::new(DataType::Fp32, shape, values)?;
        let input = |name: &String| vec![(name.clone(), tensor.borrowed())];
        let input = input(&bare.inputs[0].0);
        let start = Instant::now();
        let found = Library::chunked(&server.url)?.infer(&name, input.clone())?;
        let took = start.elapsed();
        same(&bare.run(&input)?, &found).context("the sealed answer differs from bare ONNX Runtime")?;
        let most = server.group.memory("VmHWM")?.saturating_sub(before);
        let ratio = most as f64 / LARGE as f64;
        Ok(Finding {
            what: "memory for one input of 1 GiB, in chunks",
            target: "no more than 1.25 of the input",
            measured: format!(
                "{:.0} MiB, {ratio:.2} of the input; answered in {:.1} s",
                mebibytes(most),
                took.as_secs_f64()
            ),
            met: ratio <= 1.25,
            numbers: BTreeMap::new(),
        })
    }

    /// Memory after each tenth of many requests.
    fn requests(&self, path: &Path, requests: u64, resumed: bool) -> anyhow::Result<Finding> {
        let (name, bare) = self.load(path)?;
        let server = self.serve(path, &[])?;
        let sealer = Sealer::new(&server.url, &name, Kem::XWing)?;
        let sealer = if resumed { sealer.resuming() } else { sealer };
        let asked = Asked { server: &server, sealer, bare: &bare };
        let mut resident = Vec::new();
        for tenth in 1..=10 {
            let left = AtomicU64::new(requests / 10);
            std::thread::scope(|scope| {
                let client = || {
                    let mut connection = asked.open()?;
                    while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                        asked.sealer.ask(&mut connection, &bare)?;
                    }
                    anyhow::Ok(())
                };
                let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
                clients.into_iter().try_for_each(|client| {
                    client.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
                })
            })?;
            let now = server.group.memory("VmRSS")?;
            eprintln!("after {} requests: {:.1} MiB", requests / 10 * tenth, mebibytes(now));
            resident.push(now);
        }
        // Caches and pools fill in the first half, which is not counted.
        let growth = mebibytes(resident[9]) - mebibytes(resident[4]);
        let per_request = (resident[9] as f64 - resident[4] as f64) / (requests as f64 / 2.0);
        let measured = format!(
            "{name}: {:.1} MiB after {}, {:.1} MiB after {requests}: {growth:+.1} MiB, {per_request:.0} bytes a request",
            mebibytes(resident[4]),
            requests / 2,
            mebibytes(resident[9])
        );
        Ok(if resumed {
            Finding {
                what: "memory over many resumed requests",
                target: "flat: at most 2 MiB more in the second half",
                measured,
                met: growth <= 2.0,
                numbers: BTreeMap::new(),
            }
        } else {
            Finding {
                what: "memory over many requests, a key each",
                target: "at most 64 bytes a request, the replay table's, for ten minutes",
                measured,
                met: per_request <= 64.0,
                numbers: BTreeMap::from([("bytes_a_request", per_request.max(0.0))]),
            }
        })
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

const CLIENTS: usize = 8;
/// Bytes of the large input.
const LARGE: usize = 1 << 30;
const IDLE: usize = 512;
const RESUMPTIONS: u32 = 20_000;
const ATTESTING: usize = 64;
const CONNECTIONS: [usize; 4] = [8, 64, 256, 512];
