//! Where the tokens of answers go: into a stream of events, or into one answer at the end.

mod slots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use confonnx_generate::{
    decode::{Event, Finish},
    openai::{Choice, Told, Usage, Writer},
    text::Text,
};
use confonnx_tensor::Erased;
use serde_json::Value;

use self::slots::Slots;
use crate::{generation::Sink, pacer::Paced, service::stream::Stream};

/// All answers to one request, as server-sent events. Each step of each is one piece, of a size that says nothing; or one piece
/// is sent at each of fixed instants, whatever there is to say.
pub(super) struct Streamed(Arc<Mutex<Streaming>>);

struct Streaming {
    /// The stream; none once nobody wants more.
    stream: Option<Stream>,
    writer: Writer,
    /// Whether the events of each answer have begun.
    begun: Vec<bool>,
    left: usize,
    /// The code of the error that stands in an answer's place, if there is one.
    failure: Option<&'static str>,
    usage: Usage,
    tell_usage: bool,
    /// What waits for its instant, if there are such.
    slots: Option<Slots>,
}

/// All answers to one request, told at the end.
pub(super) struct Whole(Arc<Mutex<Gathering>>);

struct Gathering {
    stream: Option<Stream>,
    writer: Writer,
    choices: Vec<Choice>,
    left: usize,
    usage: Usage,
}

struct StreamedOne {
    all: Arc<Mutex<Streaming>>,
    index: usize,
    text: Arc<Text>,
    ended: bool,
}

struct WholeOne {
    all: Arc<Mutex<Gathering>>,
    index: usize,
    text: Arc<Text>,
}

struct AtInstants(Arc<Mutex<Streaming>>);

impl Streamed {
    /// For `answers`, whose pieces are sent as they come or, if `paced`, by [`paced`](Self::paced).
    pub(super) fn new(
        mut stream: Stream,
        writer: Writer,
        answers: usize,
        tell_usage: bool,
        paced: bool,
    ) -> Self {
        let started = stream.start().is_ok();
        Self(Arc::new(Mutex::new(Streaming {
            stream: Some(stream).filter(|_| started),
            writer,
            begun: vec![false; answers],
            left: answers,
            failure: None,
            usage: Usage::default(),
            tell_usage,
            slots: paced.then(|| Slots::new(answers)),
        })))
    }

    pub(super) fn of(&self, index: usize, text: Arc<Text>) -> Box<dyn Sink> {
        Box::new(StreamedOne { all: Arc::clone(&self.0), index, text, ended: false })
    }

    /// What sends a piece at each tick.
    pub(super) fn paced(&self) -> Box<dyn Paced> {
        Box::new(AtInstants(Arc::clone(&self.0)))
    }
}

impl Streaming {
    /// Writes what is new of an answer.
    fn write(&mut self, index: usize, choice: &Choice, piece: &mut Erased<Vec<u8>>) {
        if let Some(begun) = self.begun.get_mut(index)
            && !std::mem::replace(begun, true)
            && let Some(first) = self.writer.first(index)
        {
            push(piece, &first);
        }
        if !choice.text.is_empty() || choice.finish.is_some() || choice.told.is_some() {
            self.failure = self.failure.or(choice.finish.and_then(Finish::failure));
            let failed = choice.finish.and_then(|finish| self.writer.failed(finish));
            push(piece, &failed.unwrap_or_else(|| self.writer.piece(index, choice)));
        }
    }

    /// Writes what comes after all answers; whoever waits for that shall not take for whole what is not.
    fn write_end(&self, piece: &mut Erased<Vec<u8>>) {
        if self.failure.is_some() {
            return;
        }
        if self.tell_usage {
            push(piece, &self.writer.usage(self.usage));
        }
        piece.append(self.writer.done().as_bytes());
    }

    /// Sends a piece; whether anybody wants more.
    fn send(&mut self, piece: &[u8]) -> bool {
        let taken = self.stream.as_mut().is_some_and(|stream| stream.send(piece).is_ok());
        if !taken {
            self.stream = None;
        }
        taken
    }

    fn finish(&mut self) {
        if let Some(stream) = self.stream.take() {
            // If the end cannot be sent, the client sees that it is missing.
            let _ = stream.finish(self.failure.unwrap_or("ok"));
        }
    }

    /// The piece for an instant, always of one size, and whether it is the last one.
    fn slot(&mut self) -> Option<(Erased<Vec<u8>>, bool)> {
        let mut slots = self.slots.take()?;
        while !slots.is_full()
            && let Some((index, choice)) = slots.next()
        {
            self.write(index, &choice, &mut slots.bytes);
        }
        if self.left == 0 && slots.is_told() && !std::mem::replace(&mut slots.ended, true) {
            self.write_end(&mut slots.bytes);
        }
        let piece = slots.piece();
        let last = slots.ended && slots.is_empty();
        self.slots = Some(slots);
        Some((piece, last))
    }
}

impl Sink for StreamedOne {
    fn take(&mut self, event: &Event) -> bool {
        let mut all = lock(&self.all);
        let choice = choice(event, &self.text);
        if let Some(end) = event.end {
            self.ended = true;
            all.left = all.left.saturating_sub(1);
            all.usage.answer = all.usage.answer.saturating_add(end.answer);
            // All answers to one prompt have the prompt in common.
            all.usage.prompt = all.usage.prompt.max(end.prompt);
        }
        if let Some(slots) = &mut all.slots {
            slots.add(self.index, choice);
            return all.stream.is_some();
        }
        let mut piece = Erased::default();
        all.write(self.index, &choice, &mut piece);
        let last = all.left == 0;
        if last {
            all.write_end(&mut piece);
        }
        pad(&mut piece);
        let taken = all.send(&piece);
        if last {
            all.finish();
        }
        taken
    }
}

impl Drop for StreamedOne {
    fn drop(&mut self) {
        // An answer that has no end is cut off, although padding could go on for ever.
        if !self.ended {
            lock(&self.all).stream = None;
        }
    }
}

impl Paced for AtInstants {
    fn tick(&mut self) -> bool {
        let mut all = lock(&self.0);
        let Some((piece, last)) = all.slot() else { return false };
        let taken = all.send(&piece);
        if last {
            all.finish();
        }
        taken && !last
    }
}

impl Whole {
    /// For `answers` that begin with `before`.
    pub(super) fn new(stream: Stream, writer: Writer, answers: usize, before: &str) -> Self {
        let choice = Choice { text: Erased::new(before.to_owned()), ..Choice::default() };
        let choices = vec![choice; answers];
        let usage = Usage::default();
        Self(Arc::new(Mutex::new(Gathering { stream: Some(stream), writer, choices, left: answers, usage })))
    }

    pub(super) fn of(&self, index: usize, text: Arc<Text>) -> Box<dyn Sink> {
        Box::new(WholeOne { all: Arc::clone(&self.0), index, text })
    }
}

impl Sink for WholeOne {
    fn take(&mut self, event: &Event) -> bool {
        let mut all = lock(&self.all);
        if !all.stream.as_ref().is_some_and(Stream::is_wanted) {
            all.stream = None;
            return false;
        }
        let next = choice(event, &self.text);
        if let Some(choice) = all.choices.get_mut(self.index) {
            join(choice, next);
        }
        let Some(end) = event.end else { return true };
        if let Some(code) = end.finish.failure() {
            let body = all.writer.failed(end.finish).unwrap_or_default().to_string();
            let status = if end.finish == Finish::Unkept { 400 } else { 500 };
            // If the error cannot be sent, the client sees an answer that is cut short.
            let _ = all.stream.take().map(|stream| stream.fail(status, body.as_bytes(), code));
            return false;
        }
        all.left = all.left.saturating_sub(1);
        all.usage.answer = all.usage.answer.saturating_add(end.answer);
        all.usage.prompt = all.usage.prompt.max(end.prompt);
        if all.left == 0
            && let Some(mut stream) = all.stream.take()
        {
            let mut body = Erased::default();
            let whole = all.writer.whole(&all.choices, all.usage);
            let written = serde_json::to_writer(&mut body, &whole).is_ok();
            if written && stream.send(&body).is_ok() {
                let _ = stream.finish("ok");
            }
        }
        true
    }
}

fn choice(event: &Event, text: &Text) -> Choice {
    let told = event.chosen.as_ref();
    Choice {
        text: event.text.clone(),
        told: told.map(|(token, logprobs)| vec![Told::new(*token, logprobs, |token| text.token(token))]),
        finish: event.end.map(|end| end.finish),
    }
}

/// Adds what comes `next` of an answer to what there is of it.
fn join(choice: &mut Choice, next: Choice) {
    choice.text.append(&next.text);
    choice.finish = next.finish;
    if let Some(told) = next.told {
        choice.told.get_or_insert_default().extend(told);
    }
}

fn lock<T>(all: &Mutex<T>) -> MutexGuard<'_, T> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push(piece: &mut Erased<Vec<u8>>, body: &Value) {
    piece.append(b"data: ");
    piece.append(Erased::new(body.to_string()).as_bytes());
    piece.append(b"\n\n");
}

/// Fills up to a multiple of [`SIZE`] with a comment, which who reads events passes over.
fn pad(piece: &mut Erased<Vec<u8>>) {
    // A comment is ": " and the end of an event at least.
    let least = piece.len().saturating_add(COMMENT);
    let len = least.checked_next_multiple_of(SIZE).unwrap_or(least);
    piece.reserve_total(len);
    piece.append(b": ");
    piece.resize(len.saturating_sub(2), b' ');
    piece.append(b"\n\n");
}

/// How many bytes a piece has: as many as most steps take.
const SIZE: usize = 512;
const COMMENT: usize = 4;

#[cfg(test)]
mod tests;
