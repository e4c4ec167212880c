//! `/metrics`: Triton's names where it has one.

use std::{fmt::Write, sync::atomic::Ordering::Relaxed, time::SystemTime};

use crate::{Proxy, stats::BOUNDS_MS};

/// The page, in Prometheus' text format.
pub(crate) fn page(proxy: &Proxy) -> String {
    let mut out = String::new();
    let models = proxy.stats.all();
    let labels = |(name, version): &(String, String)| {
        format!("model=\"{}\",version=\"{}\"", escaped(name), escaped(version))
    };
    head(&mut out, "nv_inference_request_success", "counter", "Inference requests that were answered");
    for (key, counts) in &models {
        line(&mut out, "nv_inference_request_success", &labels(key), counts.success.get().0);
    }
    head(&mut out, "nv_inference_request_failure", "counter", "Inference requests that were not");
    for (key, counts) in &models {
        let labels = format!("{},reason=\"OTHER\"", labels(key));
        line(&mut out, "nv_inference_request_failure", &labels, counts.fail.get().0);
    }
    head(&mut out, "nv_inference_request_duration_us", "counter", "Time that the answered ones took, in all");
    for (key, counts) in &models {
        line(&mut out, "nv_inference_request_duration_us", &labels(key), counts.success.get().1 / 1000);
    }
    head(&mut out, "nv_inference_pending_request_count", "gauge", "Inference requests under way");
    for (key, counts) in &models {
        line(&mut out, "nv_inference_pending_request_count", &labels(key), counts.pending.load(Relaxed));
    }
    let name = "nv_inference_first_response_histogram_ms";
    head(&mut out, name, "histogram", "Time from request to answer");
    for (key, counts) in &models {
        let (labels, mut below) = (labels(key), 0_u64);
        for (bound, bucket) in BOUNDS_MS.iter().zip(&counts.buckets) {
            below = below.saturating_add(bucket.load(Relaxed));
            line(&mut out, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}\""), below);
        }
        let (count, ns) = counts.success.get();
        line(&mut out, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
        line(&mut out, &format!("{name}_sum"), &labels, ns / 1_000_000);
        line(&mut out, &format!("{name}_count"), &labels, count);
    }
    upstreams(&mut out, proxy);
    out
}

fn upstreams(out: &mut String, proxy: &Proxy) {
    let label = |name: &str| format!("upstream=\"{}\"", escaped(name));
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = "confonnx_proxy_verified";
    head(out, name, "gauge", "Whether a key is held that the server's evidence vouches for");
    for upstream in &proxy.upstreams {
        line(out, name, &label(&upstream.name), u64::from(upstream.client.proof().is_some()));
    }
    let name = "confonnx_proxy_evidence_issued_seconds";
    head(out, name, "gauge", "Unix time at which that evidence was made, by the server's clock");
    for upstream in &proxy.upstreams {
        if let Some(proof) = upstream.client.proof() {
            line(out, name, &label(&upstream.name), proof.claims().issued_at.0);
        }
    }
    let name = "confonnx_proxy_key_rollovers_total";
    head(out, name, "counter", "Keys renewed because the server changed its own");
    for upstream in &proxy.upstreams {
        line(out, name, &label(&upstream.name), upstream.client.key_rollover_count());
    }
    let name = "confonnx_proxy_key_unknown_total";
    head(
        out,
        name,
        "counter",
        "Requests repeated with a new key because the server no longer knew the old one",
    );
    for upstream in &proxy.upstreams {
        line(out, name, &label(&upstream.name), upstream.client.key_invalid_count());
    }
    let name = "confonnx_proxy_faults_total";
    head(out, name, "counter", "Requests without an answer of the server, by kind");
    for upstream in &proxy.upstreams {
        for (kind, count) in upstream.faults() {
            let labels = format!("{},kind=\"{}\"", label(&upstream.name), kind.name());
            line(out, name, &labels, count);
        }
    }
    let name = "confonnx_proxy_last_fault_seconds";
    head(out, name, "gauge", "Unix time of the latest of them");
    for upstream in &proxy.upstreams {
        if let Some((time, fault)) = upstream.last_fault() {
            let labels = format!("{},kind=\"{}\"", label(&upstream.name), fault.kind.name());
            line(out, name, &labels, seconds(time));
        }
    }
    let name = "confonnx_proxy_start_time_seconds";
    head(out, name, "gauge", "Unix time at which this proxy was started");
    line(out, name, "", seconds(proxy.started));
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}

/// A label's value, as Prometheus' text format has it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Settings;

    /// The reference is made of the code: `UPDATE_REFERENCE=1 cargo test --workspace --lib reference`.
    #[test]
    fn the_reference_is_what_the_page_says() {
        let mut reference = String::from(
            "# Metrics of confonnx proxy\n\nMade of the code: the families of `/metrics` where the proxy listens.\n\n\
             | name | kind | what |\n|---|---|---|\n",
        );
        let page = page(&Proxy::new(Vec::new(), Settings::default()));
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            else {
                continue;
            };
            let kind = lines.next().and_then(|line| line.rsplit(' ').next()).unwrap();
            writeln!(reference, "| `{name}` | {kind} | {help} |").unwrap();
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/proxy-metrics.md");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, &reference).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == reference, "docs/reference/proxy-metrics.md is not what the code says");
    }
}
