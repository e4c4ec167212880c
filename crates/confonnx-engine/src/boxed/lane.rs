//! A way for one request at a time into a box and its answer out.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use confonnx_tensor::{DataType, Tensor};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{
    channel,
    message::Control,
    process::Process,
    wire::{self, Answer, Failure, Garbled, Job},
};
use crate::{error::InferError, memory, stop};

/// The key holder's end: a socket that wakes the other side, and memory for tensors. It maps none of it: what it reads
/// are copies that nobody changes any more.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) index: u64,
    socket: OwnedFd,
    memory: OwnedFd,
    jobs: u64,
}

/// The box's end, to be sent.
pub(super) struct FarEnd {
    socket: OwnedFd,
    memory: OwnedFd,
}

/// Named tensors of an answer, and how many requests the box says it has batched so far.
pub(super) type Outcome = (Result<Vec<(String, Tensor<'static>)>, InferError>, u64);

/// Why a lane, and the box with it, is of no use any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// The box ended, or says what it was not asked.
    Crashed,
    /// It does not stop.
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

impl FarEnd {
    pub(super) fn fds(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.socket.as_fd(), self.memory.as_fd())
    }
}

impl Lane {
    pub(super) fn new(index: u64, timeout: Duration) -> io::Result<(Self, FarEnd)> {
        let (socket, theirs) = channel::pair()?;
        set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
        let memory = memory::growing("tensors")?;
        let far = FarEnd { socket: theirs, memory: memory.try_clone()? };
        Ok((Self { index, socket, memory, jobs: 0 }, far))
    }

    /// Asks for the outputs `wanted`, which are all of the model's if `outputs` is empty, and waits.
    pub(super) fn ask(
        &mut self,
        process: &Arc<Process>,
        (inputs, outputs): (&[(String, Tensor<'_>)], &[String]),
        wanted: &[(&str, DataType)],
        alone: bool,
        timeout: Duration,
    ) -> Result<Outcome, Broken> {
        let end = self.write(inputs, outputs)?;
        self.jobs = self.jobs.wrapping_add(1);
        let (header, end) = end;
        channel::tell(&self.socket, [self.jobs, header, end, u64::from(alone), 0])?;
        let stop = Control::Stop { lane: self.index, job: self.jobs }.message();
        let stopping = Arc::clone(process);
        // A box that is gone needs no telling.
        let _stoppable = stop::stoppable(move || drop(channel::tell(&stopping.control, stop)));
        let (heard, late) = match channel::hear(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                channel::tell(&process.control, stop)?;
                set_socket_timeout(&self.socket, Timeout::Recv, Some(GRACE)).map_err(io::Error::from)?;
                let heard = channel::hear(&self.socket).map_err(|_| Broken::Timeout)?;
                set_socket_timeout(&self.socket, Timeout::Recv, Some(timeout)).map_err(io::Error::from)?;
                (heard, true)
            }
            heard => (heard?, false),
        };
        let [job, at, len, batched, _] = heard;
        let len = usize::try_from(len).ok().filter(|len| *len <= LONGEST_HEADER).ok_or(Broken::Crashed)?;
        if job != self.jobs {
            return Err(Broken::Crashed);
        }
        let types: Vec<DataType> = wanted.iter().map(|(_, dtype)| *dtype).collect();
        let answer = Answer::decode(&memory::read(&self.memory, len, at)?, &types, LARGEST_ANSWER)?;
        let mut used = end.max(at.saturating_add(len as u64));
        let result = match answer {
            Answer::Done(parts) => {
                let mut tensors = Vec::with_capacity(parts.len());
                for (part, (name, _)) in parts.into_iter().zip(wanted) {
                    let len = usize::try_from(part.len()).map_err(|_| Broken::Crashed)?;
                    let bytes = memory::read(&self.memory, len, part.bytes.start)?;
                    used = used.max(part.bytes.end);
                    let tensor = Tensor::new(part.dtype, part.shape, bytes).map_err(|_| Broken::Crashed)?;
                    tensors.push(((*name).to_owned(), tensor));
                }
                Ok(tensors)
            }
            Answer::Failed(Failure::Stopped, _) if late => {
                Err(InferError::Timeout { seconds: timeout.as_secs() })
            }
            Answer::Failed(Failure::Input, text) => Err(InferError::BoxedInput(text)),
            Answer::Failed(Failure::Model | Failure::Stopped, text) => Err(InferError::BoxedRun(text)),
        };
        memory::erase(&self.memory, used)?;
        Ok((result, batched))
    }

    /// Puts a request into the memory; how long its head is, and where it ends.
    fn write(&self, inputs: &[(String, Tensor<'_>)], outputs: &[String]) -> Result<(u64, u64), Broken> {
        // It is as long wherever it says its tensors are.
        let len = Job::lay_out(inputs, outputs, 0)?.encode().len() as u64;
        let job = Job::lay_out(inputs, outputs, len)?;
        let header = job.encode();
        let (mut slices, mut end) = (vec![&header[..]], len);
        for ((_, part), (_, tensor)) in job.inputs.iter().zip(inputs) {
            let gap = usize::try_from(part.bytes.start.saturating_sub(end)).unwrap_or_default();
            slices.push(wire::gap(gap));
            slices.push(tensor.data());
            end = part.bytes.end;
        }
        memory::write_all(&self.memory, &slices, 0)?;
        Ok((len, end))
    }
}

/// How long a run that is told to stop may take to do so before its box is ended.
const GRACE: Duration = Duration::from_millis(500);

/// What says where an answer's tensors are.
const LONGEST_HEADER: usize = 16 << 20;

/// All of an answer's tensors.
const LARGEST_ANSWER: u64 = 4 << 30;
