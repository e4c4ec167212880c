//! A model and its sessions.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use confonnx_tensor::{DataType, Tensor};
use ort::{
    session::{OutputSelector, RunOptions, Session, SessionInputValue},
    value::{Outlet, ValueType},
};

use crate::{
    batch::{Batcher, NotBatched},
    check,
    convert::{self, Aligned},
    error::{Category, EngineError, InferError},
    recent::Recent,
    runtime::Runtime,
    sessions::{self, Arrangement, Sessions},
    trial,
};

/// What one input or output of a model looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DataType,
    /// Dimensions; -1 is dynamic. Empty for a scalar and also for an unknown rank, which ONNX Runtime tells alike.
    pub shape: Vec<i64>,
}

/// How to run a model.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// How many requests can run at once; each has a session, and its own copy of the weights. At least one is made.
    pub sessions: usize,
    /// Threads inside one operator of each session; none lets [`Arrangement`] say.
    pub threads_per_session: Option<usize>,
    /// The model's external data: location as written in the model, and content. Nothing else is ever read.
    pub external_data: Vec<(String, Arc<[u8]>)>,
    /// Whether requests may be batched, and how.
    pub batch: Option<Batching>,
}

/// How requests are batched along their first dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// The largest batch, 1 or more.
    pub max_batch_size: usize,
    /// Sizes that are run without waiting for more; none: only the largest.
    pub preferred: Vec<usize>,
    /// How long a request waits for others.
    pub max_delay: Duration,
}

/// A loaded model with its pool of sessions.
#[derive(Debug)]
pub struct Model {
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    ports: Vec<Port>,
    sessions: Sessions,
    batcher: Option<Batcher>,
    not_batched: Option<NotBatched>,
    recent: Recent,
}

/// An input, with the names of its dynamic dimensions (empty: none).
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) info: TensorInfo,
    pub(crate) symbols: Vec<String>,
}

impl Model {
    /// Makes the sessions for the model in `onnx`, the content of an `.onnx` file.
    ///
    /// # Errors
    /// [`EngineError`] when the bytes are not a model, or it needs what this runtime does not have.
    pub fn load(runtime: &Runtime, onnx: &[u8], options: &ModelOptions) -> Result<Self, EngineError> {
        let make = |width| sessions::make(runtime, onnx, &options.external_data, width);
        let mut plan = Arrangement::new(options.sessions, options.threads_per_session);
        let mut first = make(plan.each())?;
        let ports: Vec<Port> =
            first.inputs().iter().map(|outlet| port("input", outlet)).collect::<Result<_, _>>()?;
        let outputs: Vec<TensorInfo> = first
            .outputs()
            .iter()
            .map(|outlet| Ok(port("output", outlet)?.info))
            .collect::<Result<_, _>>()?;
        let inputs: Vec<TensorInfo> = ports.iter().map(|port| port.info.clone()).collect();
        let mut alone = plan.alone().map(make).transpose()?;
        if let Some(wide) = &mut alone {
            let one = trial::one(&inputs);
            let answers = |session| one.as_ref().and_then(|one| infer(session, &outputs, one, &[]).ok());
            if answers(&mut first).is_none_or(|answer| answers(wide) != Some(answer)) {
                (plan, alone) = (plan.without_alone(), None);
                first = make(plan.each())?;
            }
        }
        let mut each = vec![first];
        for _ in 1..plan.sessions() {
            each.push(make(plan.each())?);
        }
        let sessions = Sessions::new(plan, each, alone);
        let mut model = Self {
            inputs,
            outputs,
            ports,
            sessions,
            batcher: None,
            not_batched: None,
            recent: Recent::default(),
        };
        match options.batch.as_ref().map(|batch| Batcher::new(&model, batch.clone())) {
            None => {}
            Some(Ok(batcher)) => model.batcher = Some(batcher),
            Some(Err(reason)) => model.not_batched = Some(reason),
        }
        Ok(model)
    }

    /// How the cores are shared out.
    pub fn arrangement(&self) -> Arrangement {
        self.sessions.arrangement()
    }

    /// The most rows that are batched: 1 if [`ModelOptions::batch`] does not ask for more.
    ///
    /// # Errors
    /// [`NotBatched`]: why there are no batches although it does.
    pub fn largest_batch(&self) -> Result<usize, &NotBatched> {
        self.not_batched.as_ref().map_or_else(|| Ok(self.batcher.as_ref().map_or(1, Batcher::largest)), Err)
    }

    /// How many requests were answered together with others so far.
    pub fn batched_requests(&self) -> u64 {
        self.batcher.as_ref().map_or(0, Batcher::together)
    }

    /// The inputs every request has to give.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// The outputs a request can ask for.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// Whether the next run is likely to take no more than 500 µs, by those of late.
    pub fn is_brief(&self) -> bool {
        self.recent.is_brief()
    }

    /// Runs the model on the calling thread, which waits while all sessions are busy.
    ///
    /// `outputs` names the outputs wanted, in the order wanted; empty means all, in the model's order.
    ///
    /// # Errors
    /// [`InferError`] when a name, type, shape or value does not fit the model, or the model fails on them.
    pub fn run(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
        check::inputs(&self.ports, inputs)?;
        check::outputs(&self.outputs, outputs)?;
        match &self.batcher {
            Some(batcher) => batcher.run(self, inputs, outputs),
            None => self.run_on(&mut self.sessions.take(), inputs, outputs),
        }
    }

    /// [`run`](Self::run) for a request that is the only one, as far as its caller knows: it gets all cores, if
    /// [`Arrangement`] provides for that and runs are long enough to gain by it. The answer is the same.
    ///
    /// # Errors
    /// [`InferError`] as for [`run`](Self::run).
    pub fn run_alone(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
        let all_cores = if self.is_brief() { None } else { self.sessions.take_all_cores() };
        match all_cores {
            Some(mut session) => {
                check::inputs(&self.ports, inputs)?;
                check::outputs(&self.outputs, outputs)?;
                self.run_on(&mut session, inputs, outputs)
            }
            None => self.run(inputs, outputs),
        }
    }

    pub(crate) fn ports(&self) -> &[Port] {
        &self.ports
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Runs what was checked on `session`.
    pub(crate) fn run_on(
        &self,
        session: &mut Session,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
        let start = Instant::now();
        let answer = infer(session, &self.outputs, inputs, outputs);
        self.recent.record(start.elapsed());
        answer
    }
}

/// Asks `session` for `wanted`, or for all of the model's outputs, which are `offered`.
fn infer(
    session: &mut Session,
    offered: &[TensorInfo],
    inputs: &[(String, Tensor<'_>)],
    wanted: &[String],
) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
    let aligned: Vec<(&str, Aligned<'_>)> =
        inputs.iter().map(|(name, tensor)| (name.as_str(), Aligned::new(tensor))).collect();
    let values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = aligned
        .iter()
        .map(|(name, tensor)| Ok((Cow::from(*name), tensor.value()?)))
        .collect::<ort::Result<_>>()
        .map_err(failed)?;

    let names: Vec<&str> = match wanted {
        [] => offered.iter().map(|output| output.name.as_str()).collect(),
        _ => wanted.iter().map(String::as_str).collect(),
    };
    let selector = names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(*name));
    let run_options = RunOptions::new().map_err(failed)?.with_outputs(selector);
    let results = session.run_with_options(values, &run_options).map_err(failed)?;
    let mut answers = Vec::with_capacity(names.len());
    for name in names {
        let tensor = results.get(name).and_then(convert::output);
        answers
            .push((name.to_owned(), tensor.ok_or_else(|| InferError::OutputType { name: name.to_owned() })?));
    }
    Ok(answers)
}

fn port(direction: &'static str, outlet: &Outlet) -> Result<Port, EngineError> {
    let refused = || EngineError::InputOutput {
        direction,
        name: outlet.name().to_owned(),
        found: outlet.dtype().to_string(),
    };
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else { return Err(refused()) };
    let dtype = convert::data_type(*ty).ok_or_else(refused)?;
    let info = TensorInfo { name: outlet.name().to_owned(), dtype, shape: shape.to_vec() };
    Ok(Port { info, symbols: dimension_symbols.to_vec() })
}

fn failed<R>(error: ort::Error<R>) -> InferError {
    InferError::Runtime(Category::from(&error))
}
