//! Made-up inputs, to see when a model is loaded whether another way to run it answers the same.

use confonnx_tensor::{DataType, Shape, Tensor};
use half::{bf16, f16};

use crate::port::TensorInfo;

/// What a row is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    /// From 0 to 1: a number for reals, 0 or 1 for integers, which may be indices.
    Unit,
    /// Reals of either sign and of sizes from a thousandth to a thousand, which differ from row to row; integers as above.
    Wide,
    /// This number in every real; integers as in `Unit`.
    Real(f64),
    /// This number in every integer, as far as that has room; reals as in `Unit`.
    Integer(i64),
    /// Integers that go up by `step` from `first` on, not beyond `most`; reals as above.
    Count {
        /// The first number.
        first: i64,
        /// How much a number is larger than the one before.
        step: i64,
        /// The largest number.
        most: i64,
    },
}

/// How the rows of made-up inputs lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// The axis along which rows lie.
    pub(crate) axis: usize,
    /// What other dimensions of any size become.
    pub(crate) any: u64,
}

impl Made {
    /// Rows for `info`, one for each of `rows`: a number, which says what is in it, and what that is. An input without rows of
    /// any number has those it says. None for a shape that no tensor has, for elements without a size, and for more than
    /// [`MOST_BYTES`].
    pub(crate) fn rows(self, info: &TensorInfo, rows: &[(u64, Fill)]) -> Option<(String, Tensor<'static>)> {
        let is_rows = |at: usize, dim: i64| at == self.axis && dim == -1;
        let size = |(at, &dim): (usize, &i64)| match u64::try_from(dim) {
            Ok(size) => size,
            Err(_) if is_rows(at, dim) => rows.len() as u64,
            Err(_) => self.any,
        };
        let dims: Vec<u64> = info.shape.iter().enumerate().map(size).collect();
        let bytes = dims.iter().try_fold(info.dtype.size()? as u64, |n, dim| n.checked_mul(*dim))?;
        if bytes > MOST_BYTES as u64 {
            return None;
        }
        let has_rows = info.shape.get(self.axis) == Some(&-1);
        let along = if has_rows { rows.len() as u64 } else { 1 };
        let product = |dims: Option<&[u64]>| dims.unwrap_or_default().iter().product::<u64>();
        let (pieces, piece) = if has_rows {
            (product(dims.get(..self.axis)), product(dims.get(self.axis.saturating_add(1)..)))
        } else {
            (1, product(Some(&dims)))
        };
        let in_row = pieces.saturating_mul(piece);
        let mut data = Vec::with_capacity(usize::try_from(bytes).ok()?);
        for outer in 0..pieces {
            for row in 0..along {
                let (number, fill) = rows.get(usize::try_from(row).ok()?).copied()?;
                for inner in 0..piece {
                    let within = outer.saturating_mul(piece).saturating_add(inner);
                    let index = number.saturating_mul(in_row).saturating_add(within);
                    data.extend_from_slice(&element(info.dtype, fill, number, index, within));
                }
            }
        }
        Some((info.name.clone(), Tensor::new(info.dtype, Shape::new(dims).ok()?, data).ok()?))
    }

    /// [`rows`](Self::rows) for each of `infos`.
    pub(crate) fn all(
        self,
        infos: &[TensorInfo],
        rows: &[(u64, Fill)],
    ) -> Option<Vec<(String, Tensor<'static>)>> {
        let made: Option<Vec<_>> = infos.iter().map(|info| self.rows(info, rows)).collect();
        made.filter(|made| made.iter().map(|(_, tensor)| tensor.data().len()).sum::<usize>() <= MOST_BYTES)
    }
}

/// Bytes of one row; none if they are more than can be counted.
pub(crate) fn row_bytes(info: &TensorInfo, axis: usize) -> Option<usize> {
    let rest = info.shape.iter().enumerate().filter(|(at, _)| *at != axis);
    let mut dims = rest.map(|(_, &dim)| usize::try_from(dim).unwrap_or(ANY_SIZE as usize));
    dims.try_fold(info.dtype.size()?, |bytes, dim| bytes.checked_mul(dim))
}

/// Whether an input takes integers that may be indices.
pub(crate) fn is_integer(dtype: DataType) -> bool {
    !matches!(
        dtype,
        DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 | DataType::Bytes
    )
}

fn element(dtype: DataType, fill: Fill, row: u64, index: u64, within: u64) -> Vec<u8> {
    // SplitMix64's finalizer: neighbours have nothing in common.
    let mut bits = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let unit = (((bits >> 40) as f32) / (1_u32 << 24) as f32).into();
    let real = match fill {
        Fill::Real(value) => value,
        Fill::Wide => {
            let scale = [1e-3, 0.1, 1.0, 7.0, 30.0, 1e3];
            let scale = scale.get(usize::try_from(row % 6).unwrap_or_default()).copied().unwrap_or(1.0);
            (unit * 2.0 - 1.0) * scale
        }
        _ => unit,
    };
    match dtype {
        // What is beyond its range is the largest it has: an infinity would say less.
        DataType::Fp16 => f16::from_f64(real.clamp(-65504.0, 65504.0)).to_le_bytes().into(),
        DataType::Bf16 => bf16::from_f64(real).to_le_bytes().into(),
        DataType::Fp32 => (real as f32).to_le_bytes().into(),
        DataType::Fp64 => real.to_le_bytes().into(),
        DataType::Bool => vec![u8::from(bits >> 63 == 1)],
        whole => {
            let value = match fill {
                Fill::Integer(value) => value,
                Fill::Count { first, step, most } => {
                    let up = i64::try_from(within).unwrap_or(i64::MAX).saturating_mul(step);
                    first.saturating_add(up).min(most)
                }
                _ => i64::from(bits >> 63 == 1),
            };
            within_range(whole, value)
        }
    }
}

/// `value`, or the nearest number that `dtype` has.
fn within_range(dtype: DataType, value: i64) -> Vec<u8> {
    match dtype {
        DataType::Int8 => (value.clamp(i8::MIN.into(), i8::MAX.into()) as i8).to_le_bytes().into(),
        DataType::Uint8 => (value.clamp(0, u8::MAX.into()) as u8).to_le_bytes().into(),
        DataType::Int16 => (value.clamp(i16::MIN.into(), i16::MAX.into()) as i16).to_le_bytes().into(),
        DataType::Uint16 => (value.clamp(0, u16::MAX.into()) as u16).to_le_bytes().into(),
        DataType::Int32 => (value.clamp(i32::MIN.into(), i32::MAX.into()) as i32).to_le_bytes().into(),
        DataType::Uint32 => (value.clamp(0, u32::MAX.into()) as u32).to_le_bytes().into(),
        DataType::Uint64 => (value.max(0) as u64).to_le_bytes().into(),
        _ => value.to_le_bytes().into(),
    }
}

/// The length that a dimension of any size becomes, most of the time.
pub(crate) const ANY_SIZE: u64 = 8;
/// The most bytes that are tried, so that no model and no setting makes loading endless.
pub(crate) const MOST_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Made = Made { axis: 0, any: ANY_SIZE };

    #[test]
    fn shapes_that_no_tensor_has_are_not_made_up() {
        let made = |shape: &[i64]| {
            let info = TensorInfo { name: "x".into(), dtype: DataType::Fp32, shape: shape.to_vec() };
            MADE.rows(&info, &[(0, Fill::Unit)]).map(|(_, tensor)| tensor.shape().dims().to_vec())
        };
        for shape in [&[1; 65][..], &[1 << 62, 0, 8], &[i64::MAX, i64::MAX], &[1 << 40]] {
            assert!(made(shape).is_none(), "{shape:?}");
        }
        for (shape, expected) in [(&[][..], &[][..]), (&[-1, 3, -1], &[1, 3, 8]), (&[2, 0], &[2, 0])] {
            assert_eq!(made(shape).as_deref(), Some(expected), "{shape:?}");
        }
    }

    #[test]
    fn a_row_is_the_same_wherever_it_is() {
        let info = TensorInfo { name: "x".into(), dtype: DataType::Fp32, shape: vec![2, -1, 3] };
        let made = Made { axis: 1, any: 8 };
        let rows = |rows: &[(u64, Fill)]| made.rows(&info, rows).unwrap().1.data().to_vec();
        let (one, two) = (rows(&[(5, Fill::Wide)]), rows(&[(7, Fill::Unit), (5, Fill::Wide)]));
        assert_eq!((one[..12].to_vec(), one[12..].to_vec()), (two[12..24].to_vec(), two[36..].to_vec()));
    }
}
