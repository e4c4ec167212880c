//! What every run has: values that are erased, options, and errors.

use std::sync::Arc;

use confonnx_tensor::DataType;
use half::f16;
use ort::{
    memory::Allocator,
    session::RunOptions,
    value::{DynValue, Tensor as OrtTensor},
};
use zeroize::Zeroize;

use super::Remembered;
use crate::{
    error::{Category, InferError},
    stop,
};

/// Values that are erased when they go.
#[derive(Debug, Default)]
pub(super) struct Values(pub(super) Vec<DynValue>);

impl Values {
    /// Keys and values of `layers` with room for `room` tokens in each of `rows`.
    pub(super) fn none(layers: &[Remembered], rows: usize, room: usize) -> Result<Self, InferError> {
        let allocator = Allocator::default();
        let empty = |layer: &Remembered| {
            let shape = [rows, layer.heads, room, layer.size];
            Ok(match layer.dtype {
                DataType::Fp16 => OrtTensor::<f16>::new(&allocator, shape)?.into_dyn(),
                _ => OrtTensor::<f32>::new(&allocator, shape)?.into_dyn(),
            })
        };
        let made = layers.iter().map(empty).collect::<ort::Result<_>>();
        made.map(Self).map_err(|error| InferError::Runtime(Category::from(&error)))
    }
}

/// What a run is given beside what is remembered: tokens, and what is said of them.
#[derive(Default)]
pub(super) struct Inputs {
    names: Vec<&'static str>,
    values: Values,
}

impl Inputs {
    pub(super) fn add(
        &mut self,
        name: &'static str,
        shape: Vec<usize>,
        numbers: Vec<i64>,
    ) -> ort::Result<()> {
        let value = OrtTensor::from_array((shape, numbers))?.into_dyn();
        self.add_value(name, value);
        Ok(())
    }

    pub(super) fn add_value(&mut self, name: &'static str, value: DynValue) {
        self.names.push(name);
        self.values.0.push(value);
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &DynValue)> {
        self.names.iter().copied().zip(&self.values.0)
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        for value in &mut self.0 {
            if let Ok((_, values)) = value.try_extract_tensor_mut::<f32>() {
                values.zeroize();
            } else if let Ok((_, values)) = value.try_extract_tensor_mut::<f16>() {
                values.fill(f16::ZERO);
            } else if let Ok((_, tokens)) = value.try_extract_tensor_mut::<i64>() {
                tokens.zeroize();
            }
        }
    }
}

/// Options of a run that ends when its caller is told to stop; with `gives_back`, the session gives up what memory it has no use
/// for after that.
pub(super) fn options(gives_back: bool) -> Result<(Arc<RunOptions>, stop::Stoppable), InferError> {
    let mut options = RunOptions::new().map_err(failed)?;
    if gives_back {
        options.set("memory.enable_memory_arena_shrinkage", "cpu:0").map_err(failed)?;
    }
    let options = Arc::new(options);
    let stopped = Arc::clone(&options);
    // To terminate only sets a flag.
    Ok((options, stop::stoppable(move || drop(stopped.terminate()))))
}

pub(super) fn missing(name: &str) -> InferError {
    InferError::OutputType { name: name.to_owned() }
}

pub(super) fn failed<R>(error: ort::Error<R>) -> InferError {
    InferError::Runtime(Category::from(&error))
}
