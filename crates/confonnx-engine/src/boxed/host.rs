//! Models in boxes, as the key holder sees them: they run, and what ends one is seen by the requests it was running alone.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::{Duration, Instant},
};

use confonnx_tensor::{DataType, Tensor};
use tokio::runtime::Handle;

use super::{
    keeper::Keeper,
    lane::{Broken, Ended, Lane, Outcome, Where},
    message::Kind,
    process::{BoxLimits, Cargo, Process, Setup},
    shared::{Absent, Deaths, Shared},
    wire::Facts,
};
use crate::{
    decoder::Decoder,
    error::{EngineError, InferError},
    model::ModelOptions,
    port::TensorInfo,
    run::Answer,
    runtime::Library,
};

/// The program, library and limits of which boxes are made. Clones share them.
#[derive(Clone, Debug)]
pub struct Boxes {
    setup: Arc<Setup>,
    landlocked: bool,
    /// The thread of a box that has loaded the library, for the model that comes first.
    spare: Arc<Mutex<Option<mpsc::Sender<Kept>>>>,
}

/// A model to be kept, and who waits until it is loaded.
type Kept = (Keeper, mpsc::Sender<Result<Facts, EngineError>>);

/// A model in a box of its own, which ends when this is dropped and no request is left in it.
pub struct BoxedModel {
    facts: Arc<Facts>,
    decoder: Option<Decoder>,
    shared: Arc<Shared>,
    alive: Arc<Alive>,
    timeout: Duration,
    limits: BoxLimits,
}

/// While there is one, the box goes on: the model has one, and each of its requests.
struct Alive(Arc<Shared>);

/// A place in a box for one request.
pub struct Reserved {
    held: Held,
    facts: Arc<Facts>,
}

/// A request that a box runs. When this is dropped, the box is told to stop.
pub struct Running {
    held: Held,
    wanted: Vec<(String, DataType)>,
}

/// A request that a box has run, or that it cannot any more.
pub struct Answered {
    running: Running,
    how: Result<InTime, Broken>,
}

/// Whether an answer came before it was due.
struct InTime(bool);

/// How long a run may take, and its answer be.
#[derive(Clone, Copy)]
struct Terms {
    start: Instant,
    due: Instant,
    timeout: Duration,
    limit: u64,
}

/// A lane of a box, which nobody else has until this is dropped.
struct Held {
    shared: Arc<Shared>,
    alive: Arc<Alive>,
    process: Arc<Process>,
    lane: Option<Lane>,
    purpose: Use,
    terms: Terms,
    home: Handle,
}

/// What a lane is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Nothing: the next one can have it.
    Idle,
    /// A request runs there, or its answer is there.
    Asked,
    /// A request or its answer that nobody wants is there.
    Unwanted,
}

impl Boxes {
    /// Makes boxes of `program`, which runs [`run`](super::run) when its first argument is
    /// [`ARGUMENT`](super::ARGUMENT), within `limits`. Sees whether one can be made.
    ///
    /// # Errors
    /// [`EngineError::NoBox`] when the system refuses any of what keeps a box apart, or the library does not load.
    pub fn new(program: PathBuf, library: Library, limits: BoxLimits) -> Result<Self, EngineError> {
        let setup = Arc::new(Setup { program, library, limits });
        let (ready, prepared) = mpsc::channel();
        let (spare, first) = mpsc::channel::<Kept>();
        let here = Arc::clone(&setup);
        keeping(move || match Process::prepare(&here) {
            Ok((process, landlocked)) => {
                if ready.send(Ok(landlocked)).is_ok()
                    && let Ok((keeper, loaded)) = first.recv()
                {
                    keeper.keep(&loaded, Some(process));
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
        let landlocked = prepared.recv().map_err(|_| lost())??;
        Ok(Self { setup, landlocked, spare: Arc::new(Mutex::new(Some(spare))) })
    }

    /// The ONNX Runtime library that boxes load.
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
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let kept = (keeper, loaded);
        let unkept = match spare {
            Some(spare) => spare.send(kept).err().map(|unsent| unsent.0),
            None => Some(kept),
        };
        if let Some((keeper, loaded)) = unkept {
            keeping(move || keeper.keep(&loaded, None))?;
        }
        let facts = Arc::new(result.recv().map_err(|_| lost())??);
        let decoder = Decoder::of(&facts.inputs, &facts.outputs, options.encoder.is_some());
        let limits = self.setup.limits;
        let alive = Arc::new(Alive(Arc::clone(&shared)));
        Ok(BoxedModel { facts, decoder, shared, alive, timeout, limits })
    }
}

/// Has a thread keep a box, which ends with the thread that starts it: this one is there for as long as the box is wanted.
fn keeping(keep: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let thread = thread::Builder::new().name("box-keeper".into()).spawn(keep);
    thread.map(drop).map_err(|error| EngineError::NoBox(error.to_string()))
}

fn lost() -> EngineError {
    EngineError::NoBox("the thread that keeps it ended".into())
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

    /// How often the model's box ended.
    pub fn deaths(&self) -> Deaths {
        self.shared.deaths()
    }

    /// How the model goes on with a text, if it does.
    pub fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    /// A place for one request, once there is one; the time of the request's run begins now.
    ///
    /// # Errors
    /// [`InferError::Timeout`] when all are others' until then, [`InferError::Restarting`] when there is no box.
    pub async fn reserve(&self) -> Result<Reserved, InferError> {
        let start = Instant::now();
        let due = start.checked_add(self.timeout).unwrap_or(start);
        let terms = Terms { start, due, timeout: self.timeout, limit: self.limits.answer };
        let home = Handle::current();
        let taken = self.shared.take((start, due), home.id()).await;
        let (process, lane) = taken.map_err(|absent| match absent {
            Absent::Busy => InferError::Timeout { seconds: self.timeout.as_secs() },
            Absent::Restarting => InferError::Restarting,
        })?;
        let (shared, lane) = (Arc::clone(&self.shared), Some(lane));
        let alive = Arc::clone(&self.alive);
        let held = Held { shared, alive, process, lane, purpose: Use::Idle, terms, home };
        Ok(Reserved { held, facts: Arc::clone(&self.facts) })
    }
}

impl Reserved {
    /// Has the box run the model, with all cores if the request is `alone`.
    ///
    /// # Errors
    /// [`InferError`] when there is no such output, or no such box any more.
    pub fn run(
        self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        alone: bool,
    ) -> Result<Running, InferError> {
        let wanted = self.wanted(outputs)?;
        // Beside other requests, the thread that asks goes on with theirs: its core is not free.
        let here = alone && self.held.shared.recent.is_brief();
        let place = if here { Where::Here } else { Where::Anywhere };
        self.ask((inputs, outputs), wanted, (if alone { Kind::RunAlone } else { Kind::Run }, place))
    }

    /// Has the box go on with sequences, as `inputs` say.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn step(self, inputs: &[(String, Tensor<'_>)]) -> Result<Running, InferError> {
        let wanted = vec![("logits".into(), DataType::Fp32)];
        self.ask((inputs, &[]), wanted, (Kind::Step, Where::Anywhere))
    }

    fn ask(
        self,
        (inputs, outputs): (&[(String, Tensor<'_>)], &[String]),
        wanted: Vec<(String, DataType)>,
        how: (Kind, Where),
    ) -> Result<Running, InferError> {
        let Self { mut held, .. } = self;
        held.purpose = Use::Asked;
        let asked = held.lane.as_mut().map_or(Err(Broken::Crashed), |lane| lane.ask(inputs, outputs, how));
        match asked {
            Ok(()) => Ok(Running { held, wanted }),
            Err(broken) => Err(held.broke(&broken)),
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
    /// Waits until the request is done, or will not be.
    pub async fn answered(mut self) -> Answered {
        let how = self.held.answered(self.held.terms.due).await;
        Answered { running: self, how }
    }
}

impl Answered {
    /// How many bytes of tensors there are to read.
    pub fn bytes(&self) -> u64 {
        self.running.held.lane.as_ref().map_or(0, Lane::bytes)
    }

    /// Reads what the box says.
    ///
    /// # Errors
    /// [`InferError`]: what the box says, or what became of it.
    pub fn read(self) -> Result<Answer, InferError> {
        let Self { running: Running { mut held, wanted }, how } = self;
        let terms = held.terms;
        let outcome = how.and_then(|InTime(in_time)| {
            held.lane.as_mut().map_or(Err(Broken::Crashed), |lane| lane.read(&wanted, !in_time, terms.limit))
        });
        match outcome {
            Ok(Outcome { result, batched, took }) => {
                held.purpose = Use::Idle;
                held.shared.recent.record(took.min(terms.start.elapsed()));
                // Requests end in another order than they are counted.
                held.shared.batched.fetch_max(batched, Relaxed);
                drop(held);
                result.map_err(|ended| match ended {
                    Ended::Input(text) => InferError::BoxedInput(text),
                    Ended::Model(text) => InferError::BoxedRun(text),
                    Ended::Late => InferError::Timeout { seconds: terms.timeout.as_secs() },
                    Ended::TooLong(found) => InferError::TooLong { found, expected: terms.limit },
                })
            }
            Err(broken) => Err(held.broke(&broken)),
        }
    }
}

impl Held {
    /// Waits for the answer until it is `due`; what is late is told to stop, and has a little longer.
    async fn answered(&mut self, due: Instant) -> Result<InTime, Broken> {
        let lane = self.lane.as_mut().ok_or(Broken::Crashed)?;
        if lane.answered(&self.process, due).await? {
            return Ok(InTime(true));
        }
        if !lane.has_begun() {
            return Err(Broken::NotBegun);
        }
        lane.stop(&self.process)?;
        let then = Instant::now().checked_add(GRACE).unwrap_or(due);
        if lane.answered(&self.process, then).await? { Ok(InTime(false)) } else { Err(Broken::Timeout) }
    }

    /// Has a request that nobody wants stop, and waits for it: until then nobody else can have the lane.
    async fn ended(mut self) {
        let Some(lane) = &self.lane else { return };
        // Requests that the box has before this one have their time, too.
        let patience = if lane.has_begun() { GRACE } else { self.terms.timeout.saturating_add(GRACE) };
        let due = Instant::now().checked_add(patience).map_or(self.terms.due, |at| at.max(self.terms.due));
        let ended = match lane.stop(&self.process).map_err(Broken::from) {
            Ok(()) => self.answered(due).await,
            Err(broken) => Err(broken),
        };
        let forgotten =
            ended.and_then(|_| self.lane.as_ref().map_or(Ok(()), Lane::forget).map_err(Broken::from));
        match forgotten {
            Ok(()) => self.purpose = Use::Idle,
            Err(broken) => self.end(&broken),
        }
    }

    /// Ends the box if that is the reason, which is returned.
    fn broke(mut self, broken: &Broken) -> InferError {
        let terms = self.terms;
        let begun = self.lane.as_ref().is_none_or(Lane::has_begun);
        self.shared.recent.record(terms.start.elapsed());
        let timeout = InferError::Timeout { seconds: terms.timeout.as_secs() };
        match broken {
            // The box was told, and stops the request when it begins it.
            Broken::NotBegun => return timeout,
            Broken::Crashed | Broken::Timeout => self.end(broken),
        }
        match broken {
            Broken::Crashed if begun => InferError::Crashed,
            // The run of another request ended the box before this one began.
            Broken::Crashed => InferError::Restarting,
            Broken::Timeout | Broken::NotBegun => timeout,
        }
    }

    fn end(&mut self, broken: &Broken) {
        // Nobody has the lane after this box.
        self.lane = None;
        let counter = match broken {
            Broken::Crashed => &self.shared.crashes,
            Broken::Timeout | Broken::NotBegun => &self.shared.timeouts,
        };
        // Each box is counted once, by the first of its requests that sees its end.
        if self.shared.forget(&self.process) {
            counter.fetch_add(1, Relaxed);
        }
        self.process.end();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(lane) = self.lane.take() else { return };
        match self.purpose {
            Use::Idle => self.shared.give_back(&self.process, lane),
            Use::Asked => {
                let held = Self {
                    shared: Arc::clone(&self.shared),
                    alive: Arc::clone(&self.alive),
                    process: Arc::clone(&self.process),
                    lane: Some(lane),
                    purpose: Use::Unwanted,
                    terms: self.terms,
                    home: self.home.clone(),
                };
                self.home.spawn(held.ended());
            }
            // The runtime ends, so nobody can wait for the request and know when the lane is free: the box is ended.
            Use::Unwanted => self.end(&Broken::Crashed),
        }
    }
}

impl fmt::Debug for BoxedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedModel").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let Self(shared) = self;
        let mut state = shared.lock();
        state.closed = true;
        let process = state.process.take();
        drop(state);
        shared.changed.notify_waiters();
        shared.closing.notify_all();
        if let Some(process) = process {
            process.end();
        }
    }
}

/// How long a run that is told to stop may take to do so before its box is ended.
const GRACE: Duration = Duration::from_millis(500);
