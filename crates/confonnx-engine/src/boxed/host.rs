//! Models in boxes, as the key holder sees them: they run, and what ends one is seen by the requests it was running alone.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use confonnx_tensor::{DataType, Tensor};
use tracing::{error, info, warn};

use super::{
    lane::{self, Broken, Ended, Lane, Outcome, Where},
    message::Kind,
    process::{BoxLimits, Cargo, Process, Setup},
    wire::Facts,
};
use crate::{
    decoder::Decoder,
    error::{EngineError, InferError},
    model::ModelOptions,
    port::TensorInfo,
    recent::Recent,
    run::Answer,
    runtime::Library,
};

/// What makes boxes. Clones share it.
#[derive(Clone, Debug)]
pub struct Boxes {
    setup: Arc<Setup>,
    landlocked: bool,
}

/// A model in a box of its own, which ends when this is dropped.
pub struct BoxedModel {
    facts: Facts,
    decoder: Option<Decoder>,
    shared: Arc<Shared>,
    timeout: Duration,
    limits: BoxLimits,
}

/// A request that a box runs. Nobody else has its lane until it is finished.
pub struct Running {
    shared: Arc<Shared>,
    process: Arc<Process>,
    lane: Lane,
    wanted: Vec<(String, DataType)>,
    start: Instant,
    due: Instant,
    timeout: Duration,
    limit: u64,
}

/// How often a model's box ended, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    /// By itself, or because it said what it was not asked.
    pub crashes: u64,
    /// Because a run did not end in time.
    pub timeouts: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    crashes: AtomicU64,
    timeouts: AtomicU64,
    recent: Recent,
    batched: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The box that runs, if one does.
    process: Option<Arc<Process>>,
    /// Its lanes that are not in use; the last one back is the first to go on.
    idle: Vec<Lane>,
    closed: bool,
}

/// Why there is no lane.
enum Absent {
    /// All run others' requests.
    Busy,
    /// There is no box.
    Restarting,
}

impl Boxes {
    /// For boxes of `program`, which runs [`run`](super::run) when its first argument is [`ARGUMENT`](super::ARGUMENT),
    /// within `limits`. Sees whether one can be made.
    ///
    /// # Errors
    /// [`EngineError::NoBox`] when the system refuses any of what keeps a box apart, or the library does not load.
    pub fn new(program: PathBuf, library: Library, limits: BoxLimits) -> Result<Self, EngineError> {
        let setup = Setup { program, library, limits };
        let landlocked = Process::probe(&setup)?;
        Ok(Self { setup: Arc::new(setup), landlocked })
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.setup.library
    }

    /// Whether the kernel has Landlock. Without it boxes have no system call to open files with all the same.
    pub fn are_landlocked(&self) -> bool {
        self.landlocked
    }

    /// Has a new box load the model in `onnx`, which is called `name` in the log. A run may take as long as `timeout`.
    ///
    /// # Errors
    /// [`EngineError::Boxed`] with what the box says of the model.
    pub fn load(
        &self,
        name: &str,
        onnx: &[u8],
        options: &ModelOptions,
        timeout: Duration,
    ) -> Result<BoxedModel, EngineError> {
        let failed = |error: io::Error| EngineError::NoBox(error.to_string());
        let cargo = Cargo::new(onnx, options).map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let (loaded, result) = mpsc::channel();
        let keeper = Keeper {
            name: name.into(),
            setup: Arc::clone(&self.setup),
            cargo,
            sessions: options.sessions.max(1),
            shared: Arc::clone(&shared),
        };
        // A box ends with the thread that starts it: this one is there for as long as the model is.
        thread::Builder::new()
            .name("box-keeper".into())
            .spawn(move || keeper.keep(&loaded))
            .map_err(failed)?;
        let lost = || EngineError::NoBox("the thread that keeps it ended".into());
        let facts = result.recv().map_err(|_| lost())??;
        let decoder = Decoder::of(&facts.inputs, &facts.outputs);
        let limits = self.setup.limits;
        Ok(BoxedModel { facts, decoder, shared, timeout, limits })
    }
}

impl BoxedModel {
    /// The inputs every request has to give.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.facts.inputs
    }

    /// The inputs a request may give.
    pub fn optional_inputs(&self) -> &[TensorInfo] {
        &self.facts.optional
    }

    /// The outputs a request can ask for.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.facts.outputs
    }

    /// How the cores are shared out, as the box says.
    pub fn arrangement(&self) -> &str {
        &self.facts.arrangement
    }

    /// The most rows that are batched, or why none are.
    ///
    /// # Errors
    /// What the box says.
    pub fn largest_batch(&self) -> Result<usize, &str> {
        self.facts.largest_batch.as_ref().map(|rows| *rows).map_err(String::as_str)
    }

    /// How many requests were answered together with others so far, as the box says.
    pub fn batched_requests(&self) -> u64 {
        self.shared.batched.load(Relaxed)
    }

    /// Whether the next run is likely to be brief, by those of late.
    pub fn is_brief(&self) -> bool {
        self.shared.recent.is_brief()
    }

    /// How often its box ended.
    pub fn deaths(&self) -> Deaths {
        Deaths { crashes: self.shared.crashes.load(Relaxed), timeouts: self.shared.timeouts.load(Relaxed) }
    }

    /// Has the box run the model, with all cores if the request is `alone`; waits while all of its sessions are busy.
    ///
    /// # Errors
    /// [`InferError`]: what the box says, or what became of it.
    pub fn run(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        alone: bool,
    ) -> Result<Answer, InferError> {
        let wanted = self.wanted(outputs)?;
        let place = if self.shared.recent.is_brief() { Where::Here } else { Where::Anywhere };
        self.ask((inputs, outputs), wanted, if alone { Kind::RunAlone } else { Kind::Run }, place)
    }

    /// How it goes on with a text, if it does.
    pub fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    /// Has the box go on with sequences, as `inputs` say.
    pub(crate) fn step(&self, inputs: &[(String, Tensor<'_>)]) -> Result<Answer, InferError> {
        self.ask((inputs, &[]), vec![("logits".into(), DataType::Fp32)], Kind::Step, Where::Anywhere)
    }

    /// As [`run`](Self::run), and waits for as long as `patience`: what is not done then goes on, for another thread to wait
    /// for.
    ///
    /// # Errors
    /// [`InferError`]
    pub fn begin(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        alone: bool,
        patience: Duration,
    ) -> Result<Result<Answer, Running>, InferError> {
        let place = if self.shared.recent.is_brief() { Where::Here } else { Where::Anywhere };
        let kind = if alone { Kind::RunAlone } else { Kind::Run };
        let running = self.start((inputs, outputs), self.wanted(outputs)?, kind, place)?;
        let then = running.start.checked_add(patience).unwrap_or(running.start);
        if running.lane.is_answered(&running.process, then) {
            running.finish().map(Ok)
        } else {
            Ok(Err(running))
        }
    }

    fn ask(
        &self,
        asked: (&[(String, Tensor<'_>)], &[String]),
        wanted: Vec<(String, DataType)>,
        kind: Kind,
        place: Where,
    ) -> Result<Answer, InferError> {
        self.start(asked, wanted, kind, place)?.finish()
    }

    fn start(
        &self,
        (inputs, outputs): (&[(String, Tensor<'_>)], &[String]),
        wanted: Vec<(String, DataType)>,
        kind: Kind,
        place: Where,
    ) -> Result<Running, InferError> {
        let start = Instant::now();
        let due = start.checked_add(self.timeout).unwrap_or(start);
        let core = lane::core(place);
        let (process, mut lane) = self.shared.take((start, due), core).map_err(|absent| match absent {
            Absent::Busy => InferError::Timeout { seconds: self.timeout.as_secs() },
            Absent::Restarting => InferError::Restarting,
        })?;
        let asked = lane.ask(inputs, outputs, (kind, core));
        let (shared, (timeout, limit)) = (Arc::clone(&self.shared), (self.timeout, self.limits.answer));
        let running = Running { shared, process, lane, wanted, start, due, timeout, limit };
        match asked {
            Ok(()) => Ok(running),
            Err(broken) => Err(running.broke(&broken)),
        }
    }

    /// Names and types of the outputs asked for.
    fn wanted(&self, outputs: &[String]) -> Result<Vec<(String, DataType)>, InferError> {
        if outputs.is_empty() {
            return Ok(self.facts.outputs.iter().map(|info| (info.name.clone(), info.dtype)).collect());
        }
        let find = |name: &String| {
            let info = self.facts.outputs.iter().find(|info| info.name == *name);
            info.map(|info| (name.clone(), info.dtype)).ok_or_else(|| InferError::UnknownOutput {
                name: name.clone(),
                expected: self.facts.outputs.iter().map(|info| info.name.clone()).collect(),
            })
        };
        outputs.iter().map(find).collect()
    }
}

impl Running {
    /// Waits until it is done.
    ///
    /// # Errors
    /// [`InferError`]: what the box says, or what became of it.
    pub fn finish(mut self) -> Result<Answer, InferError> {
        match self.lane.answer(&self.process, &self.wanted, self.due, self.limit) {
            Ok(Outcome { result, batched, took }) => {
                let Self { shared, process, lane, start, timeout, limit, .. } = self;
                shared.recent.record(took.min(start.elapsed()));
                // Requests end in another order than they are counted.
                shared.batched.fetch_max(batched, Relaxed);
                shared.give_back(&process, lane);
                result.map_err(|ended| match ended {
                    Ended::Input(text) => InferError::BoxedInput(text),
                    Ended::Model(text) => InferError::BoxedRun(text),
                    Ended::Late => InferError::Timeout { seconds: timeout.as_secs() },
                    Ended::TooLong(found) => InferError::TooLong { found, expected: limit },
                })
            }
            Err(broken) => Err(self.broke(&broken)),
        }
    }

    /// Ends the box.
    fn broke(self, broken: &Broken) -> InferError {
        let Self { shared, process, start, timeout, .. } = self;
        shared.recent.record(start.elapsed());
        let (counter, error) = match broken {
            Broken::Crashed => (&shared.crashes, InferError::Crashed),
            Broken::Timeout => (&shared.timeouts, InferError::Timeout { seconds: timeout.as_secs() }),
        };
        // Once for each box, whoever of its requests is the first to see.
        if shared.forget(&process) {
            counter.fetch_add(1, Relaxed);
        }
        process.end();
        error
    }
}

impl fmt::Debug for BoxedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedModel").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Drop for BoxedModel {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let process = state.process.take();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(process) = process {
            process.end();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a lane of the box that runs, until its run would be `due`: one that was last asked from `core`, if there is
    /// one.
    fn take(&self, (start, due): (Instant, Instant), core: u64) -> Result<(Arc<Process>, Lane), Absent> {
        let restarted = start.checked_add(RESTART_PATIENCE).map_or(due, |at| at.min(due));
        let mut state = self.lock();
        loop {
            let (until, absent) = match &state.process {
                Some(process) => {
                    let process = Arc::clone(process);
                    let there = state.idle.iter().rposition(|lane| lane.is_on(core));
                    let lane = there.map(|index| state.idle.remove(index)).or_else(|| state.idle.pop());
                    if let Some(lane) = lane {
                        return Ok((process, lane));
                    }
                    (due, Absent::Busy)
                }
                None => (restarted, Absent::Restarting),
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(absent);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn give_back(&self, process: &Arc<Process>, lane: Lane) {
        let mut state = self.lock();
        if state.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, process)) {
            state.idle.push(lane);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Lets nobody ask `process` any more; whether anybody could.
    fn forget(&self, process: &Arc<Process>) -> bool {
        let mut state = self.lock();
        let current = state.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, process));
        if current {
            state.process = None;
            state.idle.clear();
        }
        current
    }
}

/// Starts a model's box, and starts it again when it ends.
struct Keeper {
    name: String,
    setup: Arc<Setup>,
    cargo: Cargo,
    sessions: usize,
    shared: Arc<Shared>,
}

impl Keeper {
    fn keep(self, loaded: &mpsc::Sender<Result<Facts, EngineError>>) {
        let first = match self.start() {
            Ok((facts, process)) => {
                if loaded.send(Ok(facts.clone())).is_err() {
                    return;
                }
                Some((facts, process))
            }
            // Nobody waits if the thread that asked is gone.
            Err(error) => return drop(loaded.send(Err(error))),
        };
        let Some((facts, mut process)) = first else { return };
        let mut pause = Duration::ZERO;
        loop {
            let start = Instant::now();
            process.wait();
            if self.shared.forget(&process) {
                self.shared.crashes.fetch_add(1, Relaxed);
            }
            let how = process.end().map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
            if self.shared.lock().closed {
                return;
            }
            if start.elapsed() > STABLE {
                pause = Duration::ZERO;
            }
            process = loop {
                warn!("{}: its process ended ({how}); it is started again in {pause:?}", self.name);
                if self.closes_within(pause) {
                    return;
                }
                pause = pause.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                match self.start() {
                    Ok((again, process))
                        if (&again.inputs, &again.outputs) == (&facts.inputs, &facts.outputs) =>
                    {
                        info!("{}: its process runs again", self.name);
                        break process;
                    }
                    Ok((_, process)) => {
                        error!("{}: its process says other inputs and outputs than before", self.name);
                        self.shared.forget(&process);
                    }
                    Err(error) => error!("{}: its process cannot be started again: {error}", self.name),
                }
            };
        }
    }

    /// A box that takes requests.
    fn start(&self) -> Result<(Facts, Arc<Process>), EngineError> {
        let failed = |error: io::Error| EngineError::NoBox(error.to_string());
        let (process, facts) = Process::load(&self.setup, &self.cargo)?;
        let together = facts.largest_batch.as_ref().map_or(1, |rows| *rows).clamp(1, MOST_TOGETHER);
        // As many as run at once, and those that wait while they are batched.
        let lanes = self.sessions.saturating_add(together).saturating_sub(1);
        let exchanges = process.begin(lanes).map_err(failed)?;
        let lanes = exchanges.into_iter().zip(0..).map(|(exchange, index)| Lane::new(index, exchange));
        let process = Arc::new(process);
        let mut state = self.shared.lock();
        if !state.closed {
            state.process = Some(Arc::clone(&process));
            state.idle = lanes.collect();
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok((facts, process))
    }

    /// Waits; whether the model is not wanted any more.
    fn closes_within(&self, pause: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, pause, |state| !state.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// How long a request waits for a box that is being started again.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
/// A box that ran as long is started again at once; one that did not, after a pause that doubles.
const STABLE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Lanes for requests that wait to be batched.
const MOST_TOGETHER: usize = 256;
