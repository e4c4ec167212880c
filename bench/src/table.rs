//! The table: every server gets the same requests from the same clients, in turns.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use confonnx_engine::Engine;
use confonnx_protocol::Kem;
use confonnx_server::models;

use crate::{
    cost::Probes,
    http,
    inputs::Bare,
    load::{self, Arrivals, Round},
    peers::{Peer, Places, Running, Size},
    process::{Group, own_cpu},
    report::{self, Absent, BARE, Label, Machine, Row, Run},
    sealed::{self, Sealer},
    server::{self, Server},
    target::{Body, Target},
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds of each measurement; medians are over these.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a round is.
    #[arg(long, default_value_t = 1.5, value_name = "SECONDS")]
    seconds: f64,
    /// A look at everything in a few minutes: 2 rounds of 0.5 s.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Measure one model alone: tiny, digits, minilm, squeezenet, ensemble, inception, or a file of your own.
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// How many ask at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8], value_name = "N,…")]
    clients: Vec<usize>,
    /// Measure only these modes beside bare: sealed, "sealed, resumed", …
    #[arg(long, value_name = "MODE")]
    mode: Vec<String>,
    /// Servers to compare with.
    #[arg(long, value_delimiter = ',', default_values = ["fastapi", "triton", "mlserver", "litserve"], value_name = "PEER,…")]
    peers: Vec<Peer>,
    /// Measure without peers.
    #[arg(long, conflicts_with = "peers")]
    no_peers: bool,
    /// Processes of each peer [default: what is best for it].
    #[arg(long, value_name = "N")]
    peer_instances: Option<usize>,
    /// Threads inside an operator of each peer [default: what is best for it].
    #[arg(long, value_name = "N")]
    peer_threads: Option<usize>,
    /// Where bench/models.py put its models.
    #[arg(long, default_value = ".cache/bench", value_name = "FOLDER")]
    models: PathBuf,
    /// Where to write results.json; run.json goes beside it.
    #[arg(long, default_value = "target/bench/results.json", value_name = "FILE")]
    out: PathBuf,
    /// The server [default: confonnx-server beside this program].
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
}

/// Measures, prints, writes.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (rounds, seconds) = if args.quick { (2, 0.5) } else { (args.rounds, args.seconds) };
    let length = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    ensure!(!length.is_zero() && !args.clients.contains(&0), "expected a time and clients above 0");
    let paths = models(&args.models, args.model.as_deref())?;
    let runtime =
        Engine::InProcess(models::load_runtime(server::config(&paths[0])?.onnxruntime_library.as_deref())?);
    let bench = Bench {
        executable: executable(args.server.as_deref())?,
        runtime,
        rounds,
        length,
        clients: args.clients.clone(),
        modes: args.mode.clone(),
        peers: if args.no_peers { Vec::new() } else { args.peers.clone() },
        size: (args.peer_instances, args.peer_threads),
        places: Places { scripts: "bench/peers".into(), installed: args.models.join("peers") },
    };
    let mut run = Run {
        machine: Machine::new(bench.runtime.version()),
        rounds,
        seconds,
        bytes: BTreeMap::new(),
        peers: BTreeMap::new(),
        absent: Vec::new(),
        breakdown: String::new(),
    };
    for peer in &bench.peers {
        run.peers.insert(peer.name().into(), peer.versions(&bench.places)?);
    }
    let mut rows = Vec::new();
    for path in &paths {
        rows.extend(bench.model(path, &mut run)?);
        // Results are written after each model, so that a later failure loses none.
        report::write(&rows, &args.out)?;
        report::write(&run, &args.out.with_file_name("run.json"))?;
    }
    println!("{}", run.machine);
    println!("rounds: {rounds} of {length:?}; every answer was bit-equal to bare ONNX Runtime's\n");
    println!("{}\n{}", report::table(&rows), run.breakdown);
    for Absent { model, server, reason } in &run.absent {
        println!("absent: {server} with {model}: {reason}");
    }
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

/// The server's program: `given`, or beside this one.
pub(crate) fn executable(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("confonnx-server"),
    };
    path.canonicalize().with_context(|| format!("{}: run `make bench`", path.display()))
}

/// The files of the models to measure.
pub(crate) fn models(folder: &Path, only: Option<&str>) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = vec![
        folder.join("tiny.onnx"),
        PathBuf::from("examples/digits/digits.onnx"),
        folder.join("minilm.onnx"),
        folder.join("squeezenet.onnx"),
        folder.join("ensemble.onnx"),
        folder.join("inception.onnx"),
    ];
    if let Some(model) = only {
        paths.retain(|path| path.file_stem().is_some_and(|stem| stem == model));
        if paths.is_empty() {
            paths.push(model.into());
        }
    }
    for path in &paths {
        ensure!(path.is_file(), "{} does not exist; run `make bench` in the repository", path.display());
    }
    Ok(paths)
}

struct Bench {
    executable: PathBuf,
    runtime: Engine,
    rounds: u32,
    length: Duration,
    clients: Vec<usize>,
    modes: Vec<String>,
    peers: Vec<Peer>,
    size: (Option<usize>, Option<usize>),
    places: Places,
}

/// A server to measure in one way of asking.
struct Contender<'a> {
    label: Label,
    target: Target,
    group: Option<&'a Group>,
    found: Vec<Round>,
}

impl Bench {
    /// All rows of the table for the model at `path`.
    fn model(&self, path: &Path, run: &mut Run) -> anyhow::Result<Vec<Row>> {
        let config = server::config(path)?;
        let name = &config.models.name().to_owned();
        eprintln!("{name}: starting the servers");
        let bare = Bare::new(models::load(&config, &self.runtime)?.model)?;
        let bytes = |tensors: &[(String, confonnx_tensor::Tensor<'_>)]| {
            tensors.iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>()
        };
        run.bytes.insert(name.clone(), [bytes(&bare.inputs), bytes(&bare.outputs)]);
        let logs = self.places.installed.join("confonnx.log");
        std::fs::create_dir_all(&self.places.installed)?;
        let server = Server::start(&self.executable, path, &[], &logs)?;
        // Where each session has all cores by default, a thread each costs less when there are many: as the peers have it.
        let each = ["--threads-per-session", "1"];
        let start = || Server::start(&self.executable, path, &each, &logs.with_extension("each.log"));
        let narrow = (!bare.shares_cores()).then(start).transpose()?;
        let servers = (&server, narrow.as_ref());
        let peers = self.start_peers(path, name, &bare, run);
        let probes = Probes::new(&config, &server.url, &bare)?;

        let mut rows = Vec::new();
        for &clients in &self.clients {
            let mut contenders = self.contenders(name, &bare, servers, &peers, clients)?;
            self.rounds(name, &bare, &mut contenders, clients, Arrivals::Closed, run)?;
            if clients == 1 && name == "tiny" {
                let costs =
                    (0..self.rounds).map(|_| probes.round(self.length)).collect::<Result<Vec<_>, _>>()?;
                let found =
                    |mode| contenders.iter().find(|one| one.label.mode == mode).map(|one| &one.found[..]);
                if let (Some(bare), Some(sealed)) = (found("in-process"), found(SEALED)) {
                    run.breakdown = report::breakdown(name, probes.sizes(), bare, sealed, &costs);
                }
            }
            let found: Vec<_> = contenders.into_iter().map(|one| (one.label, one.found)).collect();
            rows.extend(report::rows(name, clients, Arrivals::Closed, &found));
        }
        let sealed = rows.iter().filter(|row| row.mode == SEALED).max_by_key(|row| row.clients);
        if let Some(half) = sealed.map(|row| row.requests_per_s / 2.0) {
            let arrivals = Arrivals::Open(half);
            let mut contenders = self.contenders(name, &bare, servers, &peers, OPEN_CLIENTS)?;
            self.rounds(name, &bare, &mut contenders, OPEN_CLIENTS, arrivals, run)?;
            let found: Vec<_> = contenders.into_iter().map(|one| (one.label, one.found)).collect();
            rows.extend(report::rows(name, OPEN_CLIENTS, arrivals, &found));
        }
        Ok(rows)
    }

    fn start_peers(&self, path: &Path, model: &str, bare: &Bare, run: &mut Run) -> Vec<(Peer, Running)> {
        let mut started = Vec::new();
        for &peer in &self.peers {
            let Size { instances, threads } = peer.best();
            let size =
                Size { instances: self.size.0.unwrap_or(instances), threads: self.size.1.unwrap_or(threads) };
            match peer.start(&self.places, path, bare, size) {
                Ok(running) => started.push((peer, running)),
                Err(error) => {
                    let reason = format!("{error:#}");
                    eprintln!("{model}: {} is absent: {reason}", peer.name());
                    run.absent.push(Absent { model: model.into(), server: peer.name().into(), reason });
                }
            }
        }
        started
    }

    /// The contenders that were asked for; bare ONNX Runtime always comes first.
    fn contenders<'a>(
        &self,
        model: &str,
        bare: &Bare,
        servers: (&'a Server, Option<&'a Server>),
        peers: &'a [(Peer, Running)],
        clients: usize,
    ) -> anyhow::Result<Vec<Contender<'a>>> {
        let mut list = contenders(model, bare, servers, peers, clients)?;
        let wanted = |one: &Contender<'_>| one.label.server == BARE || self.modes.contains(&one.label.mode);
        list.retain(|one| self.modes.is_empty() || wanted(one));
        Ok(list)
    }

    /// A round of each contender, over and over, beginning with another each time. A peer that fails is left out from
    /// then on.
    fn rounds(
        &self,
        model: &str,
        bare: &Bare,
        contenders: &mut Vec<Contender<'_>>,
        clients: usize,
        arrivals: Arrivals,
        run: &mut Run,
    ) -> anyhow::Result<()> {
        for round in 0..self.rounds as usize {
            let mut said = String::new();
            for at in 0..contenders.len() {
                let at = (at + round) % contenders.len();
                let Contender { label, target, group, found } = &mut contenders[at];
                let cpu = || group.map_or_else(own_cpu, Group::cpu);
                let measured = load::round(
                    clients,
                    self.length,
                    arrivals,
                    cpu,
                    || target.open(),
                    |worker| target.ask(worker, bare),
                );
                match measured {
                    Ok(measured) => {
                        said += &format!(", {} {} {:.0}", label.server, label.mode, measured.requests_per_s);
                        found.push(measured);
                    }
                    Err(error) if label.peer => {
                        let (server, reason) =
                            (format!("{}, {}", label.server, label.mode), format!("{error:#}"));
                        eprintln!("{model}: {server} is left out: {reason}");
                        run.absent.push(Absent { model: model.into(), server, reason });
                        found.clear();
                        break;
                    }
                    Err(error) => return Err(error.context(format!("{} {}", label.server, label.mode))),
                }
            }
            contenders.retain(|one| one.found.len() > round);
            eprintln!(
                "{model}, {clients} at once, round {} of {}, requests/s: {}",
                round + 1,
                self.rounds,
                &said[2..]
            );
        }
        Ok(())
    }
}

/// Every contender; bare ONNX Runtime and sealed requests come first.
fn contenders<'a>(
    model: &str,
    bare: &Bare,
    (server, narrow): (&'a Server, Option<&'a Server>),
    peers: &'a [(Peer, Running)],
    clients: usize,
) -> anyhow::Result<Vec<Contender<'a>>> {
    let address = sealed::address(&server.url)?;
    let sealer = |kem| Sealer::new(&server.url, model, kem);
    let sealed = |sealer| Target::Sealed { address, sealer: Box::new(sealer) };
    let mut list = vec![
        (BARE, "in-process", false, Target::Bare, None),
        (OURS, SEALED, false, sealed(sealer(Kem::XWing)?), Some(&server.group)),
        (OURS, "sealed, resumed", false, sealed(sealer(Kem::XWing)?.resuming()), Some(&server.group)),
    ];
    if clients == 1 {
        list.push((OURS, "sealed, X25519", false, sealed(sealer(Kem::X25519)?), Some(&server.group)));
    }
    if let Some(narrow) = narrow.filter(|_| clients > 1) {
        let address = sealed::address(&narrow.url)?;
        let sealer = Box::new(Sealer::new(&narrow.url, model, Kem::XWing)?.resuming());
        list.push((
            OURS,
            "sealed, resumed, a thread each",
            false,
            Target::Sealed { address, sealer },
            Some(&narrow.group),
        ));
    }
    let library = Target::Library { url: server.url.clone(), model: model.into() };
    list.push((OURS, "sealed, library", false, library, Some(&server.group)));
    for (peer, running) in peers {
        for (mode, target) in running.targets(*peer, bare)? {
            list.push((peer.name(), mode, true, target, Some(&running.group)));
        }
    }
    let body: Vec<u8> = bare.inputs.iter().flat_map(|(_, tensor)| tensor.data().to_vec()).collect();
    let mut request = http::post("/", &[], body.len());
    request.extend_from_slice(&body);
    let answer: Vec<u8> = bare.outputs.iter().flat_map(|(_, tensor)| tensor.data().to_vec()).collect();
    let echo = Target::Plain { address: http::echo(&answer)?, request, answer: Body::Anything };
    list.push(("echo", "generator", false, echo, None));
    let list = list.into_iter().map(|(server, mode, peer, target, group)| Contender {
        label: Label { server: server.into(), mode: mode.into(), peer },
        target,
        group,
        found: Vec::new(),
    });
    Ok(list.collect())
}

const OURS: &str = "confonnx";
const SEALED: &str = "sealed";
/// Connections of the open loop: enough that none waits for another while the server keeps up.
const OPEN_CLIENTS: usize = 64;
