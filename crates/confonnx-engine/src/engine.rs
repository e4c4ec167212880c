//! Where models run: in this process, or each in a box of its own.

use std::{cell::OnceCell, thread, time::Duration};

use confonnx_tensor::{Erased, Tensor};
use tokio::runtime::{Builder, Handle, Runtime as Waiting};

use crate::{
    boxed::{BoxedModel, Boxes, Deaths, Reserved},
    decoder::{Decoder, Feed, Order},
    error::{EngineError, InferError},
    model::{Model, ModelOptions},
    port::TensorInfo,
    run::Answer,
    runtime::Runtime,
    stop::Stop,
};

/// What runs models.
#[derive(Clone, Debug)]
pub enum Engine {
    /// ONNX Runtime in this process, with all it holds: for TEEs that have one process.
    InProcess(Runtime),
    /// A process for each model.
    Isolated(Boxes),
}

/// A model that is loaded.
#[derive(Debug)]
pub enum LoadedModel {
    /// In this process.
    InProcess(Box<Model>),
    /// In a process of its own.
    Isolated(Box<BoxedModel>),
}

impl Engine {
    /// For the claims: `in-process`, `isolated`, or `isolated-without-landlock`, where the kernel has none: there a model can
    /// look at files that anyone may read while it is loaded.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::InProcess(_) => "in-process",
            Self::Isolated(boxes) if boxes.are_landlocked() => "isolated",
            Self::Isolated(_) => "isolated-without-landlock",
        }
    }

    /// ONNX Runtime's version.
    pub fn version(&self) -> &str {
        match self {
            Self::InProcess(runtime) => runtime.version(),
            Self::Isolated(boxes) => boxes.library().version(),
        }
    }

    /// SHA-256 of ONNX Runtime's library.
    pub fn sha256(&self) -> [u8; 32] {
        match self {
            Self::InProcess(runtime) => runtime.sha256(),
            Self::Isolated(boxes) => boxes.library().sha256(),
        }
    }

    /// Loads the model in `onnx`, which is called `name` in the log. In a box, a run ends after `timeout`.
    ///
    /// # Errors
    /// [`EngineError`] when it is not a model that this ONNX Runtime runs.
    pub fn load(
        &self,
        name: &str,
        onnx: &[u8],
        options: &ModelOptions,
        timeout: Duration,
    ) -> Result<LoadedModel, EngineError> {
        Ok(match self {
            Self::InProcess(runtime) => {
                // Whoever asked for the model may be gone before it is tried.
                let load = || Model::load(runtime, onnx, options);
                LoadedModel::InProcess(Box::new(Stop::default().during(load)?))
            }
            Self::Isolated(boxes) => {
                LoadedModel::Isolated(Box::new(boxes.load(name, onnx, options, timeout)?))
            }
        })
    }
}

impl LoadedModel {
    /// How the cores are shared out.
    pub fn arrangement(&self) -> String {
        match self {
            Self::InProcess(model) => model.arrangement().to_string(),
            Self::Isolated(model) => model.arrangement().to_owned(),
        }
    }

    /// The most rows that are batched: 1 if that was not asked for.
    ///
    /// # Errors
    /// Why there are no batches although it was.
    pub fn largest_batch(&self) -> Result<usize, String> {
        match self {
            Self::InProcess(model) => model.largest_batch().map_err(ToString::to_string),
            Self::Isolated(model) => model.largest_batch().map_err(str::to_owned),
        }
    }

    /// How many requests were answered together with others so far.
    pub fn batched_requests(&self) -> u64 {
        match self {
            Self::InProcess(model) => model.batched_requests(),
            Self::Isolated(model) => model.batched_requests(),
        }
    }

    /// How often the model's process ended, if it has one of its own.
    pub fn deaths(&self) -> Option<Deaths> {
        match self {
            Self::InProcess(_) => None,
            Self::Isolated(model) => Some(model.deaths()),
        }
    }

    /// The inputs every request has to give.
    pub fn inputs(&self) -> &[TensorInfo] {
        match self {
            Self::InProcess(model) => model.inputs(),
            Self::Isolated(model) => model.inputs(),
        }
    }

    /// The inputs a request may give.
    pub fn optional_inputs(&self) -> &[TensorInfo] {
        match self {
            Self::InProcess(model) => model.optional_inputs(),
            Self::Isolated(model) => model.optional_inputs(),
        }
    }

    /// The outputs a request can ask for.
    pub fn outputs(&self) -> &[TensorInfo] {
        match self {
            Self::InProcess(model) => model.outputs(),
            Self::Isolated(model) => model.outputs(),
        }
    }

    /// Whether the model runs in a process of its own.
    pub fn is_isolated(&self) -> bool {
        matches!(self, Self::Isolated(_))
    }

    /// A place for one request in the model's own process, if it has one, once there is one: whoever waits holds no thread.
    ///
    /// # Errors
    /// [`InferError`] when there is none in time, or no process.
    pub async fn reserve(&self) -> Result<Option<Reserved>, InferError> {
        match self {
            Self::InProcess(_) => Ok(None),
            Self::Isolated(model) => model.reserve().await.map(Some),
        }
    }

    /// [`Model::run`], wherever it runs. Blocks until it is done.
    ///
    /// # Errors
    /// [`InferError`] when the request does not fit the model, the model fails on it, or its process does.
    pub fn run(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
        match self {
            Self::InProcess(model) => model.run(inputs, outputs),
            Self::Isolated(model) => model.run(inputs, outputs, false),
        }
    }

    /// How the model goes on with a text, if it does.
    pub fn decoder(&self) -> Option<&Decoder> {
        match self {
            Self::InProcess(model) => model.decoder(),
            Self::Isolated(model) => model.decoder(),
        }
    }

    /// Forgets the sequences `close`, and goes on with those of `feeds`: for each, the logits of its next token, if they
    /// are wanted. Does `meanwhile` while the model is at work, if it has a process of its own, and else before. Blocks until
    /// both are done.
    ///
    /// # Errors
    /// [`InferError`] when there is no such sequence, the model fails, or its process does: then no sequence of `feeds` is
    /// remembered any more, and after the end of the process no other one either.
    pub fn step(
        &self,
        close: &[u64],
        feeds: &[Feed],
        meanwhile: impl FnOnce() + Send,
    ) -> Result<Vec<Option<Erased<Vec<f32>>>>, InferError> {
        let order = Order { close: close.to_vec(), feeds: feeds.to_vec() };
        let inputs = Erased::new(order.tensors().unwrap_or_default());
        let mut outputs = match self {
            Self::InProcess(model) => {
                meanwhile();
                model.step(&inputs)?
            }
            Self::Isolated(model) => model.step(&inputs, meanwhile)?,
        };
        let logits = outputs.pop().map(|(_, tensor)| tensor.into_data().into_owned()).unwrap_or_default();
        let logits = Erased::new(logits);
        let vocabulary = self.decoder().map_or(1, Decoder::vocabulary).max(1);
        let mut rows = logits.chunks_exact(vocabulary.saturating_mul(size_of::<f32>()));
        let number = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        let row = |feed: &Feed| match (feed.wanted, feed.wanted.then(|| rows.next()).flatten()) {
            (false, _) => Ok(None),
            (true, Some(row)) => {
                Ok(Some(row.chunks_exact(size_of::<f32>()).map(number).collect::<Vec<_>>().into()))
            }
            // The process says less than it was asked.
            (true, None) => Err(InferError::Crashed),
        };
        feeds.iter().map(row).collect()
    }

    /// [`Model::run_alone`], wherever it runs. Blocks until it is done.
    ///
    /// # Errors
    /// [`InferError`] as for [`run`](Self::run).
    pub fn run_alone(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
        match self {
            Self::InProcess(model) => model.run_alone(inputs, outputs),
            Self::Isolated(model) => model.run(inputs, outputs, true),
        }
    }
}

impl BoxedModel {
    /// Has the box run the model, with all cores if the request is `alone`. Blocks until it is done.
    ///
    /// # Errors
    /// [`InferError`]: what the box says, or what became of it.
    pub fn run(
        &self,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        alone: bool,
    ) -> Result<Answer, InferError> {
        wait(async { self.reserve().await?.run(inputs, outputs, alone)?.answered().await.read() })
    }

    fn step(
        &self,
        inputs: &[(String, Tensor<'_>)],
        meanwhile: impl FnOnce() + Send,
    ) -> Result<Answer, InferError> {
        wait(async {
            let running = self.reserve().await.and_then(|reserved| reserved.step(inputs));
            meanwhile();
            running?.answered().await.read()
        })
    }
}

thread_local! {
    /// The runtime by which a thread waits that has nothing else to do.
    static WAITING: OnceCell<Waiting> = const { OnceCell::new() };
}

fn wait(answer: impl Future<Output = Result<Answer, InferError>> + Send) -> Result<Answer, InferError> {
    let here = || {
        WAITING.with(|waiting| {
            let waiting = match waiting.get() {
                Some(waiting) => waiting,
                None => {
                    let made = Builder::new_current_thread().enable_all().build();
                    // There are too few descriptors: so there are for a process.
                    let made = made.map_err(|_| InferError::Restarting)?;
                    waiting.get_or_init(|| made)
                }
            };
            waiting.block_on(answer)
        })
    };
    if Handle::try_current().is_err() {
        return here();
    }
    // A thread of a runtime cannot wait by another runtime.
    thread::scope(|scope| scope.spawn(here).join()).unwrap_or(Err(InferError::Crashed))
}
