//! A way for one request at a time into a box and its answer out.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use confonnx_device::Listener;
use confonnx_tensor::{DataType, Tensor};
use rustix::thread::sched_getcpu;
use tokio::{
    runtime::{self, Handle},
    time::timeout_at,
};

use super::{
    channel,
    exchange::{Exchange, START, Side},
    message::{ANYWHERE, Answered, Asked, Control, Kind},
    process::Process,
    wire::{self, Answer, Failure, Garbled, Job},
};

/// The key holder's end.
#[derive(Debug)]
pub(super) struct Lane {
    index: u64,
    exchange: Arc<Exchange>,
    /// The box's thread that is to look at this lane, and the lane at which one knocks for that.
    thread: usize,
    home: Arc<Exchange>,
    /// The number of the request that was asked last, and before of those before it.
    jobs: u32,
    last: u32,
    /// Where the last request ends in the memory.
    asked: u64,
    /// The bell, with the runtime whose threads wait for it.
    bell: Option<(runtime::Id, Listener)>,
}

/// Where a run is to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    /// On the core that asks, which has nothing else to do meanwhile: to wake up another core takes longer than a brief
    /// run.
    Here,
    /// Wherever there is room.
    Anywhere,
}

/// What came of a request.
pub(super) struct Outcome {
    /// Named tensors of the answer.
    pub(super) result: Result<Vec<(String, Tensor<'static>)>, Ended>,
    /// How many requests the box says it has batched so far.
    pub(super) batched: u64,
    /// How long the run took, as the box says.
    pub(super) took: Duration,
}

/// Why there is no answer, as the box says.
pub(super) enum Ended {
    /// The request does not fit the model.
    Input(String),
    /// The model failed.
    Model(String),
    /// The run was told to stop, as it took too long.
    Late,
    /// The answer is longer than is taken, by as many bytes as it has.
    TooLong(u64),
}

/// Why a lane, and the box with it, is of no use any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// The box ended, or says something that it was not asked.
    Crashed,
    /// The run does not stop.
    Timeout,
    /// Nothing is wrong, but the request was not begun when it was due.
    NotBegun,
}

impl From<Garbled> for Broken {
    fn from(_: Garbled) -> Self {
        Self::Crashed
    }
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Crashed
    }
}

impl Lane {
    pub(super) fn new(index: u64, exchange: Arc<Exchange>, (thread, home): (usize, Arc<Exchange>)) -> Self {
        Self { index, exchange, thread, home, jobs: 0, last: 0, asked: 0, bell: None }
    }

    /// The box's thread that is to look at this lane. Another one does if that is busy for long.
    pub(super) fn thread(&self) -> usize {
        self.thread
    }

    /// Whether `runtime` waited for its last answer.
    pub(super) fn is_of(&self, runtime: runtime::Id) -> bool {
        self.bell.as_ref().is_some_and(|(id, _)| *id == runtime)
    }

    /// Asks for `outputs`, which are all of the model's if there are none.
    pub(super) fn ask(
        &mut self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        (kind, place): (Kind, Where),
    ) -> Result<(), Broken> {
        let (header, end) = self.write(inputs, outputs)?;
        self.asked = end;
        self.last = self.jobs;
        self.jobs = self.last.wrapping_add(1);
        let note = Asked { header, end, kind, core: place.core() }.note();
        self.exchange.say(Side::Holder, self.jobs, note)?;
        Ok(self.home.knock()?)
    }

    /// Whether the box says that it runs, or ran, the last request.
    pub(super) fn has_begun(&self) -> bool {
        self.exchange.has_begun(self.jobs)
    }

    /// Has the box stop the last request, at the next of its operators.
    pub(super) fn stop(&self, process: &Process) -> io::Result<()> {
        let stop = Control::Stop { lane: self.index, job: u64::from(self.jobs) };
        channel::tell(&process.control, stop.message())
    }

    /// Waits for the answer to the last request; whether there is one before it is `due`.
    ///
    /// # Errors
    /// The box is gone: there will be none.
    pub(super) async fn answered(&mut self, process: &Process, due: Instant) -> Result<bool, Broken> {
        let runtime = Handle::try_current().map_err(io::Error::other)?.id();
        let kept = self.bell.take().filter(|(id, _)| *id == runtime).map(|(_, bell)| bell);
        let bell = match kept {
            Some(bell) => bell,
            None => self.exchange.bell().listen()?,
        };
        let (_, bell) = self.bell.insert((runtime, bell));
        loop {
            if process.is_gone() {
                return Err(Broken::Crashed);
            }
            if self.exchange.heard(Side::Box, self.last)?.is_some() {
                return Ok(true);
            }
            match timeout_at(due.into(), bell.rung()).await {
                Ok(rung) => rung?,
                Err(_) => return Ok(false),
            }
        }
    }

    /// How many bytes of tensors the answer has, as the box says.
    pub(super) fn bytes(&self) -> u64 {
        let heard = self.exchange.heard(Side::Box, self.last).ok().flatten();
        heard.map_or(0, |(_, note)| Answered::of(note).bytes)
    }

    /// Reads the answer, which is there: the outputs `wanted` of what was asked, which was told to stop if it is `late`. No
    /// more than `limit` bytes of tensors are read.
    pub(super) fn read(
        &mut self,
        wanted: &[(String, DataType)],
        late: bool,
        limit: u64,
    ) -> Result<Outcome, Broken> {
        let (job, note) = self.exchange.heard(Side::Box, self.last)?.ok_or(Broken::Crashed)?;
        let Answered { at, len, batched, micros, .. } = Answered::of(note);
        let len = usize::try_from(len).ok().filter(|len| *len <= LONGEST_HEADER).ok_or(Broken::Crashed)?;
        if job != self.jobs {
            return Err(Broken::Crashed);
        }
        let types: Vec<DataType> = wanted.iter().map(|(_, dtype)| *dtype).collect();
        let answer = Answer::decode(&self.exchange.read(len, at)?, &types, limit)?;
        let mut used = at.saturating_add(len as u64);
        let result = match answer {
            Answer::Done(parts) => {
                let mut tensors = Vec::with_capacity(parts.len());
                for (part, (name, _)) in parts.into_iter().zip(wanted) {
                    let len = usize::try_from(part.len()).map_err(|_| Broken::Crashed)?;
                    let bytes = self.exchange.read(len, part.bytes.start)?;
                    used = used.max(part.bytes.end);
                    let tensor = Tensor::new(part.dtype, part.shape, bytes).map_err(|_| Broken::Crashed)?;
                    tensors.push((name.clone(), tensor));
                }
                Ok(tensors)
            }
            Answer::TooLong(len) => Err(Ended::TooLong(len)),
            Answer::Failed(Failure::Stopped, _) if late => Err(Ended::Late),
            Answer::Failed(Failure::Input, text) => Err(Ended::Input(text)),
            Answer::Failed(Failure::Model | Failure::Stopped, text) => Err(Ended::Model(text)),
        };
        match &result {
            // An answer that is too long was not looked at, so nobody knows where it lies.
            Err(Ended::TooLong(_)) => self.exchange.erase_all()?,
            _ => {
                self.exchange.erase(START as u64..self.asked)?;
                self.exchange.erase(at.max(START as u64)..used)?;
            }
        }
        Ok(Outcome { result, batched, took: Duration::from_micros(micros) })
    }

    /// Erases a request and its answer, which nobody reads.
    pub(super) fn forget(&self) -> io::Result<()> {
        self.exchange.erase_all()
    }

    /// Puts a request into the memory; how long its head is, and where it ends.
    fn write(&self, inputs: &[(String, Tensor<'_>)], outputs: &[String]) -> Result<(u64, u64), Broken> {
        let start = START as u64;
        // The head is as long wherever it says that its tensors are.
        let len = Job::lay_out(inputs, outputs, 0)?.encode().len() as u64;
        let job = Job::lay_out(inputs, outputs, start.saturating_add(len))?;
        let header = job.encode();
        let (mut slices, mut end) = (vec![&header[..]], start.saturating_add(len));
        for ((_, part), (_, tensor)) in job.inputs.iter().zip(inputs) {
            let gap = usize::try_from(part.bytes.start.saturating_sub(end)).unwrap_or_default();
            slices.push(wire::gap(gap));
            slices.push(tensor.data());
            end = part.bytes.end;
        }
        self.exchange.write(&slices, start)?;
        Ok((len, end))
    }
}

impl Where {
    fn core(self) -> u64 {
        match self {
            Self::Here => sched_getcpu() as u64,
            Self::Anywhere => ANYWHERE,
        }
    }
}

/// The most bytes that may say where an answer's tensors are.
const LONGEST_HEADER: usize = 16 << 20;
