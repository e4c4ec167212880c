//! Requests that are batched have the answers they would have alone.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use confonnx_engine::{Batching, InferError, Model, ModelOptions, NotBatched};
use confonnx_tensor::{DataType, Shape, Tensor};

use super::{onnx, options, runtime};

fn batching(max_delay: Duration) -> ModelOptions {
    let batch =
        Batching { max_batch_size: 16, preferred: Vec::new(), max_delay, axis: 0, other_axes: Vec::new() };
    let batch = Some(batch);
    ModelOptions { batch, ..options() }
}

fn load_batched(name: &str, max_delay: Duration) -> Model {
    Model::load(runtime(), &onnx(&format!("{name}.onnx")), &batching(max_delay)).unwrap()
}

/// One row or several for every input, made from `seed`.
fn inputs(model: &Model, rows: u64, seed: u64) -> Vec<(String, Tensor<'static>)> {
    let input = |info: &confonnx_engine::TensorInfo| {
        let dims: Vec<u64> = [rows]
            .into_iter()
            .chain(info.shape[1..].iter().map(|dim| u64::try_from(*dim).unwrap()))
            .collect();
        let shape = Shape::new(dims).unwrap();
        let value =
            |index: u64| (((seed * 7919 + index * 104_729) % 1009) as f32 / 1009.0 - 0.5).to_le_bytes();
        let data: Vec<u8> = (0..shape.elements() as u64).flat_map(value).collect();
        (info.name.clone(), Tensor::new(info.dtype, shape, data).unwrap())
    };
    model.inputs().iter().map(input).collect()
}

/// Whether to go on: for a few hundred rounds, or more until requests were batched.
fn goes_on(model: &Model, round: i64) -> bool {
    round < 200 || (model.batched_requests() == 0 && round < 100_000)
}

#[test]
fn answers_are_the_same_to_the_bit_whoever_else_asks() {
    let (bare, batched) = (super::load("rows"), load_batched("rows", Duration::ZERO));
    assert!(batched.largest_batch().unwrap() >= 8, "{:?}", batched.largest_batch());
    let start = Barrier::new(12);
    thread::scope(|scope| {
        for thread in 0..12_i64 {
            let (bare, batched, start) = (&bare, &batched, &start);
            scope.spawn(move || {
                start.wait();
                for round in (0..).take_while(|round| goes_on(batched, *round)) {
                    let number = |n: i64| u64::try_from(n).unwrap();
                    let rows = number(1 + (thread + round) % 3);
                    let inputs = inputs(batched, rows, number(thread * 1000 + round));
                    assert_eq!(batched.run(&inputs, &[]).unwrap(), bare.run(&inputs, &[]).unwrap());
                }
            });
        }
    });
    assert!(batched.batched_requests() > 0, "of all requests by 12 threads to one session none met another");
}

#[test]
fn one_bad_request_fails_alone() {
    let model = load_batched("gather", Duration::from_millis(5));
    assert!(model.largest_batch().unwrap() >= 2);
    let request = |index: i64| {
        let tensor = Tensor::new(DataType::Int64, Shape::new([1]).unwrap(), index.to_le_bytes().to_vec());
        vec![("index".to_owned(), tensor.unwrap())]
    };
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for thread in 0..8_i64 {
            let (model, start) = (&model, &start);
            scope.spawn(move || {
                start.wait();
                for round in (0..).take_while(|round| goes_on(model, *round)) {
                    // The table has three entries, 0 to 2, so the index 3 is an error.
                    let index = if (thread + round) % 16 == 15 { 3 } else { round % 3 };
                    let answer = model.run(&request(index), &[]);
                    if index == 3 {
                        assert!(matches!(answer, Err(InferError::Runtime(_))), "{answer:?}");
                    } else {
                        let expected = (index as f32).to_le_bytes();
                        assert_eq!(answer.unwrap()[0].1.data(), expected);
                    }
                }
            });
        }
    });
    assert!(model.batched_requests() > 0);
}

#[test]
fn what_finds_a_session_idle_does_not_wait() {
    // A batch waits ten minutes for others: if these runs waited, the test would not end.
    let model = load_batched("rows", Duration::from_secs(600));
    let start = Instant::now();
    for seed in 0..10 {
        model.run(&inputs(&model, 1, seed), &[]).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(600));
    assert_eq!(model.batched_requests(), 0);
}

#[test]
fn models_that_cannot_be_batched_say_why_and_run_alone() {
    for name in ["scalar", "identity_bytes"] {
        let model = load_batched(name, Duration::ZERO);
        assert!(matches!(model.largest_batch(), Err(NotBatched::NoRows)), "{name}");
    }
    let model = load_batched("vast", Duration::ZERO);
    assert!(matches!(model.largest_batch(), Err(NotBatched::TooLarge { .. })), "{:?}", model.largest_batch());
    // In `row_sum` rows know of one another.
    let model = load_batched("row_sum", Duration::ZERO);
    assert!(matches!(model.largest_batch(), Err(NotBatched::Differs)), "{:?}", model.largest_batch());
    let inputs = inputs(&model, 3, 1);
    assert_eq!(model.run(&inputs, &[]).unwrap(), super::load("row_sum").run(&inputs, &[]).unwrap());
}

#[test]
fn rows_that_know_of_one_another_are_not_batched_whatever_is_stated() {
    // Rows of these models know of one another for some values only: a row that is larger than the others and changes
    // their scale, an index whose embedding is so, a NaN, a number beyond 1e4.
    for name in ["quantized", "quantized_ids", "nan_spreads", "max_of_all"] {
        let model = load_batched(name, Duration::ZERO);
        let found = model.largest_batch();
        assert!(matches!(found, Err(NotBatched::Mixes { .. } | NotBatched::Differs)), "{name}: {found:?}");
    }
}

#[test]
fn rows_may_lie_along_another_axis() {
    let batch = Batching {
        max_batch_size: 4,
        preferred: Vec::new(),
        max_delay: Duration::from_millis(5),
        axis: 1,
        other_axes: vec![("y".to_owned(), 0)],
    };
    let model =
        Model::load(runtime(), &onnx("columns.onnx"), &ModelOptions { batch: Some(batch), ..options() })
            .unwrap();
    assert_eq!(model.largest_batch().unwrap(), 4);
    let bare = super::load("columns");
    let start = Barrier::new(6);
    thread::scope(|scope| {
        for thread in 0..6_i64 {
            let (model, bare, start) = (&model, &bare, &start);
            scope.spawn(move || {
                start.wait();
                for round in (0..).take_while(|round| goes_on(model, *round)) {
                    let rows = 1 + (thread + round) % 2;
                    let values: Vec<f32> =
                        (0..3 * rows).map(|i| (thread * 100 + round * 7 + i) as f32).collect();
                    let tensor = super::fp32(&[3, u64::try_from(rows).unwrap()], &values);
                    let inputs = [("x".to_owned(), tensor)];
                    assert_eq!(model.run(&inputs, &[]).unwrap(), bare.run(&inputs, &[]).unwrap());
                }
            });
        }
    });
    assert!(model.batched_requests() > 0);
}

#[test]
fn a_setting_without_bounds_does_not_make_loading_endless() {
    let batch = Batching {
        max_batch_size: usize::MAX,
        preferred: vec![usize::MAX],
        max_delay: Duration::ZERO,
        axis: 0,
        other_axes: Vec::new(),
    };
    let batch = Some(batch);
    let model = Model::load(runtime(), &onnx("rows.onnx"), &ModelOptions { batch, ..options() }).unwrap();
    assert_eq!(model.largest_batch().unwrap(), 256);
}
