//! The box itself: a process that has ONNX Runtime, one model, and requests' tensors. Whatever goes wrong with the key
//! holder ends it.

use std::{
    collections::HashMap,
    io, mem,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{self, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use confonnx_device::{Bell, Mapping};
use confonnx_tensor::Tensor;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{
    channel,
    exchange::{ANSWERS, Exchange, START, Side, WINDOW},
    message::{ANYWHERE, Answered, Asked, Control, Kind, Said},
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
    let mut order = Control::of(message).ok_or(io::ErrorKind::InvalidData)?;
    let (Control::Prepare { memory } | Control::Load { memory, .. }) = order else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(io::Error::from(io::ErrorKind::InvalidData));
    let (library, mut report) = (Library::received(next()?)?, next()?);
    let prepared = held.map_err(|error| error.to_string()).and_then(|()| {
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
    if let Control::Prepare { .. } = order {
        channel::tell(&control, Said::Held { landlocked }.message())?;
        let (message, more) = match channel::hear_with(&control) {
            // No model came.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            heard => heard?,
        };
        order = Control::of(message).ok_or(io::ErrorKind::InvalidData)?;
        fds = more.into_iter();
        drop(fds.next());
        report = fds.next().ok_or(io::ErrorKind::InvalidData)?;
    }
    let mut next = || fds.next().ok_or(io::Error::from(io::ErrorKind::InvalidData));
    match order {
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
    let content = |range: &Range<u64>| {
        let content = slice(data, range).ok_or(Garbled).map_err(|error| error.to_string())?;
        Ok::<_, String>(Arc::from(content))
    };
    let external = order.external.into_iter().map(|(location, range)| Ok((location, content(&range)?)));
    let options = ModelOptions {
        sessions: order.sessions,
        threads_per_session: order.threads_per_session,
        external_data: external.collect::<Result<_, String>>()?,
        encoder: order.encoder.as_ref().map(content).transpose()?,
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
            (Some(Control::Lane { index }), Some(file), Some(bell)) => {
                let exchange = Arc::new(Exchange::of(file, Bell::of(bell))?);
                let running = Arc::clone(&running);
                lanes.push((
                    Arc::clone(&exchange),
                    Mutex::new(Lane { index, exchange, last: 0, mapping: None, running }),
                ));
            }
            (Some(Control::Begin { threads }), ..) => {
                sandbox::before_requests().map_err(io::Error::other)?;
                let lanes: Arc<Lanes> = Arc::new(mem::take(&mut lanes));
                let threads = usize::try_from(threads).map_err(io::Error::other)?;
                for own in 0..threads.min(lanes.len()) {
                    let (lanes, model) = (Arc::clone(&lanes), Arc::clone(&model));
                    thread::Builder::new().name(format!("lane-{own}")).spawn(move || {
                        // The key holder ends the requests of a box that ends, and starts another.
                        let _ = catch_unwind(AssertUnwindSafe(|| serve_lanes(&lanes, own, &model)));
                        process::abort()
                    })?;
                }
                channel::tell(control, Said::Held { landlocked: false }.message())?;
            }
            (Some(Control::Stop { lane, job }), ..) => {
                // The order may arrive before its request, which then finds itself stopped.
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

/// Where an answer is: its head, and as many bytes of tensors after that.
struct Written {
    at: u64,
    len: u64,
    bytes: u64,
}

/// All that a box has, each with what its threads knock and rest at.
type Lanes = Vec<(Arc<Exchange>, Mutex<Lane>)>;

/// Where requests come from, one at a time.
struct Lane {
    index: u64,
    exchange: Arc<Exchange>,
    /// The number of the last request.
    last: u32,
    mapping: Option<Mapping>,
    running: Running,
}

/// Where a thread is.
struct Place {
    /// The one core that the thread is on, or [`ANYWHERE`].
    core: u64,
    /// All cores that the thread may be on.
    cores: Option<CpuSet>,
}

/// Answers requests of any lane; rests at the lane `own` when there are none.
fn serve_lanes(lanes: &Lanes, own: usize, model: &Model) -> io::Result<()> {
    let (before, from) = lanes.split_at_checked(own).ok_or(io::ErrorKind::InvalidInput)?;
    let (home, _) = from.first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut place = Place { core: ANYWHERE, cores: sched_getaffinity(None).ok() };
    loop {
        let knocks = home.knocks()?;
        let mut found = false;
        for (_, lane) in from.iter().chain(before) {
            // A thread that has the lane already answers what is there.
            let Ok(mut lane) = lane.try_lock() else { continue };
            found |= lane.serve(model, &mut place)?;
        }
        if !found {
            home.rest(knocks)?;
        }
    }
}

impl Place {
    /// Has the next requests find this thread on `core`. Where the system does not let it, they only take longer.
    fn go_to(&mut self, core: u64) {
        if core == self.core {
            return;
        }
        let there = usize::try_from(core).ok().filter(|core| *core < CpuSet::MAX_CPU).map(|core| {
            let mut set = CpuSet::new();
            set.set(core);
            set
        });
        if let Some(set) = there.or(self.cores) {
            let _ = sched_setaffinity(None, &set);
        }
        self.core = core;
    }
}

impl Lane {
    /// Answers the lane's request, if there is a new one.
    fn serve(&mut self, model: &Model, place: &mut Place) -> io::Result<bool> {
        let Some((job, note)) = self.exchange.heard(Side::Holder, self.last)? else { return Ok(false) };
        self.last = job;
        self.exchange.begin(job)?;
        let asked = Asked::of(note).ok_or(io::ErrorKind::InvalidData)?;
        place.go_to(asked.core);
        let start = Instant::now();
        let Written { at, len, bytes } = self.answer(model, u64::from(job), &asked)?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let answered = Answered { at, len, batched: model.batched_requests(), micros, bytes };
        self.exchange.say(Side::Box, job, answered.note())?;
        self.exchange.bell().ring();
        if model.gave_back() {
            confonnx_device::give_memory_back();
        }
        Ok(true)
    }

    /// Runs the request that is in the memory; returns where the answer is.
    fn answer(&mut self, model: &Model, job: u64, asked: &Asked) -> io::Result<Written> {
        let id = (self.index, job);
        let end_here = usize::try_from(asked.end).map_err(io::Error::other)?;
        if self.mapping.as_ref().is_none_or(|mapping| mapping.bytes().len() < end_here) {
            self.mapping = None;
            let len = end_here.max(WINDOW).checked_next_power_of_two().unwrap_or(end_here);
            self.mapping = Some(Mapping::new(self.exchange.file(), len)?);
        }
        let mapped = self.mapping.as_ref().and_then(|mapping| mapping.bytes().get(..end_here));
        let memory = mapped.unwrap_or_default();
        let start = START as u64;
        let header = slice(memory, &(start..start.saturating_add(asked.header)));
        let header = header.ok_or(io::ErrorKind::InvalidData)?;
        let job = Job::decode(header).map_err(io::Error::other)?;
        let inputs = job.inputs.into_iter().map(|(name, part)| {
            let bytes = slice(memory, &part.bytes).ok_or(io::ErrorKind::InvalidData)?;
            let tensor = Tensor::new(part.dtype, part.shape, bytes).map_err(io::Error::other)?;
            Ok((name, tensor))
        });
        let inputs = inputs.collect::<io::Result<Vec<_>>>()?;
        let stop = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            // Orders to stop earlier requests of this lane came after these had ended.
            running.retain(|(lane, job), _| (*lane, *job) == id || *lane != id.0);
            running.entry(id).or_default().clone()
        };
        let outcome = stop.during(|| match asked.kind {
            Kind::Run => model.run(&inputs, &job.outputs),
            Kind::RunAlone => model.run_alone(&inputs, &job.outputs),
            Kind::Step => model.step(&inputs),
        });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        match outcome {
            Ok(outputs) => self.write(asked.end, &outputs),
            Err(error) => {
                let failure = match &error {
                    _ if stop.is_stopped() => Failure::Stopped,
                    InferError::Runtime(_) | InferError::OutputType { .. } => Failure::Model,
                    _ => Failure::Input,
                };
                let said = Answer::Failed(failure, error.to_string()).encode();
                let len = said.len() as u64;
                let at = after(asked.end, len).ok_or(io::ErrorKind::InvalidData)?;
                self.exchange.write(&[&said], at)?;
                Ok(Written { at, len, bytes: 0 })
            }
        }
    }

    /// Writes the answer to a request that ends at `end`: what there is, then the tensors.
    fn write(&self, end: u64, outputs: &[(String, Tensor<'_>)]) -> io::Result<Written> {
        let lay_out = |start| {
            let mut end = start;
            let parts = outputs.iter().map(|(_, tensor)| Part::after(&mut end, tensor));
            let parts = parts.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
            Ok::<_, io::Error>((parts, end))
        };
        // A part has the same length wherever it says its tensor is.
        let (parts, whole) = lay_out(0)?;
        let len = Answer::Done(parts).encode().len() as u64;
        let most = whole.saturating_add(len).saturating_add(wire::ALIGNMENT);
        let at = after(end, most).ok_or(io::ErrorKind::InvalidData)?;
        let (parts, _) = lay_out(at.saturating_add(len))?;
        let head = Answer::Done(parts.clone()).encode();
        let mut slices: Vec<&[u8]> = vec![&head];
        let mut end = at.saturating_add(len);
        for (part, (_, tensor)) in parts.iter().zip(outputs) {
            let gap = usize::try_from(part.bytes.start.saturating_sub(end)).unwrap_or_default();
            slices.push(wire::gap(gap));
            slices.push(tensor.data());
            end = part.bytes.end;
        }
        self.exchange.write(&slices, at)?;
        Ok(Written { at, len, bytes: whole })
    }
}

fn slice<'b>(bytes: &'b [u8], range: &std::ops::Range<u64>) -> Option<&'b [u8]> {
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// Where an answer of `len` bytes begins whose request ends at `end`: in the window, if there is room.
fn after(end: u64, len: u64) -> Option<u64> {
    let (answers, window) = (ANSWERS as u64, WINDOW as u64);
    let fits = len <= window.saturating_sub(answers);
    if fits && end <= answers {
        return Some(answers);
    }
    wire::aligned(end)
}
