//! Answers of a language model, token by token: a thread for each model goes on with all of them in turns.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use confonnx_engine::{Feed, InferError, LoadedModel};
use confonnx_generate::{
    decode::{self, Event, Id, Kind, Limits, Order, Refused, Scheduler, Step},
    text::{Files, FilesError, Text, TextError},
};
use confonnx_model::ModelInfo;
use tracing::warn;

use crate::pacer::Pacer;

/// A language model's answers.
pub struct Generator {
    text: Arc<Text>,
    shared: Arc<Shared>,
    pacer: Arc<Pacer>,
    longest: Duration,
    limits: Limits,
}

/// Takes what becomes of an answer. It is called by the model's thread, and must not wait.
pub trait Sink: Send {
    /// What became of the answer in a step; whether anybody wants more of it.
    fn take(&mut self, event: &Event) -> bool;
}

/// Answers that were begun together, for one caller. Dropped, they end.
pub struct Begun {
    shared: Arc<Shared>,
    ids: Vec<Id>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// There may be something to work out.
    due: Condvar,
}

struct State {
    scheduler: Scheduler,
    answers: HashMap<Id, Answer>,
    /// Whose memory the model can forget.
    ended: Vec<Id>,
    /// Whether the model is at work.
    stepping: bool,
    closed: bool,
}

struct Answer {
    /// None until its caller takes it.
    sink: Option<Box<dyn Sink>>,
    /// What became of it until then.
    events: Vec<Event>,
    due: Instant,
}

impl Generator {
    /// For `model`, of which `info` is; none if it is no language model, or has no tokenizer in it.
    ///
    /// # Errors
    /// [`FilesError`] when the files in it do not say how its text is made.
    pub fn of(name: &str, model: &Arc<LoadedModel>, info: &ModelInfo) -> Result<Option<Self>, FilesError> {
        let file = |name: &str| info.text.get(name).map(String::as_str);
        let (Some(decoder), Some(tokenizer)) = (model.decoder(), file("tokenizer.json")) else {
            return Ok(None);
        };
        let text = Arc::new(Text::new(&Files {
            tokenizer,
            tokenizer_config: file("tokenizer_config.json"),
            chat_template: file("chat_template.jinja"),
            generation_config: file("generation_config.json"),
            config: file("config.json"),
        })?);
        let encoder =
            decoder.has_encoder().then(|| text.facts().context.unwrap_or(SOURCE).min(LONGEST_SOURCE));
        if encoder.is_some() && text.facts().start.is_empty() {
            return Err(FilesError::NoStart);
        }
        let budget = MEMORY.checked_div(decoder.bytes_per_token()).unwrap_or(0);
        let limits = Limits {
            context: text.facts().context.unwrap_or(budget),
            encoder,
            budget,
            waiting: WAITING,
            part: PART,
            batch: model.largest_batch().unwrap_or(1),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                scheduler: Scheduler::new(Arc::clone(&text), limits),
                answers: HashMap::new(),
                ended: Vec::new(),
                stepping: false,
                closed: false,
            }),
            changed: Condvar::new(),
            due: Condvar::new(),
        });
        let forms = Arc::clone(&shared);
        if let Err(error) = thread::Builder::new().name("forms".into()).spawn(move || forms.keep_forms()) {
            warn!("a language model answers nothing: {error}");
            return Ok(None);
        }
        let (turns, model, name) = (Arc::clone(&shared), Arc::clone(model), name.to_owned());
        let started = thread::Builder::new().name("generator".into()).spawn(move || turns.run(&name, &model));
        if let Err(error) = started {
            warn!("a language model answers nothing: {error}");
            return Ok(None);
        }
        Ok(Some(Self { text, shared, pacer: Arc::default(), longest: LONGEST, limits }))
    }

    /// What sends at fixed instants what comes of it.
    pub fn pacer(&self) -> &Arc<Pacer> {
        &self.pacer
    }

    /// Has answers end after `longest`.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// How the model's text is made.
    pub fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// The tokens of a text that is to be answered.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if self.limits.encoder.is_some() { self.text.source(text) } else { self.text.prompt(text) }
    }

    /// The most tokens of an answer to a prompt of so many, if that is said.
    pub fn room(&self, prompt: usize) -> Option<usize> {
        let facts = self.text.facts();
        let before = if self.limits.encoder.is_some() { facts.start.len() } else { prompt };
        Some(facts.context?.saturating_sub(before))
    }

    /// Whether no answer is being made, and nothing remembered that is of no use.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.scheduler.is_empty() && state.ended.is_empty() && !state.stepping
    }

    /// Begins all of `orders`, or none.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn begin(&self, orders: Vec<Order>) -> Result<Begun, Refused> {
        let mut state = self.shared.lock();
        let mut begun = Begun { shared: Arc::clone(&self.shared), ids: Vec::with_capacity(orders.len()) };
        let due = Instant::now().checked_add(self.longest).unwrap_or_else(Instant::now);
        for order in orders {
            match state.scheduler.add(order) {
                Ok(id) => {
                    state.answers.insert(id, Answer { sink: None, events: Vec::new(), due });
                    begun.ids.push(id);
                }
                Err(refused) => {
                    drop(state);
                    return Err(refused);
                }
            }
        }
        drop(state);
        self.shared.changed.notify_one();
        Ok(begun)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        self.shared.due.notify_one();
    }
}

impl Begun {
    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// From now on `sink` of each takes what becomes of them, beginning with what already did.
    pub fn give(mut self, mut sink: impl FnMut(usize) -> Box<dyn Sink>) {
        let mut state = self.shared.lock();
        for (index, id) in std::mem::take(&mut self.ids).into_iter().enumerate() {
            let Some(answer) = state.answers.get_mut(&id) else { continue };
            let mut sink = sink(index);
            let mut wanted = true;
            let mut ended = false;
            for event in answer.events.drain(..) {
                wanted = sink.take(&event);
                ended = event.end.is_some();
            }
            answer.sink = Some(sink);
            if ended {
                state.answers.remove(&id);
            } else if !wanted {
                state.cancel(id);
            }
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        for id in self.ids.drain(..) {
            state.cancel(id);
        }
    }
}

impl State {
    fn cancel(&mut self, id: Id) {
        self.answers.remove(&id);
        if self.scheduler.cancel(id) {
            self.ended.push(id);
        }
    }

    /// Has the model forget, at its next step, whose answers ended.
    fn end(&mut self, events: &[Event]) {
        self.ended.extend(events.iter().filter(|event| event.end.is_some()).map(|event| event.id));
    }

    /// Hands events out; who is gone is not asked again, and an answer that took as long as any may ends.
    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            let id = event.id;
            let ended = event.end.is_some();
            let Some(answer) = self.answers.get_mut(&id) else { continue };
            let Some(sink) = &mut answer.sink else {
                answer.events.push(event);
                continue;
            };
            let wanted = sink.take(&event);
            if ended {
                self.answers.remove(&id);
            } else if !wanted {
                self.cancel(id);
            } else if Instant::now() >= answer.due
                && let Some(last) = self.scheduler.finish(id)
            {
                sink.take(&last);
                self.answers.remove(&id);
                self.ended.push(id);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is half done by a panic ends with the answers it was about.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, name: &str, model: &LoadedModel) {
        let mut state = self.lock();
        // What became of answers is told while the model is at work on their next step: until then it would have nothing to do.
        let mut events = Vec::new();
        while !state.closed {
            let step = state.scheduler.step();
            let close: Vec<u64> = state.ended.drain(..).map(|id| id.0).collect();
            if step.is_none() && close.is_empty() {
                if events.is_empty() {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                } else {
                    state.tell(std::mem::take(&mut events));
                }
                continue;
            }
            state.stepping = true;
            drop(state);
            self.due.notify_one();
            let step = step.unwrap_or(Step { feeds: Vec::new(), kind: Kind::Answers });
            let before = std::mem::take(&mut events);
            let start = Instant::now();
            let answer = model.step(&close, &feeds(&step), || self.lock().tell(before));
            let took = start.elapsed();
            state = self.lock();
            events = match answer {
                Ok(logits) => state.scheduler.done(&step, logits, took),
                Err(error) => {
                    warn!("{name}: the model failed on a step: {error}");
                    match error {
                        // What it remembered went with its process.
                        InferError::Crashed | InferError::Timeout { .. } | InferError::Restarting => {
                            state.scheduler.lost()
                        }
                        _ => state.scheduler.failed(&step),
                    }
                }
            };
            state.stepping = false;
            state.end(&events);
            self.due.notify_one();
        }
    }
}

impl Shared {
    /// Works out beside the model what answers that keep to a form can go on with: who asks for one that takes long delays
    /// others that have one, a few milliseconds each time, and nobody else.
    fn keep_forms(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some(work) = state.scheduler.work() else {
                state = self.due.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let worked = work.run();
            state = self.lock();
            let events: Vec<Event> = state.scheduler.worked(worked).into_iter().collect();
            state.end(&events);
            state.tell(events);
            self.changed.notify_one();
        }
    }
}

fn feeds(step: &Step) -> Vec<Feed> {
    let numbers = |tokens: &[u32]| tokens.iter().map(|token| i64::from(*token)).collect::<Vec<_>>().into();
    let feed = |feed: &decode::Feed| Feed {
        sequence: feed.id.0,
        past: feed.past,
        tokens: numbers(&feed.tokens),
        source: numbers(&feed.source),
        wanted: feed.wanted,
    };
    step.feeds.iter().map(feed).collect()
}

/// Bytes for what a model remembers of all answers.
const MEMORY: usize = 512 << 20;
/// Answers that wait for room in it.
const WAITING: usize = 64;
/// Tokens of a prompt that are read at once: with more, who is being answered waits longer for the next token, and with fewer
/// a prompt takes longer.
const PART: usize = 16;
/// Tokens of a prompt that an encoder reads, where no file says how many.
const SOURCE: usize = 1024;
/// Tokens of a prompt that an encoder reads at most, whatever a file says: it reads them in one run, whose memory grows with the
/// square of their number.
const LONGEST_SOURCE: usize = 4096;
/// How long an answer may take.
const LONGEST: Duration = Duration::from_secs(600);
