//! The box itself: a process that has ONNX Runtime, one model, and requests' tensors. Whatever goes wrong with the key
//! holder ends it.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use confonnx_device::Mapping;
use confonnx_tensor::Tensor;

use super::{
    channel::{self, Message},
    message::{Control, Said},
    sandbox,
    wire::{self, Answer, Facts, Failure, Garbled, Job, Order, Part},
};
use crate::{
    error::InferError,
    memory,
    model::{Model, ModelOptions},
    runtime::{Library, Runtime},
    stop::Stop,
};

/// Runs a box, asked by standard input. What `confonnx-server engine-box` does; of no use to anyone else.
pub fn run() -> ExitCode {
    // A panic's message could quote what it met.
    std::panic::set_hook(Box::new(|_| {}));
    match serve() {
        // The key holder went.
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> io::Result<()> {
    let held = sandbox::at_the_start();
    let control = Arc::new(io::stdin().as_fd().try_clone_to_owned()?);
    let (message, fds) = channel::hear_with(&control)?;
    let order = Control::of(message).ok_or(io::ErrorKind::InvalidData)?;
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(io::Error::from(io::ErrorKind::InvalidData));
    let (library, report) = (Library::received(next()?), next()?);
    let prepared = held.map_err(|error| error.to_string()).and_then(|()| {
        let memory = if let Control::Load { memory, .. } = order { memory } else { 0 };
        let landlocked = sandbox::before_the_library(memory).map_err(|error| error.to_string())?;
        let runtime = Runtime::open(&library).map_err(|error| error.to_string())?;
        sandbox::before_the_model().map_err(|error| error.to_string())?;
        Ok((runtime, landlocked))
    });
    drop(library);
    let (runtime, landlocked) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return refuse(&control, &report, &why),
    };
    match order {
        Control::Probe => match sandbox::before_requests() {
            Ok(()) => channel::tell(&control, Said::Held { landlocked }.message()),
            Err(error) => refuse(&control, &report, &error.to_string()),
        },
        Control::Load { order_len, model_len, data_len, .. } => {
            let files = Files { order: next()?, model: next()?, data: next()? };
            let model = match load(&runtime, files, [order_len, model_len, data_len]) {
                Ok(model) => model,
                Err(why) => return refuse(&control, &report, &why),
            };
            let facts = Facts {
                inputs: model.inputs().to_vec(),
                optional: model.optional_inputs().to_vec(),
                outputs: model.outputs().to_vec(),
                arrangement: model.arrangement().to_string(),
                largest_batch: model.largest_batch().map_err(ToString::to_string),
            };
            let facts = facts.encode();
            memory::write_all(&report, &[&facts], 0)?;
            drop(report);
            channel::tell(&control, Said::Loaded { len: facts.len() as u64 }.message())?;
            obey(&control, Arc::new(model))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn refuse(control: &OwnedFd, report: &OwnedFd, why: &str) -> io::Result<()> {
    let why = wire::plain(why);
    memory::write_all(report, &[why.as_bytes()], 0)?;
    channel::tell(control, Said::Refused { len: why.len() as u64 }.message())
}

struct Files {
    order: OwnedFd,
    model: OwnedFd,
    data: OwnedFd,
}

fn load(runtime: &Runtime, files: Files, lens: [u64; 3]) -> Result<Model, String> {
    let map = |file: &OwnedFd, len: u64| {
        let len = usize::try_from(len).map_err(|error| error.to_string())?;
        if len == 0 { Ok(None) } else { Mapping::new(file, len).map(Some).map_err(|error| error.to_string()) }
    };
    let [order_len, model_len, data_len] = lens;
    let (order, onnx, data) =
        (map(&files.order, order_len)?, map(&files.model, model_len)?, map(&files.data, data_len)?);
    let bytes = |mapping: &Option<Mapping>| mapping.as_ref().map(Mapping::bytes).unwrap_or_default().to_vec();
    let order = Order::decode(&bytes(&order)).map_err(|error| error.to_string())?;
    let data = data.as_ref().map(Mapping::bytes).unwrap_or_default();
    let external = order.external.into_iter().map(|(location, range)| {
        let content = slice(data, &range).ok_or(Garbled).map_err(|error| error.to_string())?;
        Ok((location, Arc::from(content)))
    });
    let options = ModelOptions {
        sessions: order.sessions,
        threads_per_session: order.threads_per_session,
        external_data: external.collect::<Result<_, String>>()?,
        batch: order.batch,
        free_width: order.free_width,
    };
    let onnx = onnx.as_ref().map(Mapping::bytes).unwrap_or_default();
    Model::load(runtime, onnx, &options).map_err(|error| error.to_string())
}

/// What stops the requests that run, by lane and number.
type Running = Arc<Mutex<HashMap<(u64, u64), Stop>>>;

fn obey(control: &OwnedFd, model: Arc<Model>) -> io::Result<()> {
    let running = Running::default();
    let mut lanes = Vec::new();
    loop {
        let (message, fds) = match channel::hear_with(control) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            heard => heard?,
        };
        let mut fds = fds.into_iter();
        match (Control::of(message), fds.next(), fds.next()) {
            (Some(Control::Lane { index }), Some(socket), Some(memory)) => {
                lanes.push(Lane { index, socket, memory, mapping: None, running: Arc::clone(&running) });
            }
            (Some(Control::Begin), ..) => {
                sandbox::before_requests().map_err(io::Error::other)?;
                for mut lane in lanes.drain(..) {
                    let model = Arc::clone(&model);
                    thread::Builder::new().name(format!("lane-{}", lane.index)).spawn(move || {
                        // Whatever ends it, its socket closes, and the key holder ends the box.
                        let _ = lane.serve(&model);
                    })?;
                }
                channel::tell(control, Said::Held { landlocked: false }.message())?;
            }
            (Some(Control::Stop { lane, job }), ..) => {
                // It may be here before its request: that finds itself stopped.
                let stop = running
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry((lane, job))
                    .or_default()
                    .clone();
                stop.stop();
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Where requests come from, one at a time.
struct Lane {
    index: u64,
    socket: OwnedFd,
    memory: OwnedFd,
    mapping: Option<Mapping>,
    running: Running,
}

impl Lane {
    fn serve(&mut self, model: &Model) -> io::Result<()> {
        loop {
            let [job, header_len, end, alone, _] = channel::hear(&self.socket)?;
            let reply = self.answer(model, (self.index, job), header_len, end, alone != 0)?;
            let (at, len) = reply;
            let said: Message = [job, at, len, model.batched_requests(), 0];
            channel::tell(&self.socket, said)?;
        }
    }

    /// Runs the request whose head is the first bytes of the memory, and whose tensors end at `end`. Where the answer is.
    fn answer(
        &mut self,
        model: &Model,
        id: (u64, u64),
        header_len: u64,
        end: u64,
        alone: bool,
    ) -> io::Result<(u64, u64)> {
        let end_here = usize::try_from(end).map_err(io::Error::other)?;
        if self.mapping.as_ref().is_none_or(|mapping| mapping.bytes().len() < end_here) {
            self.mapping = None;
            let len = end_here.max(SMALLEST_MAPPING).checked_next_power_of_two().unwrap_or(end_here);
            self.mapping = Some(Mapping::new(&self.memory, len)?);
        }
        let mapped = self.mapping.as_ref().and_then(|mapping| mapping.bytes().get(..end_here));
        let memory = mapped.unwrap_or_default();
        let header = slice(memory, &(0..header_len)).ok_or(io::ErrorKind::InvalidData)?;
        let job = Job::decode(header).map_err(io::Error::other)?;
        let inputs = job.inputs.into_iter().map(|(name, part)| {
            let bytes = slice(memory, &part.bytes).ok_or(io::ErrorKind::InvalidData)?;
            let tensor = Tensor::new(part.dtype, part.shape, bytes).map_err(io::Error::other)?;
            Ok((name, tensor))
        });
        let inputs = inputs.collect::<io::Result<Vec<_>>>()?;
        let stop = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            // Those of this lane that were to be stopped when they had ended.
            running.retain(|(lane, job), _| (*lane, *job) == id || *lane != id.0);
            running.entry(id).or_default().clone()
        };
        let run = if alone { Model::run_alone } else { Model::run };
        let outcome = stop.during(|| run(model, &inputs, &job.outputs));
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let at = wire::aligned(end).ok_or(io::ErrorKind::InvalidData)?;
        match outcome {
            Ok(outputs) => self.write(at, &outputs),
            Err(error) => {
                let failure = match &error {
                    _ if stop.is_stopped() => Failure::Stopped,
                    InferError::Runtime(_) | InferError::OutputType { .. } => Failure::Model,
                    _ => Failure::Input,
                };
                let said = Answer::Failed(failure, error.to_string()).encode();
                memory::write_all(&self.memory, &[&said], at)?;
                Ok((at, said.len() as u64))
            }
        }
    }

    /// Writes the answer from `at` on: what there is, then the tensors.
    fn write(&self, at: u64, outputs: &[(String, Tensor<'_>)]) -> io::Result<(u64, u64)> {
        let lay_out = |start| {
            let mut end = start;
            let parts = outputs.iter().map(|(_, tensor)| Part::after(&mut end, tensor));
            parts.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)
        };
        // A part has the same length wherever it says its tensor is.
        let len = Answer::Done(lay_out(at)?).encode().len() as u64;
        let parts = lay_out(at.saturating_add(len))?;
        let head = Answer::Done(parts.clone()).encode();
        let mut slices: Vec<&[u8]> = vec![&head];
        let mut end = at.saturating_add(len);
        for (part, (_, tensor)) in parts.iter().zip(outputs) {
            let gap = usize::try_from(part.bytes.start.saturating_sub(end)).unwrap_or_default();
            slices.push(wire::gap(gap));
            slices.push(tensor.data());
            end = part.bytes.end;
        }
        memory::write_all(&self.memory, &slices, at)?;
        Ok((at, len))
    }
}

fn slice<'b>(bytes: &'b [u8], range: &std::ops::Range<u64>) -> Option<&'b [u8]> {
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

const SMALLEST_MAPPING: usize = 1 << 16;
