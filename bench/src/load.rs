//! The load: clients that send a request when the last one is answered (closed loop), or when a clock says so (open
//! loop).

use std::{
    fs,
    num::NonZeroU64,
    sync::{
        Barrier, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};

use crate::stats::percentile;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrivals {
    /// Each client asks again as soon as it is answered.
    Closed,
    /// So many a second in all, evenly spaced, whether or not earlier ones are answered. Latency counts from when a
    /// request was due, so that one a busy server made late is not left out.
    Open(f64),
}

/// What the clients of one round got.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Round {
    pub(crate) requests_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the clients' threads for a request, in µs.
    pub(crate) client_cpu_us: f64,
    /// CPU time of the server's processes for a request, in µs.
    pub(crate) server_cpu_us: f64,
}

/// `clients` threads each `open` a worker, let it `ask` once to warm up, and then over and over until `length` has passed.
/// `ask` returns how long its request took; `server_cpu`, what the server has used so far.
pub(crate) fn round<W>(
    clients: usize,
    length: Duration,
    arrivals: Arrivals,
    server_cpu: impl Fn() -> anyhow::Result<Duration> + Sync,
    open: impl Fn() -> anyhow::Result<W> + Sync,
    ask: impl Fn(&mut W) -> anyhow::Result<Duration> + Sync,
) -> anyhow::Result<Round> {
    let shared = Shared {
        ready: Barrier::new(clients),
        started: OnceLock::new(),
        cpu_before: OnceLock::new(),
        next: AtomicU64::new(0),
    };
    let client = || -> anyhow::Result<Part> {
        let worker = open().and_then(|mut worker| ask(&mut worker).map(|_| worker));
        // A client that failed waits here as well, or the others would wait for ever.
        if shared.ready.wait().is_leader() {
            shared.cpu_before.get_or_init(|| server_cpu().unwrap_or_default());
        }
        shared.ready.wait();
        let mut worker = worker?;
        let cpu = thread_cpu()?;
        let start = *shared.started.get_or_init(Instant::now);
        let mut latencies = Vec::new();
        match arrivals {
            Arrivals::Closed => {
                while start.elapsed() < length {
                    latencies.push(micros(&ask(&mut worker)?));
                }
            }
            Arrivals::Open(per_s) => {
                rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
                while let Some(late) = shared.due(start, per_s, length) {
                    latencies.push(micros(&(late + ask(&mut worker)?)));
                }
            }
        }
        Ok(Part { latencies, end: Instant::now(), cpu: thread_cpu()?.saturating_sub(cpu) })
    };
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
        };
        // All threads are joined before the first error is returned.
        threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect::<anyhow::Result<Vec<_>>>()
    })?;
    let used = server_cpu()?.saturating_sub(shared.cpu_before.get().copied().unwrap_or_default());
    let start = shared.started.get().copied().context("no clients")?;
    let end = parts.iter().map(|part| part.end).max().context("no clients")?;
    let clients_used: Duration = parts.iter().map(|part| part.cpu).sum();
    let latencies: Vec<f64> = parts.into_iter().flat_map(|part| part.latencies).collect();
    let answered = latencies.len().max(1) as f64;
    Ok(Round {
        requests_per_s: latencies.len() as f64 / (end - start).as_secs_f64(),
        p50_us: percentile(latencies.iter().copied(), 50),
        p99_us: percentile(latencies, 99),
        client_cpu_us: micros(&clients_used) / answered,
        server_cpu_us: micros(&used) / answered,
    })
}

/// What one client of a round did.
struct Part {
    latencies: Vec<f64>,
    end: Instant,
    cpu: Duration,
}

/// What the clients of a round share.
struct Shared {
    ready: Barrier,
    started: OnceLock<Instant>,
    cpu_before: OnceLock<Duration>,
    next: AtomicU64,
}

impl Shared {
    /// Takes the next request, waits until it is due, and gives how late it is then; `None` when there are no more.
    fn due(&self, start: Instant, per_s: f64, length: Duration) -> Option<Duration> {
        let due = Duration::from_secs_f64(self.next.fetch_add(1, Relaxed) as f64 / per_s);
        // A server that cannot keep up gets twice the time, and no more.
        if due >= length || start.elapsed() > 2 * length {
            return None;
        }
        if let Some(early) = due.checked_sub(start.elapsed()) {
            thread::sleep(early);
        }
        Some(start.elapsed().saturating_sub(due))
    }
}

/// `time` in µs.
pub(crate) fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// CPU time of the calling thread (`proc_pid_schedstat`: nanoseconds on a CPU come first).
fn thread_cpu() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().and_then(|text| text.parse().ok()).context("no CPU time")?;
    Ok(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use anyhow::bail;

    use super::*;

    fn quick<W>(
        arrivals: Arrivals,
        open: impl Fn() -> anyhow::Result<W> + Sync,
        ask: impl Fn(&mut W) -> anyhow::Result<Duration> + Sync,
    ) -> anyhow::Result<Round> {
        round(3, Duration::from_millis(20), arrivals, || Ok(Duration::ZERO), open, ask)
    }

    #[test]
    fn every_client_asks() {
        let opened = AtomicU32::new(0);
        let open = || Ok(opened.fetch_add(1, Relaxed));
        let found = quick(Arrivals::Closed, open, |_| Ok(Duration::from_micros(5))).unwrap();
        assert_eq!((opened.into_inner(), found.p50_us), (3, 5.0));
        assert!(found.requests_per_s > 0.0 && found.client_cpu_us > 0.0, "{found:?}");
    }

    #[test]
    fn an_error_ends_the_round_for_all() {
        let error = quick(Arrivals::Closed, || Ok(()), |()| bail!("refused")).unwrap_err();
        assert_eq!(error.to_string(), "refused");
        let error =
            quick(Arrivals::Closed, || bail!("unreachable"), |(): &mut ()| Ok(Duration::ZERO)).unwrap_err();
        assert_eq!(error.to_string(), "unreachable");
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due() {
        // Three clients that need 4 ms each answer 750 a second; asked for 2,000, all but the first are late.
        let slow = |(): &mut ()| {
            thread::sleep(Duration::from_millis(4));
            Ok(Duration::from_millis(4))
        };
        let found = quick(Arrivals::Open(2_000.0), || Ok(()), slow).unwrap();
        assert!(found.p50_us > 8_000.0 && found.requests_per_s < 1_000.0, "{found:?}");
    }
}
