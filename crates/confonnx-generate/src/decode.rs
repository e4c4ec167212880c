//! Whose turn it is: several answers are made at once by one model, token by token. A state machine without IO: it says what
//! the model is to be fed next, takes what the model answers, and tells what became of each answer.

mod form;
mod sequence;
mod turns;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use confonnx_tensor::Erased;

pub use self::form::{Work, Worked};
use self::{
    sequence::Sequence,
    turns::{Holder, Turns},
};
use crate::{
    constrain::Constraint,
    sample::{Choices, Logprobs},
    text::Text,
};

/// The name of an answer that is being made, and of what the model remembers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u64);

/// How much can be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most tokens of one prompt and its answer.
    pub context: usize,
    /// The most tokens of a prompt where an encoder reads it: the model's own are then those of the answer alone. None where the
    /// model goes on with the prompt.
    pub encoder: Option<usize>,
    /// Tokens that may be remembered at once, prompts and what is still to be answered: memory for them is there.
    pub budget: usize,
    /// Answers that may wait for room.
    pub waiting: usize,
    /// Tokens of a prompt that are fed at once, while others wait. How long the parts are can be seen in the last bits of what
    /// the model says, so that they are as long whoever else is there.
    pub part: usize,
    /// Answers that go on in one step; 1 where the model's rows are not independent.
    pub batch: usize,
}

/// An answer that is asked for.
#[derive(Debug)]
pub struct Order {
    /// Who asks, where callers are told apart: each has the same turns, and leaves others half of what there is room for.
    pub holder: Option<Arc<str>>,
    /// The prompt before the answer.
    pub prompt: Erased<Vec<u32>>,
    /// The most tokens of it; none is as many as there is room for.
    pub max_tokens: Option<usize>,
    /// How to choose tokens.
    pub choices: Choices,
    /// The seed of the random numbers of the choice.
    pub seed: u64,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// The form that the answer has to have.
    pub constraint: Option<Constraint>,
}

/// Why an answer is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is nothing to go on with.
    #[error("the prompt is empty; expected one token at least")]
    Empty,
    /// The request is too long for the model, or for the memory that is set apart.
    #[error(
        "the prompt has {prompt} tokens and {wanted} are to be answered; expected {most} together at most: send less, or ask for \
         fewer with max_tokens"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for, one at least.
        wanted: usize,
        /// Tokens allowed.
        most: usize,
    },
    /// The prompt is too long for the encoder.
    #[error(
        "the prompt has {prompt} tokens; expected {most} at most, which is as many as the model's encoder reads: send less"
    )]
    LongPrompt {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens allowed.
        most: usize,
    },
    /// Too many wait.
    #[error("{waiting} answers wait for room already; try again later")]
    Busy {
        /// How many answers wait.
        waiting: usize,
    },
    /// Too many of one caller's wait.
    #[error(
        "{waiting} answers of this caller wait for room already, which is all that one caller may have; try again when some of \
         them have ended"
    )]
    Share {
        /// How many of the caller's answers wait.
        waiting: usize,
    },
}

/// What the model is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// One for each answer that goes on. More than one have one token each.
    pub feeds: Vec<Feed>,
    /// What they are.
    pub kind: Kind,
}

/// What a step feeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a prompt of this caller.
    Prompt(Holder),
    /// The last token of each answer.
    Answers,
}

/// Tokens of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The answer whose tokens they are.
    pub id: Id,
    /// The tokens.
    pub tokens: Erased<Vec<u32>>,
    /// What an encoder is to read before them.
    pub source: Erased<Vec<u32>>,
    /// How many tokens of the sequence came before these.
    pub past: usize,
    /// Whether the next token is to be chosen by what the model answers.
    pub wanted: bool,
}

/// What became of an answer in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The answer.
    pub id: Id,
    /// The text that was added: none if it could still become something else.
    pub text: Erased<String>,
    /// The token that was chosen, and how likely it was, if that was asked for.
    pub chosen: Option<(u32, Logprobs)>,
    /// If it is the last one.
    pub end: Option<End>,
}

/// The end of an answer. What the model remembers for it is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the answer.
    pub answer: usize,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a text that was given.
    Stop,
    /// The answer is as long as it may be.
    Length,
    /// The model fails.
    Failed,
    /// The answer cannot be kept to its form: to say what may come next takes too much.
    Unkept,
}

impl Finish {
    /// The code of the error that stands in the answer's place, if it is none.
    pub fn failure(self) -> Option<&'static str> {
        match self {
            Self::Stop | Self::Length => None,
            Self::Failed => Some("generation-failed"),
            Self::Unkept => Some("response-format-too-costly"),
        }
    }
}

/// Answers that are being made.
#[derive(Debug)]
pub struct Scheduler {
    text: Arc<Text>,
    limits: Limits,
    next: u64,
    waiting: VecDeque<Sequence>,
    running: VecDeque<Sequence>,
    /// Tokens that there is room for, and that those which run may come to.
    reserved: usize,
    /// Whose answers go on next.
    turns: Turns,
    /// For whom it is worked out next what comes of its form.
    forms: Turns,
}

impl Scheduler {
    /// A decoder for the model of `text`.
    pub fn new(text: Arc<Text>, limits: Limits) -> Self {
        Self {
            text,
            limits,
            next: 0,
            waiting: VecDeque::new(),
            running: VecDeque::new(),
            reserved: 0,
            turns: Turns::default(),
            forms: Turns::default(),
        }
    }

    /// Begins an answer, once there is room for it.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn add(&mut self, order: Order) -> Result<Id, Refused> {
        let prompt = order.prompt.len();
        if prompt == 0 {
            return Err(Refused::Empty);
        }
        let Limits { context, encoder, budget, .. } = self.limits;
        let most = match encoder {
            Some(most) if prompt > most => return Err(Refused::LongPrompt { prompt, most }),
            // What the encoder reads does not count among the model's own tokens, of which there are some before the answer.
            Some(_) => {
                let start = self.text.facts().start.len();
                context.saturating_sub(start).saturating_add(prompt).min(budget)
            }
            None => context.min(budget),
        };
        let wanted = order.max_tokens.unwrap_or_else(|| most.saturating_sub(prompt)).max(1);
        let all = prompt.saturating_add(wanted);
        if all > most {
            return Err(Refused::TooLong { prompt, wanted, most });
        }
        if self.waiting.len() >= self.limits.waiting {
            return Err(Refused::Busy { waiting: self.waiting.len() });
        }
        let holder = self.turns.come(&order.holder);
        let own = self.waiting.iter().filter(|sequence| sequence.holder() == holder).count();
        if holder != Holder::ANYBODY && own >= half(self.limits.waiting) {
            return Err(Refused::Share { waiting: own });
        }
        self.forms.join(holder);
        let id = Id(self.next);
        self.next = self.next.wrapping_add(1);
        let reads = encoder.is_some();
        self.waiting.push_back(Sequence::new(id, order, holder, wanted, Arc::clone(&self.text), reads));
        Ok(id)
    }

    /// Ends an answer that nobody wants any more; whether there was one.
    pub fn cancel(&mut self, id: Id) -> bool {
        if let Some(at) = self.waiting.iter().position(|sequence| sequence.id() == id) {
            let sequence = self.waiting.remove(at);
            self.left(sequence.map(|sequence| sequence.holder()));
            return true;
        }
        self.remove(id)
    }

    /// Ends an answer with what there is of it, as if it might be no longer; none if it is not being made.
    pub fn finish(&mut self, id: Id) -> Option<Event> {
        let event = self.running.iter_mut().find(|sequence| sequence.id() == id)?.cut();
        self.remove(id);
        Some(event)
    }

    /// How many answers are being made or wait.
    pub fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.running.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next step, if there is anything to do. What the model says of it is for [`done`](Self::done).
    pub fn step(&mut self) -> Option<Step> {
        self.admit();
        let goes_on = self.running.iter().filter(|sequence| !sequence.is_held());
        let (decoding, prompts): (Vec<&Sequence>, Vec<&Sequence>) = goes_on.partition(|s| s.is_decoding());
        let (holder, reads) = self.turns.first(&holders(&decoding), &holders(&prompts))?;
        if let Some(prompt) = prompts.iter().find(|sequence| reads && sequence.holder() == holder) {
            let feed = prompt.feed(self.limits.part.max(1));
            self.turns.went(holder, true);
            return Some(Step { feeds: vec![feed], kind: Kind::Prompt(holder) });
        }
        let able: Vec<(Holder, Id)> = decoding.iter().map(|s| (s.holder(), s.id())).collect();
        let mut feeds = Vec::new();
        for id in self.turns.together(&able, self.limits.batch.max(1)) {
            // Answers that went on are the last to go on again.
            let Some(at) = self.running.iter().position(|sequence| sequence.id() == id) else { continue };
            let Some(sequence) = self.running.remove(at) else { continue };
            feeds.push(sequence.feed(1));
            self.running.push_back(sequence);
        }
        Some(Step { feeds, kind: Kind::Answers })
    }

    /// Has those run for whom there is room, in the order in which they came; only who has a share already waits for it to be
    /// free, and keeps nobody else waiting by that.
    fn admit(&mut self) {
        let mut at = 0;
        while let Some(sequence) = self.waiting.get(at) {
            let (holder, wants) = (sequence.holder(), sequence.reserved());
            let own = self.running.iter().filter(|other| other.holder() == holder);
            let own = own.map(Sequence::reserved).fold(0, usize::saturating_add);
            // One answer may need more than a share.
            if holder != Holder::ANYBODY && own > 0 && own.saturating_add(wants) > half(self.limits.budget) {
                at = at.saturating_add(1);
                continue;
            }
            let all = self.reserved.saturating_add(wants);
            if all > self.limits.budget {
                return;
            }
            self.reserved = all;
            self.running.extend(self.waiting.remove(at));
        }
    }

    /// Takes what the model answered to `step`, which took that long: for each feed that wanted them, the logits of the next
    /// token.
    pub fn done(&mut self, step: &Step, logits: Vec<Option<Erased<Vec<f32>>>>, took: Duration) -> Vec<Event> {
        match step.kind {
            Kind::Prompt(holder) => {
                let goes_on =
                    self.running.iter().filter(|sequence| sequence.is_decoding() && !sequence.is_held());
                self.turns.owes(holder, took, &holders(&goes_on.collect::<Vec<_>>()));
            }
            Kind::Answers => self.turns.repaid(took),
        }
        let mut events = Vec::new();
        for (feed, logits) in step.feeds.iter().zip(logits.into_iter().chain(std::iter::repeat(None))) {
            // The answer may have been cancelled meanwhile.
            let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id() == feed.id) else {
                continue;
            };
            let event = sequence.fed(feed, logits);
            events.extend(event);
        }
        self.end(&events);
        events
    }

    /// What has to be worked out before an answer that keeps to a form can go on: of the caller who waits longest.
    pub fn work(&mut self) -> Option<Work> {
        let due = self.running.iter().filter(|sequence| sequence.is_due());
        let due: Vec<(Holder, Id)> = due.map(|sequence| (sequence.holder(), sequence.id())).collect();
        let id = *self.forms.together(&due, 1).first()?;
        self.running.iter_mut().find(|sequence| sequence.id() == id)?.work()
    }

    /// Takes what was worked out, and tells what became of its answer by that.
    pub fn worked(&mut self, worked: Worked) -> Option<Event> {
        let sequence = self.running.iter_mut().find(|sequence| sequence.id() == worked.id)?;
        let event = sequence.worked(worked.form);
        self.end(event.as_slice());
        event
    }

    /// Ends the answers of `step`, on which the model failed.
    pub fn failed(&mut self, step: &Step) -> Vec<Event> {
        let of_step = |sequence: &&Sequence| step.feeds.iter().any(|feed| feed.id == sequence.id());
        let events: Vec<Event> = self.running.iter().filter(of_step).map(failed).collect();
        self.end(&events);
        events
    }

    /// Ends all answers: what the model remembered is lost.
    pub fn lost(&mut self) -> Vec<Event> {
        let events: Vec<Event> = self.running.iter().chain(&self.waiting).map(failed).collect();
        for id in events.iter().map(|event| event.id) {
            self.cancel(id);
        }
        events
    }

    fn end(&mut self, events: &[Event]) {
        for event in events.iter().filter(|event| event.end.is_some()) {
            self.remove(event.id);
        }
    }

    /// Whether it ran.
    fn remove(&mut self, id: Id) -> bool {
        let place = self.running.iter().position(|sequence| sequence.id() == id);
        let Some(sequence) = place.and_then(|place| self.running.remove(place)) else { return false };
        self.reserved = self.reserved.saturating_sub(sequence.reserved());
        self.left(Some(sequence.holder()));
        true
    }

    /// One of the holder's answers is no more.
    fn left(&mut self, holder: Option<Holder>) {
        let Some(holder) = holder else { return };
        if !self.running.iter().chain(&self.waiting).any(|sequence| sequence.holder() == holder) {
            self.turns.leave(holder);
            self.forms.leave(holder);
            self.forms.forget();
        }
    }
}

fn holders(all: &[&Sequence]) -> Vec<Holder> {
    all.iter().map(|sequence| sequence.holder()).collect()
}

fn failed(sequence: &Sequence) -> Event {
    sequence.none(Finish::Failed)
}

/// What one caller may have, who is told apart from others.
fn half(all: usize) -> usize {
    all.div_ceil(2)
}

#[cfg(test)]
mod tests;
