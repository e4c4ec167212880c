//! What was found: `results.json`, and tables for people.

use std::{fmt::Write, fs, path::Path, thread};

use anyhow::Context;
use serde::Serialize;

use crate::{
    cost::{Cost, Sizes},
    load::Round,
    stats::{Spread, median},
};

/// One line of `results.json`: medians over the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    model: String,
    server: &'static str,
    mode: &'static str,
    clients: usize,
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// Requests per second beside those of bare ONNX Runtime in the same round.
    ratio_to_bare: f64,
    ratio_min: f64,
    ratio_max: f64,
    #[serde(skip)]
    throughput: Spread,
}

/// A round of each, one right after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) bare: Round,
    pub(crate) sealed: Round,
}

/// The two rows of one configuration.
pub(crate) fn rows(model: &str, clients: usize, pairs: &[Pair]) -> [Row; 2] {
    let row = |server, mode, round: fn(&Pair) -> Round| {
        let of = |value: fn(Round) -> f64| pairs.iter().map(move |pair| value(round(pair)));
        let ratio =
            Spread::of(pairs.iter().map(|pair| round(pair).requests_per_s / pair.bare.requests_per_s));
        let throughput = Spread::of(of(|round| round.requests_per_s));
        Row {
            model: model.to_owned(),
            server,
            mode,
            clients,
            requests_per_s: throughput.median,
            p50_us: median(of(|round| round.p50_us)),
            p99_us: median(of(|round| round.p99_us)),
            ratio_to_bare: ratio.median,
            ratio_min: ratio.min,
            ratio_max: ratio.max,
            throughput,
        }
    };
    [row("bare", "in-process", |pair| pair.bare), row("confonnx", "sealed", |pair| pair.sealed)]
}

/// Writes `results.json`.
pub(crate) fn write(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(path, serde_json::to_vec_pretty(rows)?).with_context(|| path.display().to_string())
}

/// The machine and what ran on it.
pub(crate) fn machine(runtime: &str) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {} cores, Linux {}\nconfonnx {}, ONNX Runtime {runtime}; no TEE (--debug); clients and server on this machine",
        cpu.trim_start_matches([' ', '\t', ':']),
        thread::available_parallelism().map_or(1, usize::from),
        kernel.trim(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// All rows.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<11} {:<9} {:<10} {:>7}  {:>10} {:>23}  {:>9} {:>9}  {:>7} {:>15}\n",
        "model",
        "server",
        "mode",
        "clients",
        "requests/s",
        "(min–max)",
        "p50 µs",
        "p99 µs",
        "to bare",
        "(min–max)"
    );
    for row in rows {
        let Spread { min, max, .. } = row.throughput;
        let throughput = format!("({min:.1}–{max:.1})");
        let ratio = format!("({:.3}–{:.3})", row.ratio_min, row.ratio_max);
        let _ = writeln!(
            text,
            "{:<11} {:<9} {:<10} {:>7}  {:>10.1} {throughput:>23}  {:>9.1} {:>9.1}  {:>7.3} {ratio:>15}",
            row.model,
            row.server,
            row.mode,
            row.clients,
            row.requests_per_s,
            row.p50_us,
            row.p99_us,
            row.ratio_to_bare
        );
    }
    text
}

/// Where the time of one sealed request goes, in µs, for one client that waits for each answer.
pub(crate) fn breakdown(model: &str, sizes: Sizes, pairs: &[Pair], costs: &[Cost]) -> String {
    let cost = |part: fn(&Cost) -> f64| Spread::of(costs.iter().map(part));
    let encapsulate = cost(|cost| cost.encapsulate);
    let decapsulate = cost(|cost| cost.decapsulate);
    let aead = cost(|cost| cost.aead);
    let http = cost(|cost| cost.http);
    let inference = Spread::of(pairs.iter().map(|pair| pair.bare.p50_us));
    let total = Spread::of(pairs.iter().map(|pair| pair.sealed.p50_us));
    let parts = [
        ("KEM, client", encapsulate, "seals an empty request here: encapsulation, key schedule"),
        ("KEM, server", decapsulate, "opens it here: decapsulation, key schedule, replay table"),
        ("AEAD", aead, "seals and opens request and reply of these sizes here, less the KEM"),
        ("HTTP", http, "keep-alive GET / on the same server"),
        ("inference", inference, "p50 of bare ONNX Runtime, 1 thread"),
    ];
    let known: f64 = parts.iter().map(|(_, part, _)| part.median).sum();
    let mut text = format!(
        "One sealed request to {model}, 1 client, in µs: X-Wing and AES-256-GCM, padded messages of {} octets there and {} back\n",
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
    let fixed = total.median - inference.median;
    let _ =
        writeln!(text, "Fixed cost of a sealed request, which is the total less inference: {fixed:.1} µs");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pair(bare: f64, sealed: f64) -> Pair {
        let round = |requests_per_s: f64| Round {
            requests_per_s,
            p50_us: 1e6 / requests_per_s,
            p99_us: 2e6 / requests_per_s,
        };
        Pair { bare: round(bare), sealed: round(sealed) }
    }

    #[test]
    fn results_have_the_members_readers_expect() {
        let rows = rows("tiny", 8, &[pair(1000.0, 100.0), pair(500.0, 250.0), pair(2000.0, 500.0)]);
        let found: Value = serde_json::to_value(&rows).unwrap();
        let expected = json!([
            {
                "model": "tiny", "server": "bare", "mode": "in-process", "clients": 8,
                "requests_per_s": 1000.0, "p50_us": 1000.0, "p99_us": 2000.0,
                "ratio_to_bare": 1.0, "ratio_min": 1.0, "ratio_max": 1.0,
            },
            {
                "model": "tiny", "server": "confonnx", "mode": "sealed", "clients": 8,
                "requests_per_s": 250.0, "p50_us": 4000.0, "p99_us": 8000.0,
                "ratio_to_bare": 0.25, "ratio_min": 0.1, "ratio_max": 0.5,
            },
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_parts_and_the_remainder_make_the_total() {
        let cost = Cost { encapsulate: 60.0, decapsulate: 70.0, aead: 5.0, http: 80.0 };
        let sizes = Sizes { request: 512, reply: 512 };
        let text = breakdown("tiny", sizes, &[pair(100_000.0, 2_500.0)], &[cost]);
        let number = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line[15..].split_whitespace().next().unwrap().parse().unwrap()
        };
        assert_eq!((number("total"), number("inference"), number("remainder")), (400.0, 10.0, 175.0));
        assert!(text.contains("less inference: 390.0 µs"), "{text}");
    }
}
