//! The audit log: who called which model when, with what outcome and of what size on the wire; never content.
//!
//! One JSON object a line. The host reads it, so it is off unless asked for, and the claims say when it is on.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use confonnx_attest::UnixTime;
use serde::Serialize;
use tokio::{sync::oneshot, time::sleep};
use tracing::error;

use crate::{
    auth::{Caller, Via},
    metrics::Metrics,
};

/// Writes lines in a thread of its own, so that no request waits for a disk.
pub struct Audit {
    queue: mpsc::SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    /// Lines there was no room for since the last one written.
    dropped: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

/// What is known of a request once it is opened.
#[derive(Default)]
pub struct Trail {
    /// Who asks.
    pub caller: Option<Caller>,
    /// What the request is for: a fixed word.
    pub action: Option<&'static str>,
    /// Name and version, of a model that is there.
    pub model: Option<(String, String)>,
}

/// What the host knows of a request.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'r> {
    /// The `x-ms-request-id` of its answer.
    pub request: &'r str,
    /// Bytes of the sealed request.
    pub received: usize,
    /// Bytes of the sealed reply.
    pub sent: usize,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error("audit log {}: {source}; give a file that can be appended to, or - for standard output", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

enum Message {
    Line(Vec<u8>),
    Finished(oneshot::Sender<()>),
}

#[derive(Serialize)]
struct Line<'l> {
    time: u64,
    request: &'l str,
    caller: Option<&'l str>,
    auth: &'static str,
    action: Option<&'static str>,
    model: Option<&'l str>,
    version: Option<&'l str>,
    outcome: &'static str,
    sealed_in: usize,
    sealed_out: usize,
}

impl Audit {
    /// Opens `path` to append to it; `-` is standard output.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<Self, AuditError> {
        let output = Output::open(path).map_err(|source| AuditError::Open { path: path.into(), source })?;
        Self::start(output, path.into(), metrics)
    }

    fn start(output: Output, path: PathBuf, metrics: Arc<Metrics>) -> Result<Self, AuditError> {
        let (queue, lines) = mpsc::sync_channel(MAX_WAITING);
        let (reopen, dropped) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let writer = Writer {
            output,
            path,
            reopen: Arc::clone(&reopen),
            dropped: Arc::clone(&dropped),
            metrics: Arc::clone(&metrics),
            failing: false,
        };
        let thread = thread::Builder::new().name("audit".into());
        thread.spawn(move || writer.run(&lines)).map_err(AuditError::Thread)?;
        Ok(Self { queue, reopen, dropped, metrics })
    }

    /// Adds a line. When the writer cannot keep up, the line is counted instead, in a metric and in the log itself:
    /// a disk that stalls must not stop the service, and the host could remove lines anyway.
    pub fn record(&self, trail: &Trail, outcome: &'static str, wire: Wire<'_>, time: UnixTime) {
        let line = Line {
            time: time.0,
            request: wire.request,
            caller: trail.caller.as_ref().and_then(Caller::name),
            auth: trail.caller.as_ref().map_or(Via::Nothing, Caller::via).name(),
            action: trail.action,
            model: trail.model.as_ref().map(|(name, _)| name.as_str()),
            version: trail.model.as_ref().map(|(_, version)| version.as_str()),
            outcome,
            sealed_in: wire.received,
            sealed_out: wire.sent,
        };
        if self.queue.try_send(Message::Line(json_line(&line))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.metrics.auth.audit_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the file opened anew before the next line: it was moved away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits until all lines so far are written.
    pub async fn written(&self) {
        let (done, finished) = oneshot::channel();
        let mut message = Message::Finished(done);
        while let Err(mpsc::TrySendError::Full(back)) = self.queue.try_send(message) {
            message = back;
            sleep(ROOM).await;
        }
        // The writer may have ended: then there is nothing to wait for.
        let _ = finished.await;
    }
}

enum Output {
    File(File),
    Stdout(io::Stdout),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::Stdout(io::stdout()));
        }
        // Names of callers are for the operator and the group, not for everyone.
        OpenOptions::new().append(true).create(true).mode(0o640).open(path).map(Self::File)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(line),
            Self::Stdout(stdout) => stdout.write_all(line).and_then(|()| stdout.flush()),
            #[cfg(test)]
            Self::Test(output) => output.write_all(line),
        }
    }
}

struct Writer {
    output: Output,
    path: PathBuf,
    reopen: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    failing: bool,
}

impl Writer {
    fn run(mut self, lines: &mpsc::Receiver<Message>) {
        while let Ok(message) = lines.recv() {
            match message {
                Message::Line(line) => self.line(&line),
                // An error means that the caller who waited has gone.
                Message::Finished(done) => drop(done.send(())),
            }
        }
    }

    fn line(&mut self, line: &[u8]) {
        if let Err(error) = self.try_line(line) {
            self.metrics.auth.audit_failures.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut self.failing, true) {
                error!(
                    "audit log {}: {error}; requests are served without a record of them",
                    self.path.display()
                );
            }
        } else if std::mem::take(&mut self.failing) {
            error!("audit log {}: it is written again; lines in between are missing", self.path.display());
        }
    }

    fn try_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.reopen.swap(false, Ordering::Relaxed) {
            self.output = Output::open(&self.path)?;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.output.write(&json_line(&serde_json::json!({ "dropped": dropped })))?;
        }
        self.output.write(line)
    }
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    // Strings and numbers only: serializing them cannot fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Lines that wait for the disk.
const MAX_WAITING: usize = 4096;
/// The time after which there may be room for more lines.
const ROOM: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn record(audit: &Audit, outcome: &'static str) {
        let wire = Wire { request: "r", received: 512, sent: 1024 };
        let trail =
            Trail { action: Some("infer"), model: Some(("m".into(), "1".into())), ..Trail::default() };
        audit.record(&trail, outcome, wire, UnixTime(7));
    }

    #[tokio::test]
    async fn lines_are_appended_and_the_file_is_opened_anew_when_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("audit"), folder.path().join("audit.1"));
        std::fs::write(&path, "before\n").unwrap();
        let audit = Audit::open(&path, Arc::default()).unwrap();
        record(&audit, "ok");
        audit.written().await;
        let line = "{\"time\":7,\"request\":\"r\",\"caller\":null,\"auth\":\"none\",\"action\":\"infer\",\
                    \"model\":\"m\",\"version\":\"1\",\"outcome\":\"ok\",\"sealed_in\":512,\"sealed_out\":1024}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("before\n{line}"));
        std::fs::rename(&path, &moved).unwrap();
        record(&audit, "ok");
        audit.written().await;
        audit.reopen();
        record(&audit, "ok");
        audit.written().await;
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), format!("before\n{line}{line}"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
        let Err(error) = Audit::open(&folder.path().join("no/such"), Arc::default()) else { panic!() };
        assert!(error.to_string().contains("no/such"), "{error}");
    }

    /// A disk that fails while it is told to.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1.extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_disk_that_fails_or_stalls_costs_lines_and_nothing_else() {
        let (disk, metrics) = (Disk::default(), Arc::<Metrics>::default());
        let audit =
            Audit::start(Output::Test(Box::new(disk.clone())), "disk".into(), Arc::clone(&metrics)).unwrap();
        disk.0.lock().unwrap().0 = true;
        record(&audit, "ok");
        audit.written().await;
        assert_eq!(metrics.auth.audit_failures.load(Ordering::Relaxed), 1);
        // Stalls: the lock is held while more come than can wait.
        let dropped = {
            let mut stalled = disk.0.lock().unwrap();
            stalled.0 = false;
            for _ in 0..MAX_WAITING + 10 {
                record(&audit, "ok");
            }
            metrics.auth.audit_dropped.load(Ordering::Relaxed)
        };
        assert!((9..=10).contains(&dropped), "{dropped}");
        audit.written().await;
        let text = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(
            text.lines().filter(|line| line.contains("infer")).count() as u64,
            MAX_WAITING as u64 + 10 - dropped
        );
        let gaps: u64 = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["dropped"].as_u64())
            .sum();
        assert_eq!(gaps, dropped);
    }
}
