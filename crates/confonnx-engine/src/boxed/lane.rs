//! A way for one request at a time into a box and its answer out.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use confonnx_tensor::{DataType, Tensor};
use rustix::thread::sched_getcpu;

use super::{
    channel,
    exchange::{Exchange, START, Side, TimedOut},
    message::{ANYWHERE, Answered, Asked, Control, Kind, next},
    process::Process,
    wire::{self, Answer, Failure, Garbled, Job},
};
use crate::stop;

/// The key holder's end.
#[derive(Debug)]
pub(super) struct Lane {
    index: u64,
    exchange: Arc<Exchange>,
    /// The number of what was asked last, and of what before that.
    jobs: u32,
    last: u32,
    /// Where that ends.
    asked: u64,
    /// Where it was last asked from, so that its thread is there.
    core: u64,
}

/// Where a run is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// On the core that asks, which has nothing else to do meanwhile: waking up another takes longer than a brief run.
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
    /// The run is longer than is taken.
    TooLong(u64),
}

/// Why a lane, and the box with it, is of no use any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// The box ended, or says what it was not asked.
    Crashed,
    /// The run does not stop.
    Timeout,
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
    pub(super) fn new(index: u64, exchange: Arc<Exchange>) -> Self {
        Self { index, exchange, jobs: 0, last: 0, asked: 0, core: ANYWHERE }
    }

    /// Whether it was last asked from `core`.
    pub(super) fn is_on(&self, core: u64) -> bool {
        self.core == core
    }

    /// Asks for `outputs`, which are all of the model's if there are none.
    pub(super) fn ask(
        &mut self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        (kind, core): (Kind, u64),
    ) -> Result<(), Broken> {
        let (header, end) = self.write(inputs, outputs)?;
        self.asked = end;
        self.last = self.jobs;
        self.jobs = next(self.last);
        self.core = core;
        let note = Asked { header, end, kind, core }.note();
        Ok(self.exchange.say(Side::Holder, self.jobs, note)?)
    }

    /// Whether there is an answer to what was asked, or never will be; waits until `then`.
    pub(super) fn is_answered(&self, process: &Process, then: Instant) -> bool {
        !matches!(
            self.exchange.hear(Side::Box, self.last, Some(then), || process.is_gone()),
            Ok(Err(TimedOut))
        )
    }

    /// Waits until the run is `due` for the outputs `wanted` of what was asked. No more than `limit` bytes of tensors are
    /// read.
    pub(super) fn answer(
        &mut self,
        process: &Arc<Process>,
        wanted: &[(String, DataType)],
        due: Instant,
        limit: u64,
    ) -> Result<Outcome, Broken> {
        let stop = Control::Stop { lane: self.index, job: u64::from(self.jobs) }.message();
        let stopping = Arc::clone(process);
        // A box that is gone needs no telling.
        let _stoppable = stop::stoppable(move || drop(channel::tell(&stopping.control, stop)));
        let hear = |due| self.exchange.hear(Side::Box, self.last, Some(due), || process.is_gone());
        let (heard, late) = match hear(due)? {
            Ok(heard) => (heard, false),
            Err(TimedOut) => {
                channel::tell(&process.control, stop)?;
                let heard = hear(Instant::now().checked_add(GRACE).unwrap_or(due))?;
                (heard.map_err(|TimedOut| Broken::Timeout)?, true)
            }
        };
        let (job, note) = heard;
        let Answered { at, len, batched, micros } = Answered::of(note);
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
            // Nor was it looked at where that is.
            Err(Ended::TooLong(_)) => self.exchange.erase_all()?,
            _ => {
                self.exchange.erase(START as u64..self.asked)?;
                self.exchange.erase(at.max(START as u64)..used)?;
            }
        }
        Ok(Outcome { result, batched, took: Duration::from_micros(micros) })
    }

    /// Puts a request into the memory; how long its head is, and where it ends.
    fn write(&self, inputs: &[(String, Tensor<'_>)], outputs: &[String]) -> Result<(u64, u64), Broken> {
        let start = START as u64;
        // It is as long wherever it says its tensors are.
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

/// The core that asks, if the run is to be there.
pub(super) fn core(place: Where) -> u64 {
    match place {
        Where::Here => sched_getcpu() as u64,
        Where::Anywhere => ANYWHERE,
    }
}

/// How long a run that is told to stop may take to do so before its box is ended.
const GRACE: Duration = Duration::from_millis(500);

/// What says where an answer's tensors are.
const LONGEST_HEADER: usize = 16 << 20;
