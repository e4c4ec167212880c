use std::collections::BTreeMap;

use super::*;
use crate::text::tests::{text, text_of_encoder};

/// A model that says the letters after the one before, and that remembers what it is fed.
#[derive(Default)]
struct Alphabet {
    remembers: BTreeMap<Id, Vec<u32>>,
    /// What an encoder read for each.
    sources: BTreeMap<Id, Vec<u32>>,
    steps: Vec<Vec<(u64, usize)>>,
}

impl Alphabet {
    fn answer(&mut self, step: &Step) -> Vec<Option<Erased<Vec<f32>>>> {
        self.steps.push(step.feeds.iter().map(|feed| (feed.id.0, feed.tokens.len())).collect());
        assert!(step.feeds.len() == 1 || step.feeds.iter().all(|feed| feed.tokens.len() == 1));
        let feeds = step.feeds.iter().map(|feed| {
            let remembers = self.remembers.entry(feed.id).or_default();
            assert_eq!(remembers.len(), feed.past, "nothing is fed twice or left out");
            if !feed.source.is_empty() {
                assert!(self.sources.insert(feed.id, feed.source.to_vec()).is_none(), "it is read once");
            }
            remembers.extend(&*feed.tokens);
            feed.wanted.then(|| {
                let mut logits = vec![0.0; 304];
                let last = remembers.last().copied().unwrap();
                // After z the model gives the end.
                let next = if last == u32::from(b'z') { 301 } else { last + 1 };
                logits[next as usize] = 9.0;
                logits.into()
            })
        });
        feeds.collect()
    }
}

fn limits() -> Limits {
    Limits { context: 64, encoder: None, budget: 100, waiting: 4, part: 4, batch: 2 }
}

/// How long the model takes: a token as long as any.
fn took(step: &Step) -> Duration {
    Duration::from_millis(step.feeds.iter().map(|feed| feed.tokens.len() as u64).max().unwrap_or(0))
}

fn order(prompt: &str, max_tokens: Option<usize>) -> Order {
    let choices = Choices { temperature: 0.0, ..Choices::default() };
    Order {
        holder: None,
        prompt: prompt.bytes().map(u32::from).collect::<Vec<_>>().into(),
        max_tokens,
        choices,
        seed: 0,
        stop: Vec::new(),
        constraint: None,
    }
}

/// Runs until nothing is left: texts and ends.
fn run(scheduler: &mut Scheduler, model: &mut Alphabet) -> BTreeMap<Id, (String, End)> {
    let mut texts = BTreeMap::<Id, String>::new();
    let mut ends = BTreeMap::new();
    loop {
        let step = scheduler.step();
        let work = scheduler.work();
        if step.is_none() && work.is_none() {
            break;
        }
        let mut events = Vec::new();
        if let Some(step) = step {
            let logits = model.answer(&step);
            events = scheduler.done(&step, logits, took(&step));
        }
        events.extend(work.and_then(|work| scheduler.worked(work.run())));
        for event in events {
            assert!(!ends.contains_key(&event.id), "nothing comes after the end");
            let text = texts.entry(event.id).or_default();
            text.push_str(&event.text);
            if let Some(end) = event.end {
                ends.insert(event.id, (text.clone(), end));
            }
        }
    }
    assert!(scheduler.is_empty());
    assert_eq!(scheduler.reserved, 0);
    ends
}

/// As [`order`], of an answer that is JSON: whatever the model would say, of what may come the most likely.
fn order_of_json(prompt: &str, schema: serde_json::Value) -> Order {
    Order { constraint: Some(text().constraint(&schema).unwrap()), ..order(prompt, Some(20)) }
}

#[test]
fn an_answer_keeps_to_its_form() {
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
    let id = scheduler.add(order_of_json("a", serde_json::json!({ "enum": ["bcd"] }))).unwrap();
    let other = scheduler.add(order("w", Some(20))).unwrap();
    let ends = run(&mut scheduler, &mut model);
    assert_eq!(ends[&id].0, "\"bcd\"");
    assert_eq!((ends[&id].1.finish, ends[&other].0.as_str()), (Finish::Stop, "xyz"));
}

#[test]
fn who_waits_for_its_form_keeps_nobody_waiting() {
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
    let id = scheduler.add(order_of_json("a", serde_json::json!({ "enum": ["bcd"] }))).unwrap();
    let other = scheduler.add(order("u", Some(20))).unwrap();
    // Its first token is being worked out, for as long as all of the other answer takes.
    let work = scheduler.work();
    assert!(work.is_none(), "it has not begun");
    let mut said = String::new();
    let mut work = None;
    while let Some(step) = scheduler.step() {
        work = work.or_else(|| scheduler.work());
        let logits = model.answer(&step);
        for event in scheduler.done(&step, logits, took(&step)) {
            assert_eq!(event.id, other);
            said.push_str(&event.text);
        }
    }
    assert_eq!((said.as_str(), scheduler.len()), ("vwxyz", 1));
    // What is worked out for an answer that nobody wants any more is of no use, and no harm.
    let worked = work.unwrap().run();
    assert!(scheduler.cancel(id));
    assert_eq!(scheduler.worked(worked), None);
    assert_eq!((scheduler.step(), scheduler.reserved), (None, 0));
}

#[test]
fn one_answer_from_a_long_prompt() {
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
    let id = scheduler.add(order("tell me the letters after: u", Some(20))).unwrap();
    let ends = run(&mut scheduler, &mut model);
    assert_eq!(ends[&id], ("vwxyz".into(), End { finish: Finish::Stop, prompt: 28, answer: 6 }));
    assert_eq!(
        model.steps.iter().map(|step| step[0].1).collect::<Vec<_>>(),
        [4, 4, 4, 4, 4, 4, 4, 1, 1, 1, 1, 1]
    );
}

#[test]
fn no_part_of_a_prompt_has_one_token() {
    let parts = |length: usize| {
        let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
        scheduler.add(order(&"a".repeat(length), Some(1))).unwrap();
        run(&mut scheduler, &mut model);
        model.steps.iter().map(|step| step[0].1).collect::<Vec<_>>()
    };
    assert_eq!(
        [1, 4, 5, 6, 9, 12].map(parts),
        [vec![1], vec![4], vec![5], vec![4, 2], vec![4, 5], vec![4, 4, 4]]
    );
}

#[test]
fn answers_end_by_length_and_by_stop_texts() {
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
    let short = scheduler.add(order("a", Some(3))).unwrap();
    let stopped = scheduler.add(Order { stop: vec!["fg".into()], ..order("c", None) }).unwrap();
    let held = scheduler.add(Order { stop: vec!["efx".into()], ..order("c", Some(3)) }).unwrap();
    let ends = run(&mut scheduler, &mut model);
    assert_eq!(ends[&short], ("bcd".into(), End { finish: Finish::Length, prompt: 1, answer: 3 }));
    assert_eq!((ends[&stopped].0.as_str(), ends[&stopped].1.finish), ("de", Finish::Stop));
    assert_eq!(
        (ends[&held].0.as_str(), ends[&held].1.finish),
        ("def", Finish::Length),
        "what was held back is told"
    );
}

#[test]
fn several_go_on_in_turns_and_a_prompt_holds_nobody_up() {
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
    let all: Vec<Id> = (0..3).map(|_| scheduler.add(order("a", Some(4))).unwrap()).collect();
    for _ in 0..4 {
        let step = scheduler.step().unwrap();
        let logits = model.answer(&step);
        scheduler.done(&step, logits, took(&step));
    }
    let late = scheduler.add(order("a long prompt: a", Some(2))).unwrap();
    let ends = run(&mut scheduler, &mut model);
    for id in all {
        assert_eq!((ends[&id].0.ends_with('e'), ends[&id].1.answer), (true, 4));
    }
    assert_eq!(ends[&late].0, "bc");
    let steps = &model.steps[4..];
    // The prompt has as long parts as if it were alone, and half of the time while others go on, of whom none knows whose they are.
    let is_part = |step: &Vec<(u64, usize)>| step[0].0 == late.0 && step[0].1 > 1;
    let parts: Vec<usize> = (0..steps.len()).filter(|at| is_part(&steps[*at])).collect();
    assert_eq!(parts.len(), 4, "{steps:?}");
    let after = &steps[parts[1]..];
    assert!(after.iter().flatten().all(|(id, _)| *id == late.0), "the others had all before: {steps:?}");
    assert!(steps[parts[0]..parts[1]].iter().any(|step| step.len() == 2), "{steps:?}");
    assert!(
        steps.iter().any(|step| step.len() == 2) && steps.iter().all(|step| step.len() <= 2),
        "{steps:?}"
    );
}

/// As [`order`], of the caller with that name.
fn order_of(name: &str, prompt: &str, max_tokens: usize) -> Order {
    Order { holder: Some(name.into()), ..order(prompt, Some(max_tokens)) }
}

#[test]
fn a_caller_has_the_turns_of_one_however_many_answers_it_has() {
    for (batch, each) in [(1, 1), (8, 2)] {
        let limits = Limits { budget: 1000, waiting: 100, batch, ..limits() };
        let (mut scheduler, mut model) = (Scheduler::new(text(), limits), Alphabet::default());
        for _ in 0..20 {
            scheduler.add(order_of("hostile", "a", 20)).unwrap();
        }
        while scheduler.running.iter().filter(|sequence| sequence.is_decoding()).count() < 20 {
            let step = scheduler.step().unwrap();
            let logits = model.answer(&step);
            scheduler.done(&step, logits, took(&step));
        }
        let honest = scheduler.add(order_of("honest", "a", 10)).unwrap();
        model.steps.clear();
        let ends = run(&mut scheduler, &mut model);
        assert_eq!(ends[&honest].0, "bcdefghijk");
        let steps = &model.steps;
        let own: Vec<usize> =
            (0..steps.len()).filter(|at| steps[*at].iter().any(|(id, _)| *id == honest.0)).collect();
        assert_eq!(own.len(), 10);
        assert!(own.windows(2).all(|pair| pair[1] - pair[0] <= 2), "{batch}: {own:?}");
        let beside = own[1..].iter().all(|at| steps[*at].len() == each);
        assert!(beside, "of both as many go on together: {steps:?}");
        let after = &steps[own[9] + 1];
        assert!(after.len() == batch.min(20), "alone it has all that there is: {after:?}");
    }
}

#[test]
fn who_comes_and_goes_gains_no_turns_by_that() {
    let limits = Limits { budget: 1000, batch: 1, ..limits() };
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits), Alphabet::default());
    let honest = scheduler.add(order_of("honest", "a", 10)).unwrap();
    scheduler.add(order_of("hostile", "a", 1)).unwrap();
    let (mut steps, mut own) = (0, 0);
    while own < 10 {
        let step = scheduler.step().unwrap();
        (steps, own) = (steps + 1, own + usize::from(step.feeds[0].id == honest));
        assert!(steps <= 20, "{own} turns of {steps}");
        let logits = model.answer(&step);
        for event in scheduler.done(&step, logits, took(&step)) {
            if event.id != honest && event.end.is_some() {
                scheduler.add(order_of("hostile", "a", 1)).unwrap();
            }
        }
    }
}

#[test]
fn who_goes_while_its_prompt_is_read_owes_for_that() {
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits()), Alphabet::default());
    let honest = scheduler.add(order_of("honest", "a", 25)).unwrap();
    scheduler.add(order_of("hostile", "aaaaaaaa", 1)).unwrap();
    let mut parts = 0;
    for _ in 0..20 {
        let step = scheduler.step().unwrap();
        let logits = model.answer(&step);
        let is_part = step.feeds[0].id != honest && scheduler.cancel(step.feeds[0].id);
        scheduler.done(&step, logits, took(&step));
        if is_part {
            parts += 1;
            scheduler.add(order_of("hostile", "aaaaaaaa", 1)).unwrap();
        }
    }
    // Each part takes as long as four tokens.
    assert_eq!(parts, 4);
}

/// How long the caller `honest` waited between its tokens, of which it wants 25, while ten prompts of 60 tokens of `others` were
/// read, and how many of these were read by then.
fn waits(others: impl Fn(usize) -> String) -> (Vec<Duration>, usize) {
    let limits = Limits { budget: 1000, waiting: 100, batch: 8, ..limits() };
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits), Alphabet::default());
    let honest = scheduler.add(order_of("honest", "a", 25)).unwrap();
    for number in 0..10 {
        scheduler.add(order_of(&others(number), &"a".repeat(60), 1)).unwrap();
    }
    let (mut between, mut before, mut read) = (Vec::new(), Duration::ZERO, 0);
    while between.len() < 25 {
        let step = scheduler.step().unwrap();
        let logits = model.answer(&step);
        if step.feeds.iter().any(|feed| feed.id == honest) {
            between.push(std::mem::take(&mut before));
        } else {
            before += took(&step);
            read += step.feeds[0].tokens.len();
        }
        scheduler.done(&step, logits, took(&step));
    }
    between.remove(0);
    (between, read)
}

#[test]
fn prompts_of_another_caller_have_half_of_the_time_however_many_there_are() {
    let (between, read) = waits(|_| "hostile".into());
    // A part takes as long as four tokens, and comes once for every four.
    assert_eq!(between.iter().max(), Some(&Duration::from_millis(4)), "{between:?}");
    assert_eq!((between.iter().sum(), read), (Duration::from_millis(24), 24), "{between:?}");
}

#[test]
fn prompts_of_different_callers_have_half_of_the_time_each() {
    let (between, _) = waits(|number| format!("another {}", number % 3));
    assert_eq!(between.iter().max(), Some(&Duration::from_millis(12)), "{between:?}");
    assert_eq!(between.iter().sum::<Duration>(), Duration::from_millis(72), "{between:?}");
}

#[test]
fn prompts_of_a_caller_take_turns_with_its_own_answers() {
    let (between, _) = waits(|_| "honest".into());
    assert!(between[1..].iter().all(|between| *between == Duration::from_millis(4)), "{between:?}");
}

#[test]
fn who_goes_owes_what_it_did() {
    let limits = Limits { batch: 1, ..limits() };
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits), Alphabet::default());
    let honest = scheduler.add(order_of("honest", "a", 25)).unwrap();
    let mut hostile = scheduler.add(order_of("hostile", "aaaa", 1)).unwrap();
    let mut of = Vec::new();
    while of.len() < 20 {
        let step = scheduler.step().unwrap();
        of.push(step.feeds[0].id == honest);
        let logits = model.answer(&step);
        for event in scheduler.done(&step, logits, took(&step)) {
            if event.id == hostile && event.end.is_some() {
                hostile = scheduler.add(order_of("hostile", "aaaa", 1)).unwrap();
            }
        }
    }
    // Each of its prompts takes as long as four tokens.
    assert_eq!(of.iter().filter(|honest| !**honest).count(), 4, "{of:?}");
}

#[test]
fn one_caller_leaves_others_half_of_what_there_is_room_for() {
    let limits = Limits { waiting: 8, ..limits() };
    let mut scheduler = Scheduler::new(text(), limits);
    // Of 100 tokens a caller has 50; one answer alone may have more.
    scheduler.add(order_of("hostile", "a", 59)).unwrap();
    for _ in 0..4 {
        scheduler.step();
        scheduler.add(order_of("hostile", "a", 19)).unwrap();
    }
    assert_eq!(scheduler.add(order_of("hostile", "a", 19)), Err(Refused::Share { waiting: 4 }));
    assert_eq!((scheduler.running.len(), scheduler.waiting.len()), (1, 4));
    let honest = scheduler.add(order_of("honest", "a", 19)).unwrap();
    assert!(scheduler.step().is_some() && scheduler.running.iter().any(|sequence| sequence.id() == honest));
    let ends = run(&mut scheduler, &mut Alphabet::default());
    assert_eq!(ends.len(), 6, "who waits for its own share has its turn, too");
}

#[test]
fn forms_of_one_caller_are_worked_out_in_turns_with_those_of_others() {
    let limits = Limits { budget: 1000, waiting: 100, batch: 1, ..limits() };
    let (mut scheduler, mut model) = (Scheduler::new(text(), limits), Alphabet::default());
    let of = |name: &str| {
        let form = order_of_json("a", serde_json::json!({ "enum": ["bcdefgh"] }));
        Order { holder: Some(name.into()), ..form }
    };
    for _ in 0..10 {
        scheduler.add(of("hostile")).unwrap();
    }
    let honest = scheduler.add(of("honest")).unwrap();
    scheduler.step();
    let first = [scheduler.work().unwrap().run(), scheduler.work().unwrap().run()];
    assert_eq!(first.iter().filter(|worked| worked.id == honest).count(), 1);
    for worked in first {
        scheduler.worked(worked);
    }
    assert_eq!(run(&mut scheduler, &mut model).len(), 11);
}

#[test]
fn what_finds_no_room_waits_or_is_refused() {
    let mut scheduler = Scheduler::new(text(), limits());
    assert_eq!(scheduler.add(order("", None)), Err(Refused::Empty));
    assert_eq!(
        scheduler.add(order("aaaa", Some(61))),
        Err(Refused::TooLong { prompt: 4, wanted: 61, most: 64 })
    );
    assert!(matches!(scheduler.add(order(&"a".repeat(64), None)), Err(Refused::TooLong { wanted: 1, .. })));
    // 64, then 64 that do not fit beside it, and 36 that would, but come later.
    let first = scheduler.add(order("y", None)).unwrap();
    let second = scheduler.add(order("y", None)).unwrap();
    let third = scheduler.add(order("y", Some(35))).unwrap();
    let step = scheduler.step().unwrap();
    assert_eq!(step.feeds.iter().map(|feed| feed.id).collect::<Vec<_>>(), [first]);
    assert!(scheduler.waiting.len() == 2);
    scheduler.add(order("y", None)).unwrap();
    scheduler.add(order("y", None)).unwrap();
    assert_eq!(scheduler.add(order("y", None)), Err(Refused::Busy { waiting: 4 }));
    let mut model = Alphabet::default();
    let logits = model.answer(&step);
    scheduler.done(&step, logits, took(&step));
    let ends = run(&mut scheduler, &mut model);
    assert_eq!(ends.len(), 5);
    assert!(ends.contains_key(&second) && ends.contains_key(&third));
}

#[test]
fn who_goes_leaves_room() {
    let mut scheduler = Scheduler::new(text(), limits());
    let (first, second) =
        (scheduler.add(order("a", None)).unwrap(), scheduler.add(order("a", None)).unwrap());
    let step = scheduler.step().unwrap();
    assert!(scheduler.cancel(first));
    assert!(!scheduler.cancel(first));
    // The model was asked already.
    assert!(scheduler.done(&step, vec![Some(vec![0.0; 304].into())], took(&step)).is_empty());
    assert_eq!(scheduler.step().unwrap().feeds[0].id, second);
    assert!(scheduler.cancel(second));
    assert_eq!((scheduler.step(), scheduler.reserved), (None, 0));
}

#[test]
fn an_answer_can_be_ended_with_what_there_is() {
    let mut scheduler = Scheduler::new(text(), limits());
    let id = scheduler.add(Order { stop: vec!["bcx".into()], ..order("a", Some(50)) }).unwrap();
    let mut model = Alphabet::default();
    let mut said = String::new();
    for _ in 0..2 {
        let step = scheduler.step().unwrap();
        let logits = model.answer(&step);
        said.extend(
            scheduler.done(&step, logits, took(&step)).iter().map(|event| event.text.as_str().to_owned()),
        );
    }
    // What could have become a text that ends it was held back.
    assert_eq!(said, "");
    let last = scheduler.finish(id).unwrap();
    assert_eq!((last.text.as_str(), last.end.unwrap().finish), ("bc", Finish::Length));
    assert!(scheduler.is_empty() && scheduler.step().is_none());
    assert_eq!(scheduler.finish(id), None);
}

#[test]
fn a_model_that_fails_ends_what_it_was_asked_for() {
    let mut scheduler = Scheduler::new(text(), limits());
    let first = scheduler.add(order("a", None)).unwrap();
    let second = scheduler.add(order("a", Some(3))).unwrap();
    let step = scheduler.step().unwrap();
    let failed = |id| Event {
        id,
        text: Erased::default(),
        chosen: None,
        end: Some(End { finish: Finish::Failed, prompt: 1, answer: 0 }),
    };
    assert_eq!(scheduler.failed(&step), [failed(first)]);
    let step = scheduler.step().unwrap();
    assert_eq!(scheduler.done(&step, vec![Some(vec![f32::NAN; 304].into())], took(&step)), [failed(second)]);
    let third = scheduler.add(order("a", None)).unwrap();
    assert_eq!(scheduler.lost(), [failed(third)]);
    assert!(scheduler.is_empty());
}

#[test]
fn an_answer_whose_form_is_too_costly_ends_with_that_reason() {
    let mut scheduler = Scheduler::new(text(), limits());
    let id = scheduler.add(order_of_json("a", serde_json::json!({ "enum": ["bcd"] }))).unwrap();
    scheduler.step();
    let work = scheduler.work().unwrap();
    let event = scheduler.worked(Worked { id: work.id, form: None }).unwrap();
    assert_eq!((event.id, event.end.unwrap().finish.failure()), (id, Some("response-format-too-costly")));
    assert!(scheduler.is_empty());
}

#[test]
fn answers_do_not_depend_on_company() {
    let texts = |company: usize| {
        let (mut scheduler, mut model) =
            (Scheduler::new(text(), Limits { budget: 1000, ..limits() }), Alphabet::default());
        let choices = Choices { temperature: 1.5, logprobs: Some(1), ..Choices::default() };
        let id = scheduler.add(Order { choices, seed: 42, ..order("hello a", Some(20)) }).unwrap();
        for _ in 0..company {
            scheduler.add(order("other", Some(7))).unwrap();
        }
        let answer = run(&mut scheduler, &mut model)[&id].clone();
        let all = model.steps.iter().flatten();
        let parts: Vec<usize> = all.filter(|(of, _)| *of == id.0).map(|(_, tokens)| *tokens).collect();
        // Last bits of what the model says are others with other parts.
        assert_eq!(parts[..2], [4, 3], "beside {company}");
        answer
    };
    assert_eq!(texts(0), texts(3));
}

#[test]
fn where_an_encoder_reads_the_prompt_the_answer_begins_by_itself() {
    let limits = Limits { encoder: Some(9), budget: 200, ..limits() };
    let (mut scheduler, mut model) = (Scheduler::new(text_of_encoder(), limits), Alphabet::default());
    let ids =
        [order("hello", Some(3)), order("a longer", Some(62))].map(|order| scheduler.add(order).unwrap());
    let ends = run(&mut scheduler, &mut model);
    assert_eq!(ends[&ids[0]], ("abc".into(), End { finish: Finish::Length, prompt: 5, answer: 3 }));
    assert_eq!(ends[&ids[1]].1, End { finish: Finish::Stop, prompt: 8, answer: 27 });
    assert_eq!(model.sources[&ids[0]], b"hello".map(u32::from));
    assert_eq!(model.remembers[&ids[0]], [300, 96, 97, 98], "what every answer begins with, and the answer");
    // The encoder reads so many tokens, whatever is answered, and the model says so many, whatever was read.
    assert_eq!(scheduler.add(order("0123456789", Some(1))), Err(Refused::LongPrompt { prompt: 10, most: 9 }));
    assert_eq!(
        scheduler.add(order("01", Some(63))),
        Err(Refused::TooLong { prompt: 2, wanted: 63, most: 64 })
    );
    scheduler.add(order("012345678", None)).unwrap();
    assert_eq!(scheduler.step().unwrap().feeds[0].source.len(), 9);
    assert_eq!(scheduler.reserved, 9 + 62);
}
