//! Which batches have the same answers as their rows one at a time.
//!
//! That rows do not know of one another is for the model's owner to state. What is tried here, when a model is loaded, can
//! only say no. ONNX Runtime chooses its kernels by shape, and some add in another order for one row than for several: so
//! every size is tried, and used only if each bit of the answers is the same. Then rows are spoilt, with NaN, with large
//! and small numbers, with indices over the whole range, and the other rows have to keep every bit.

use std::collections::BTreeSet;

use super::{Batching, columns::split};
use crate::{
    error::InferError,
    port::{Ports, TensorInfo},
    run::{Answer, Runs},
    sessions::Seat,
    trial::{self, ANY_SIZE, Fill, MOST_BYTES, Made},
};

/// Why requests of a model are never batched.
#[derive(Debug, thiserror::Error)]
pub enum NotBatched {
    /// The model's owner does not state that rows are independent.
    #[error(
        "the model does not state that its rows know nothing of one another, so no caller's data may meet another's; \
         its owner can state it with `confonnx annotate`"
    )]
    NotStated,
    /// An input or output has no axis of any size where its rows are said to lie.
    #[error(
        "not every input and output has an axis of any size where its rows are stated to be, and numbers as elements"
    )]
    NoRows,
    /// Made-up inputs do not run.
    #[error("the model does not run on made-up inputs: {0}")]
    Fails(#[from] InferError),
    /// Trying the batches would take too much memory.
    #[error("two rows of its inputs are more than {limit} bytes, so that trying them takes too much")]
    TooLarge {
        /// Bytes of one input that are tried at most.
        limit: usize,
    },
    /// An encoder reads what the model answers to.
    #[error("an encoder reads for it, and each goes on with what was read for it alone")]
    Encoder,
    /// A batch's answers differ from those to its rows alone.
    #[error("in a batch of any size its answers differ, if only in their last bits")]
    Differs,
    /// A row's answer depends on what is in other rows.
    #[error(
        "a row's answer changes with {what} in other rows, although the model states that its rows know nothing of one another"
    )]
    Mixes {
        /// What was in the other rows.
        what: String,
    },
}

/// The sizes to use, ascending.
pub(super) fn sizes(runs: &Runs, options: &Batching) -> Result<Vec<usize>, NotBatched> {
    let Ports { inputs, outputs, .. } = &runs.ports;
    let has_rows = |infos: &[TensorInfo]| {
        let has = |info: &TensorInfo| info.shape.get(options.axis(&info.name)) == Some(&-1);
        !infos.is_empty() && infos.iter().all(|info| has(info) && info.dtype.size().is_some())
    };
    if !has_rows(inputs) || !has_rows(outputs) {
        return Err(NotBatched::NoRows);
    }
    let rows = inputs.iter().map(|info| {
        trial::row_bytes(info, options.axis(&info.name))
            .map(|bytes| MOST_BYTES.checked_div(bytes).unwrap_or(MOST_BYTES))
    });
    let rows = rows.map(Option::unwrap_or_default).min().unwrap_or_default();
    if rows < 2 {
        return Err(NotBatched::TooLarge { limit: MOST_BYTES });
    }
    let most = options.max_batch_size.min(MOST_ROWS).min(rows);
    let doubled = (0..usize::BITS).map(|exponent| 1 << exponent);
    let candidates: BTreeSet<usize> =
        (2..=8).chain(doubled).chain(options.preferred.iter().copied()).chain([most]).collect();
    let mut session = runs.sessions.take();
    let mut trial = Trial { runs, options, seat: &mut session };
    let mut alone: Vec<Answer> = Vec::new();
    let mut sizes = Vec::new();
    for size in candidates.into_iter().filter(|size| (2..=most).contains(size)) {
        while alone.len() < size {
            let answer = trial.run(&[row(alone.len())], None)?;
            alone.push(answer);
        }
        let rows: Vec<_> = (0..size).map(row).collect();
        let answers = trial.rows(&rows, None)?;
        if answers.is_some_and(|answers| alone.get(..size) == Some(answers.as_slice())) {
            sizes.push(size);
        }
    }
    let Some(smallest) = sizes.first().copied() else { return Err(NotBatched::Differs) };
    let large = sizes.iter().rev().copied().find(|size| *size <= TAINTED_ROWS).unwrap_or(smallest);
    for size in BTreeSet::from([smallest, large]) {
        trial.taint(size, alone.get(..size).unwrap_or_default())?;
    }
    trial.count_up(large, alone.get(..large).unwrap_or_default())?;
    Ok(sizes)
}

/// Every other row is of another size, so that their scales differ.
fn row(number: usize) -> (u64, Fill) {
    (number as u64, if number % 2 == 1 { Fill::Wide } else { Fill::Unit })
}

struct Trial<'t> {
    runs: &'t Runs,
    options: &'t Batching,
    seat: &'t mut Seat,
}

impl Trial<'_> {
    /// Runs `rows`; of an input that is not `only`, spoilt ones are as they would be otherwise.
    fn run(&mut self, rows: &[(u64, Fill)], only: Option<&str>) -> Result<Answer, InferError> {
        let whole: Vec<_> =
            rows.iter().map(|(number, _)| row(usize::try_from(*number).unwrap_or_default())).collect();
        let made = |info: &TensorInfo| {
            let rows = if only.is_none_or(|only| only == info.name) { rows } else { &whole };
            Made { axis: self.options.axis(&info.name), any: ANY_SIZE }.rows(info, rows)
        };
        // Inputs that cannot be made up are missing, so the run fails, and that is the reason given.
        let inputs: Vec<_> = self.runs.ports.inputs.iter().filter_map(made).collect();
        self.runs.on(self.seat, &inputs, &[])
    }

    /// The answers for `rows`, one by one; none if they are not as many.
    fn rows(&mut self, rows: &[(u64, Fill)], only: Option<&str>) -> Result<Option<Vec<Answer>>, InferError> {
        let together = self.run(rows, only)?;
        Ok(split(together, &vec![1; rows.len()], |name| self.options.axis(name)))
    }

    /// Spoils one row of `size`, then all but one; the others have to be as they are `alone`.
    fn taint(&mut self, size: usize, alone: &[Answer]) -> Result<(), NotBatched> {
        let inputs = &self.runs.ports.inputs;
        let single = (2..=MOST_INPUTS).contains(&inputs.len());
        let single = inputs.iter().filter(|_| single).map(|info| Some(info.name.as_str()));
        for only in [None].into_iter().chain(single) {
            for fill in TAINTS {
                for spoils_one in [true, false] {
                    // `spoilt` is the middle row, or all rows but the middle one.
                    let spoilt = |number: usize| (number == size / 2) == spoils_one;
                    self.look(size, alone, only, &spoilt, |_| fill)?;
                }
            }
        }
        Ok(())
    }

    /// Indices over the whole range that an input takes, in all rows but one.
    fn count_up(&mut self, size: usize, alone: &[Answer]) -> Result<(), NotBatched> {
        for info in
            self.runs.ports.inputs.iter().filter(|info| trial::is_integer(info.dtype)).take(MOST_INPUTS)
        {
            let most = self.largest_index(&info.name);
            let others = i64::try_from(size.saturating_sub(1)).unwrap_or(1).max(1);
            let in_row = trial::row_bytes(info, self.options.axis(&info.name)).unwrap_or(1);
            let in_row = i64::try_from(in_row.checked_div(info.dtype.size().unwrap_or(1)).unwrap_or(in_row))
                .unwrap_or(i64::MAX)
                .max(1);
            let in_run = in_row.saturating_mul(others);
            let step =
                most.checked_div(in_run.saturating_mul(MOST_RUNS)).unwrap_or_default().saturating_add(1);
            let stride = step.saturating_mul(in_row);
            let mut first = 0_i64;
            while first <= most {
                let begin = first;
                let fill = |number: usize| Fill::Count {
                    first: begin
                        .saturating_add(i64::try_from(number).unwrap_or_default().saturating_mul(stride)),
                    step,
                    most,
                };
                // The first row and the last one take turns in being left alone, row 0 counting as any other.
                let kept = if first.checked_div(stride.saturating_mul(others)).unwrap_or_default() % 2 == 0 {
                    size.saturating_sub(1)
                } else {
                    0
                };
                self.look(size, alone, Some(&info.name), &|number| number != kept, fill)?;
                first = first.saturating_add(stride.saturating_mul(others));
            }
        }
        Ok(())
    }

    /// The largest integer that the model takes in all places of an input.
    fn largest_index(&mut self, input: &str) -> i64 {
        let mut takes = |value: i64| self.run(&[(0, Fill::Integer(value))], Some(input)).is_ok();
        let (mut yes, mut no) = (1_i64, 2_i64);
        while takes(no) {
            yes = no;
            if no >= MOST_INDEX {
                return yes;
            }
            no = no.saturating_mul(2);
        }
        while yes.saturating_add(1) < no {
            let middle = yes.midpoint(no);
            if takes(middle) { yes = middle } else { no = middle }
        }
        yes
    }

    /// Compares the rows that are not spoilt with how they are alone. A batch that fails says nothing: its requests would run
    /// alone.
    fn look(
        &mut self,
        size: usize,
        alone: &[Answer],
        only: Option<&str>,
        spoilt: &dyn Fn(usize) -> bool,
        fill: impl Fn(usize) -> Fill,
    ) -> Result<(), NotBatched> {
        let rows: Vec<_> = (0..size)
            .map(|number| if spoilt(number) { (number as u64, fill(number)) } else { row(number) })
            .collect();
        let Ok(answers) = self.rows(&rows, only) else { return Ok(()) };
        let mixes = || {
            let what = rows
                .iter()
                .find(|(number, fill)| *fill != row(usize::try_from(*number).unwrap_or_default()).1);
            NotBatched::Mixes { what: what.map_or_else(|| "something".into(), |(_, fill)| said(*fill)) }
        };
        let answers = answers.ok_or_else(mixes)?;
        let kept = |(number, (found, alone)): (usize, (&Answer, &Answer))| spoilt(number) || found == alone;
        if answers.iter().zip(alone).enumerate().all(kept) { Ok(()) } else { Err(mixes()) }
    }
}

fn said(fill: Fill) -> String {
    match fill {
        Fill::Unit | Fill::Wide => "other numbers".into(),
        Fill::Real(value) => format!("{value:e}"),
        Fill::Integer(value) => format!("the integer {value}"),
        Fill::Count { .. } => "other indices".into(),
    }
}

const TAINTS: [Fill; 11] = [
    Fill::Real(f64::NAN),
    Fill::Real(f64::INFINITY),
    Fill::Real(f64::NEG_INFINITY),
    Fill::Real(1e30),
    Fill::Real(-1e30),
    Fill::Real(1e4),
    Fill::Real(-3.0),
    Fill::Real(0.0),
    Fill::Integer(i64::MAX),
    Fill::Integer(i64::MIN),
    Fill::Integer(0),
];

/// The most rows that are tried, so that no setting makes loading endless.
const MOST_ROWS: usize = 256;
const TAINTED_ROWS: usize = 16;
const MOST_INPUTS: usize = 16;
const MOST_RUNS: i64 = 64;
const MOST_INDEX: i64 = 1 << 31;
