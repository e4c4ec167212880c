//! Counters in the Prometheus text format (version 0.0.4). Labels are fixed words: nothing of a request is in them.

mod auth;
mod collateral;

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::scheduling::Load;

pub use auth::{AuthMetrics, JwksState};
pub use collateral::{CollateralMetrics, CollateralState};

/// A family's name, kind, help text and samples.
pub type Family = (&'static str, &'static str, &'static str, Vec<(String, String)>);

/// All counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// How many requests were run, by model and version.
    runs: Mutex<BTreeMap<(String, String), u64>>,
    /// Whether those are counted: where the claims say so.
    pub by_model: AtomicBool,
    /// When the TEE was last asked for evidence, in seconds of Unix time.
    pub quoted: AtomicU64,
    /// Requests on the public port, by outcome: a problem code, or `ok`, or the inner code.
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
    /// How many requests there are, as scheduling counts them.
    pub load: Arc<Load>,
    /// Open connections.
    pub connections: AtomicI64,
    /// How many bytes the sealed requests had.
    pub received_bytes: AtomicU64,
    /// How many bytes the sealed replies had.
    pub sent_bytes: AtomicU64,
    /// Quotes asked of the TEE.
    pub quotes: AtomicU64,
    /// Attestation documents given out.
    pub documents: AtomicU64,
    /// Key epochs known so far.
    pub epochs: AtomicU64,
    /// Failures of the source of the keys.
    pub key_errors: AtomicU64,
    /// Peers that were last seen in another group.
    pub foreign_peers: AtomicI64,
    /// Resumptions granted.
    pub resumptions: AtomicU64,
    /// Requests answered that were sealed by a resumption.
    pub resumed: AtomicU64,
    /// What is stapled to attestation documents.
    pub collateral: CollateralMetrics,
    /// Who calls.
    pub auth: AuthMetrics,
    /// How long opening took.
    pub open: Histogram,
    /// How long the inner API took: decoding, inference, encoding.
    pub infer: Histogram,
    /// How long sealing took.
    pub seal: Histogram,
}

impl Metrics {
    /// Counts a finished request.
    pub fn count(&self, outcome: &'static str) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = outcomes.entry(outcome).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts a request that a model ran, or tried to.
    pub fn count_run(&self, model: &str, version: &str) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let count = runs.entry((model.into(), version.into())).or_default();
        *count = count.saturating_add(1);
    }

    /// The page for `GET /metrics`, with the families of `models`.
    pub fn render(&self, models: &[Family]) -> String {
        let mut page = String::with_capacity(4096);
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(page, "# HELP confonnx_{name} {help}\n# TYPE confonnx_{name} {kind}");
            for (suffix, value) in samples {
                let _ = writeln!(page, "confonnx_{name}{suffix} {value}");
            }
        };
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let samples: Vec<_> =
            outcomes.iter().map(|(code, n)| (format!("{{outcome=\"{code}\"}}"), n.to_string())).collect();
        family("requests_total", "counter", "Finished requests by outcome.", &samples);
        let plain = |value: String| [(String::new(), value)];
        let gauge = |value: &AtomicI64| plain(value.load(Relaxed).to_string());
        let counter = |value: &AtomicU64| plain(value.load(Relaxed).to_string());
        family("in_flight", "gauge", "Sealed requests that run.", &gauge(&self.load.in_flight));
        family(
            "queue_depth",
            "gauge",
            "Sealed requests received that wait for their model or a thread.",
            &gauge(&self.load.queued),
        );
        family("connections", "gauge", "Open connections.", &gauge(&self.connections));
        family(
            "received_bytes_total",
            "counter",
            "Bytes of sealed requests.",
            &counter(&self.received_bytes),
        );
        family("sent_bytes_total", "counter", "Bytes of sealed replies.", &counter(&self.sent_bytes));
        family("quotes_total", "counter", "Quotes asked of the TEE.", &counter(&self.quotes));
        family("documents_total", "counter", "Attestation documents given out.", &counter(&self.documents));
        family("key_epochs_total", "counter", "Key epochs known so far.", &counter(&self.epochs));
        family(
            "key_errors_total",
            "counter",
            "Failures of the source of the keys.",
            &counter(&self.key_errors),
        );
        family(
            "key_foreign_peers",
            "gauge",
            "Peers that were last seen in another group than this server.",
            &gauge(&self.foreign_peers),
        );
        family("sessions_total", "counter", "Resumptions granted.", &counter(&self.resumptions));
        family(
            "resumed_requests_total",
            "counter",
            "Requests answered that were sealed by a resumption.",
            &counter(&self.resumed),
        );
        for (name, kind, help, samples) in models {
            family(name, kind, help, samples);
        }
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let samples: Vec<_> =
            runs.iter().map(|((model, version), n)| (model_label(model, version), n.to_string())).collect();
        let help = "Requests that each model ran; with --request-metrics, which is in the claims.";
        family("model_requests_total", "counter", help, &samples);
        let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        family("build_info", "gauge", "Which version this is.", &[(version, "1".into())]);
        family(
            "evidence_timestamp_seconds",
            "gauge",
            "When the TEE was last asked for evidence, in seconds of Unix time.",
            &counter(&self.quoted),
        );
        for (name, kind, help, samples) in self.collateral.samples().into_iter().chain(self.auth.samples()) {
            family(name, kind, help, &samples);
        }
        let stages = [("open", &self.open), ("infer", &self.infer), ("seal", &self.seal)];
        let samples: Vec<_> = stages.iter().flat_map(|(stage, histogram)| histogram.samples(stage)).collect();
        family("stage_seconds", "histogram", "How long the stages of a sealed request took.", &samples);
        page
    }
}

/// A label as Prometheus' text format wants it: three characters are escaped, and nothing else.
pub fn model_label(model: &str, version: &str) -> String {
    let name = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{model=\"{name}\",version=\"{version}\"}}")
}

/// Counts durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many events took up to each bound, without those of the shorter ones.
    buckets: [AtomicU64; BOUNDS_US.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(BOUNDS_US.partition_point(|bound| *bound < micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    fn samples(&self, stage: &str) -> Vec<(String, String)> {
        let buckets = BOUNDS_US.iter().zip(&self.buckets).scan(0_u64, |sum, (bound, n)| {
            *sum = sum.saturating_add(n.load(Relaxed));
            Some((format!("_bucket{{stage=\"{stage}\",le=\"{}\"}}", seconds(*bound)), sum.to_string()))
        });
        let mut samples: Vec<_> = buckets.collect();
        let count = self.count.load(Relaxed).to_string();
        samples.push((format!("_bucket{{stage=\"{stage}\",le=\"+Inf\"}}"), count.clone()));
        samples.push((format!("_sum{{stage=\"{stage}\"}}"), seconds(self.sum_us.load(Relaxed)).to_string()));
        samples.push((format!("_count{{stage=\"{stage}\"}}"), count));
        samples
    }
}

/// Adds one to a gauge for as long as it lives.
pub struct Held<'a>(&'a AtomicI64);

impl<'a> Held<'a> {
    /// Adds one.
    pub fn new(gauge: &'a AtomicI64) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds below 2^53 for 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

const BOUNDS_US: [u64; 17] = [
    20,
    50,
    100,
    200,
    500,
    1000,
    2000,
    5000,
    10_000,
    50_000,
    250_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    180_000_000,
    600_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_family_once_and_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.count("ok");
        metrics.count("ok");
        metrics.count("queue-full");
        metrics.open.record(Duration::from_micros(70));
        metrics.open.record(Duration::from_secs(9));
        metrics.quoted.store(970, Relaxed);
        metrics.count_run("a \"b\"", "2");
        let page = metrics.render(&[]);
        for line in [
            "confonnx_requests_total{outcome=\"ok\"} 2",
            "confonnx_requests_total{outcome=\"queue-full\"} 1",
            "confonnx_stage_seconds_bucket{stage=\"open\",le=\"0.00005\"} 0",
            "confonnx_stage_seconds_bucket{stage=\"open\",le=\"0.0001\"} 1",
            "confonnx_stage_seconds_bucket{stage=\"open\",le=\"1\"} 1",
            "confonnx_stage_seconds_bucket{stage=\"open\",le=\"+Inf\"} 2",
            "confonnx_stage_seconds_sum{stage=\"open\"} 9.00007",
            "confonnx_evidence_timestamp_seconds 970",
            "confonnx_model_requests_total{model=\"a \\\"b\\\"\",version=\"2\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        }
        assert_eq!(page.matches("# TYPE confonnx_stage_seconds histogram").count(), 1);
    }
}
