//! Which batches have the same answers as their rows one at a time.
//!
//! ONNX Runtime chooses its kernels by shape, and some add in another order for one row than for several. So every size
//! is tried when a model is loaded, and used only if each bit of the answers is the same.

use std::collections::BTreeSet;

use confonnx_tensor::{DataType, Shape, Tensor};
use half::{bf16, f16};

use super::{Answer, has_rows, split};
use crate::{
    error::InferError,
    model::{Batching, Model, TensorInfo},
};

/// Why requests of a model are never put together.
#[derive(Debug, thiserror::Error)]
pub enum NotBatched {
    /// An input or output has no first dimension for it.
    #[error("not every input and output has a first dimension of any size, and numbers as elements")]
    NoRows,
    /// Made-up inputs do not run.
    #[error("the model does not run on made-up inputs: {0}")]
    Fails(#[from] InferError),
    /// Trying it would take too much.
    #[error("two rows of its inputs are more than {limit} octets, so that trying them takes too much")]
    TooLarge {
        /// Octets of one input that are tried at most.
        limit: usize,
    },
    /// The answers differ.
    #[error("in a batch of any size its answers differ, if only in their last bits")]
    Differs,
}

/// The sizes to use, ascending.
pub(super) fn sizes(model: &Model, options: &Batching) -> Result<Vec<usize>, NotBatched> {
    if !has_rows(model.inputs()) || !has_rows(model.outputs()) {
        return Err(NotBatched::NoRows);
    }
    let rows = model.inputs().iter().map(|info| row_octets(info).map(|octets| MOST_OCTETS / octets.max(1)));
    let rows = rows.map(Option::unwrap_or_default).min().unwrap_or_default();
    if rows < 2 {
        return Err(NotBatched::TooLarge { limit: MOST_OCTETS });
    }
    let most = options.max_batch_size.min(MOST_ROWS).min(rows);
    let doubled = (0..usize::BITS).map(|exponent| 1 << exponent);
    let candidates: BTreeSet<usize> =
        (2..=8).chain(doubled).chain(options.preferred.iter().copied()).chain([most]).collect();
    let mut session = model.sessions().take();
    let mut run = |first: usize, rows: usize| {
        let inputs: Vec<_> = model.inputs().iter().map(|info| made_up(info, first, rows)).collect();
        model.run_on(&mut session, &inputs, &[])
    };
    let mut alone: Vec<Answer> = Vec::new();
    let mut sizes = Vec::new();
    for size in candidates.into_iter().filter(|size| (2..=most).contains(size)) {
        while alone.len() < size {
            let answer = run(alone.len(), 1)?;
            alone.push(answer);
        }
        let together = run(0, size)?;
        if split(together, &vec![1; size]).is_some_and(|rows| alone.get(..size) == Some(rows.as_slice())) {
            sizes.push(size);
        }
    }
    if sizes.is_empty() { Err(NotBatched::Differs) } else { Ok(sizes) }
}

/// Octets of one row; none if they are more than can be counted.
fn row_octets(info: &TensorInfo) -> Option<usize> {
    let dims = info.shape.iter().skip(1).map(|&dim| usize::try_from(dim).unwrap_or(ANY_SIZE as usize));
    dims.into_iter().try_fold(info.dtype.size()?, |octets, dim| octets.checked_mul(dim))
}

/// Rows from `first` on of an input that goes on for ever; other dimensions of any size become 8.
fn made_up(info: &TensorInfo, first: usize, rows: usize) -> (String, Tensor<'static>) {
    let tail: Vec<u64> =
        info.shape.iter().skip(1).map(|&dim| u64::try_from(dim).unwrap_or(ANY_SIZE)).collect();
    let in_row = tail.iter().fold(1_u64, |n, dim| n.saturating_mul(*dim));
    let from = in_row.saturating_mul(first as u64);
    let elements = from..from.saturating_add(in_row.saturating_mul(rows as u64));
    let data: Vec<u8> = elements.flat_map(|index| element(info.dtype, index)).collect();
    let dims: Vec<u64> = [rows as u64].into_iter().chain(tail).collect();
    let tensor = Shape::new(dims).and_then(|shape| Tensor::new(info.dtype, shape, data));
    (info.name.clone(), tensor.unwrap_or_else(|_| unreachable!("as many octets as the shape has")))
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
            let mut octets = vec![0; whole.size().unwrap_or_default()];
            if let Some(lowest) = octets.first_mut() {
                *lowest = u8::from(bits >> 63 == 1);
            }
            octets
        }
    }
}

const ANY_SIZE: u64 = 8;
/// What is tried at most, so that no model and no setting makes loading endless.
const MOST_ROWS: usize = 256;
const MOST_OCTETS: usize = 64 << 20;
