//! One run of one session.

use std::{borrow::Cow, sync::Arc, time::Instant};

use confonnx_tensor::Tensor;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};

use crate::{
    convert::{self, Aligned},
    error::{Category, InferError},
    port::{Ports, TensorInfo},
    recent::Recent,
    sessions::Sessions,
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
}

impl Runs {
    /// Runs what was checked on `session`.
    pub(crate) fn on(
        &self,
        session: &mut Session,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Answer, InferError> {
        let start = Instant::now();
        let answer = infer(session, &self.ports.outputs, inputs, outputs);
        self.recent.record(start.elapsed());
        answer
    }
}

/// Asks `session` for `wanted`, or for all of the model's outputs, which are `offered`.
pub(crate) fn infer(
    session: &mut Session,
    offered: &[TensorInfo],
    inputs: &[(String, Tensor<'_>)],
    wanted: &[String],
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
    let (all, some);
    let results = if wanted.is_empty() {
        all = Arc::new(RunOptions::new().map_err(failed)?);
        let stopped = Arc::clone(&all);
        // It only sets a flag.
        let _stoppable = stop::stoppable(move || drop(stopped.terminate()));
        session.run_with_options(values, &*all)
    } else {
        let these = names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(*name));
        some = RunOptions::new().map_err(failed)?.with_outputs(these);
        session.run_with_options(values, &some)
    };
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
