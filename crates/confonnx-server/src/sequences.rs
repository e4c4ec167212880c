//! What a model keeps from one request of a sequence to the next: its state, which crosses to nobody.
//!
//! A model's owner states in its file which inputs are kept ([`Kept`](confonnx_model::Kept)). A sequence is one caller's: its
//! name is looked up beside the caller's.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use confonnx_engine::{LoadedModel, TensorInfo};
use confonnx_model::ModelInfo;
use confonnx_protocol::oip::{Sequence, SequenceId};
use confonnx_tensor::{Erased, Shape, Tensor};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::pacer::{Paced, Pacer};

type Tensors = Vec<(String, Tensor<'static>)>;

/// Whose request it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender<'r> {
    /// The caller's name, if callers have names.
    pub caller: Option<&'r str>,
    /// The network that it came from, if that tells callers apart.
    pub network: Option<IpAddr>,
}

impl Sender<'_> {
    /// A text that is another for each who is told apart; none if nothing tells callers apart.
    pub fn told_apart(&self) -> Option<Arc<str>> {
        match Holder::of(*self) {
            Holder::Caller(name) => Some(format!("caller {name}").into()),
            Holder::Network(network) => Some(format!("network {network}").into()),
            Holder::Anybody => None,
        }
    }
}

/// The sequences of a model.
pub struct Sequences {
    kept: Arc<[Keeps]>,
    table: Arc<Table>,
    pacer: Pacer,
}

/// Why a request is not one of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The model has no state.
    #[error(
        "sequence_id: the model keeps nothing from one request to the next; expected a model with such a statement (confonnx \
         annotate --state), or a request without sequence_id"
    )]
    Stateless,
    /// A name that others could guess.
    #[error(
        "sequence_id: expected a random text of {LEAST_TEXT} to {MOST_TEXT} bytes or a random number of 2^48 or more, because \
         callers are not told apart and whoever knows it goes on with the sequence"
    )]
    Guessable,
    /// A name that is too long.
    #[error("sequence_id: expected {MOST_TEXT} bytes at most, found {found}")]
    Name {
        /// Bytes.
        found: usize,
    },
    /// No such sequence.
    #[error(
        "there is no such sequence: it was not begun (sequence_start), has ended, failed, or was not asked to go on for {} s; \
         begin again",
        IDLE.as_secs()
    )]
    Unknown,
    /// A request of it is being answered.
    #[error("an earlier request of this sequence is not answered yet; expected them one after another")]
    Busy,
    /// An input that the sequence has.
    #[error("the sequence keeps the input {input:?}; expected it in the first request or in none")]
    Given {
        /// The input.
        input: String,
    },
    /// What the request before it was called.
    #[error(
        "the request before this one in its sequence has the same id, and the sequence has gone on with it; expected another id, \
         or to begin again (sequence_start) if its answer was lost"
    )]
    Repeated,
    /// Too many of one caller's.
    #[error(
        "{} sequences, or {} bytes of their state, are one caller's at most; end some (sequence_end), or try again later",
        MOST / 2,
        MEMORY / 2
    )]
    Share,
    /// Too many.
    #[error(
        "{MOST} sequences, or {MEMORY} bytes of their state, are kept already; end some, or try again later"
    )]
    Full,
}

#[derive(Debug)]
struct Keeps {
    input: TensorInfo,
    output: Option<String>,
}

#[derive(Default)]
struct Table(Mutex<State>);

#[derive(Default)]
struct State {
    all: HashMap<Key, Entry>,
    swept: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    caller: Option<String>,
    id: SequenceId,
}

/// A sequence, and who has a place less by it: the last one that went on with it.
struct Entry {
    holder: Holder,
    at: At,
}

/// The digest of a request's id, which can be as long as a request.
type Id = [u8; 32];

enum At {
    Running,
    Waits { state: Erased<Tensors>, bytes: usize, since: Instant, request: Option<Id> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Caller(String),
    /// Callers have no names here.
    Network(IpAddr),
    /// Nothing tells callers apart.
    Anybody,
}

/// A request that a sequence goes on with. Unless it [went on](Self::went_on), the sequence ends with it.
pub struct Going {
    kept: Arc<[Keeps]>,
    table: Arc<Table>,
    key: Key,
    holder: Holder,
    request: Option<Id>,
    ends: bool,
    /// Whether all outputs are wanted.
    all: bool,
    wanted: Vec<String>,
    constant: Erased<Tensors>,
    went_on: bool,
}

impl Sequences {
    /// Those of `model`, if `info` has a statement of its state.
    pub fn of(model: &LoadedModel, info: &ModelInfo) -> Option<Self> {
        let kept: Option<Vec<Keeps>> = info
            .state
            .iter()
            .map(|kept| {
                let input = model.inputs().iter().find(|input| input.name == kept.input)?.clone();
                Some(Keeps { input, output: kept.output.clone() })
            })
            .collect();
        let kept = kept.filter(|kept| !kept.is_empty())?;
        Some(Self { kept: kept.into(), table: Arc::default(), pacer: Pacer::default() })
    }

    /// What is said of them in the model's metadata: of each input the output that it is in the next request, or nothing.
    pub fn told(&self) -> Map<String, Value> {
        self.kept.iter().map(|keeps| (keeps.input.name.clone(), keeps.output.clone().into())).collect()
    }

    /// How many wait to go on, or do.
    pub fn len(&self) -> usize {
        self.table.lock().all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives `inputs` what the sequence keeps, and has its outputs among `wanted`, where none is all. `request` is the id of the
    /// request, if it has one.
    ///
    /// # Errors
    /// [`SequenceError`]
    pub fn go_on(
        &self,
        from: Sender<'_>,
        asked: &Sequence,
        request: Option<&str>,
        inputs: &mut Vec<(String, Tensor<'_>)>,
        wanted: &mut Vec<String>,
    ) -> Result<Going, SequenceError> {
        check(from.caller, &asked.id)?;
        let key = Key { caller: from.caller.map(str::to_owned), id: asked.id.clone() };
        let (holder, request) = (Holder::of(from), request.map(id));
        let mut kept = self.table.lock().take(&key, &holder, asked.start, request)?;
        // From here on an error ends the sequence.
        let mut going = Going {
            kept: Arc::clone(&self.kept),
            table: Arc::clone(&self.table),
            key,
            holder,
            request,
            ends: asked.end,
            all: wanted.is_empty(),
            wanted: wanted.clone(),
            constant: Erased::default(),
            went_on: false,
        };
        for keeps in self.kept.iter() {
            let name = &keeps.input.name;
            let given = inputs.iter().position(|(given, _)| given == name);
            let tensor = match (&mut kept, given) {
                (Some(_), Some(_)) => return Err(SequenceError::Given { input: name.clone() }),
                (Some(kept), None) => {
                    let place = kept.iter().position(|(kept, _)| kept == name);
                    place.map(|place| kept.swap_remove(place).1)
                }
                (None, Some(given)) => inputs.get(given).map(|(_, tensor)| tensor.clone().into_owned()),
                (None, None) => zeros(&keeps.input),
            };
            let tensor = tensor.ok_or(SequenceError::Unknown)?;
            if keeps.output.is_none() && !asked.end {
                going.constant.push((name.clone(), tensor.clone()));
            }
            match given {
                Some(_) => drop(Erased::new(vec![(name.clone(), tensor)])),
                None => inputs.push((name.clone(), tensor)),
            }
        }
        if !wanted.is_empty() {
            let outputs = self.kept.iter().filter_map(|keeps| keeps.output.clone());
            let missing: Vec<String> = outputs.filter(|output| !wanted.contains(output)).collect();
            wanted.extend(missing);
        }
        self.sweep();
        Ok(going)
    }

    /// Has those erased, from time to time, that nobody goes on with.
    fn sweep(&self) {
        if !std::mem::replace(&mut self.table.lock().swept, true) {
            self.pacer.add(SWEEP, Box::new(Sweep(Arc::downgrade(&self.table))));
        }
    }
}

impl Going {
    /// Keeps what of a run's outputs is state, and leaves the others.
    ///
    /// # Errors
    /// [`SequenceError::Full`], [`SequenceError::Share`]: the sequence has ended.
    pub fn went_on(mut self, outputs: &mut Tensors) -> Result<(), SequenceError> {
        let mut state = Erased::new(std::mem::take(&mut *self.constant));
        for keeps in self.kept.iter() {
            let Some(name) = &keeps.output else { continue };
            let Some(place) = outputs.iter().position(|(output, _)| output == name) else { continue };
            // The order of outputs is that in which they were asked for.
            let output = if !self.all && self.wanted.contains(name) {
                outputs.get(place).map(|(_, tensor)| tensor.clone())
            } else {
                Some(outputs.remove(place).1)
            };
            if let Some(output) = output {
                state.push((keeps.input.name.clone(), output));
            }
        }
        if self.ends {
            return Ok(());
        }
        let bytes = state.iter().map(|(_, tensor)| tensor.data().len()).fold(0, usize::saturating_add);
        let (key, holder) = (self.key.clone(), self.holder.clone());
        let at = At::Waits { state, bytes, since: Instant::now(), request: self.request };
        let kept = self.table.lock().keep(key, Entry { holder, at });
        kept?;
        self.went_on = true;
        Ok(())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if !self.went_on {
            self.table.lock().all.remove(&self.key);
        }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The state of a sequence that goes on, for as long as its request runs; none if it begins.
    fn take(
        &mut self,
        key: &Key,
        holder: &Holder,
        start: bool,
        request: Option<Id>,
    ) -> Result<Option<Erased<Tensors>>, SequenceError> {
        let known = self.all.get(key);
        match known.map(|entry| &entry.at) {
            Some(At::Running) => return Err(SequenceError::Busy),
            // Whoever sends a request again because its answer was lost would have the state go on twice.
            Some(At::Waits { request: last, .. }) if !start && request.is_some() && request == *last => {
                return Err(SequenceError::Repeated);
            }
            None if !start => return Err(SequenceError::Unknown),
            None if self.all.len() >= MOST => return Err(SequenceError::Full),
            Some(At::Waits { .. }) | None => {}
        }
        // Another's place becomes this holder's, who needs as much room in its share for it as for a new one.
        let is_own = known.is_some_and(|entry| entry.holder == *holder);
        if !is_own && self.of(holder).count() >= MOST / 2 {
            return Err(SequenceError::Share);
        }
        let running = Entry { holder: holder.clone(), at: At::Running };
        Ok(match self.all.insert(key.clone(), running).map(|entry| entry.at) {
            // What there was is erased, if the sequence begins anew.
            Some(At::Waits { state, .. }) if !start => Some(state),
            _ => None,
        })
    }

    /// Keeps what a sequence goes on with, if there is room for it.
    fn keep(&mut self, key: Key, entry: Entry) -> Result<(), SequenceError> {
        if self.all.values().map(Entry::bytes).fold(entry.bytes(), usize::saturating_add) > MEMORY {
            return Err(SequenceError::Full);
        }
        let own = if entry.holder == Holder::Anybody { 0 } else { entry.bytes() };
        if self.of(&entry.holder).map(Entry::bytes).fold(own, usize::saturating_add) > MEMORY / 2 {
            return Err(SequenceError::Share);
        }
        self.all.insert(key, entry);
        Ok(())
    }

    /// Those of one holder, who leaves as many to others; what is anybody's is nobody's share.
    fn of<'s>(&'s self, holder: &'s Holder) -> impl Iterator<Item = &'s Entry> {
        let told_apart = *holder != Holder::Anybody;
        self.all.values().filter(move |entry| told_apart && entry.holder == *holder)
    }

    /// Erases those that nobody goes on with; whether any is left.
    fn sweep(&mut self, now: Instant) -> bool {
        self.all.retain(|_, entry| match &entry.at {
            At::Running => true,
            At::Waits { since, .. } => now.saturating_duration_since(*since) < IDLE,
        });
        self.swept = !self.all.is_empty();
        self.swept
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        match self.at {
            At::Running => 0,
            At::Waits { bytes, .. } => bytes,
        }
    }
}

impl Holder {
    fn of(from: Sender<'_>) -> Self {
        match (from.caller, from.network) {
            (Some(caller), _) => Self::Caller(caller.to_owned()),
            (None, Some(network)) => Self::Network(network),
            (None, None) => Self::Anybody,
        }
    }
}

fn id(request: &str) -> Id {
    Sha256::digest(request).into()
}

struct Sweep(Weak<Table>);

impl Paced for Sweep {
    fn tick(&mut self) -> bool {
        self.0.upgrade().is_some_and(|table| table.lock().sweep(Instant::now()))
    }
}

fn check(caller: Option<&str>, id: &SequenceId) -> Result<(), SequenceError> {
    match id {
        SequenceId::Text(text) if text.len() > MOST_TEXT => Err(SequenceError::Name { found: text.len() }),
        SequenceId::Text(text) if caller.is_none() && text.len() < LEAST_TEXT => {
            Err(SequenceError::Guessable)
        }
        SequenceId::Number(number) if caller.is_none() && *number < LEAST_NUMBER => {
            Err(SequenceError::Guessable)
        }
        _ => Ok(()),
    }
}

/// What a state is at first, where nobody says it: one row of zeros.
fn zeros(input: &TensorInfo) -> Option<Tensor<'static>> {
    let dims: Vec<u64> = input.shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
    let shape = Shape::new(dims).ok()?;
    let len = shape.elements().checked_mul(input.dtype.size()?).filter(|len| *len <= MEMORY)?;
    Tensor::new(input.dtype, shape, vec![0; len]).ok()
}

/// Sequences of a model; half of them can be one caller's.
const MOST: usize = 1024;
/// Bytes of their state, and the same of them.
const MEMORY: usize = 64 << 20;
/// How long one is kept that nobody goes on with.
const IDLE: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(1);
const LEAST_TEXT: usize = 16;
const MOST_TEXT: usize = 128;
const LEAST_NUMBER: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(since: Instant) -> Entry {
        held(Holder::Anybody, 0, since)
    }

    fn held(holder: Holder, bytes: usize, since: Instant) -> Entry {
        Entry { holder, at: At::Waits { state: Erased::default(), bytes, since, request: None } }
    }

    fn key(number: u64) -> Key {
        Key { caller: None, id: SequenceId::Number(number) }
    }

    #[test]
    fn one_caller_leaves_half_of_the_places_and_of_the_bytes_to_others() {
        let network = |last| Sender { caller: None, network: Some(IpAddr::from([192, 0, 2, last])) };
        let named = |caller| Sender { caller: Some(caller), network: network(1).network };
        for (one, other) in
            [(network(1), network(2)), (named("alice"), named("bob")), (named("alice"), network(1))]
        {
            let (one, other, now) = (Holder::of(one), Holder::of(other), Instant::now());
            let mut state = State::default();
            for number in 0..(MOST / 2) as u64 {
                state.take(&key(number), &one, true, None).unwrap();
            }
            assert_eq!(state.take(&key(9999), &one, true, None).err(), Some(SequenceError::Share));
            assert_eq!(
                state.take(&key(0), &one, true, None).err(),
                Some(SequenceError::Busy),
                "it has that one"
            );
            for number in 0..(MOST / 2) as u64 {
                state.take(&key(10_000 + number), &other, true, None).unwrap();
            }
            assert_eq!(state.take(&key(9999), &other, true, None).err(), Some(SequenceError::Full));
            state.all.remove(&key(0));
            state.take(&key(9999), &one, true, None).unwrap();
            // Nor does it get another's place by the name of that one's sequence.
            state.all.insert(key(10_000), held(other.clone(), 0, now));
            for start in [true, false] {
                let taken = state.take(&key(10_000), &one, start, None);
                assert_eq!(taken.err(), Some(SequenceError::Share), "begins: {start}");
            }
            assert!(state.take(&key(10_000), &other, false, None).unwrap().is_some(), "it is there still");

            let (mut state, third) = (State::default(), MEMORY / 3);
            state.keep(key(1), held(one.clone(), third, now)).unwrap();
            assert_eq!(state.keep(key(2), held(one.clone(), third, now)), Err(SequenceError::Share));
            state.keep(key(3), held(other.clone(), third, now)).unwrap();
            // A sequence is its holder's who went on with it last.
            state.take(&key(3), &one, false, None).unwrap();
            assert_eq!(state.keep(key(3), held(one, third, now)), Err(SequenceError::Share));
        }
    }

    #[test]
    fn who_cannot_be_told_apart_has_no_share() {
        let (mut state, anybody) = (State::default(), Holder::of(Sender::default()));
        for number in 0..MOST as u64 {
            state.take(&key(number), &anybody, true, None).unwrap();
        }
        assert_eq!(state.take(&key(9999), &anybody, true, None).err(), Some(SequenceError::Full));
        let mut state = State::default();
        state.keep(key(1), held(anybody.clone(), MEMORY, Instant::now())).unwrap();
        assert_eq!(state.keep(key(2), held(anybody, 1, Instant::now())), Err(SequenceError::Full));
    }

    #[test]
    fn who_does_not_go_on_is_forgotten() {
        let now = Instant::now();
        let running = Entry { holder: Holder::Anybody, at: At::Running };
        let all = HashMap::from([(key(1), waits(now)), (key(2), waits(now + SWEEP)), (key(3), running)]);
        let mut state = State { all, swept: true };
        assert!(state.sweep(now + IDLE));
        assert!(!state.all.contains_key(&key(1)) && state.all.contains_key(&key(2)));
        state.all.remove(&key(3));
        assert!(!state.sweep(now + IDLE + SWEEP));
        assert!(state.all.is_empty() && !state.swept, "the next one begins to sweep again");
    }

    #[test]
    fn names_that_can_be_guessed_are_for_callers_who_are_told_apart() {
        let text = |len: usize| SequenceId::Text("x".repeat(len));
        for (id, alone, named) in [
            (SequenceId::Number(1), false, true),
            (SequenceId::Number(u64::MAX), true, true),
            (text(15), false, true),
            (text(16), true, true),
            (text(129), false, false),
        ] {
            assert_eq!(
                (check(None, &id).is_ok(), check(Some("alice"), &id).is_ok()),
                (alone, named),
                "{id:?}"
            );
        }
    }
}
