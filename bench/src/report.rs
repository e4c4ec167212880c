//! What was found: `results.json` and `run.json`, and tables for people.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs,
    path::Path,
    thread,
};

use anyhow::Context;
use serde::Serialize;

use crate::{
    cost::{Cost, Sizes},
    load::{Arrivals, Round},
    stats::{Spread, median},
};

/// One line of `results.json`: medians over the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) model: String,
    pub(crate) server: String,
    pub(crate) mode: String,
    /// How many connections there are, each with one request at a time.
    pub(crate) clients: usize,
    /// How many requests are sent a second, whatever comes back; `None` in a closed loop.
    pub(crate) offered_per_s: Option<f64>,
    pub(crate) requests_per_s: f64,
    pub(crate) requests_per_s_min: f64,
    pub(crate) requests_per_s_max: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Requests per second beside those of bare ONNX Runtime in the same round.
    pub(crate) ratio_to_bare: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) ratio_max: Option<f64>,
    /// Requests per second beside those of the fastest peer in the same round.
    pub(crate) ratio_to_fastest_peer: Option<f64>,
    pub(crate) peer_ratio_min: Option<f64>,
    pub(crate) peer_ratio_max: Option<f64>,
    /// CPU time a request takes of the load generator, and of the server.
    pub(crate) client_cpu_us: f64,
    pub(crate) server_cpu_us: f64,
    /// The server's CPU time beside that of the fastest peer in the same round.
    pub(crate) cpu_ratio: Option<f64>,
    pub(crate) cpu_ratio_min: Option<f64>,
    pub(crate) cpu_ratio_max: Option<f64>,
}

/// The server and the way of asking that a column of rounds is about.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) server: String,
    pub(crate) mode: String,
    /// Whether the server is a peer, in plaintext.
    pub(crate) peer: bool,
}

/// All rows of one model and number of clients. All columns have equally many rounds, and the rounds of one number were
/// measured at about the same time.
pub(crate) fn rows(
    model: &str,
    clients: usize,
    arrivals: Arrivals,
    found: &[(Label, Vec<Round>)],
) -> Vec<Row> {
    let bare = found.iter().find(|(label, _)| label.server == BARE).map(|(_, rounds)| rounds);
    let fastest = |at: usize| {
        let peers = found.iter().filter(|(label, _)| label.peer);
        let rounds = peers.filter_map(|(_, rounds)| rounds.get(at));
        rounds.max_by(|one, other| one.requests_per_s.total_cmp(&other.requests_per_s))
    };
    let row = |(label, rounds): &(Label, Vec<Round>)| {
        let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let beside = |value: fn(&Round) -> f64, other: &dyn Fn(usize) -> Option<f64>| {
            let ratios: Option<Vec<f64>> =
                rounds.iter().enumerate().map(|(at, round)| Some(value(round) / other(at)?)).collect();
            ratios.map(Spread::of)
        };
        let to_bare = beside(|round| round.requests_per_s, &|at| Some(bare?.get(at)?.requests_per_s));
        let to_peer = beside(|round| round.requests_per_s, &|at| Some(fastest(at)?.requests_per_s));
        let cpu_to_peer = beside(|round| round.server_cpu_us, &|at| Some(fastest(at)?.server_cpu_us));
        let throughput = of(|round| round.requests_per_s);
        Row {
            model: model.to_owned(),
            server: label.server.clone(),
            mode: label.mode.clone(),
            clients,
            offered_per_s: match arrivals {
                Arrivals::Closed => None,
                Arrivals::Open(per_s) => Some(per_s),
            },
            requests_per_s: throughput.median,
            requests_per_s_min: throughput.min,
            requests_per_s_max: throughput.max,
            p50_us: of(|round| round.p50_us).median,
            p99_us: of(|round| round.p99_us).median,
            ratio_to_bare: to_bare.map(|ratio| ratio.median),
            ratio_min: to_bare.map(|ratio| ratio.min),
            ratio_max: to_bare.map(|ratio| ratio.max),
            ratio_to_fastest_peer: to_peer.map(|ratio| ratio.median),
            peer_ratio_min: to_peer.map(|ratio| ratio.min),
            peer_ratio_max: to_peer.map(|ratio| ratio.max),
            client_cpu_us: of(|round| round.client_cpu_us).median,
            server_cpu_us: of(|round| round.server_cpu_us).median,
            cpu_ratio: cpu_to_peer.map(|ratio| ratio.median),
            cpu_ratio_min: cpu_to_peer.map(|ratio| ratio.min),
            cpu_ratio_max: cpu_to_peer.map(|ratio| ratio.max),
        }
    };
    found.iter().map(row).collect()
}

/// What `results.json` rests on, written to `run.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    /// Bytes of inputs and outputs of each model.
    pub(crate) bytes: BTreeMap<String, [usize; 2]>,
    /// Versions of each peer.
    pub(crate) peers: BTreeMap<String, String>,
    /// Peers that were to be measured and were not, by model, and why.
    pub(crate) absent: Vec<Absent>,
    /// Where the time of one sealed request goes, as text.
    pub(crate) breakdown: String,
}

/// A peer that was to be measured and was not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Absent {
    pub(crate) model: String,
    pub(crate) server: String,
    pub(crate) reason: String,
}

/// The machine and what ran on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    linux: String,
    confonnx: &'static str,
    onnxruntime: String,
    /// How many processes wanted to run in the minute before the run.
    load_before: f64,
}

impl Machine {
    pub(crate) fn new(runtime: &str) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            linux: kernel.trim().to_owned(),
            confonnx: env!("CARGO_PKG_VERSION"),
            onnxruntime: runtime.to_owned(),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, linux, confonnx, onnxruntime, load_before } = self;
        writeln!(f, "{cpu}, {cores} cores, Linux {linux}, load average {load_before} before")?;
        write!(
            f,
            "confonnx {confonnx}, ONNX Runtime {onnxruntime}; no TEE (--debug); clients and server on this machine"
        )
    }
}

/// Writes a file of results.
pub(crate) fn write(value: &impl Serialize, path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// The table of all rows.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<11} {:<9} {:<16} {:>7}  {:>10} {:>21}  {:>9} {:>9}  {:>8} {:>15}  {:>8} {:>9} {:>9}\n",
        "model",
        "server",
        "mode",
        "clients",
        "requests/s",
        "(min–max)",
        "p50 µs",
        "p99 µs",
        "to bare",
        "(min–max)",
        "to peer",
        "client µs",
        "server µs"
    );
    let ratio = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
    for row in rows {
        let throughput = format!("({:.1}–{:.1})", row.requests_per_s_min, row.requests_per_s_max);
        let spread = match (row.ratio_min, row.ratio_max) {
            (Some(min), Some(max)) => format!("({min:.3}–{max:.3})"),
            _ => String::new(),
        };
        let mode = match row.offered_per_s {
            None => row.mode.clone(),
            Some(offered) => format!("{} @{offered:.0}/s", row.mode),
        };
        let _ = writeln!(
            text,
            "{:<11} {:<9} {mode:<16} {:>7}  {:>10.1} {throughput:>21}  {:>9.1} {:>9.1}  {:>8} {spread:>15}  {:>8} {:>9.1} {:>9.1}",
            row.model,
            row.server,
            row.clients,
            row.requests_per_s,
            row.p50_us,
            row.p99_us,
            ratio(row.ratio_to_bare),
            ratio(row.ratio_to_fastest_peer),
            row.client_cpu_us,
            row.server_cpu_us,
        );
    }
    text
}

/// Where the time of one sealed request goes, in µs, for one client that waits for each answer.
pub(crate) fn breakdown(
    model: &str,
    sizes: Sizes,
    bare: &[Round],
    sealed: &[Round],
    costs: &[Cost],
) -> String {
    let cost = |part: fn(&Cost) -> f64| Spread::of(costs.iter().map(part));
    let encapsulate = cost(|cost| cost.encapsulate);
    let decapsulate = cost(|cost| cost.decapsulate);
    let aead = cost(|cost| cost.aead);
    let http = cost(|cost| cost.http);
    let inference = Spread::of(bare.iter().map(|round| round.p50_us));
    let total = Spread::of(sealed.iter().map(|round| round.p50_us));
    let parts = [
        ("KEM, client", encapsulate, "seals an empty request here: encapsulation, key schedule"),
        ("KEM, server", decapsulate, "opens it here: decapsulation, key schedule, replay table"),
        ("AEAD", aead, "seals and opens request and reply of these sizes here, less the KEM"),
        ("HTTP", http, "keep-alive GET / on the same server"),
        ("inference", inference, "p50 of bare ONNX Runtime, 1 thread"),
    ];
    let known: f64 = parts.iter().map(|(_, part, _)| part.median).sum();
    let mut text = format!(
        "One sealed request to {model}, 1 client, in µs: X-Wing and AES-256-GCM, padded messages of {} bytes there and {} back\n",
        sizes.request, sizes.reply
    );
    for (name, Spread { median, min, max }, how) in parts {
        let spread = format!("({min:.1}–{max:.1})");
        let _ = writeln!(text, "  {name:<12} {median:>8.1} {spread:>17}  {how}");
    }
    let rest = total.median - known;
    let _ = writeln!(
        text,
        "  {:<12} {rest:>8.1} {:>17}  total less the above: encoding, checks, bodies, threads",
        "remainder", ""
    );
    let spread = format!("({:.1}–{:.1})", total.min, total.max);
    let _ = writeln!(text, "  {:<12} {:>8.1} {spread:>17}  p50 of sealed requests", "total", total.median);
    let fixed = median(bare.iter().zip(sealed).map(|(bare, sealed)| sealed.p50_us - bare.p50_us));
    let _ =
        writeln!(text, "Fixed cost of a sealed request, which is the total less inference: {fixed:.1} µs");
    text
}

/// The name of ONNX Runtime without a server.
pub(crate) const BARE: &str = "bare";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn round(requests_per_s: f64) -> Round {
        Round {
            requests_per_s,
            p50_us: 1e6 / requests_per_s,
            p99_us: 2e6 / requests_per_s,
            client_cpu_us: 3.0,
            server_cpu_us: 4.0,
        }
    }

    fn cpu(mut column: (Label, Vec<Round>), each: [f64; 3]) -> (Label, Vec<Round>) {
        for (round, cpu) in column.1.iter_mut().zip(each) {
            round.server_cpu_us = cpu;
        }
        column
    }

    fn column(server: &str, peer: bool, rates: [f64; 3]) -> (Label, Vec<Round>) {
        let label = Label { server: server.into(), mode: "m".into(), peer };
        (label, rates.map(round).to_vec())
    }

    #[test]
    fn results_have_the_members_readers_expect() {
        let found = [
            column("bare", false, [1000.0, 500.0, 2000.0]),
            column("confonnx", false, [100.0, 250.0, 500.0]),
            // The peer whose CPU time counts is the fastest one of the round.
            cpu(column("slow", true, [50.0, 500.0, 100.0]), [9.0, 2.0, 9.0]),
            cpu(column("quick", true, [100.0, 50.0, 200.0]), [4.0, 9.0, 1.0]),
        ];
        let rows = rows("tiny", 8, Arrivals::Closed, &found);
        let found: Value = serde_json::to_value(&rows[1]).unwrap();
        let expected = json!({
            "model": "tiny", "server": "confonnx", "mode": "m", "clients": 8, "offered_per_s": null,
            "requests_per_s": 250.0, "requests_per_s_min": 100.0, "requests_per_s_max": 500.0,
            "p50_us": 4000.0, "p99_us": 8000.0,
            "ratio_to_bare": 0.25, "ratio_min": 0.1, "ratio_max": 0.5,
            "ratio_to_fastest_peer": 1.0, "peer_ratio_min": 0.5, "peer_ratio_max": 2.5,
            "client_cpu_us": 3.0, "server_cpu_us": 4.0,
            "cpu_ratio": 2.0, "cpu_ratio_min": 1.0, "cpu_ratio_max": 4.0,
        });
        assert_eq!(found, expected);
        assert_eq!((rows[0].ratio_to_bare, rows[3].ratio_to_fastest_peer), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn without_bare_or_peers_there_is_no_ratio() {
        let rows = rows("tiny", 8, Arrivals::Open(70.0), &[column("confonnx", false, [1.0, 2.0, 3.0])]);
        assert_eq!((rows[0].ratio_to_bare, rows[0].ratio_to_fastest_peer), (None, None));
        assert_eq!(rows[0].offered_per_s, Some(70.0));
    }

    #[test]
    fn the_parts_and_the_remainder_make_the_total() {
        let cost = Cost { encapsulate: 60.0, decapsulate: 70.0, aead: 5.0, http: 80.0 };
        let sizes = Sizes { request: 512, reply: 512 };
        let text = breakdown("tiny", sizes, &[round(100_000.0)], &[round(2_500.0)], &[cost]);
        let number = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line[15..].split_whitespace().next().unwrap().parse().unwrap()
        };
        assert_eq!((number("total"), number("inference"), number("remainder")), (400.0, 10.0, 175.0));
        assert!(text.contains("less inference: 390.0 µs"), "{text}");
    }
}
