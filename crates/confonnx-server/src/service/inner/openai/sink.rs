//! Where the tokens of answers go: into a stream of events, or into one answer at the end.

use std::sync::{Arc, Mutex, PoisonError};

use confonnx_generate::{
    decode::{Event, Finish},
    openai::{Choice, Told, Usage, Writer},
    text::Text,
};
use confonnx_tensor::Erased;
use serde_json::Value;

use crate::{generation::Sink, service::stream::Stream};

/// All answers to one request, as server-sent events. Each step of each is one piece, of a size that says nothing.
pub(super) struct Streamed(Arc<Mutex<Streaming>>);

struct Streaming {
    /// The stream; none once nobody wants more.
    stream: Option<Stream>,
    writer: Writer,
    left: usize,
    usage: Usage,
    tell_usage: bool,
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
    begun: bool,
}

struct WholeOne {
    all: Arc<Mutex<Gathering>>,
    index: usize,
    text: Arc<Text>,
}

impl Streamed {
    pub(super) fn new(stream: Stream, writer: Writer, answers: usize, tell_usage: bool) -> Self {
        let usage = Usage::default();
        Self(Arc::new(Mutex::new(Streaming {
            stream: Some(stream),
            writer,
            left: answers,
            usage,
            tell_usage,
        })))
    }

    pub(super) fn of(&self, index: usize, text: Arc<Text>) -> Box<dyn Sink> {
        Box::new(StreamedOne { all: Arc::clone(&self.0), index, text, begun: false })
    }
}

impl Sink for StreamedOne {
    fn take(&mut self, event: &Event) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut piece = Erased::default();
        if !self.begun {
            self.begun = true;
            if let Some(first) = all.writer.first(self.index) {
                push(&mut piece, &first);
            }
        }
        let choice = choice(event, &self.text);
        if !choice.text.is_empty() || choice.finish.is_some() || choice.told.is_some() {
            let body = match choice.finish {
                Some(Finish::Failed) => all.writer.failed(),
                _ => all.writer.piece(self.index, &choice),
            };
            push(&mut piece, &body);
        }
        if let Some(end) = event.end {
            all.left = all.left.saturating_sub(1);
            all.usage.answer = all.usage.answer.saturating_add(end.answer);
            // All answers to one prompt have the prompt in common.
            all.usage.prompt = all.usage.prompt.max(end.prompt);
        }
        let last = all.left == 0;
        if last {
            if all.tell_usage {
                push(&mut piece, &all.writer.usage(all.usage));
            }
            piece.append(all.writer.done().as_bytes());
        }
        pad(&mut piece);
        let taken = all.stream.as_mut().is_some_and(|stream| stream.send(&piece).is_ok());
        if !taken {
            all.stream = None;
        }
        if last && let Some(stream) = all.stream.take() {
            // If the end cannot be sent, the client sees that it is missing.
            let _ = stream.finish("ok");
        }
        taken
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
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // This sends nothing, but it tells whether anybody waits.
        let wanted = all.stream.as_mut().is_some_and(|stream| stream.send(b"").is_ok());
        if !wanted {
            all.stream = None;
            return false;
        }
        let next = choice(event, &self.text);
        if let Some(choice) = all.choices.get_mut(self.index) {
            choice.text.append(&next.text);
            choice.finish = next.finish;
            if let Some(told) = next.told {
                choice.told.get_or_insert_default().extend(told);
            }
        }
        let Some(end) = event.end else { return true };
        if end.finish == Finish::Failed {
            // The client sees an answer that is cut short: it is none.
            all.stream = None;
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
mod tests {
    use super::*;

    #[test]
    fn pieces_have_one_size_whatever_they_say() {
        for len in [0, 1, 250, 507, 508] {
            let mut piece = Erased::new(vec![b'x'; len]);
            pad(&mut piece);
            assert_eq!(piece.len(), SIZE, "{len}");
            assert!(piece.ends_with(b"\n\n") && piece[len..].starts_with(b": "));
        }
        let mut long = Erased::new(vec![b'x'; 509]);
        pad(&mut long);
        assert_eq!(long.len(), 2 * SIZE);
    }
}
