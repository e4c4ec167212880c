//! A box as its parent sees it: started, told what to load, ended.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use rustix::{
    fs::fstat,
    net::sockopt::{Timeout, set_socket_timeout},
};

use super::{
    channel,
    exchange::Exchange,
    message::{Control, Said},
    wire::{self, Facts, Order},
};
use crate::{error::EngineError, memory, model::ModelOptions, runtime::Library};

/// How boxes are made.
#[derive(Debug)]
pub(super) struct Setup {
    /// This program, which runs a box when its first argument is [`ARGUMENT`].
    pub(super) program: PathBuf,
    pub(super) library: Library,
    pub(super) limits: BoxLimits,
}

/// What a box may have.
#[derive(Clone, Copy, Debug)]
pub struct BoxLimits {
    /// Bytes of memory; 0: no limit of its own.
    pub memory: u64,
    /// Bytes of an answer's tensors: more is not read.
    pub answer: u64,
}

/// The first argument of a program that is to run a box.
pub const ARGUMENT: &str = "engine-box";

/// What a box loads, in files that nobody can change: it may have to be loaded again.
#[derive(Debug)]
pub(super) struct Cargo {
    order: OwnedFd,
    model: OwnedFd,
    data: OwnedFd,
}

/// A running box. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) control: OwnedFd,
    child: Mutex<Child>,
    /// The memories by which requests go in and answers come out.
    exchanges: OnceLock<Vec<Arc<Exchange>>>,
    gone: AtomicBool,
}

impl Cargo {
    pub(super) fn new(onnx: &[u8], options: &ModelOptions) -> io::Result<Self> {
        let mut end = 0_u64;
        let mut place = |bytes: &[u8]| {
            let start = end;
            end = end.saturating_add(bytes.len() as u64);
            start..end
        };
        let external: Vec<_> =
            options.external_data.iter().map(|(location, bytes)| (location.clone(), place(bytes))).collect();
        let order = Order {
            sessions: options.sessions,
            threads_per_session: options.threads_per_session,
            batch: options.batch.clone(),
            free_width: options.free_width,
            external,
            encoder: options.encoder.as_deref().map(place),
        };
        let external = options.external_data.iter().map(|(_, bytes)| &**bytes);
        let data: Vec<&[u8]> = external.chain(options.encoder.as_deref()).collect();
        Ok(Self {
            order: memory::sealed("order", &[&order.encode()])?,
            model: memory::sealed("model", &[onnx])?,
            data: memory::sealed("data", &data)?,
        })
    }
}

impl Process {
    /// Starts a box that waits for orders. It ends with the thread that starts it.
    fn start(setup: &Setup) -> io::Result<Self> {
        let (control, theirs) = channel::pair()?;
        let child = Command::new(&setup.program)
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            // Signals that a terminal sends to its group are for the parent alone.
            .process_group(0)
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            control,
            child: Mutex::new(child),
            exchanges: OnceLock::new(),
            gone: AtomicBool::new(false),
        })
    }

    /// Starts a box that loads the library and waits for a model, which shows whether boxes can be made: whether the library
    /// loads in one, and the sandbox holds. Whether Landlock does, too.
    pub(super) fn prepare(setup: &Setup) -> Result<(Self, bool), EngineError> {
        let failed = |error: io::Error| EngineError::NoBox(error.to_string());
        let process = Self::start(setup).map_err(failed)?;
        let report = memory::growing("report", 0).map_err(failed)?;
        let prepare = Control::Prepare { memory: setup.limits.memory };
        process.tell(setup, prepare, &report, &[]).map_err(failed)?;
        match process.hear(&report).map_err(failed)? {
            Ok(Said::Held { landlocked }) => Ok((process, landlocked)),
            Ok(_) => Err(EngineError::NoBox("it says what it was not asked".into())),
            Err(why) => Err(EngineError::NoBox(why)),
        }
    }

    /// Whether it runs still. The system ends boxes first when memory is short.
    pub(super) fn runs(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    /// Has `prepared`, or a box that is started for it, load `cargo`.
    pub(super) fn load(
        setup: &Setup,
        cargo: &Cargo,
        prepared: Option<Self>,
    ) -> Result<(Self, Facts), EngineError> {
        let failed = |error: io::Error| EngineError::NoBox(error.to_string());
        // The model may have ended the box: that is no fault of the system.
        let ended =
            |error: io::Error| EngineError::Boxed(format!("the process that loads it ended: {error}"));
        let process = prepared.map_or_else(|| Self::start(setup), Ok).map_err(failed)?;
        let report = memory::growing("report", 0).map_err(failed)?;
        let Cargo { order, model, data } = cargo;
        let len = |file: &OwnedFd| fstat(file).map(|stat| u64::try_from(stat.st_size).unwrap_or_default());
        let lens = || Ok::<_, io::Error>((len(order)?, len(model)?, len(data)?));
        let (order_len, model_len, data_len) = lens().map_err(failed)?;
        let load = Control::Load { order_len, model_len, data_len, memory: setup.limits.memory };
        let files = [order.as_fd(), model.as_fd(), data.as_fd()];
        process.tell(setup, load, &report, &files).map_err(failed)?;
        let len = match process.hear(&report).map_err(ended)? {
            Ok(Said::Loaded { len }) => len,
            Ok(_) => return Err(EngineError::Boxed("its process says what it was not asked".into())),
            Err(why) => return Err(EngineError::Boxed(why)),
        };
        let facts = said(&report, len).and_then(|bytes| Facts::decode(&bytes).map_err(io::Error::other));
        Ok((process, facts.map_err(ended)?))
    }

    /// Has the box take requests by as many memories on as many threads, once it has given up what it needed to load.
    pub(super) fn begin(&self, lanes: usize, threads: usize) -> io::Result<Vec<Arc<Exchange>>> {
        let exchange = |index| {
            let (exchange, theirs) = Exchange::new()?;
            channel::tell_with(
                &self.control,
                Control::Lane { index }.message(),
                &theirs.each_ref().map(AsFd::as_fd),
            )?;
            Ok(Arc::new(exchange))
        };
        let exchanges = (0..lanes as u64).map(exchange).collect::<io::Result<Vec<_>>>()?;
        channel::tell(&self.control, Control::Begin { threads: threads as u64 }.message())?;
        let Some(Said::Held { .. }) = Said::of(channel::hear(&self.control)?) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let _ = self.exchanges.set(exchanges.clone());
        Ok(exchanges)
    }

    /// Whether the box has ended, and will not answer any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    fn tell(
        &self,
        setup: &Setup,
        control: Control,
        report: &OwnedFd,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let library = setup.library.file().ok_or(io::ErrorKind::Unsupported)?;
        let files: Vec<_> = [library, report.as_fd()].into_iter().chain(files.iter().copied()).collect();
        set_socket_timeout(&self.control, Timeout::Recv, Some(LOADING))?;
        channel::tell_with(&self.control, control.message(), &files)
    }

    /// What the box says, or why it refuses.
    fn hear(&self, report: &OwnedFd) -> io::Result<Result<Said, String>> {
        match Said::of(channel::hear(&self.control)?).ok_or(io::ErrorKind::InvalidData)? {
            Said::Refused { len } => {
                let why = said(report, len)?;
                Ok(Err(wire::plain(&String::from_utf8_lossy(&why))))
            }
            other => Ok(Ok(other)),
        }
    }

    /// Waits until the box ends: it has nothing to say any more.
    pub(super) fn wait(&self) {
        let _ = set_socket_timeout(&self.control, Timeout::Recv, None);
        let _ = channel::hear(&self.control);
    }

    /// Ends the box, if it runs still, and says how it ended.
    pub(super) fn end(&self) -> Option<std::process::ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // A process that has ended and was waited for is sent nothing.
        let _ = child.kill();
        let status = child.wait().ok();
        self.gone.store(true, Release);
        self.exchanges.get().into_iter().flatten().for_each(|exchange| exchange.bell().ring());
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first bytes of a report, copied once.
fn said(report: &OwnedFd, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).ok().filter(|len| *len <= LONGEST_REPORT);
    memory::read(report, len.ok_or(io::ErrorKind::InvalidData)?, 0)
}

/// How long a box may take to load.
const LOADING: Duration = Duration::from_secs(600);

/// The most bytes that a box may say of a model.
const LONGEST_REPORT: usize = 16 << 20;
