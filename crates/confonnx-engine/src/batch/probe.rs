//! Which batches have the same answers as their rows one at a time.
//!
//! ONNX Runtime chooses its kernels by shape, and some add in another order for one row than for several. So every size
//! is tried when a model is loaded, and used only if each bit of the answers is the same.

use std::collections::BTreeSet;

use super::{Answer, has_rows, split};
use crate::{
    error::InferError,
    model::{Batching, Model},
    trial::{self, MOST_BYTES},
};

/// Why requests of a model are never batched.
#[derive(Debug, thiserror::Error)]
pub enum NotBatched {
    /// An input or output has no first dimension for it.
    #[error("not every input and output has a first dimension of any size, and numbers as elements")]
    NoRows,
    /// Made-up inputs do not run.
    #[error("the model does not run on made-up inputs: {0}")]
    Fails(#[from] InferError),
    /// Trying it would take too much.
    #[error("two rows of its inputs are more than {limit} bytes, so that trying them takes too much")]
    TooLarge {
        /// Bytes of one input that are tried at most.
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
    let rows =
        model.inputs().iter().map(|info| trial::row_bytes(info).map(|bytes| MOST_BYTES / bytes.max(1)));
    let rows = rows.map(Option::unwrap_or_default).min().unwrap_or_default();
    if rows < 2 {
        return Err(NotBatched::TooLarge { limit: MOST_BYTES });
    }
    let most = options.max_batch_size.min(MOST_ROWS).min(rows);
    let doubled = (0..usize::BITS).map(|exponent| 1 << exponent);
    let candidates: BTreeSet<usize> =
        (2..=8).chain(doubled).chain(options.preferred.iter().copied()).chain([most]).collect();
    let mut session = model.sessions().take();
    let mut run = |first: usize, rows: usize| {
        // Without inputs that cannot be made up it fails, and that is the reason given.
        let inputs: Vec<_> =
            model.inputs().iter().filter_map(|info| trial::rows(info, first, rows)).collect();
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

/// What is tried at most, so that no setting makes loading endless.
const MOST_ROWS: usize = 256;
