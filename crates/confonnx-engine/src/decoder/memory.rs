//! What a model remembers of each sequence, and how it goes on with some of them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use confonnx_tensor::{DataType, Shape, Tensor};
use ort::session::Session;

use super::{
    Decoder, Feed, LOGITS, Order,
    cache::Cache,
    encoder::Encoder,
    run::{self, Logits, Rows},
    trial::{self, Means},
};
use crate::{error::InferError, run::Answer};

/// What is remembered of all sequences.
#[derive(Debug)]
pub(crate) struct Memories {
    state: Mutex<State>,
    means: Means,
}

#[derive(Debug, Default)]
struct State {
    sequences: HashMap<u64, Sequence>,
    joint: Option<Joint>,
    /// What reads for the model before it says anything, if it is such a one.
    encoder: Option<Encoder>,
}

/// One sequence: what is remembered of it is its own, or a seat of those who go on together.
#[derive(Debug)]
struct Sequence {
    tokens: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Own(Cache),
    Seat(usize),
}

/// Sequences that go on in one run.
#[derive(Debug)]
struct Joint {
    cache: Cache,
    seats: Vec<Option<u64>>,
}

impl Memories {
    /// The memories of a model whose owner states that its rows are independent, if `batches` says how many
    /// may go on together.
    pub(crate) fn new(decoder: &Decoder, session: &mut Session, batches: Option<usize>) -> Self {
        Self { state: Mutex::default(), means: trial::means(decoder, session, batches) }
    }

    /// The memories of a model for which `encoder` reads. Each sequence goes on alone, and what is remembered is handed on.
    ///
    /// # Errors
    /// What goes wrong when made-up tokens are read and the model goes on with them.
    pub(crate) fn with_encoder(
        decoder: &Decoder,
        session: &mut Session,
        mut encoder: Encoder,
    ) -> Result<Self, InferError> {
        trial::go_together(decoder, session, &mut encoder)?;
        let state = State { encoder: Some(encoder), ..State::default() };
        Ok(Self { state: Mutex::new(state), means: Means::default() })
    }

    /// How many sequences go on in one run at most.
    pub(crate) fn largest_batch(&self) -> usize {
        self.means.sizes.last().copied().unwrap_or(1)
    }

    /// Does what `order` says; gives the logits that are wanted, one row each.
    pub(crate) fn step(
        &self,
        decoder: &Decoder,
        session: &mut Session,
        order: &Order,
    ) -> Result<Answer, InferError> {
        let mut state = self.lock();
        for sequence in &order.close {
            state.forget(*sequence);
        }
        let wanted = order.feeds.iter().filter(|feed| feed.wanted).count();
        let row = decoder.vocabulary().saturating_mul(size_of::<f32>());
        let mut rows = Vec::with_capacity(wanted.saturating_mul(row));
        let mut count = 0_u64;
        for (feed, logits) in
            order.feeds.iter().zip(self.go_on(&mut state, decoder, session, &order.feeds)?)
        {
            if feed.wanted {
                rows.extend_from_slice(&logits);
                count = count.saturating_add(1);
            }
        }
        let shape = Shape::new([count, decoder.vocabulary() as u64]).map_err(|_| unusable())?;
        let logits = Tensor::new(DataType::Fp32, shape, rows).map_err(|_| unusable())?;
        Ok(vec![(LOGITS.to_owned(), logits)])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The logits after each of `feeds`. If it fails, none of their sequences is remembered.
    fn go_on(
        &self,
        state: &mut State,
        decoder: &Decoder,
        session: &mut Session,
        feeds: &[Feed],
    ) -> Result<Vec<Logits>, InferError> {
        let each_knows = |feed: &Feed| {
            let known = state.sequences.get(&feed.sequence).map_or(0, |sequence| sequence.tokens);
            let reads = decoder.has_encoder() && feed.past == 0;
            let source = feed.source.is_empty() != reads;
            source && !feed.tokens.is_empty() && (feed.past == 0 || feed.past == known)
        };
        let known = feeds.iter().all(each_knows);
        let once = feeds.iter().enumerate().all(|(at, feed)| {
            feeds.iter().skip(at.saturating_add(1)).all(|other| other.sequence != feed.sequence)
        });
        let result = if known && once {
            match self.together(decoder, feeds) {
                Some(size) => state.together(decoder, session, feeds, size),
                None => feeds.iter().map(|feed| self.alone(state, decoder, session, feed)).collect(),
            }
        } else {
            Err(InferError::BoxedInput("the model remembers no such sequence".to_owned()))
        };
        if result.is_err() {
            for feed in feeds {
                state.forget(feed.sequence);
            }
        }
        result
    }

    /// How many rows the run has in which these go on together, if they do.
    fn together(&self, decoder: &Decoder, feeds: &[Feed]) -> Option<usize> {
        let size = *self.means.sizes.iter().find(|size| **size >= feeds.len())?;
        let decode = feeds.len() > 1 && feeds.iter().all(|feed| feed.past > 0 && feed.tokens.len() == 1);
        let longest = feeds.iter().map(|feed| feed.past).max()?;
        let bytes =
            room(longest.checked_add(1)?).checked_mul(size)?.checked_mul(decoder.bytes_per_token())?;
        (decode && bytes <= JOINT).then_some(size)
    }

    fn alone(
        &self,
        state: &mut State,
        decoder: &Decoder,
        session: &mut Session,
        feed: &Feed,
    ) -> Result<Logits, InferError> {
        let all = feed.past.saturating_add(feed.tokens.len());
        let rows = Rows { tokens: &[&feed.tokens], past: &[feed.past] };
        let mut cache = if feed.past == 0 {
            state.forget(feed.sequence);
            let mut cache = Cache::new(decoder, 1, if self.means.in_place { room(all) } else { 0 })?;
            if let Some((source, encoder)) = decoder.source.as_ref().zip(state.encoder.as_mut()) {
                cache.read = Some(encoder.read(source, &feed.source)?);
            }
            cache
        } else {
            state.take(decoder, feed.sequence, if self.means.in_place { room(all) } else { 0 })?
        };
        let logits = if self.means.in_place {
            run::in_place(decoder, session, &rows, &mut cache)
        } else {
            run::handed_on(decoder, session, &rows, &mut cache)
        };
        let logits = logits?.pop().ok_or_else(unusable)?;
        state.sequences.insert(feed.sequence, Sequence { tokens: all, place: Place::Own(cache) });
        Ok(logits)
    }
}

impl State {
    fn forget(&mut self, sequence: u64) {
        let seat = match self.sequences.remove(&sequence) {
            Some(Sequence { place: Place::Seat(seat), .. }) => seat,
            _ => return,
        };
        let Some(joint) = &mut self.joint else { return };
        if let Some(seat) = joint.seats.get_mut(seat) {
            *seat = None;
        }
        // What is left in a seat goes with the others: at the latest when they all went.
        if joint.seats.iter().all(Option::is_none) {
            self.joint = None;
        } else {
            joint.cache.erase(seat);
        }
    }

    /// What is remembered of a sequence, in a memory of its own with room for `room` tokens at least.
    fn take(&mut self, decoder: &Decoder, id: u64, room: usize) -> Result<Cache, InferError> {
        let Sequence { tokens, place } = self.sequences.remove(&id).ok_or_else(unusable)?;
        match place {
            Place::Own(cache) if cache.room >= room => Ok(cache),
            Place::Own(cache) => {
                let mut larger = Cache::new(decoder, 1, room)?;
                larger.copy(decoder, 0, &cache, 0, tokens).ok_or_else(unusable)?;
                Ok(larger)
            }
            Place::Seat(seat) => {
                let mut own = Cache::new(decoder, 1, room.max(tokens))?;
                let joint = self.joint.as_ref().ok_or_else(unusable)?;
                own.copy(decoder, 0, &joint.cache, seat, tokens).ok_or_else(unusable)?;
                self.sequences.insert(id, Sequence { tokens, place: Place::Seat(seat) });
                self.forget(id);
                Ok(own)
            }
        }
    }

    /// Goes on with all of `feeds`, a token each, in one run of `size` rows.
    fn together(
        &mut self,
        decoder: &Decoder,
        session: &mut Session,
        feeds: &[Feed],
        size: usize,
    ) -> Result<Vec<Logits>, InferError> {
        self.seat(decoder, feeds, size)?;
        let joint = self.joint.as_mut().ok_or_else(unusable)?;
        let (mut tokens, mut past) = (vec![&[0_i64][..]; size], vec![0; size]);
        for ((token, past), seat) in tokens.iter_mut().zip(&mut past).zip(&joint.seats) {
            let Some(id) = seat else { continue };
            // A sequence that does not go on has a token written after what it remembers, where its next one comes.
            *past = self.sequences.get(id).map_or(0, |sequence| sequence.tokens);
            if let Some(feed) = feeds.iter().find(|feed| feed.sequence == *id) {
                *token = feed.tokens.as_slice();
            }
        }
        let rows = Rows { tokens: &tokens, past: &past };
        let mut all = run::in_place(decoder, session, &rows, &mut joint.cache)?;
        let mut logits = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let sequence = self.sequences.get_mut(&feed.sequence).ok_or_else(unusable)?;
            sequence.tokens = sequence.tokens.saturating_add(1);
            let Place::Seat(seat) = sequence.place else { return Err(unusable()) };
            logits.push(all.get_mut(seat).map(std::mem::take).ok_or_else(unusable)?);
        }
        Ok(logits)
    }

    /// Gives each of `feeds` a seat: free ones of those who sit together already, or all new ones.
    fn seat(&mut self, decoder: &Decoder, feeds: &[Feed], size: usize) -> Result<(), InferError> {
        let is_seated = |id: u64, sequences: &HashMap<u64, Sequence>| {
            matches!(sequences.get(&id), Some(Sequence { place: Place::Seat(_), .. }))
        };
        let standing: Vec<u64> =
            feeds.iter().map(|feed| feed.sequence).filter(|id| !is_seated(*id, &self.sequences)).collect();
        let longest = feeds.iter().map(|feed| feed.past).max().unwrap_or(0).saturating_add(1);
        let fits = self.joint.as_ref().is_some_and(|joint| {
            let free = joint.seats.iter().filter(|seat| seat.is_none()).count();
            let enough =
                joint.seats.iter().flatten().all(|id| {
                    self.sequences.get(id).is_some_and(|sequence| sequence.tokens < joint.cache.room)
                });
            joint.cache.rows == size && free >= standing.len() && longest <= joint.cache.room && enough
        });
        if !fits {
            return self.seat_anew(decoder, feeds, size, room(longest));
        }
        for id in standing {
            let sequence = self.sequences.get_mut(&id).ok_or_else(unusable)?;
            let joint = self.joint.as_mut().ok_or_else(unusable)?;
            let seat = joint.seats.iter().position(Option::is_none).ok_or_else(unusable)?;
            if let Place::Own(cache) = &sequence.place {
                joint.cache.copy(decoder, seat, cache, 0, sequence.tokens).ok_or_else(unusable)?;
            }
            sequence.place = Place::Seat(seat);
            if let Some(taken) = joint.seats.get_mut(seat) {
                *taken = Some(id);
            }
        }
        Ok(())
    }

    fn seat_anew(
        &mut self,
        decoder: &Decoder,
        feeds: &[Feed],
        size: usize,
        room: usize,
    ) -> Result<(), InferError> {
        let mut cache = Cache::new(decoder, size, room)?;
        let mut seats = vec![None; size];
        for ((number, seat), feed) in seats.iter_mut().enumerate().zip(feeds) {
            let sequence = self.sequences.get(&feed.sequence).ok_or_else(unusable)?;
            let copied = match &sequence.place {
                Place::Own(own) => cache.copy(decoder, number, own, 0, sequence.tokens),
                Place::Seat(old) => {
                    let joint = self.joint.as_ref().ok_or_else(unusable)?;
                    cache.copy(decoder, number, &joint.cache, *old, sequence.tokens)
                }
            };
            copied.ok_or_else(unusable)?;
            *seat = Some(feed.sequence);
        }
        // A sequence that sat with them and does not go on now has a memory of its own again.
        let left = self.joint.as_ref().map_or_else(Vec::new, |joint| joint.seats.clone());
        for id in left.into_iter().flatten().filter(|id| !seats.contains(&Some(*id))) {
            let tokens = self.sequences.get(&id).map_or(0, |sequence| sequence.tokens);
            let own = self.take(decoder, id, self::room(tokens))?;
            self.sequences.insert(id, Sequence { tokens, place: Place::Own(own) });
        }
        for (number, id) in seats.iter().enumerate() {
            if let Some(sequence) = id.and_then(|id| self.sequences.get_mut(&id)) {
                sequence.place = Place::Seat(number);
            }
        }
        self.joint = Some(Joint { cache, seats });
        Ok(())
    }
}

/// How many tokens to make room for: `tokens` and some more, so that room is not made anew at each token.
fn room(tokens: usize) -> usize {
    tokens.checked_next_multiple_of(ROOM).unwrap_or(tokens)
}

fn unusable() -> InferError {
    InferError::OutputType { name: LOGITS.to_owned() }
}

/// How many tokens memory is made for at once.
const ROOM: usize = 256;
/// The most bytes for sequences that go on together; else each goes on alone.
const JOINT: usize = 512 << 20;
