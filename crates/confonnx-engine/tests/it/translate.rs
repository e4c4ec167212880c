//! Models for which an encoder reads answer as ONNX Runtime does for a caller who asks encoder and decoder by themselves, and keeps
//! keys and values.

use std::{sync::Arc, time::Duration};

use confonnx_engine::{Engine, Feed, LoadedModel, ModelOptions};

use super::*;

const START: i64 = 303;
const END: i64 = 301;

fn engine() -> Engine {
    Engine::InProcess(runtime().clone())
}

fn load_by(engine: &Engine, decoder: &str, encoder: Option<&[u8]>) -> Result<LoadedModel, EngineError> {
    let options = ModelOptions { encoder: encoder.map(Arc::from), ..options() };
    engine.load(decoder, &onnx(&format!("{decoder}.onnx")), &options, Duration::from_secs(60))
}

fn translator() -> LoadedModel {
    load_by(&engine(), "translator", Some(&onnx("translator_encoder.onnx"))).unwrap()
}

/// The text as the encoder reads it.
fn source(text: &str) -> Vec<i64> {
    text.bytes().map(i64::from).chain([END]).collect()
}

fn first(sequence: u64, text: &str) -> Feed {
    Feed {
        sequence,
        tokens: vec![START].into(),
        source: source(text).into(),
        wanted: true,
        ..Feed::default()
    }
}

fn then(sequence: u64, past: usize, token: i64) -> Feed {
    Feed { sequence, past, tokens: vec![token].into(), wanted: true, ..Feed::default() }
}

fn ints(dims: &[u64], values: &[i64]) -> Tensor<'static> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Int64, shape(dims), bytes).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// The most likely token that may be said.
fn best(logits: &[f32]) -> i64 {
    let all = logits.iter().enumerate().filter(|(token, _)| *token as i64 != START);
    all.max_by(|one, other| one.1.total_cmp(other.1)).unwrap().0 as i64
}

/// Tokens and logits of a greedy answer, by a loop of this test's over the two models, each run tensor by tensor.
fn bare(text: &str, most: usize) -> (Vec<i64>, Vec<Vec<u32>>) {
    let (encoder, decoder) = (load("translator_encoder"), load_by(&engine(), "translator", None).unwrap());
    assert!(decoder.decoder().is_none(), "by itself it answers nothing");
    let ids = source(text);
    let row = [1, ids.len() as u64];
    let mask = ints(&row, &vec![1; ids.len()]);
    let given = [named("input_ids", ints(&row, &ids)), named("attention_mask", mask.clone())];
    let hidden = encoder.run(&given, &[]).unwrap().remove(0).1;
    let is_past = |info: &&confonnx_engine::TensorInfo| info.name.starts_with("past_key_values");
    let mut memory: Vec<(String, Tensor<'static>)> = decoder
        .inputs()
        .iter()
        .filter(is_past)
        .map(|info| (info.name.clone(), fp32(&[1, 2, 0, 16], &[])))
        .collect();
    let (mut said, mut all) = (vec![START], Vec::new());
    while said.len() <= most {
        let branch = Tensor::new(DataType::Bool, shape(&[1]), vec![u8::from(said.len() > 1)]).unwrap();
        let mut inputs = memory.clone();
        inputs.push(named("encoder_hidden_states", hidden.clone()));
        inputs.push(named("encoder_attention_mask", mask.clone()));
        inputs.push(named("input_ids", ints(&[1, 1], &said[said.len() - 1..])));
        inputs.push(named("use_cache_branch", branch));
        let outputs = decoder.run(&inputs, &[]).unwrap();
        for (name, kept) in &mut memory {
            if said.len() == 1 || name.contains("decoder") {
                let present = name.replace("past_key_values", "present");
                *kept = outputs.iter().find(|(name, _)| *name == present).unwrap().1.clone();
            }
        }
        let logits = floats(&outputs[0].1);
        all.push(bits(&logits));
        said.push(best(&logits));
    }
    (said.split_off(1), all)
}

/// The same by steps.
fn stepped(model: &LoadedModel, sequence: u64, text: &str, most: usize) -> (Vec<i64>, Vec<Vec<u32>>) {
    let (mut feed, mut said, mut all) = (first(sequence, text), Vec::new(), Vec::new());
    while said.len() < most {
        let logits = model.step(&[], &[feed], || ()).unwrap().remove(0).unwrap();
        all.push(bits(&logits));
        said.push(best(&logits));
        feed = then(sequence, said.len(), *said.last().unwrap());
    }
    (said, all)
}

#[test]
fn steps_say_what_a_bare_loop_says_to_the_bit() {
    let model = translator();
    assert!(model.decoder().unwrap().has_encoder());
    // As onnxruntime's Python package answers: see examples/chat/pair.py.
    let expected: [(&str, [i64; 12]); 3] = [
        ("hello", [283, 242, 133, 283, 242, 133, 242, 66, 56, 133, 91, 283]),
        ("olleh", [283, 242, 56, 91, 104, 24, 24, 104, 149, 24, 24, 283]),
        ("a longer text", [283, 242, 283, 185, 283, 242, 122, 53, 133, 53, 242, 133]),
    ];
    for (text, expected) in expected {
        let (said, logits) = bare(text, expected.len());
        assert_eq!(said, expected, "{text}");
        assert_eq!(stepped(&model, 1, text, expected.len()), (said, logits), "{text}");
    }
}

#[test]
fn each_goes_on_with_what_was_read_for_it() {
    let model = translator();
    let texts = ["hello", "a longer text"];
    let alone = texts.map(|text| bare(text, 6));
    let mut feeds = [first(1, texts[0]), first(2, texts[1])];
    for at in 0..6 {
        let both = model.step(&[], &feeds, || ()).unwrap();
        for (which, logits) in both.iter().enumerate() {
            assert_eq!(bits(logits.as_ref().unwrap()), alone[which].1[at], "{which} at {at}");
        }
        feeds = [0, 1].map(|which| then(which as u64 + 1, at + 1, alone[which].0[at]));
    }
}

#[test]
fn what_is_closed_or_was_never_read_is_not_gone_on_with() {
    let model = translator();
    let fails = |feed: Feed| model.step(&[], &[feed], || ()).is_err();
    model.step(&[], &[first(1, "hello")], || ()).unwrap();
    assert!(fails(Feed { source: source("other").into(), ..then(1, 1, 5) }), "another text in the middle");
    assert!(fails(then(1, 1, 5)), "it is forgotten then");
    model.step(&[], &[first(1, "hello")], || ()).unwrap();
    model.step(&[1], &[], || ()).unwrap();
    assert!(fails(then(1, 1, 5)), "closed");
    assert!(fails(Feed { source: Vec::new().into(), ..first(2, "") }), "nothing was read");
    assert!(fails(Feed { source: vec![400].into(), ..first(2, "") }), "no token");
    assert!(fails(then(2, 1, 5)), "the encoder failed on it");
    // Who begins anew goes on with what is read then.
    model.step(&[], &[first(1, "hello")], || ()).unwrap();
    assert_eq!(stepped(&model, 1, "olleh", 3), bare("olleh", 3));
    let other = Engine::load(&engine(), "decoder", &onnx("decoder.onnx"), &options(), Duration::from_secs(9))
        .unwrap();
    let feed = Feed { source: source("hello").into(), ..first(1, "") };
    assert!(other.step(&[], &[feed], || ()).is_err(), "a model that reads by itself");
}

#[test]
fn models_that_do_not_belong_together_are_refused() {
    let encoder = onnx("translator_encoder.onnx");
    let why =
        |decoder: &str, encoder: &[u8]| load_by(&engine(), decoder, Some(encoder)).unwrap_err().to_string();
    assert!(why("decoder", &encoder).contains("encoder_hidden_states"), "no decoder of an encoder");
    assert!(why("translator", b"no model").starts_with("the encoder: "), "no model");
    let other = why("translator", &onnx("encoder.onnx"));
    assert!(other.contains("take both from one export"), "of another size: {other}");
    assert!(why("translator", &onnx("mlp.onnx")).contains("take both from one export"), "no encoder");
}
