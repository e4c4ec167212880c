//! What a model remembers, as values that it is given and gives back.

use confonnx_tensor::DataType;
use half::f16;
use ort::{
    memory::Allocator,
    session::IoBinding,
    value::{DynValue, Tensor as OrtTensor},
};
use zeroize::Zeroize;

use super::{Decoder, Remembered};
use crate::error::{Category, InferError};

/// Keys and values of all layers, for some rows. Erased when it goes.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) rows: usize,
    /// Tokens that there is room for in each row; what the model has given back has no more than it needs.
    pub(super) room: usize,
    pub(super) values: Vec<DynValue>,
    /// The values bound as what the model reads and writes, once it did: for each of its steps anew they would be looked up by
    /// name, some hundred of them.
    pub(super) bound: Option<Box<IoBinding>>,
}

impl Cache {
    pub(super) fn new(decoder: &Decoder, rows: usize, room: usize) -> Result<Self, InferError> {
        let allocator = Allocator::default();
        let empty = |layer: &Remembered| {
            let shape = [rows, layer.heads, room, layer.size];
            Ok(match layer.dtype {
                DataType::Fp16 => OrtTensor::<f16>::new(&allocator, shape)?.into_dyn(),
                _ => OrtTensor::<f32>::new(&allocator, shape)?.into_dyn(),
            })
        };
        let made = decoder.layers.iter().map(empty).collect::<ort::Result<_>>();
        let values = made.map_err(|error| InferError::Runtime(Category::from(&error)))?;
        Ok(Self { rows, room, values, bound: None })
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
        for ((layer, target), source) in decoder.layers.iter().zip(&mut self.values).zip(&other.values) {
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
        for value in &mut self.values {
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

impl Drop for Cache {
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
