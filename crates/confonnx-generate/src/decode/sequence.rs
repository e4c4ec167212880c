//! One answer.

use std::sync::Arc;

use confonnx_tensor::Erased;

use super::{End, Event, Feed, Finish, Id, Order, Work, form::Form, turns::Holder};
use crate::{
    constrain::{Allowed, Constraint},
    sample::{Chosen, Sampler},
    text::{Detokenizer, StopStrings, Text},
};

/// An answer that is being made.
#[derive(Debug)]
pub(super) struct Sequence {
    id: Id,
    holder: Holder,
    /// Prompt, then answer; where an encoder reads the prompt, what every answer begins with and the answer.
    tokens: Erased<Vec<u32>>,
    /// How many of the tokens come before the answer.
    before: usize,
    /// Tokens of the prompt.
    prompt: usize,
    /// The prompt, until an encoder has read it.
    source: Erased<Vec<u32>>,
    /// How many of the tokens the model remembers.
    fed: usize,
    /// Tokens of the answer at most.
    most: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopStrings,
    form: Form,
    /// What the model said of the next token, while it is not known which may come.
    held: Option<Erased<Vec<f32>>>,
    text: Arc<Text>,
}

impl Sequence {
    /// An answer of `most` tokens at most, to a prompt that an encoder `reads` or that the model goes on with.
    pub(super) fn new(
        id: Id,
        order: Order,
        holder: Holder,
        most: usize,
        text: Arc<Text>,
        reads: bool,
    ) -> Self {
        let Order { prompt, choices, seed, stop, constraint, .. } = order;
        let length = prompt.len();
        let (source, tokens) = match reads {
            true => (prompt, text.facts().start.clone().into()),
            false => (Erased::default(), prompt),
        };
        Self {
            id,
            holder,
            before: tokens.len(),
            prompt: length,
            source,
            sampler: Sampler::new(choices, seed, &tokens),
            tokens,
            fed: 0,
            most,
            detokenizer: Detokenizer::new(Arc::clone(&text)),
            stop: StopStrings::new(stop),
            form: Form::new(constraint),
            held: None,
            text,
        }
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    /// Whose it is.
    pub(super) fn holder(&self) -> Holder {
        self.holder
    }

    /// Tokens that it may come to.
    pub(super) fn reserved(&self) -> usize {
        self.prompt.saturating_add(self.most)
    }

    /// Whether its prompt is remembered.
    pub(super) fn is_decoding(&self) -> bool {
        self.tokens.len() > self.before
    }

    /// The next `most` tokens for the model, or those that are left. If one alone would be left then, it is among them: a run
    /// of one token goes another way through a model's kernels, and its last bits are others than where the prompt is read whole.
    pub(super) fn feed(&self, most: usize) -> Feed {
        let end = self.fed.saturating_add(most);
        let end = if end.saturating_add(1) >= self.tokens.len() { self.tokens.len() } else { end };
        let tokens = self.tokens.get(self.fed..end).unwrap_or_default().to_vec().into();
        Feed {
            id: self.id,
            tokens,
            source: self.source.clone(),
            past: self.fed,
            wanted: end == self.tokens.len(),
        }
    }

    /// The model remembers `feed`, and says the logits of the next token if they were wanted.
    pub(super) fn fed(&mut self, feed: &Feed, logits: Option<Erased<Vec<f32>>>) -> Option<Event> {
        self.fed = feed.past.saturating_add(feed.tokens.len());
        self.source = Erased::default();
        if !feed.wanted {
            return None;
        }
        let Some(logits) = logits else { return Some(self.none(Finish::Failed)) };
        if self.form.is_known() {
            return Some(self.go_on(logits));
        }
        self.held = Some(logits);
        None
    }

    /// Whether it cannot go on until it is known which tokens may come.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether something is to be worked out for it.
    pub(super) fn is_due(&self) -> bool {
        self.form.is_due()
    }

    /// What is to be worked out for it.
    pub(super) fn work(&mut self) -> Option<Work> {
        self.form.work(self.id)
    }

    /// Takes what was worked out, and goes on if it was waited for.
    pub(super) fn worked(&mut self, form: Option<(Constraint, Allowed)>) -> Option<Event> {
        let Some((constraint, allowed)) = form else { return Some(self.none(Finish::Unkept)) };
        self.form = Form::Known(constraint, allowed);
        let logits = self.held.take()?;
        Some(self.go_on(logits))
    }

    /// Goes on with the next token.
    fn go_on(&mut self, mut logits: Erased<Vec<f32>>) -> Event {
        let Some(chosen) = self.choose(&mut logits) else { return self.none(Finish::Failed) };
        let token = chosen.token;
        let mut event = Event {
            id: self.id,
            text: Erased::default(),
            chosen: chosen.logprobs.map(|p| (token, p)),
            end: None,
        };
        self.tokens.append(&[token]);
        if self.text.facts().ends.contains(&token) {
            event.text = self.rest();
            event.end = Some(self.end(Finish::Stop));
            return event;
        }
        event.text = self.stop.push(&self.detokenizer.push(token));
        if self.stop.found() {
            event.end = Some(self.end(Finish::Stop));
        } else if self.answered() >= self.most {
            let rest = self.rest();
            event.text.append(&rest);
            event.end = Some(self.end(if self.stop.found() { Finish::Stop } else { Finish::Length }));
        }
        event
    }

    /// The next token, if there is one that may come.
    fn choose(&mut self, logits: &mut [f32]) -> Option<Chosen> {
        match std::mem::replace(&mut self.form, Form::Free) {
            Form::Free => self.sampler.choose(logits, None).ok(),
            Form::Known(constraint, allowed) => {
                let chosen = self.sampler.choose(logits, Some(&|token| allowed.has(token))).ok()?;
                self.form = Form::Due(constraint, Some(chosen.token));
                allowed.has(chosen.token).then_some(chosen)
            }
            Form::Due(..) | Form::Away => None,
        }
    }

    /// Its end, with which it is no answer.
    pub(super) fn none(&self, finish: Finish) -> Event {
        Event { id: self.id, text: Erased::default(), chosen: None, end: Some(self.end(finish)) }
    }

    /// Its end, although more could be said.
    pub(super) fn cut(&mut self) -> Event {
        let text = self.rest();
        let finish = if self.stop.found() { Finish::Stop } else { Finish::Length };
        Event { id: self.id, text, chosen: None, end: Some(self.end(finish)) }
    }

    /// The text that was held back.
    fn rest(&mut self) -> Erased<String> {
        let tail = self.detokenizer.finish();
        let mut rest = self.stop.push(&tail);
        if !self.stop.found() {
            rest.append(&self.stop.finish());
        }
        rest
    }

    fn answered(&self) -> usize {
        self.tokens.len().saturating_sub(self.before)
    }

    fn end(&self, finish: Finish) -> End {
        End { finish, prompt: self.prompt, answer: self.answered() }
    }
}
