//! One run of one session.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use confonnx_tensor::Tensor;
use ort::session::{RunOptions, Session, SessionInputValue};

use crate::{
    convert::{self, Aligned},
    error::{Category, InferError},
    port::{Ports, TensorInfo},
    recent::Recent,
    sessions::{Seat, Sessions},
    stop,
};

/// Named tensors of an answer.
pub type Answer = Vec<(String, Tensor<'static>)>;

/// A model's sessions, and how to run them.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) ports: Ports,
    pub(crate) sessions: Sessions,
    pub(crate) recent: Recent,
    /// Whether a session has given memory back that the C library may still hold.
    pub(crate) gave_back: AtomicBool,
}

impl Runs {
    /// Runs on `seat` a request that was checked.
    pub(crate) fn on(
        &self,
        seat: &mut Seat,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Answer, InferError> {
        let start = Instant::now();
        let taken = bytes(inputs);
        let gives_back = seat.working_set.begins(taken);
        let answer = infer(&mut seat.session, &self.ports.outputs, inputs, outputs, gives_back);
        let given = answer.as_ref().map_or(0, |answer| bytes(answer));
        seat.working_set.ended(taken.saturating_add(given), gives_back);
        self.gave_back.fetch_or(gives_back, Relaxed);
        self.recent.record(start.elapsed());
        answer
    }
}

fn bytes(tensors: &[(String, Tensor<'_>)]) -> u64 {
    tensors.iter().map(|(_, tensor)| tensor.data().len() as u64).sum()
}

/// Asks `session` for `wanted`, or for all of the model's outputs, which are `offered`; with `gives_back`, it gives up what
/// memory it has no use for after that.
pub(crate) fn infer(
    session: &mut Session,
    offered: &[TensorInfo],
    inputs: &[(String, Tensor<'_>)],
    wanted: &[String],
    gives_back: bool,
) -> Result<Answer, InferError> {
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
    let mut options = RunOptions::new().map_err(failed)?;
    if gives_back {
        options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
    }
    // All outputs are computed, whichever are wanted: options that name some cannot be told to stop by another thread.
    let options = Arc::new(options);
    let stopped = Arc::clone(&options);
    // To terminate only sets a flag.
    let stoppable = stop::stoppable(move || drop(stopped.terminate()));
    let results = session.run_with_options(values, &*options);
    drop(stoppable);
    let results = results.map_err(failed)?;
    let mut answers = Vec::with_capacity(names.len());
    for name in names {
        let tensor = results.get(name).and_then(convert::output);
        answers
            .push((name.to_owned(), tensor.ok_or_else(|| InferError::OutputType { name: name.to_owned() })?));
    }
    Ok(answers)
}

fn failed<R>(error: ort::Error<R>) -> InferError {
    InferError::Runtime(Category::from(&error))
}
