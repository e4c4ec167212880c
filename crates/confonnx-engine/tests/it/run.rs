//! Models that answer.

use super::*;

const FIXED: [(&str, DataType); 13] = [
    ("bool", DataType::Bool),
    ("uint8", DataType::Uint8),
    ("uint16", DataType::Uint16),
    ("uint32", DataType::Uint32),
    ("uint64", DataType::Uint64),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("fp16", DataType::Fp16),
    ("bf16", DataType::Bf16),
    ("fp32", DataType::Fp32),
    ("fp64", DataType::Fp64),
];

#[test]
fn the_runtime_says_what_it_is() {
    assert!(runtime().version().starts_with("1.31."), "{}", runtime().version());
    assert_ne!(runtime().sha256(), [0; 32]);
    assert!(matches!(Runtime::load(&library()), Err(EngineError::AlreadyLoaded)));
}

#[test]
fn every_type_keeps_every_bit_at_every_alignment() {
    for (name, dtype) in FIXED {
        let model = load(&format!("identity_{name}"));
        let size = dtype.size().unwrap();
        for elements in [0_usize, 1, 5] {
            let bytes: Vec<u8> = match dtype {
                DataType::Bool => (0..elements).map(|i| u8::from(i % 2 == 1)).collect(),
                _ => (0..elements * size).map(|i| (i * 37 + 129) as u8).collect(),
            };
            for offset in 0..8 {
                let mut buffer = vec![0; offset];
                buffer.extend_from_slice(&bytes);
                let tensor = Tensor::new(dtype, shape(&[elements as u64]), &buffer[offset..]).unwrap();
                let outputs = model.run(&[named("x", tensor)], &[]).unwrap();
                let [(output, tensor)] = outputs.as_slice() else { panic!("one output") };
                assert_eq!(output, "y");
                assert_eq!(tensor.dtype(), dtype);
                assert_eq!(tensor.shape().dims(), [elements as u64]);
                assert_eq!(tensor.data(), bytes, "{name} at offset {offset}");
            }
        }
    }
}

#[test]
fn strings_come_back_whole() {
    let model = load("identity_bytes");
    for items in [
        vec![],
        vec!["one"],
        vec!["", "zwei", "três", "四", "a much longer string than the others", "a\0b", "\0"],
    ] {
        let tensor = Tensor::from_strings(shape(&[items.len() as u64]), &items).unwrap();
        let outputs = model.run(&[named("x", tensor)], &[]).unwrap();
        let back: Vec<&[u8]> = outputs[0].1.items().collect();
        assert_eq!(back, items.iter().map(|item| item.as_bytes()).collect::<Vec<_>>());
    }
}

#[test]
fn strings_that_are_not_utf8_come_out_as_they_are() {
    let model = load("strings");
    let index = |at: i64| Tensor::new(DataType::Int64, shape(&[1]), at.to_le_bytes().to_vec()).unwrap();
    let expected: [&[u8]; 4] = [b"\xff\xfe", b"a\0b", b"", "é".as_bytes()];
    for (at, expected) in (0..).zip(expected) {
        let outputs = model.run(&[named("index", index(at))], &[]).unwrap();
        assert_eq!(outputs[0].1.items().collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn an_answer_does_not_depend_on_where_a_tensor_begins() {
    let model = load("mean_rows");
    let values: Vec<u8> =
        (0..3003_u32).flat_map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5).to_le_bytes()).collect();
    let mut answers = Vec::new();
    for offset in (0..64).step_by(4) {
        // The buffer has room for a start at a multiple of 64, and `offset` after it.
        let mut buffer = vec![0; 64 + offset];
        let begin = buffer.as_ptr().addr().next_multiple_of(64) - buffer.as_ptr().addr() + offset;
        buffer.resize(begin + values.len(), 0);
        let begin = buffer.as_ptr().addr().next_multiple_of(64) - buffer.as_ptr().addr() + offset;
        buffer.resize(begin + values.len(), 0);
        buffer[begin..].copy_from_slice(&values);
        let tensor = Tensor::new(DataType::Fp32, shape(&[3, 1001]), &buffer[begin..]).unwrap();
        answers.push(model.run(&[named("x", tensor)], &[]).unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn dimensions_of_one_name_may_have_two_sizes() {
    let outputs = load("two").run(
        &[named("a", fp32(&[1, 2], &[1.0, 2.0])), named("b", fp32(&[3, 2], &[1.0; 6]))],
        &["sum".to_owned()],
    );
    assert_eq!(outputs.unwrap()[0].1.shape().dims(), [3, 2]);
}

#[test]
fn an_initializer_that_is_an_input_may_be_given() {
    let model = load("override");
    let (x, threshold) = (named("x", fp32(&[1], &[8.0])), named("threshold", fp32(&[], &[0.25])));
    let name =
        |infos: &[confonnx_engine::TensorInfo]| infos.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (name(model.inputs()), name(model.optional_inputs())),
        (vec!["x".into()], vec!["threshold".into()])
    );
    assert_eq!(floats(&model.run(std::slice::from_ref(&x), &[]).unwrap()[0].1), [4.0]);
    assert_eq!(floats(&model.run(&[threshold.clone(), x], &[]).unwrap()[0].1), [2.0]);
    let error = model.run(&[threshold], &[]).unwrap_err();
    assert!(matches!(error, InferError::MissingInput { .. }), "{error}");
}

#[test]
fn a_dynamic_batch_may_have_any_size() {
    let model = load("mlp");
    assert_eq!(
        (model.inputs()[0].shape.as_slice(), model.outputs()[0].shape.as_slice()),
        (&[-1, 4][..], &[-1, 3][..])
    );
    let row = [1.0, 2.0, 3.0, 4.0];
    let expected = [-3.976_008, 4.438_95, -2.335_754];
    for batch in [0_u64, 1, 7] {
        let values: Vec<f32> = row.iter().copied().cycle().take(4 * batch as usize).collect();
        let outputs = model.run(&[named("x", fp32(&[batch, 4], &values))], &[]).unwrap();
        assert_eq!(outputs[0].1.shape().dims(), [batch, 3]);
        for (found, expected) in floats(&outputs[0].1).iter().zip(expected.iter().cycle()) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }
}

#[test]
fn a_scalar_has_no_dimensions() {
    let outputs = load("scalar").run(&[named("x", fp32(&[], &[2.5]))], &[]).unwrap();
    assert_eq!((outputs[0].1.shape().dims(), floats(&outputs[0].1)), (&[][..], vec![-2.5]));
}

#[test]
fn outputs_are_those_asked_for_in_the_order_asked() {
    let model = load("two");
    let inputs = [named("b", fp32(&[1, 2], &[1.0, 2.0])), named("a", fp32(&[1, 2], &[10.0, 20.0]))];
    let names = |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|s| (*s).to_owned()).collect();
        model
            .run(&inputs, &wanted)
            .unwrap()
            .into_iter()
            .map(|(name, t)| (name, floats(&t)))
            .collect::<Vec<_>>()
    };
    let (sum, difference) =
        (("sum".to_owned(), vec![11.0, 22.0]), ("difference".to_owned(), vec![9.0, 18.0]));
    assert_eq!(names(&[]), [sum.clone(), difference.clone()]);
    assert_eq!(names(&["difference", "sum"]), [difference.clone(), sum]);
    assert_eq!(names(&["difference"]), [difference]);
}

#[test]
fn external_data_comes_from_memory() {
    let mut options = options();
    options.external_data.push(("external.bin".to_owned(), onnx("external.bin").into()));
    let model = Model::load(runtime(), &onnx("external.onnx"), &options).unwrap();
    let outputs = model.run(&[named("x", fp32(&[4], &[10.0; 4]))], &[]).unwrap();
    assert_eq!(floats(&outputs[0].1), [10.0, 11.0, 12.0, 13.0]);
}

#[test]
fn threads_share_the_sessions() {
    let model =
        Model::load(runtime(), &onnx("mlp.onnx"), &ModelOptions { sessions: 2, ..options() }).unwrap();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let model = &model;
            scope.spawn(move || {
                for j in 0..50 {
                    let values = [i as f32, j as f32, 0.5, -1.0];
                    let batch =
                        model.run(&[named("x", fp32(&[2, 4], &[values, values].concat()))], &[]).unwrap();
                    let found = floats(&batch[0].1);
                    assert_eq!(found[..3], found[3..]);
                }
            });
        }
    });
}

#[test]
fn a_request_alone_has_the_answer_it_has_among_others() {
    let shared = ModelOptions { sessions: 2, threads_per_session: None, ..options() };
    let (bare, model) = (load("rows"), Model::load(runtime(), &onnx("rows.onnx"), &shared).unwrap());
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(model.arrangement().to_string().contains("alone"), cores > 1, "{}", model.arrangement());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (bare, model) = (&bare, &model);
            scope.spawn(move || {
                for round in 0..100_u64 {
                    let rows = 1 + (thread + round) % 3;
                    let dims: Vec<u64> = [rows]
                        .into_iter()
                        .chain(model.inputs()[0].shape[1..].iter().map(|&dim| u64::try_from(dim).unwrap()))
                        .collect();
                    let values: Vec<f32> =
                        (0..dims.iter().product()).map(|i| ((i * 31 + round) % 997) as f32 / 997.0).collect();
                    let inputs = [(model.inputs()[0].name.clone(), fp32(&dims, &values))];
                    let run = if (thread + round) % 2 == 0 { Model::run } else { Model::run_alone };
                    assert_eq!(run(model, &inputs, &[]).unwrap(), bare.run(&inputs, &[]).unwrap());
                }
            });
        }
    });
}

#[test]
fn what_cannot_be_seen_to_be_the_same_runs_one_way() {
    let shared = ModelOptions { sessions: 2, threads_per_session: None, ..options() };
    // With `free_width` off, nobody says that the model's operators are safe.
    let model =
        Model::load(runtime(), &onnx("rows.onnx"), &ModelOptions { free_width: false, ..shared.clone() });
    assert!(!model.unwrap().arrangement().to_string().contains("alone"));
    // The LSTM quantises what each thread has, which a trial with several rows of several sizes notices.
    let model = Model::load(runtime(), &onnx("lstm_quantized.onnx"), &shared).unwrap();
    assert!(!model.arrangement().to_string().contains("alone"), "{}", model.arrangement());
    // No trial is made of a model that takes strings, nor of one whose input is too large.
    for name in ["identity_bytes", "vast"] {
        let model = Model::load(runtime(), &onnx(&format!("{name}.onnx")), &shared).unwrap();
        let said = model.arrangement().to_string();
        assert!(said.starts_with("2 sessions of ") && !said.contains("alone"), "{name}: {said}");
    }
}

#[test]
fn a_request_alone_is_checked_like_the_others() {
    let shared = ModelOptions { sessions: 2, threads_per_session: None, ..options() };
    let model = Model::load(runtime(), &onnx("mlp.onnx"), &shared).unwrap();
    let error = model.run_alone(&[named("x", fp32(&[1, 3], &[0.0; 3]))], &[]).unwrap_err();
    assert!(matches!(error, InferError::InputShape { .. }), "{error}");
    let error = model.run_alone(&[], &[]).unwrap_err();
    assert!(matches!(error, InferError::MissingInput { .. }), "{error}");
}
