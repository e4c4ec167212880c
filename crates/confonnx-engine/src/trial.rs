//! Made-up inputs, to see when a model is loaded whether another way to run it answers the same.

use confonnx_tensor::{DataType, Shape, Tensor};
use half::{bf16, f16};

use crate::model::TensorInfo;

/// An input for each of `infos`, with one row where there may be several. None if an element has no fixed size, or if they
/// take more than [`MOST_BYTES`].
pub(crate) fn one(infos: &[TensorInfo]) -> Option<Vec<(String, Tensor<'static>)>> {
    let bytes = |info: &TensorInfo| {
        let first = info.shape.first().map_or(1, |&dim| usize::try_from(dim).unwrap_or(1));
        row_bytes(info)?.checked_mul(first)
    };
    let total = infos.iter().try_fold(0_usize, |sum, info| sum.checked_add(bytes(info)?))?;
    if total > MOST_BYTES {
        return None;
    }
    infos.iter().map(|info| rows(info, 0, 1)).collect()
}

/// Bytes of one row; none if they are more than can be counted.
pub(crate) fn row_bytes(info: &TensorInfo) -> Option<usize> {
    let dims = info.shape.iter().skip(1).map(|&dim| usize::try_from(dim).unwrap_or(ANY_SIZE as usize));
    dims.into_iter().try_fold(info.dtype.size()?, |bytes, dim| bytes.checked_mul(dim))
}

/// `count` rows from `first` on of an input that goes on for ever; all of one that has a number of rows. Other dimensions of
/// any size become 8. None for a shape that no tensor has.
pub(crate) fn rows(info: &TensorInfo, first: usize, count: usize) -> Option<(String, Tensor<'static>)> {
    let count = |&dim: &i64| u64::try_from(dim).unwrap_or(count as u64);
    let tail = info.shape.iter().skip(1).map(|&dim| u64::try_from(dim).unwrap_or(ANY_SIZE));
    let dims: Vec<u64> = info.shape.first().map(count).into_iter().chain(tail).collect();
    let in_row = dims.iter().skip(1).fold(1_u64, |n, dim| n.saturating_mul(*dim));
    let all = dims.iter().fold(1_u64, |n, dim| n.saturating_mul(*dim));
    let from = in_row.saturating_mul(first as u64);
    let elements = from..from.saturating_add(all);
    let data: Vec<u8> = elements.flat_map(|index| element(info.dtype, index)).collect();
    let tensor = Tensor::new(info.dtype, Shape::new(dims).ok()?, data).ok()?;
    Some((info.name.clone(), tensor))
}

/// From 0 to 1: a number for reals, 0 or 1 for integers, which may be indices.
fn element(dtype: DataType, index: u64) -> Vec<u8> {
    // SplitMix64's finalizer: neighbours have nothing in common.
    let mut bits = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let real = ((bits >> 40) as f32) / (1_u32 << 24) as f32;
    match dtype {
        DataType::Fp16 => f16::from_f32(real).to_le_bytes().into(),
        DataType::Bf16 => bf16::from_f32(real).to_le_bytes().into(),
        DataType::Fp32 => real.to_le_bytes().into(),
        DataType::Fp64 => f64::from(real).to_le_bytes().into(),
        whole => {
            let mut bytes = vec![0; whole.size().unwrap_or_default()];
            if let Some(lowest) = bytes.first_mut() {
                *lowest = u8::from(bits >> 63 == 1);
            }
            bytes
        }
    }
}

const ANY_SIZE: u64 = 8;
/// What is tried at most, so that no model and no setting makes loading endless.
pub(crate) const MOST_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_no_tensor_has_are_not_made_up() {
        let made = |shape: &[i64]| {
            let info = TensorInfo { name: "x".into(), dtype: DataType::Fp32, shape: shape.to_vec() };
            one(&[info]).map(|inputs| inputs.into_iter().map(|(_, tensor)| tensor.shape().dims().to_vec()))
        };
        for shape in [&[1; 65][..], &[1 << 62, 0, 8], &[i64::MAX, i64::MAX], &[1 << 40]] {
            assert!(made(shape).is_none(), "{shape:?}");
        }
        for (shape, expected) in [(&[][..], &[][..]), (&[-1, 3, -1], &[1, 3, 8]), (&[2, 0], &[2, 0])] {
            assert!(made(shape).is_some_and(|dims| dims.eq([expected])), "{shape:?}");
        }
    }
}
