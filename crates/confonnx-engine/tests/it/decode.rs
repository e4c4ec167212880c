//! Models that continue a text answer as ONNX Runtime does for a caller who keeps keys and values himself.

use std::{collections::HashMap, time::Duration};

use confonnx_engine::{Batching, Engine, Feed, LoadedModel, ModelOptions};

use super::*;

fn decoder(name: &str) -> LoadedModel {
    let engine = Engine::InProcess(runtime().clone());
    engine.load(name, &onnx(&format!("{name}.onnx")), &options(), Duration::from_secs(60)).unwrap()
}

/// The model `name`, whose owner states that rows are independent.
fn batched(name: &str) -> LoadedModel {
    let batch = Batching {
        max_batch_size: 8,
        preferred: Vec::new(),
        max_delay: Duration::ZERO,
        axis: 0,
        other_axes: Vec::new(),
    };
    let options = ModelOptions { batch: Some(batch), ..options() };
    let engine = Engine::InProcess(runtime().clone());
    engine.load(name, &onnx(&format!("{name}.onnx")), &options, Duration::from_secs(60)).unwrap()
}

fn feed(sequence: u64, past: usize, tokens: &[i64]) -> Feed {
    Feed { sequence, past, tokens: tokens.to_vec().into(), wanted: true, ..Feed::default() }
}

fn ints(dims: &[u64], values: &[i64]) -> Tensor<'static> {
    Tensor::new(
        DataType::Int64,
        shape(dims),
        values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap()
}

fn best(logits: &[f32]) -> i64 {
    let best = logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).unwrap();
    best.0.try_into().unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Logits after each of some steps, with keys and values handed on by this test.
fn bare(model: &LoadedModel, steps: &[&[i64]]) -> Vec<Vec<u32>> {
    let mut memory: Vec<(String, Tensor<'static>)> = Vec::new();
    for input in model.inputs().iter().filter(|input| input.name.starts_with("past")) {
        memory.push((input.name.clone(), fp32(&[1, 1, 0, 16], &[])));
    }
    let mut past = 0;
    let mut all = Vec::new();
    for tokens in steps {
        let total = past + tokens.len();
        let mut inputs = memory.clone();
        inputs.push(named("input_ids", ints(&[1, tokens.len() as u64], tokens)));
        inputs.push(named("attention_mask", ints(&[1, total as u64], &vec![1; total])));
        inputs.push(named("num_logits_to_keep", ints(&[], &[1])));
        if model.inputs().iter().any(|input| input.name == "position_ids") {
            let positions: Vec<i64> = (past as i64..total as i64).collect();
            inputs.push(named("position_ids", ints(&[1, tokens.len() as u64], &positions)));
        }
        let outputs = model.run(&inputs, &[]).unwrap();
        all.push(bits(&floats(&outputs[0].1)));
        memory = outputs
            .into_iter()
            .skip(1)
            .map(|(name, tensor)| (name.replace("present", "past_key_values"), tensor))
            .collect();
        past = total;
    }
    all
}

#[test]
fn steps_say_what_a_bare_loop_says_to_the_bit() {
    for name in ["decoder", "decoder_plain", "decoder_q8"] {
        let model = decoder(name);
        let steps: [&[i64]; 4] = [&[104, 101, 108], &[108, 111], &[7], &[9]];
        let mut past = 0;
        let mut found = Vec::new();
        for tokens in steps {
            let logits = model.step(&[], &[feed(1, past, tokens)], || ()).unwrap().remove(0).unwrap();
            assert_eq!(logits.len(), 304);
            found.push(bits(&logits));
            past += tokens.len();
        }
        assert_eq!(found, bare(&model, &steps), "{name}");
    }
}

#[test]
fn sequences_do_not_know_of_each_other() {
    let model = decoder("decoder");
    let alone = |tokens: &[i64]| bare(&model, &[tokens, &[5]]).pop().unwrap();
    model.step(&[], &[feed(1, 0, &[1, 2, 3])], || ()).unwrap();
    model.step(&[], &[feed(2, 0, &[4, 5, 6, 7])], || ()).unwrap();
    let both = model.step(&[], &[feed(2, 4, &[5]), feed(1, 3, &[5])], || ()).unwrap();
    assert_eq!(bits(both[0].as_ref().unwrap()), alone(&[4, 5, 6, 7]));
    assert_eq!(bits(both[1].as_ref().unwrap()), alone(&[1, 2, 3]));
}

#[test]
fn what_the_model_answers_is_what_it_always_answered() {
    // As onnxruntime's Python package answers.
    let expected = [255, 114, 156, 182, 152, 199, 12, 12, 12, 12, 12, 12];
    for name in ["decoder", "decoder_plain", "decoder_q8"] {
        let model = decoder(name);
        let (mut tokens, mut past, mut said) = (b"hello".map(i64::from).to_vec(), 0, Vec::new());
        for _ in 0..expected.len() {
            let next = best(model.step(&[], &[feed(1, past, &tokens)], || ()).unwrap()[0].as_ref().unwrap());
            past += tokens.len();
            tokens = vec![next];
            said.push(next);
        }
        assert_eq!(said, expected, "{name}");
    }
}

#[test]
fn what_is_closed_or_was_never_there_is_not_remembered() {
    let model = decoder("decoder");
    model.step(&[], &[feed(1, 0, &[1, 2])], || ()).unwrap();
    assert!(model.step(&[], &[feed(2, 2, &[3])], || ()).is_err(), "another");
    assert!(model.step(&[], &[feed(1, 1, &[3])], || ()).is_err(), "of another length");
    model.step(&[], &[feed(1, 0, &[1, 2])], || ()).unwrap();
    model.step(&[1], &[], || ()).unwrap();
    assert!(model.step(&[], &[feed(1, 2, &[3])], || ()).is_err(), "closed");
    assert!(model.step(&[], &[feed(1, 0, &[])], || ()).is_err(), "nothing to read");
    assert!(model.step(&[], &[feed(1, 0, &[400])], || ()).is_err(), "no token");
    let silent = model.step(&[], &[Feed { wanted: false, ..feed(3, 0, &[1]) }], || ()).unwrap();
    assert_eq!(silent, [None]);
    assert!(decoder("decoder").decoder().is_some());
    let other = Engine::InProcess(runtime().clone())
        .load("mlp", &onnx("mlp.onnx"), &options(), Duration::from_secs(9))
        .unwrap();
    assert!(other.decoder().is_none() && other.step(&[], &[feed(1, 0, &[1])], || ()).is_err());
}

#[test]
fn those_who_go_on_together_hear_what_each_hears_alone_to_the_bit() {
    for name in ["decoder", "decoder_q8"] {
        let (model, alone) = (batched(name), decoder(name));
        assert_eq!((model.largest_batch(), alone.largest_batch()), (Ok(8), Ok(1)), "{name}");
        // Texts come and go at different turns: number, first and last turn, how many tokens are read first.
        let texts: [(u64, usize, usize, usize); 6] =
            [(1, 0, 30, 3), (2, 0, 9, 40), (3, 4, 30, 250), (4, 8, 12, 1), (5, 11, 30, 7), (6, 20, 21, 90)];
        let token = |number: u64, at: usize| (number as i64 * 31 + at as i64 * 17) % 250;
        let mut heard: HashMap<u64, Vec<Vec<u32>>> = HashMap::new();
        let mut together = 0;
        for turn in 0..30 {
            for (number, ..) in texts.iter().filter(|text| text.2 == turn) {
                model.step(&[*number], &[], || ()).unwrap();
            }
            for (number, _, _, read) in texts.iter().filter(|text| text.1 == turn) {
                let tokens: Vec<i64> = (0..*read).map(|at| token(*number, at)).collect();
                model.step(&[], &[feed(*number, 0, &tokens)], || ()).unwrap();
            }
            let there = texts.iter().filter(|text| text.1 <= turn && turn < text.2);
            // Text 3 waits at every fifth turn.
            let there: Vec<_> = there.filter(|text| !(text.0 == 3 && turn % 5 == 0)).collect();
            let feeds: Vec<Feed> = there
                .iter()
                .map(|(number, _, _, read)| {
                    let past = read + heard.get(number).map_or(0, Vec::len);
                    feed(*number, past, &[token(*number, past)])
                })
                .collect();
            together = together.max(feeds.len());
            for (feed, logits) in feeds.iter().zip(model.step(&[], &feeds, || ()).unwrap()) {
                heard.entry(feed.sequence).or_default().push(bits(&logits.unwrap()));
            }
        }
        assert!(together >= 4);
        for (number, _, _, read) in texts {
            alone
                .step(
                    &[],
                    &[feed(number, 0, &(0..read).map(|at| token(number, at)).collect::<Vec<_>>())],
                    || (),
                )
                .unwrap();
            for (past, said) in (read..).zip(&heard[&number]) {
                let logits = alone.step(&[], &[feed(number, past, &[token(number, past)])], || ()).unwrap();
                assert_eq!(&bits(logits[0].as_ref().unwrap()), said, "{name}: {number} after {past}");
            }
        }
    }
}

#[test]
fn a_model_that_copies_what_it_remembers_goes_on_with_each_alone() {
    let model = batched("decoder_plain");
    assert!(model.largest_batch().is_err());
    model.step(&[], &[feed(1, 0, &[1, 2, 3])], || ()).unwrap();
    model.step(&[], &[feed(2, 0, &[4, 5])], || ()).unwrap();
    let both = model.step(&[], &[feed(1, 3, &[5]), feed(2, 2, &[6])], || ()).unwrap();
    let alone = bare(&model, &[&[4, 5], &[6]]).pop().unwrap();
    assert_eq!(bits(both[1].as_ref().unwrap()), alone);
    assert!(model.step(&[], &[feed(1, 4, &[5]), feed(1, 4, &[5])], || ()).is_err(), "the same twice");
}
