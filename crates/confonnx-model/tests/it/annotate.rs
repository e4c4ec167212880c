//! The owner's statement, and models that end in a ZipMap.

use confonnx_model::{
    AnnotateError, ClassLabels, IndependentRows, ModelInfo, annotate, hash_bytes, runnable, with_text,
};

use crate::data;

#[test]
fn the_statement_is_in_the_file_and_nothing_else_changes() {
    let plain = data("types.onnx");
    assert_eq!(ModelInfo::parse(&plain).unwrap().rows, None);
    let scalar = annotate(&plain, Some(&IndependentRows::default())).unwrap_err();
    assert!(matches!(scalar, AnnotateError::Axis { axis: 0, .. }), "{scalar}");
    let plain = data("zipmap.onnx");
    let rows = IndependentRows { axis: 0, other_axes: vec![("probabilities".into(), 0)] };
    let stated = annotate(&plain, Some(&rows)).unwrap();
    assert_eq!(ModelInfo::parse(&stated).unwrap().rows, Some(rows.clone()));
    assert_ne!(hash_bytes(&stated).unwrap(), hash_bytes(&plain).unwrap());
    // A statement that is made again is there once.
    assert_eq!(annotate(&stated, Some(&rows)).unwrap(), stated);
    assert_eq!(annotate(&stated, None).unwrap(), plain);
    let unknown = IndependentRows { axis: 0, other_axes: vec![("z".into(), 0)] };
    assert!(matches!(annotate(&plain, Some(&unknown)), Err(AnnotateError::Unknown { .. })));
    let fixed = IndependentRows { axis: 1, other_axes: vec![] };
    assert!(matches!(annotate(&plain, Some(&fixed)), Err(AnnotateError::Axis { axis: 1, .. })));
}

#[test]
fn text_files_are_in_the_file_and_nothing_else_changes() {
    let plain = data("add.onnx");
    let files = |template: &str| {
        [("tokenizer.json", "{}".to_owned()), ("chat_template.jinja", template.to_owned())].into()
    };
    let with = with_text(&plain, &files("é")).unwrap();
    let text = ModelInfo::parse(&with).unwrap().text;
    assert_eq!(text.get("chat_template.jinja").map(String::as_str), Some("é"));
    assert_eq!(text.len(), 2);
    assert_ne!(hash_bytes(&with).unwrap(), hash_bytes(&plain).unwrap());
    assert_ne!(hash_bytes(&with_text(&plain, &files("e")).unwrap()).unwrap(), hash_bytes(&with).unwrap());
    // Files that are put in again replace those before; the owner's statement of rows stays.
    assert_eq!(with_text(&with_text(&plain, &files("x")).unwrap(), &files("é")).unwrap(), with);
    assert_eq!(with_text(&with, &[].into()).unwrap(), plain);
    let stated = annotate(&data("zipmap.onnx"), Some(&IndependentRows::default())).unwrap();
    assert!(ModelInfo::parse(&with_text(&stated, &files("x")).unwrap()).unwrap().rows.is_some());
    assert!(with_text(b"no model", &files("x")).is_err());
}

#[test]
fn a_zipmap_at_the_end_is_the_tensor_before_it() {
    let onnx = data("zipmap.onnx");
    let info = ModelInfo::parse(&onnx).unwrap();
    let labels = ClassLabels::Strings(vec!["cat".into(), "dog".into(), "owl".into()]);
    assert_eq!(info.class_labels, [("probabilities".to_owned(), labels)].into());
    assert_eq!(info.outputs[0].name, "probabilities");
    let runs = ModelInfo::parse(&runnable(&onnx).unwrap()).unwrap();
    assert!(runs.class_labels.is_empty() && !runs.operators.contains("ai.onnx.ml:ZipMap"), "{runs:?}");
    assert_eq!((runs.inputs, runs.outputs), (info.inputs, info.outputs));
    // Models without a ZipMap run as they are.
    assert_eq!(runnable(&data("add.onnx")).unwrap(), data("add.onnx"));
    let elsewhere = ModelInfo::parse(&data("maps.onnx")).unwrap_err().to_string();
    assert!(
        elsewhere.contains("a sequence of maps") && elsewhere.contains("\"zipmap\": False"),
        "{elsewhere}"
    );
}

#[test]
fn what_is_no_model_is_named() {
    let said = |bytes: &[u8]| ModelInfo::parse(bytes).unwrap_err().to_string();
    assert!(said(b"").contains("empty"));
    assert!(
        said(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n").contains("git lfs pull")
    );
    assert!(said(b"\x10\0\0\0ORTM\0\0").contains(".ort"));
    assert!(said(b"\n<!DOCTYPE html><html>").contains("HTML page"));
}

#[test]
fn a_file_has_one_name_however_it_is_spelt() {
    let info = ModelInfo::parse(&data("location-spellings.onnx")).unwrap();
    assert_eq!(info.external_data, ["a:b*.bin", "external.bin"]);
    let spellings = ["./external.bin", "a:b*.bin", "external.bin"];
    assert!(info.spellings.keys().eq(spellings), "{:?}", info.spellings);
}

#[test]
fn indices_are_told_from_other_numbers() {
    let info = ModelInfo::parse(&data("location-spellings.onnx")).unwrap();
    assert_eq!(info.indices, [("ids".to_owned(), 3)].into());
}

#[test]
fn what_no_message_can_carry_is_told() {
    let info = ModelInfo::parse(&data("types.onnx")).unwrap();
    assert!(info.check_names(14, 6).is_ok());
    assert!(
        info.check_names(13, 6).unwrap_err().to_string().contains("14 inputs; a message carries at most 13")
    );
    assert!(info.check_names(14, 4).unwrap_err().to_string().contains("5 bytes"), "{info:?}");
}
