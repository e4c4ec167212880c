//! What a model can do without another bit in its answers, found by trying when it is loaded.

use ort::session::Session;

use super::{
    Decoder,
    cache::Cache,
    encoder::Encoder,
    run::{self, Logits, Rows},
    values::missing,
};
use crate::error::InferError;

/// What the model was seen to do without another bit in its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Means {
    /// The model writes keys and values into the buffer that it was given them in, so that no step copies them.
    pub(super) in_place: bool,
    /// Sequences that go on in one run, ascending; none if each goes on alone.
    pub(super) sizes: Vec<usize>,
}

/// Tries whether the model can write where it reads and, if at most `batches` sequences may go on together, how many do
/// so.
pub(super) fn means(decoder: &Decoder, session: &mut Session, batches: Option<usize>) -> Means {
    let tried = if batches.is_some() { LARGEST } else { 2 };
    let texts = || texts().take(tried);
    let Ok(alone) = texts().map(|text| handed_on(decoder, session, &text)).collect::<Result<Vec<_>, _>>()
    else {
        return Means::default();
    };
    let is_same = |place: usize, text: &Text, session: &mut Session| {
        let found = in_place(decoder, session, &[text]);
        found.is_ok_and(|found| found.first() == alone.get(place))
    };
    let in_place = texts().enumerate().all(|(place, text)| is_same(place, &text, session));
    let mut sizes = Vec::new();
    for size in SIZES.into_iter().filter(|size| in_place && batches.is_some_and(|most| *size <= most)) {
        let texts: Vec<Text> = texts().take(size).collect();
        let found = self::in_place(decoder, session, &texts.iter().collect::<Vec<_>>());
        if !found.is_ok_and(|found| alone.get(..size) == Some(&found)) {
            break;
        }
        sizes.push(size);
    }
    Means { in_place, sizes }
}

/// Tries whether the model goes on with what `encoder` reads.
pub(super) fn go_together(
    decoder: &Decoder,
    session: &mut Session,
    encoder: &mut Encoder,
) -> Result<(), InferError> {
    let source = decoder.source.as_ref().ok_or_else(|| missing(super::LOGITS))?;
    for text in texts().take(2) {
        let mut cache = Cache::new(decoder, 1, 0)?;
        cache.read = Some(encoder.read(source, &text.read)?);
        for (past, token) in text.then.iter().enumerate() {
            run::handed_on(decoder, session, &Rows { tokens: &[&[*token]], past: &[past] }, &mut cache)?;
        }
    }
    Ok(())
}

/// Made-up tokens: what is read first, and what comes then, one by one.
struct Text {
    read: Vec<i64>,
    then: [i64; STEPS],
}

/// Made-up texts of different lengths.
fn texts() -> impl Iterator<Item = Text> {
    let token = |number: usize| i64::try_from(number.wrapping_mul(7919) % 97).unwrap_or(0);
    (0..LARGEST).map(move |number| {
        let tokens =
            |apart: usize, from: usize| (from..).step_by(apart).map(move |at| token(number.wrapping_add(at)));
        let read = tokens(11, 0).take((number.saturating_mul(5) % 23).saturating_add(2)).collect();
        let mut then = tokens(31, 5);
        Text { read, then: std::array::from_fn(|_| then.next().unwrap_or(0)) }
    })
}

/// The logits after each step.
type Bits = Vec<Logits>;

fn handed_on(decoder: &Decoder, session: &mut Session, text: &Text) -> Result<Bits, InferError> {
    let mut cache = Cache::new(decoder, 1, 0)?;
    let rows = Rows { tokens: &[&text.read], past: &[0] };
    run::handed_on(decoder, session, &rows, &mut cache)?;
    let mut all = Bits::new();
    for (at, token) in text.then.iter().enumerate() {
        let rows = Rows { tokens: &[&[*token]], past: &[text.read.len().saturating_add(at)] };
        all.extend(run::handed_on(decoder, session, &rows, &mut cache)?);
    }
    Ok(all)
}

/// As [`handed_on`], in place: each text is read alone, and all go on together.
fn in_place(decoder: &Decoder, session: &mut Session, texts: &[&Text]) -> Result<Vec<Bits>, InferError> {
    let mut joint = Cache::new(decoder, texts.len(), ROOM)?;
    for (row, text) in texts.iter().enumerate() {
        let mut own = Cache::new(decoder, 1, ROOM)?;
        let rows = Rows { tokens: &[&text.read], past: &[0] };
        run::in_place(decoder, session, &rows, &mut own)?;
        joint
            .copy(decoder, row, &own, 0, text.read.len())
            .ok_or_else(|| InferError::OutputType { name: super::LOGITS.to_owned() })?;
    }
    let mut all = vec![Bits::new(); texts.len()];
    for at in 0..STEPS {
        let tokens: Vec<&[i64]> =
            texts.iter().map(|text| text.then.get(at..=at).unwrap_or_default()).collect();
        let past: Vec<usize> = texts.iter().map(|text| text.read.len().saturating_add(at)).collect();
        let logits = run::in_place(decoder, session, &Rows { tokens: &tokens, past: &past }, &mut joint)?;
        for (all, logits) in all.iter_mut().zip(logits) {
            all.push(logits);
        }
    }
    Ok(all)
}

const STEPS: usize = 3;
const ROOM: usize = 64;
/// Numbers of sequences that are tried in a run.
const SIZES: [usize; 3] = [2, 4, LARGEST];
const LARGEST: usize = 8;
