use std::collections::BTreeMap;

use super::*;
use crate::text::tests::text;

/// A model that says the letters after the one before, and that remembers what it is fed.
#[derive(Default)]
struct Alphabet {
    remembers: BTreeMap<Id, Vec<u32>>,
    steps: Vec<Vec<(u64, usize)>>,
}

impl Alphabet {
    fn answer(&mut self, step: &Step) -> Vec<Option<Erased<Vec<f32>>>> {
        self.steps.push(step.feeds.iter().map(|feed| (feed.id.0, feed.tokens.len())).collect());
        assert!(step.feeds.len() == 1 || step.feeds.iter().all(|feed| feed.tokens.len() == 1));
        let feeds = step.feeds.iter().map(|feed| {
            let remembers = self.remembers.entry(feed.id).or_default();
            assert_eq!(remembers.len(), feed.past, "nothing is fed twice or left out");
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
    Limits { context: 64, budget: 100, waiting: 4, prefill: 8, prefill_beside: 4, batch: 2 }
}

fn order(prompt: &str, max_tokens: Option<usize>) -> Order {
    let choices = Choices { temperature: 0.0, ..Choices::default() };
    Order {
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
            events = scheduler.done(&step, logits);
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
        for event in scheduler.done(&step, logits) {
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
    assert_eq!(model.steps.iter().map(|step| step[0].1).collect::<Vec<_>>(), [8, 8, 8, 4, 1, 1, 1, 1, 1]);
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
        scheduler.done(&step, logits);
    }
    let late = scheduler.add(order("a long prompt: a", Some(2))).unwrap();
    let ends = run(&mut scheduler, &mut model);
    for id in all {
        assert_eq!((ends[&id].0.ends_with('e'), ends[&id].1.answer), (true, 4));
    }
    assert_eq!(ends[&late].0, "bc");
    let steps = &model.steps[4..];
    // No part of the prompt comes right after another, while others go on; then it has longer ones.
    let is_part = |step: &Vec<(u64, usize)>| step.len() == 1 && step[0] == (late.0, 4);
    assert_eq!(steps.iter().filter(|step| is_part(step)).count(), 2, "{steps:?}");
    assert!(!steps.windows(2).any(|pair| pair.iter().all(is_part)), "{steps:?}");
    assert!(steps.contains(&vec![(late.0, 8)]), "{steps:?}");
    assert!(
        steps.iter().any(|step| step.len() == 2) && steps.iter().all(|step| step.len() <= 2),
        "{steps:?}"
    );
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
    scheduler.done(&step, logits);
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
    assert!(scheduler.done(&step, vec![Some(vec![0.0; 304].into())]).is_empty());
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
        said.extend(scheduler.done(&step, logits).iter().map(|event| event.text.as_str().to_owned()));
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
    assert_eq!(scheduler.done(&step, vec![Some(vec![f32::NAN; 304].into())]), [failed(second)]);
    let third = scheduler.add(order("a", None)).unwrap();
    assert_eq!(scheduler.lost(), [failed(third)]);
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
        run(&mut scheduler, &mut model)[&id].clone()
    };
    assert_eq!(texts(0), texts(3));
}
