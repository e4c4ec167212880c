//! One run of a model that goes on with sequences.

use std::borrow::Cow;

use confonnx_tensor::Erased;
use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session, SessionInputValue},
    value::{DynValue, Tensor as OrtTensor},
};
use zeroize::Zeroize;

use super::{
    Decoder, LOGITS, Remembered,
    cache::Cache,
    values::{Inputs, Values, failed, missing, options},
};
use crate::error::InferError;

/// The logits of one row, as they go to the key holder: little-endian.
pub(super) type Logits = Erased<Vec<u8>>;

/// The next tokens of each row, as many for all.
pub(super) struct Rows<'r> {
    pub(super) tokens: &'r [&'r [i64]],
    /// How many tokens each row remembers.
    pub(super) past: &'r [usize],
}

impl Rows<'_> {
    fn length(&self) -> usize {
        self.tokens.first().map_or(0, |tokens| tokens.len())
    }

    /// Tokens remembered and new, of the longest row.
    fn total(&self) -> usize {
        self.past.iter().max().map_or(0, |past| past.saturating_add(self.length()))
    }

    fn inputs(&self, decoder: &Decoder) -> ort::Result<Inputs> {
        let (rows, length, total) = (self.tokens.len(), self.length(), self.total());
        let mut inputs = Inputs::default();
        inputs.add("input_ids", vec![rows, length], self.tokens.concat())?;
        if decoder.mask {
            let of = |past: &usize| {
                let there = past.saturating_add(length);
                (0..total).map(move |at| i64::from(at < there))
            };
            inputs.add("attention_mask", vec![rows, total], self.past.iter().flat_map(of).collect())?;
        }
        if decoder.positions {
            let of = |past: &usize| {
                let past = *past;
                (past..past.saturating_add(length)).map(|at| i64::try_from(at).unwrap_or(i64::MAX))
            };
            inputs.add("position_ids", vec![rows, length], self.past.iter().flat_map(of).collect())?;
        }
        if decoder.keep {
            inputs.add("num_logits_to_keep", vec![], vec![1])?;
        }
        if decoder.branch {
            let flag = vec![self.past.iter().any(|past| *past > 0)];
            inputs.add_value("use_cache_branch", OrtTensor::from_array((vec![1_usize], flag))?.into_dyn());
        }
        Ok(inputs)
    }
}

/// Goes on where `cache` is what the model reads and writes: it has room. The logits after the last token of each row.
pub(super) fn in_place(
    decoder: &Decoder,
    session: &mut Session,
    rows: &Rows<'_>,
    cache: &mut Cache,
) -> Result<Vec<Logits>, InferError> {
    let inputs = rows.inputs(decoder).map_err(failed)?;
    let Cache { values, bound: kept, .. } = cache;
    let binding = match kept {
        Some(binding) => binding,
        None => kept.insert(Box::new(bound(decoder, session, &mut values.0).map_err(failed)?)),
    };
    for (name, value) in inputs.each() {
        binding.bind_input(name, value).map_err(failed)?;
    }
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
        .map_err(failed)?;
    binding.bind_output_to_device(LOGITS, &memory).map_err(failed)?;
    let (options, _stoppable) = options(false)?;
    let mut outputs = session.run_binding_with_options(binding, &options).map_err(failed)?;
    let mut logits = outputs.remove(LOGITS).ok_or_else(|| missing(LOGITS))?;
    last(decoder, &mut logits, rows.tokens.len())
}

fn bound(decoder: &Decoder, session: &Session, values: &mut [DynValue]) -> ort::Result<IoBinding> {
    let mut binding = session.create_binding()?;
    for (layer, value) in decoder.layers.iter().zip(values) {
        binding.bind_input(layer.past.as_str(), &*value)?;
        binding.bind_output(layer.present.as_str(), value)?;
    }
    Ok(binding)
}

/// Goes on with one row where the model gives back all that it remembers, and it is handed on.
pub(super) fn handed_on(
    decoder: &Decoder,
    session: &mut Session,
    rows: &Rows<'_>,
    cache: &mut Cache,
) -> Result<Vec<Logits>, InferError> {
    let inputs = rows.inputs(decoder).map_err(failed)?;
    let mut all: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
        inputs.each().map(|(name, value)| (name.into(), value.view().into())).collect();
    for (layer, value) in decoder.layers.iter().zip(&cache.values.0) {
        all.push((layer.past.as_str().into(), value.view().into()));
    }
    if let Some((source, read)) = decoder.source.as_ref().zip(cache.read.as_ref()) {
        all.extend(read.inputs(source).into_iter().map(|(name, value)| (name.into(), value)));
    }
    let (options, _stoppable) = options(false)?;
    let mut outputs = session.run_with_options(all, &*options).map_err(failed)?;
    let mut found = |layers: &[Remembered]| {
        let one = |layer: &Remembered| outputs.remove(&layer.present).ok_or_else(|| missing(&layer.present));
        layers.iter().map(one).collect::<Result<_, _>>().map(Values)
    };
    let values = found(&decoder.layers)?;
    if let Some((source, read)) = decoder.source.as_ref().zip(cache.read.as_mut()) {
        let first = rows.past.iter().all(|past| *past == 0);
        read.take(source, found(&source.layers)?, first)?;
    }
    let mut logits = outputs.remove(LOGITS).ok_or_else(|| missing(LOGITS))?;
    // The memory of before is erased.
    *cache = Cache { rows: 1, room: rows.total(), values, bound: None, read: cache.read.take() };
    last(decoder, &mut logits, 1)
}

/// Of each row the logits after its last token; where they were, all are erased.
fn last(decoder: &Decoder, logits: &mut DynValue, rows: usize) -> Result<Vec<Logits>, InferError> {
    let (_, found) = logits.try_extract_tensor_mut::<f32>().map_err(failed)?;
    let each = found.len().checked_div(rows).filter(|each| *each >= decoder.vocabulary && *each > 0);
    let each = each.ok_or_else(|| missing(LOGITS))?;
    let of = |row: &[f32]| {
        let last = row.get(row.len().saturating_sub(decoder.vocabulary)..).unwrap_or_default();
        let mut bytes = vec![0; size_of_val(last)];
        for (bytes, logit) in bytes.chunks_exact_mut(size_of::<f32>()).zip(last) {
            bytes.copy_from_slice(&logit.to_le_bytes());
        }
        bytes.into()
    };
    let last = found.chunks_exact(each).map(of).collect();
    found.zeroize();
    Ok(last)
}
