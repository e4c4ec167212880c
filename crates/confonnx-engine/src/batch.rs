//! Batched requests: their rows, along the axes that the model's owner states, run together.
//!
//! A request that finds a session idle runs at once, alone. One that does not becomes the leader of a batch, or joins
//! the one that is forming; the leader runs it on the next session that is free, so batches grow only with the queue. If
//! the batch fails, each of its requests runs alone and has its own answer or error.

mod columns;
mod probe;

use std::{
    fmt, mem,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use confonnx_tensor::{Erased, Tensor};

use crate::{
    error::InferError,
    port::{Ports, TensorInfo},
    run::{Answer, Runs},
};
use columns::{Layout, split};

pub use probe::NotBatched;

/// How requests are batched, of a model whose owner states that rows do not know of one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// The largest batch, 1 or more.
    pub max_batch_size: usize,
    /// Sizes that are run without waiting for more; none: only the largest.
    pub preferred: Vec<usize>,
    /// How long a request waits for others.
    pub max_delay: Duration,
    /// Along which axis the rows lie, of all inputs and outputs.
    pub axis: usize,
    /// Inputs and outputs whose rows lie along another axis, with that axis.
    pub other_axes: Vec<(String, usize)>,
}

impl Batching {
    fn axis(&self, name: &str) -> usize {
        self.other_axes.iter().find(|(other, _)| other == name).map_or(self.axis, |(_, axis)| *axis)
    }
}

pub(crate) struct Batcher {
    options: Batching,
    /// Rows that may run at once: those seen to give the same bits as one at a time. Ascending, 2 or more.
    sizes: Vec<usize>,
    forming: Mutex<Option<Arc<Batch>>>,
    /// Requests that were answered together with others.
    together: AtomicU64,
}

/// What the requests of a batch have in common: for each input all dimensions but that of its rows, and the outputs
/// asked for.
#[derive(PartialEq, Eq)]
struct Key {
    layouts: Vec<Layout>,
    outputs: Vec<String>,
}

struct Batch {
    key: Key,
    state: Mutex<State>,
    /// Someone joined, or there are answers.
    changed: Condvar,
}

struct State {
    /// For each input the rows of those who joined, one after another.
    columns: Vec<Erased<Vec<u8>>>,
    /// How many rows each of them has; the leader's come last, when the batch closes.
    rows: Vec<usize>,
    leader_rows: usize,
    /// The answers, once they are there: one for each request, or none for those that have to run alone.
    answers: Option<Vec<Option<Answer>>>,
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl Batcher {
    /// Batches with the sizes that keep the model's answers as they are.
    ///
    /// # Errors
    /// [`NotBatched`]: why its requests are never batched.
    pub(crate) fn new(runs: &Runs, options: Batching) -> Result<Self, NotBatched> {
        let sizes = probe::sizes(runs, &options)?;
        Ok(Self { options, sizes, forming: Mutex::new(None), together: AtomicU64::new(0) })
    }

    /// The most rows that run at once.
    pub(crate) fn largest(&self) -> usize {
        self.sizes.last().copied().unwrap_or(1)
    }

    /// Requests that were answered together with others, so far.
    pub(crate) fn together(&self) -> u64 {
        self.together.load(Relaxed)
    }

    /// Runs a request that was checked, with others or alone.
    pub(crate) fn run(
        &self,
        runs: &Runs,
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
    ) -> Result<Answer, InferError> {
        let alone = || runs.on(&mut runs.sessions.take(), inputs, outputs);
        let columns = columns(&runs.ports, inputs);
        let Some((layouts, rows)) = self.rows(&runs.ports, inputs, &columns) else { return alone() };
        if let Some(mut session) = runs.sessions.try_take() {
            return runs.on(&mut session, inputs, outputs);
        }
        match self.join(Key { layouts, outputs: outputs.to_vec() }, &columns, rows) {
            Place::Member(batch, index) => batch.answer(index).map_or_else(alone, Ok),
            Place::Leader(batch) => {
                // Whatever becomes of the leader, nobody waits for it in vain.
                let lead = Lead(&batch);
                let mut session = runs.sessions.take();
                self.close(&batch);
                let mine =
                    lead.run(self, &runs.ports, &columns, |inputs| runs.on(&mut session, inputs, outputs));
                drop(lead);
                match mine {
                    Some(answer) => Ok(answer),
                    None => runs.on(&mut session, inputs, outputs),
                }
            }
        }
    }

    /// The layouts of a request's inputs and how many rows all of them have; none if it cannot be batched.
    fn rows(
        &self,
        ports: &Ports,
        inputs: &[(String, Tensor<'_>)],
        columns: &[&Tensor<'_>],
    ) -> Option<(Vec<Layout>, usize)> {
        // A request with one input more gives a value for an initializer, which others do not share.
        if inputs.len() != ports.inputs.len() || columns.len() != ports.inputs.len() {
            return None;
        }
        let of =
            |(info, tensor): (&TensorInfo, &&Tensor<'_>)| Layout::of(tensor, self.options.axis(&info.name));
        let (layouts, rows): (Vec<_>, Vec<_>) =
            ports.inputs.iter().zip(columns).map(of).collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let first = *rows.first()?;
        let fits = first > 0 && first < self.largest() && rows.iter().all(|rows| *rows == first);
        fits.then_some((layouts, first))
    }

    /// A place in the batch that is forming, or at the head of a new one.
    fn join(&self, key: Key, columns: &[&Tensor<'_>], rows: usize) -> Place {
        let mut forming = lock(&self.forming);
        if let Some(batch) = forming.as_ref().filter(|batch| batch.key == key) {
            let mut state = lock(&batch.state);
            if state.total().saturating_add(rows) <= self.largest() {
                for (column, tensor) in state.columns.iter_mut().zip(columns) {
                    column.append(tensor.data());
                }
                state.rows.push(rows);
                let index = state.rows.len().saturating_sub(1);
                drop(state);
                batch.changed.notify_all();
                return Place::Member(Arc::clone(batch), index);
            }
        }
        let columns = columns.iter().map(|_| Erased::default()).collect();
        let state = Mutex::new(State { columns, rows: Vec::new(), leader_rows: rows, answers: None });
        let batch = Arc::new(Batch { key, state, changed: Condvar::new() });
        // A batch that this one takes the place of is as full as it gets; its own leader runs it.
        *forming = Some(Arc::clone(&batch));
        Place::Leader(batch)
    }

    /// Waits for more requests as long as the settings say, then lets none join any more.
    fn close(&self, batch: &Arc<Batch>) {
        let deadline = Instant::now().checked_add(self.options.max_delay);
        let mut state = lock(&batch.state);
        while !self.is_enough(state.total()) {
            let left = deadline.and_then(|deadline| deadline.checked_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else { break };
            state = batch.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let mut forming = lock(&self.forming);
        if forming.as_ref().is_some_and(|current| Arc::ptr_eq(current, batch)) {
            *forming = None;
        }
    }

    fn is_enough(&self, rows: usize) -> bool {
        rows >= self.largest() || self.options.preferred.contains(&rows)
    }
}

enum Place {
    Leader(Arc<Batch>),
    Member(Arc<Batch>, usize),
}

impl State {
    fn total(&self) -> usize {
        self.rows.iter().fold(self.leader_rows, |sum, rows| sum.saturating_add(*rows))
    }
}

impl Batch {
    /// Waits for the leader; none when this request has to run alone.
    fn answer(&self, index: usize) -> Option<Answer> {
        let mut state = lock(&self.state);
        loop {
            if let Some(answers) = &mut state.answers {
                return answers.get_mut(index).and_then(Option::take);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The leader's duty to those who joined.
struct Lead<'b>(&'b Batch);

impl Lead<'_> {
    /// Runs the closed batch and hands out the answers; the leader's own is returned.
    fn run(
        &self,
        batcher: &Batcher,
        ports: &Ports,
        own: &[&Tensor<'_>],
        mut run: impl FnMut(&[(String, Tensor<'_>)]) -> Result<Answer, InferError>,
    ) -> Option<Answer> {
        let mut state = lock(&self.0.state);
        if state.rows.is_empty() {
            return None;
        }
        let (mut columns, mut rows) = (mem::take(&mut state.columns), mem::take(&mut state.rows));
        rows.push(state.leader_rows);
        drop(state);
        for (column, tensor) in columns.iter_mut().zip(own) {
            column.append(tensor.data());
        }
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(rows.len());
        let mut first_row = 0_usize;
        for members in groups(&rows, &batcher.sizes) {
            let members = rows.get(members).unwrap_or_default();
            let total: usize = members.iter().sum();
            let range = first_row..first_row.saturating_add(total);
            first_row = range.end;
            let inputs = slice(ports, &columns, &self.0.key.layouts, range, members);
            let answer = inputs
                // The inputs that were put together anew are erased.
                .and_then(|inputs| run(&Erased::new(inputs)).ok())
                .and_then(|answer| split(answer, members, |name| batcher.options.axis(name)));
            match answer {
                Some(split) => {
                    if split.len() > 1 {
                        batcher.together.fetch_add(split.len() as u64, Relaxed);
                    }
                    answers.extend(split.into_iter().map(Some));
                }
                None => answers.extend(members.iter().map(|_| None)),
            }
        }
        let mine = answers.pop().flatten();
        lock(&self.0.state).answers = Some(answers);
        mine
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).answers.get_or_insert_default();
        self.0.changed.notify_all();
    }
}

/// Which neighbouring requests run together: as many as have an allowed number of rows in all, or one.
fn groups(rows: &[usize], sizes: &[usize]) -> Vec<Range<usize>> {
    let (mut groups, mut start) = (Vec::new(), 0);
    while start < rows.len() {
        let (mut end, mut total) = (start.saturating_add(1), 0_usize);
        for (index, rows) in rows.iter().enumerate().skip(start) {
            total = total.saturating_add(*rows);
            if sizes.binary_search(&total).is_ok() {
                end = index.saturating_add(1);
            }
        }
        groups.push(start..end);
        start = end;
    }
    groups
}

/// The request's inputs in the order of the model's.
fn columns<'t, 'd>(ports: &Ports, inputs: &'t [(String, Tensor<'d>)]) -> Vec<&'t Tensor<'d>> {
    let find = |info: &TensorInfo| inputs.iter().find(|(name, _)| *name == info.name);
    ports.inputs.iter().filter_map(find).map(|(_, tensor)| tensor).collect()
}

/// The rows in `range`, those of `members`, as inputs of the model.
fn slice<'c>(
    ports: &Ports,
    columns: &'c [Erased<Vec<u8>>],
    layouts: &[Layout],
    range: Range<usize>,
    members: &[usize],
) -> Option<Vec<(String, Tensor<'c>)>> {
    let mut inputs = Vec::with_capacity(columns.len());
    for ((info, column), layout) in ports.inputs.iter().zip(columns).zip(layouts) {
        let column = column.get(layout.bytes(range.start)?..layout.bytes(range.end)?)?;
        inputs.push((info.name.clone(), layout.join(column, members)?));
    }
    Some(inputs)
}

/// What the locks guard is consistent between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_run_together_in_sizes_that_are_allowed() {
        assert_eq!(groups(&[1; 5], &[2, 4]), [0..4, 4..5]);
        assert_eq!(groups(&[1, 1, 1, 9], &[2, 3, 4]), [0..3, 3..4]);
        assert_eq!(groups(&[3, 1, 5], &[4]), [0..2, 2..3]);
        assert_eq!(groups(&[2, 7], &[]), [0..1, 1..2]);
    }
}
