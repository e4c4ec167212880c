//! Models and requests that are refused, with errors that say why and quote nothing.

use super::*;

#[test]
fn bytes_that_are_no_model() {
    for bytes in [&b""[..], b"not a model", &[0xff; 64]] {
        let error = refusal(bytes);
        assert!(matches!(error, EngineError::Malformed(_) | EngineError::Refused(_)), "{error:?}");
    }
}

#[test]
fn a_truncated_model_never_loads() {
    let whole = onnx("mlp.onnx");
    // The file is cut inside the graph. The opset comes after it and is needed, so no prefix is a model.
    for end in (0..whole.len() - 4).step_by(7) {
        let error = refusal(&whole[..end]);
        assert!(matches!(error, EngineError::Malformed(_) | EngineError::Refused(_)), "{end}: {error:?}");
    }
}

#[test]
fn what_the_runtime_lacks_is_named() {
    let operator = refusal(&onnx("unknown_op.onnx")).to_string();
    assert!(operator.contains("Frobnicate"), "{operator}");
    let opset = refusal(&onnx("future_opset.onnx"));
    assert!(matches!(opset, EngineError::Unsupported { .. }), "{opset:?}");
    assert!(opset.to_string().contains("operator set newer than"), "{opset}");
}

#[test]
fn a_refusal_names_its_cause() {
    for (model, causes) in [
        ("refused_ir", &["IR version 99", "up to 13"][..]),
        ("refused_custom", &["`com.acme:Foo`"]),
        ("refused_kernel", &["`Max(13)`", "types"]),
        ("refused_types", &["`Add`", "tensor(float) and tensor(double)"]),
        ("refused_source", &["takes an input that is no input"]),
        ("refused_locale", &["the locale `xx_XX`"]),
    ] {
        let text = refusal(&onnx(&format!("{model}.onnx"))).to_string();
        assert!(causes.iter().all(|cause| text.contains(cause)), "{model}: {text}");
    }
}

#[test]
fn only_tensors_go_in_and_out() {
    let error = refusal(&onnx("sequence.onnx"));
    assert!(
        matches!(&error, EngineError::InputOutput { direction: "output", name, .. } if name == "y"),
        "{error:?}"
    );
}

#[test]
fn external_data_is_never_read_from_disk() {
    // Without our setting ONNX Runtime would find the file: cargo runs this test in the package's folder.
    let model = onnx("external.onnx");
    let beside = Path::new("external.bin");
    assert!(!beside.exists());
    std::fs::write(beside, onnx("external.bin")).unwrap();
    let result = Model::load(runtime(), &model, &options());
    std::fs::remove_file(beside).unwrap();
    assert!(matches!(result, Err(EngineError::Refused(_))), "{result:?}");
}

#[test]
fn inputs_that_do_not_fit() {
    let model = load("two");
    let good = |name: &str| named(name, fp32(&[1, 2], &[1.0, 2.0]));
    let run = |inputs: &[(String, Tensor<'_>)]| model.run(inputs, &[]).unwrap_err();

    let expected = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(run(&[good("a")]), InferError::MissingInput { name: "b".into(), expected: expected.clone() });
    assert_eq!(run(&[]), InferError::MissingInput { name: "a".into(), expected: expected.clone() });
    assert_eq!(
        run(&[good("a"), good("b"), good("c")]),
        InferError::UnknownInput { name: "c".into(), expected }
    );
    assert_eq!(run(&[good("a"), good("a")]), InferError::DuplicateInput { name: "a".into() });

    let wide = Tensor::new(DataType::Fp64, shape(&[1, 2]), vec![0; 16]).unwrap();
    let (expected, found) = (DataType::Fp32, DataType::Fp64);
    assert_eq!(
        run(&[good("a"), named("b", wide)]),
        InferError::InputType { name: "b".into(), expected, found }
    );

    for dims in [&[][..], &[2], &[1, 3], &[1, 2, 1]] {
        let elements: u64 = dims.iter().product();
        let error = run(&[named("a", fp32(dims, &vec![0.0; elements as usize])), good("b")]);
        let (expected, found) = (vec![-1, 2], dims.to_vec());
        assert_eq!(error, InferError::InputShape { name: "a".into(), expected, found });
    }
}

#[test]
fn dimensions_whose_product_overflows() {
    // The shape has no elements, so its tensor has no bytes; but the other dimensions alone do not fit 64 bits.
    let huge = Shape::new(vec![0, u64::from(u32::MAX), u64::from(u32::MAX)]);
    let Ok(huge) = huge else { return };
    let tensor = Tensor::new(DataType::Fp32, huge, Vec::new()).unwrap();
    assert!(matches!(load("scalar").run(&[named("x", tensor)], &[]), Err(InferError::InputShape { .. })));
}

#[test]
fn values_that_are_none_of_their_type() {
    let model = load("identity_bytes");
    let tensor = Tensor::from_strings(shape(&[2]), &[&b"ok"[..], b"\xff\xfe"]).unwrap();
    let error = model.run(&[named("x", tensor)], &[]).unwrap_err();
    assert_eq!(error, InferError::InputValue { name: "x".into(), element: 1, fault: ValueFault::Utf8 });
}

#[test]
fn outputs_that_are_not_there() {
    let model = load("scalar");
    let run = |outputs: &[&str]| {
        let outputs: Vec<String> = outputs.iter().map(|s| (*s).to_owned()).collect();
        model.run(&[named("x", fp32(&[], &[1.0]))], &outputs).unwrap_err()
    };
    assert_eq!(run(&["z"]), InferError::UnknownOutput { name: "z".into(), expected: vec!["y".into()] });
    assert_eq!(run(&["y", "y"]), InferError::DuplicateOutput { name: "y".into() });
}

#[test]
fn a_failing_run_quotes_no_value_and_the_model_keeps_serving() {
    let model = load("gather");
    let index = |value: i64| Tensor::new(DataType::Int64, shape(&[1]), value.to_le_bytes().to_vec()).unwrap();
    let error = model.run(&[named("index", index(7_654_321))], &[]).unwrap_err();
    assert!(matches!(error, InferError::Runtime(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("7654321"), "{error}");
    assert_eq!(floats(&model.run(&[named("index", index(2))], &[]).unwrap()[0].1), [2.0]);
}
