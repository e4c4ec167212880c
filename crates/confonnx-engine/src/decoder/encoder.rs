//! The encoder that reads what a decoder answers to, and what the decoder keeps of that.

use ort::{
    session::{Session, SessionInputValue},
    value::{DynValue, Tensor as OrtTensor},
};

use super::{
    Source,
    values::{Inputs, Values, failed, missing, options},
};
use crate::error::InferError;

/// An encoder: its outputs are checked by whoever names it, and tried when it is loaded.
#[derive(Debug)]
pub(crate) struct Encoder {
    session: Session,
    mask: bool,
}

/// What an encoder has read for one sequence. Erased when it goes.
#[derive(Debug)]
pub(super) struct Read {
    /// Tokens that were read.
    tokens: usize,
    /// What the encoder says of each token.
    hidden: Values,
    mask: Option<DynValue>,
    /// Keys and values that the decoder makes of it at its first step; of no tokens until then.
    crossed: Values,
}

impl Encoder {
    pub(crate) fn new(session: Session) -> Self {
        let mask = session.inputs().iter().any(|input| input.name() == "attention_mask");
        Self { session, mask }
    }

    /// Reads `tokens`, all at once.
    pub(super) fn read(&mut self, source: &Source, tokens: &[i64]) -> Result<Read, InferError> {
        let (shape, ones) = (|| vec![1, tokens.len()], || vec![1; tokens.len()]);
        let mut inputs = Inputs::default();
        inputs.add("input_ids", shape(), tokens.to_vec()).map_err(failed)?;
        if self.mask {
            inputs.add("attention_mask", shape(), ones()).map_err(failed)?;
        }
        let given: Vec<(_, SessionInputValue<'_>)> =
            inputs.each().map(|(name, value)| (name, value.view().into())).collect();
        let (options, _stoppable) = options(tokens.len() > OFTEN)?;
        let mut outputs = self.session.run_with_options(given, &*options).map_err(failed)?;
        let hidden = outputs.remove(HIDDEN).filter(|hidden| {
            let of_each = hidden.shape().get(..2);
            of_each.is_some_and(|shape| shape.first() == Some(&1) && has(shape, 1, tokens.len()))
        });
        let hidden = Values(vec![hidden.ok_or_else(|| missing(HIDDEN))?]);
        let crossed = Values::none(&source.layers, 1, 0)?;
        let mask = || OrtTensor::from_array((shape(), ones())).map(OrtTensor::into_dyn).map_err(failed);
        Ok(Read { tokens: tokens.len(), hidden, mask: source.mask.then(mask).transpose()?, crossed })
    }
}

impl Read {
    /// What a decoder is given of it.
    pub(super) fn inputs<'r>(&'r self, source: &'r Source) -> Vec<(&'r str, SessionInputValue<'r>)> {
        let hidden = self.hidden.0.iter().map(|hidden| ("encoder_hidden_states", hidden.view().into()));
        let mask = self.mask.iter().map(|mask| ("encoder_attention_mask", mask.view().into()));
        let layers = source.layers.iter().zip(&self.crossed.0);
        hidden
            .chain(mask)
            .chain(layers.map(|(layer, value)| (layer.past.as_str(), value.view().into())))
            .collect()
    }

    /// Takes the keys and values that a decoder gives: those of its first step are kept, and the others, which stand for nothing,
    /// are erased.
    pub(super) fn take(&mut self, source: &Source, found: Values, first: bool) -> Result<(), InferError> {
        if !first {
            return Ok(());
        }
        for (layer, value) in source.layers.iter().zip(&found.0) {
            if !has(value.shape(), 2, self.tokens) {
                return Err(missing(&layer.present));
            }
        }
        self.crossed = found;
        Ok(())
    }
}

/// Whether a tensor of this shape has `tokens` along `axis`.
fn has(shape: &[i64], axis: usize, tokens: usize) -> bool {
    shape.get(axis).is_some_and(|size| usize::try_from(*size) == Ok(tokens))
}

/// Tokens of which so many are read often that memory for them is kept.
const OFTEN: usize = 256;
const HIDDEN: &str = "last_hidden_state";
