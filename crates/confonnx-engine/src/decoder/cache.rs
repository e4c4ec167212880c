//! What a model remembers, as values that it is given and gives back.

use confonnx_tensor::DataType;
use half::f16;
use ort::session::IoBinding;
use zeroize::Zeroize;

use super::{Decoder, encoder::Read, values::Values};
use crate::error::InferError;

/// Keys and values of all layers, for some rows.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) rows: usize,
    /// Tokens that there is room for in each row; what the model has given back has no more than it needs.
    pub(super) room: usize,
    pub(super) values: Values,
    /// The values bound as what the model reads and writes, once it did: for each of its steps anew they would be looked up by
    /// name, some hundred of them.
    pub(super) bound: Option<Box<IoBinding>>,
    /// What an encoder has read, of which the answer is made.
    pub(super) read: Option<Read>,
}

impl Cache {
    pub(super) fn new(decoder: &Decoder, rows: usize, room: usize) -> Result<Self, InferError> {
        let values = Values::none(&decoder.layers, rows, room)?;
        Ok(Self { rows, room, values, bound: None, read: None })
    }

    /// Copies the first `tokens` of `row` from another one into row `to`.
    pub(super) fn copy(
        &mut self,
        decoder: &Decoder,
        to: usize,
        other: &Self,
        row: usize,
        tokens: usize,
    ) -> Option<()> {
        for ((layer, target), source) in decoder.layers.iter().zip(&mut self.values.0).zip(&other.values.0) {
            let place = |row: usize, room: usize, head: usize| {
                let start = row.checked_mul(layer.heads)?.checked_add(head)?.checked_mul(room)?;
                let start = start.checked_mul(layer.size)?;
                Some(start..start.checked_add(tokens.checked_mul(layer.size)?)?)
            };
            for head in 0..layer.heads {
                let (to, from) = (place(to, self.room, head)?, place(row, other.room, head)?);
                match layer.dtype {
                    DataType::Fp16 => {
                        let (_, target) = target.try_extract_tensor_mut::<f16>().ok()?;
                        let (_, source) = source.try_extract_tensor::<f16>().ok()?;
                        target.get_mut(to)?.copy_from_slice(source.get(from)?);
                    }
                    _ => {
                        let (_, target) = target.try_extract_tensor_mut::<f32>().ok()?;
                        let (_, source) = source.try_extract_tensor::<f32>().ok()?;
                        target.get_mut(to)?.copy_from_slice(source.get(from)?);
                    }
                }
            }
        }
        Some(())
    }

    /// Erases `row`.
    pub(super) fn erase(&mut self, row: usize) {
        for value in &mut self.values.0 {
            let part = |len: usize| {
                let each = len.checked_div(self.rows).unwrap_or(0);
                let start = each.saturating_mul(row);
                start..start.saturating_add(each)
            };
            if let Ok((_, values)) = value.try_extract_tensor_mut::<f32>() {
                let part = part(values.len());
                values.get_mut(part).unwrap_or_default().zeroize();
            } else if let Ok((_, values)) = value.try_extract_tensor_mut::<f16>() {
                let part = part(values.len());
                values.get_mut(part).unwrap_or_default().fill(f16::ZERO);
            }
        }
    }
}
