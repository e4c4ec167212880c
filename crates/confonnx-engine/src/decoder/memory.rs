//! What a model remembers of each sequence, and how it goes on with one.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use confonnx_tensor::{DataType, Shape, Tensor};
use half::f16;
use ort::{
    memory::Allocator,
    session::{RunOptions, Session, SessionInputValue},
    value::{DynValue, Tensor as OrtTensor},
};
use zeroize::Zeroize;

use super::{Decoder, Feed, LOGITS, Order};
use crate::{
    error::{Category, InferError},
    stop,
};

/// What is remembered of all sequences.
#[derive(Debug, Default)]
pub(crate) struct Memories(Mutex<HashMap<u64, Memory>>);

/// What is remembered of one: a value for each layer's keys and values.
#[derive(Debug)]
struct Memory {
    tokens: usize,
    values: Vec<DynValue>,
}

impl Memories {
    /// Does what `order` says; the logits that are wanted, one row each.
    pub(crate) fn step(
        &self,
        decoder: &Decoder,
        session: &mut Session,
        order: &Order,
    ) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sequence in &order.close {
            memories.remove(sequence);
        }
        let mut rows = Vec::new();
        let mut count = 0_u64;
        for feed in &order.feeds {
            let memory =
                if feed.past == 0 { Some(Memory::new(decoder)?) } else { memories.remove(&feed.sequence) };
            let memory = memory.filter(|memory| memory.tokens == feed.past && !feed.tokens.is_empty());
            let (logits, memory) = memory.ok_or_else(unknown)?.go_on(decoder, session, feed)?;
            memories.insert(feed.sequence, memory);
            if feed.wanted {
                rows.extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
                count = count.saturating_add(1);
            }
        }
        let shape = Shape::new([count, decoder.vocabulary() as u64]).map_err(|_| unusable())?;
        let logits = Tensor::new(DataType::Fp32, shape, rows).map_err(|_| unusable())?;
        Ok(vec![(LOGITS.to_owned(), logits)])
    }
}

impl Memory {
    fn new(decoder: &Decoder) -> Result<Self, InferError> {
        let allocator = Allocator::default();
        let empty = |layer: &super::Remembered| {
            let shape = [1, layer.heads, 0, layer.size];
            Ok(match layer.dtype {
                DataType::Fp16 => OrtTensor::<f16>::new(&allocator, shape)?.into_dyn(),
                _ => OrtTensor::<f32>::new(&allocator, shape)?.into_dyn(),
            })
        };
        let values = decoder.layers.iter().map(empty).collect::<ort::Result<_>>().map_err(failed)?;
        Ok(Self { tokens: 0, values })
    }

    /// Reads the tokens of `feed`; the logits after the last of them, and what is remembered then.
    fn go_on(
        self,
        decoder: &Decoder,
        session: &mut Session,
        feed: &Feed,
    ) -> Result<(Vec<f32>, Self), InferError> {
        let all = feed.past.saturating_add(feed.tokens.len());
        let numbers = |shape: Vec<usize>, numbers: Vec<i64>| -> Result<SessionInputValue<'_>, InferError> {
            Ok(OrtTensor::from_array((shape, numbers)).map_err(failed)?.into())
        };
        let places =
            |range: std::ops::Range<usize>| range.map(|at| i64::try_from(at).unwrap_or(i64::MAX)).collect();
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            vec![("input_ids".into(), numbers(vec![1, feed.tokens.len()], feed.tokens.clone())?)];
        if decoder.mask {
            inputs.push(("attention_mask".into(), numbers(vec![1, all], vec![1; all])?));
        }
        if decoder.positions {
            let positions = numbers(vec![1, feed.tokens.len()], places(feed.past..all))?;
            inputs.push(("position_ids".into(), positions));
        }
        if decoder.keep {
            inputs.push(("num_logits_to_keep".into(), numbers(vec![], vec![1])?));
        }
        if decoder.branch {
            let flag = OrtTensor::from_array((vec![1_usize], vec![feed.past > 0])).map_err(failed)?;
            inputs.push(("use_cache_branch".into(), flag.into()));
        }
        for (layer, value) in decoder.layers.iter().zip(&self.values) {
            inputs.push((layer.past.as_str().into(), value.view().into()));
        }
        let options = Arc::new(RunOptions::new().map_err(failed)?);
        let stopped = Arc::clone(&options);
        // It only sets a flag.
        let _stoppable = stop::stoppable(move || drop(stopped.terminate()));
        let mut outputs = session.run_with_options(inputs, &*options).map_err(failed)?;
        let missing = |name: &str| InferError::OutputType { name: name.to_owned() };
        let mut values = Vec::with_capacity(decoder.layers.len());
        for layer in &decoder.layers {
            values.push(outputs.remove(&layer.present).ok_or_else(|| missing(&layer.present))?);
        }
        let memory = Self { tokens: all, values };
        let mut logits = outputs.remove(LOGITS).ok_or_else(|| missing(LOGITS))?;
        let (_, found) = logits.try_extract_tensor_mut::<f32>().map_err(failed)?;
        let start = found.len().checked_sub(decoder.vocabulary()).ok_or_else(unusable)?;
        let last = found.get(start..).unwrap_or_default().to_vec();
        found.zeroize();
        Ok((last, memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for value in &mut self.values {
            if let Ok((_, values)) = value.try_extract_tensor_mut::<f32>() {
                values.zeroize();
            } else if let Ok((_, values)) = value.try_extract_tensor_mut::<f16>() {
                values.fill(f16::ZERO);
            }
        }
    }
}

fn unknown() -> InferError {
    InferError::BoxedInput("the model remembers no such sequence".to_owned())
}

fn unusable() -> InferError {
    InferError::OutputType { name: LOGITS.to_owned() }
}

fn failed<R>(error: ort::Error<R>) -> InferError {
    InferError::Runtime(Category::from(&error))
}
