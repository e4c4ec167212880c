use confonnx_model::{Dim, ModelError, ModelInfo, Opset, ValueInfo};
use confonnx_tensor::DataType;
use proptest::prelude::*;

use crate::data;

#[test]
fn says_what_the_model_says() {
    let info = ModelInfo::parse(&data("add.onnx")).unwrap();
    let batch = Dim::Symbolic("batch".into());
    assert_eq!(
        info,
        ModelInfo {
            ir_version: 8,
            opsets: vec![Opset { domain: String::new(), version: 17 }],
            producer_name: "make.py".into(),
            producer_version: "1".into(),
            graph_name: "add".into(),
            // The input "w" is not listed, since it is an initializer.
            inputs: vec![ValueInfo {
                name: "x".into(),
                dtype: DataType::Fp32,
                shape: Some(vec![batch, Dim::Unknown, Dim::Fixed(3)]),
            }],
            optional_inputs: vec![ValueInfo {
                name: "w".into(),
                dtype: DataType::Fp32,
                shape: Some(vec![Dim::Fixed(3)]),
            }],
            outputs: vec![ValueInfo { name: "y".into(), dtype: DataType::Fp32, shape: None }],
            external_data: vec![],
            encoder: None,
            spellings: [].into(),
            operators: ["Add".to_owned()].into(),
            rows: None,
            state: Vec::new(),
            text: Default::default(),
            class_labels: [].into(),
            indices: [].into(),
        }
    );
}

#[test]
fn knows_every_type_of_the_protocol() {
    let info = ModelInfo::parse(&data("types.onnx")).unwrap();
    assert_eq!(info.inputs.iter().map(|input| input.dtype).collect::<Vec<_>>(), DataType::ALL);
    assert!(info.outputs.iter().all(|output| output.shape == Some(vec![])));
}

#[test]
fn finds_external_data_in_nested_graphs() {
    let info = ModelInfo::parse(&data("external.onnx")).unwrap();
    assert_eq!(info.external_data, ["external.bin", "parts/inner.bin"]);
}

#[test]
fn refuses_locations_outside_the_folder() {
    for (file, location) in [
        ("location-absolute.onnx", "/etc/passwd"),
        ("location-parent.onnx", "../secret.bin"),
        ("location-address.onnx", "*/_ORT_MEM_ADDR_/*"),
        ("location-empty.onnx", ""),
    ] {
        let expected = ModelError::Location { location: location.into() };
        assert_eq!(ModelInfo::parse(&data(file)), Err(expected), "{file}");
    }
}

#[test]
fn refuses_inputs_that_cannot_be_sent() {
    let (kind, name, found) = ("input", "x".into(), "COMPLEX64".into());
    let expected = ModelError::DataType { kind, name, found };
    assert_eq!(ModelInfo::parse(&data("complex.onnx")), Err(expected));
    let expected = ModelError::NotATensor { kind, name: "x".into(), found: "a sequence" };
    assert_eq!(ModelInfo::parse(&data("sequence.onnx")), Err(expected));
}

#[test]
fn refuses_what_is_no_model() {
    assert_eq!(ModelInfo::parse(b""), Err(ModelError::Empty));
    for bytes in [&b"hello, I am not a model"[..], &[0xff; 64], b"\x89PNG\r\n\x1a\n"] {
        assert!(matches!(ModelInfo::parse(bytes), Err(ModelError::Decode(_))));
    }
}

#[test]
fn every_truncation_is_an_error_or_a_whole_message() {
    let model = data("types.onnx");
    let whole = ModelInfo::parse(&model).unwrap();
    for len in 0..model.len() {
        // A file cut between top-level fields is a valid message still; its facts must not be those of the whole model.
        if let Ok(info) = ModelInfo::parse(&model[..len]) {
            assert_ne!(info, whole, "{len}");
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    // The graph that is nested: graph { node { attribute { g { node { … } } } } }
    let mut graph = Vec::new();
    for _ in 0..2000 {
        for tag in [6 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2] {
            let mut outer = vec![tag];
            prost::encode_length_delimiter(graph.len(), &mut outer).unwrap();
            outer.append(&mut graph);
            graph = outer;
        }
    }
    let mut model = vec![7 << 3 | 2];
    prost::encode_length_delimiter(graph.len(), &mut model).unwrap();
    model.append(&mut graph);
    assert!(matches!(ModelInfo::parse(&model), Err(ModelError::Decode(_))));
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(at in any::<proptest::sample::Index>(), flip in 1..=255_u8) {
        let mut model = data("external.onnx");
        let at = at.index(model.len());
        model[at] ^= flip;
        let _ = ModelInfo::parse(&model);
    }
}
