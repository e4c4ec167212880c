//! Attestation under load: many clients, each with nonces of its own, and one slow device.
//!
//! The server runs in this process, because no program has a device that can be slowed; clients reach it over sockets.
//! Its evidence is the stand-in's, made as slowly as asked, under the pacing that real devices get.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use confonnx_attest::{
    Document, Expectations, Nonce, Policy, Tee, UnixTime,
    produce::{Attester, measure_executable},
};
use confonnx_server::{
    evidence::{DEVICE_REST, Source},
    models,
    server::{Parts, Server},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{runtime::Builder, sync::watch, task::JoinSet};

use crate::{
    report,
    server::config,
    stats::{percentile, window},
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clients at once, each with a connection of its own.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Documents in all.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    documents: u32,
    /// How long the device takes for a quote.
    #[arg(long, default_value_t = 100, value_name = "MILLISECONDS")]
    quote: u64,
    /// The model that is served meanwhile.
    #[arg(long, default_value = "examples/digits/digits.onnx", value_name = "FILE")]
    model: std::path::PathBuf,
}

/// Measures and prints; fails when the server does not keep what it promises.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let quotes = Arc::new(Mutex::new(Vec::new()));
    let config = config(&args.model)?;
    let runtime =
        confonnx_engine::Engine::InProcess(models::load_runtime(config.onnxruntime_library.as_deref())?);
    let parts =
        Parts::load(&config, device(Duration::from_millis(args.quote), Arc::clone(&quotes))?, &runtime)?;

    let serving = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = serving.block_on(Server::assemble(config, parts))?;
    let url = format!("http://{}", server.address());
    let (stop, stopping) = watch::channel(false);
    let server = serving.spawn(server.run(stopping));
    let asking = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let start = Instant::now();
    let found = asking.block_on(ask_all(&url, args))?;
    let length = start.elapsed();
    stop.send_replace(true);
    serving.block_on(server)?;

    let quotes: Vec<Duration> = {
        let quotes = quotes.lock().unwrap_or_else(PoisonError::into_inner);
        quotes.iter().filter_map(|at| at.checked_duration_since(start)).collect()
    };
    let busiest = window(&quotes, Duration::from_secs(1));
    let millis = |percent| percentile(found.iter().map(|asked| asked.millis), percent);
    let p99 = millis(99);
    println!("{}", report::Machine::new(runtime.version()));
    println!(
        "{} documents for fresh nonces to {} clients at once, {} ms a quote: each was for its own nonce",
        found.len(),
        args.clients,
        args.quote
    );
    println!(
        "{:.1} s, {:.0} documents/s of {} bytes; {} quotes, {:.1}/s, at most {busiest} in any second",
        length.as_secs_f64(),
        found.len() as f64 / length.as_secs_f64(),
        found.iter().map(|asked| asked.bytes).max().unwrap_or_default(),
        quotes.len(),
        quotes.len() as f64 / length.as_secs_f64(),
    );
    println!("latency until trusted: p50 {:.0} ms, p99 {p99:.0} ms, most {:.0} ms", millis(50), millis(100));
    ensure!(busiest <= 12, "expected at most 12 quotes in any second, found {busiest}");
    ensure!(p99 < 400.0, "expected a p99 below 400 ms, found {p99:.0} ms");
    Ok(())
}

/// The insecure TEE, slowed; `quotes` gets the time of each quote.
fn device(slow: Duration, quotes: Arc<Mutex<Vec<Instant>>>) -> anyhow::Result<Source> {
    let attester = Attester::insecure(measure_executable()?);
    let evidence = move |report_data: &[u8; 64]| {
        quotes.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        thread::sleep(slow);
        attester.evidence(report_data)
    };
    Ok(Source { tee: Tee::Insecure, evidence: Box::new(evidence), machine_key: None, interval: DEVICE_REST })
}

/// What a client got: a document that it trusts.
struct Asked {
    millis: f64,
    bytes: usize,
}

async fn ask_all(url: &str, args: &Args) -> anyhow::Result<Vec<Asked>> {
    let left = Arc::new(AtomicUsize::new(args.documents as usize));
    let mut clients = JoinSet::new();
    for _ in 0..args.clients {
        let (url, left) = (url.to_owned(), Arc::clone(&left));
        clients.spawn(async move {
            let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
            let policy = Policy::new(Expectations::new().allow_debug(true))?;
            let mut found = Vec::new();
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                found.push(ask(&http, &url, &policy).await?);
            }
            anyhow::Ok(found)
        });
    }
    let mut found = Vec::new();
    while let Some(client) = clients.join_next().await {
        found.extend(client??);
    }
    Ok(found)
}

/// Gets a document for a nonce of this client's, and trusts it.
async fn ask(
    http: &Client<HttpConnector, Empty<Bytes>>,
    url: &str,
    policy: &Policy,
) -> anyhow::Result<Asked> {
    let mut nonce = Nonce([0; 32]);
    getrandom::fill(&mut nonce.0).context("no random bytes")?;
    let start = Instant::now();
    let response = http.get(format!("{url}/.well-known/confonnx/attestation?nonce={nonce}").parse()?).await?;
    ensure!(response.status() == 200, "expected status 200, found {}", response.status());
    let document = response.into_body().collect().await?.to_bytes();
    let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    Document::parse(&document)?.verify(Some(&nonce), now)?.appraise(policy, now)?;
    Ok(Asked { millis: start.elapsed().as_secs_f64() * 1e3, bytes: document.len() })
}
