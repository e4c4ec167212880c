//! A model and its sessions.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use confonnx_tensor::Tensor;

use crate::{
    batch::{Batcher, Batching, NotBatched},
    check,
    decoder::{Decoder, Encoder, Memories, Order},
    error::{EngineError, InferError},
    port::{Ports, TensorInfo},
    recent::Recent,
    run::{Answer, Runs},
    runtime::Runtime,
    sessions::{self, Arrangement, Sessions},
    widths,
};

/// How to run a model.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// How many requests can run at once; each has a session, and its own copy of the weights. At least one is made.
    pub sessions: usize,
    /// Threads inside one operator of each session; none lets [`Arrangement`] say.
    pub threads_per_session: Option<usize>,
    /// The model's external data: location as written in the model, and content. Nothing else is ever read.
    pub external_data: Vec<(String, Arc<[u8]>)>,
    /// The content of the encoder's file, if one reads what the model answers to.
    pub encoder: Option<Arc<[u8]>>,
    /// Whether requests may be batched, and how: for models whose owner states that rows do not know of one another.
    pub batch: Option<Batching>,
    /// Whether a request that is alone may have more threads than others, if a trial sees no difference:
    /// [`width_is_free`](crate::width_is_free) of the model's operators. Else every run has as many threads as any other.
    pub free_width: bool,
}

/// A loaded model with its pool of sessions.
#[derive(Debug)]
pub struct Model {
    runs: Runs,
    batcher: Option<Batcher>,
    not_batched: Option<NotBatched>,
    decoder: Option<Decoder>,
    memories: Option<Memories>,
}

impl Model {
    /// Makes the sessions for the model in `onnx`, the content of an `.onnx` file.
    ///
    /// # Errors
    /// [`EngineError`] when the bytes are not a model, or it needs what this runtime does not have.
    pub fn load(runtime: &Runtime, onnx: &[u8], options: &ModelOptions) -> Result<Self, EngineError> {
        let make = |width| sessions::make(runtime, onnx, &options.external_data, width);
        let mut plan = Arrangement::new(options.sessions, options.threads_per_session);
        if !options.free_width {
            plan = plan.without_alone();
        }
        let mut first = make(plan.each())?;
        let ports = Ports::of(&first)?;
        let mut alone = plan.alone().map(make).transpose()?;
        if let Some(wide) = &mut alone
            && !widths::agree(&ports, &mut first, wide)
        {
            (plan, alone) = (plan.without_alone(), None);
            first = make(plan.each())?;
        }
        let mut each = vec![first];
        for _ in 1..plan.sessions() {
            each.push(make(plan.each())?);
        }
        let sessions = Sessions::new(plan, each, alone);
        let runs = Runs { ports, sessions, recent: Recent::default(), gave_back: AtomicBool::default() };
        let decoder = Decoder::of(&runs.ports.inputs, &runs.ports.outputs, options.encoder.is_some());
        let batch = options.batch.clone();
        let (batcher, memories, not_batched) = match (&decoder, &options.encoder) {
            (None, Some(_)) => return Err(EngineError::NotADecoder),
            (Some(decoder), Some(encoder)) => {
                let session = sessions::make(runtime, encoder, &[], plan.each())
                    .map_err(|error| EngineError::OfEncoder(Box::new(error)))?;
                let encoder = Encoder::new(session);
                let memories = Memories::with_encoder(decoder, &mut runs.sessions.take().session, encoder)
                    .map_err(EngineError::Encoder)?;
                (None, Some(memories), batch.map(|_| NotBatched::Encoder))
            }
            (Some(decoder), None) => {
                let most = batch.map(|batch| batch.max_batch_size);
                let memories = Memories::new(decoder, &mut runs.sessions.take().session, most);
                let differs = most.is_some() && memories.largest_batch() == 1;
                (None, Some(memories), differs.then_some(NotBatched::Differs))
            }
            (None, None) => match batch.map(|batch| Batcher::new(&runs, batch)) {
                None => (None, None, None),
                Some(Ok(batcher)) => (Some(batcher), None, None),
                Some(Err(reason)) => (None, None, Some(reason)),
            },
        };
        Ok(Self { runs, batcher, not_batched, decoder, memories })
    }

    /// How the cores are shared out.
    pub fn arrangement(&self) -> Arrangement {
        self.runs.sessions.arrangement()
    }

    /// The most rows that are batched: 1 if [`ModelOptions::batch`] does not ask for more.
    ///
    /// # Errors
    /// [`NotBatched`]: why there are no batches although it does.
    pub fn largest_batch(&self) -> Result<usize, &NotBatched> {
        let largest = || match &self.memories {
            Some(memories) => memories.largest_batch(),
            None => self.batcher.as_ref().map_or(1, Batcher::largest),
        };
        self.not_batched.as_ref().map_or_else(|| Ok(largest()), Err)
    }

    /// How many requests were answered together with others so far.
    pub fn batched_requests(&self) -> u64 {
        self.batcher.as_ref().map_or(0, Batcher::together)
    }

    /// The inputs every request has to give.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.runs.ports.inputs
    }

    /// The inputs a request may give: initializers of the model that have another value otherwise.
    pub fn optional_inputs(&self) -> &[TensorInfo] {
        &self.runs.ports.optional
    }

    /// The outputs a request can ask for.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.runs.ports.outputs
    }

    /// How the model goes on with a text, if it does.
    pub fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    /// Goes on with sequences, as the tensors of a step say; the logits that are wanted.
    pub(crate) fn step(&self, inputs: &[(String, Tensor<'_>)]) -> Result<Answer, InferError> {
        let refused =
            || InferError::BoxedInput("this is no step of a model that goes on with a text".to_owned());
        let (decoder, memories) = self.decoder.as_ref().zip(self.memories.as_ref()).ok_or_else(refused)?;
        let order = Order::read(inputs).ok_or_else(refused)?;
        memories.step(decoder, &mut self.runs.sessions.take().session, &order)
    }

    /// Whether the next run is likely to take no more than 500 µs, by those of late.
    pub fn is_brief(&self) -> bool {
        self.runs.recent.is_brief()
    }

    /// Whether a session gave memory back since this was last asked, so that the C library may have some to give back, too.
    pub(crate) fn gave_back(&self) -> bool {
        self.runs.gave_back.load(Relaxed) && self.runs.gave_back.swap(false, Relaxed)
    }

    /// Runs the model on the calling thread, which waits while all sessions are busy.
    ///
    /// `outputs` names the outputs wanted, in the order wanted; empty means all, in the model's order.
    ///
    /// # Errors
    /// [`InferError`] when a name, type, shape or value does not fit the model, or the model fails on them.
    pub fn run(&self, inputs: &[(String, Tensor<'_>)], outputs: &[String]) -> Result<Answer, InferError> {
        self.check(inputs, outputs)?;
        match &self.batcher {
            Some(batcher) => batcher.run(&self.runs, inputs, outputs),
            None => self.runs.on(&mut self.runs.sessions.take(), inputs, outputs),
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
    ) -> Result<Answer, InferError> {
        let all_cores = if self.is_brief() { None } else { self.runs.sessions.take_all_cores() };
        match all_cores {
            Some(mut session) => {
                self.check(inputs, outputs)?;
                self.runs.on(&mut session, inputs, outputs)
            }
            None => self.run(inputs, outputs),
        }
    }

    fn check(&self, inputs: &[(String, Tensor<'_>)], outputs: &[String]) -> Result<(), InferError> {
        check::inputs(&self.runs.ports, inputs)?;
        check::outputs(&self.runs.ports.outputs, outputs)
    }
}
