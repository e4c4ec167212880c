use std::fs;
use std::path::{Path, PathBuf};

use crate::{confonnx, stderr, stdout};

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/digits.onnx")
}

#[test]
fn model_info_shows_inputs_outputs_and_the_hash() {
    let digits = digits();
    let info = stdout(&confonnx(&["model-info", digits.to_str().unwrap()]));
    let hash = stdout(&confonnx(&["hash-model", digits.to_str().unwrap()]));
    assert!(
        info.lines().any(|line| line.starts_with("input   image") && line.ends_with(", 1, 28, 28]")),
        "{info}"
    );
    assert!(info.contains(hash.trim()) && hash.trim().len() == 64, "{info}{hash}");
}

#[test]
fn what_is_printed_can_go_to_a_file_instead() {
    let folder = tempfile::tempdir().unwrap();
    let (model, hash) = (digits(), folder.path().join("hash"));
    let out = ["--out", hash.to_str().unwrap()];
    assert_eq!(stdout(&confonnx(&["hash-model", model.to_str().unwrap(), out[0], out[1]])), "");
    assert_eq!(
        fs::read_to_string(&hash).unwrap(),
        stdout(&confonnx(&["hash-model", model.to_str().unwrap()]))
    );
    let inputs = folder.path().join("in.json");
    let output =
        confonnx(&["create-test-inputs", model.to_str().unwrap(), "--out", inputs.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (name, _) = confonnx_client::json::read(&fs::read(inputs).unwrap()).unwrap().remove(0);
    assert_eq!(name, "image");
}

#[test]
fn test_inputs_follow_the_model_and_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: &str, extra: &[&str]| {
        let out = folder.path().join(name);
        let digits = digits();
        let mut args = vec!["create-test-inputs", digits.to_str().unwrap(), "--out", out.to_str().unwrap()];
        args.extend(["--seed", seed]);
        args.extend(extra);
        let output = confonnx(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        (fs::read(out.join("input_0.pb")).unwrap(), fs::read(out.join("inputs.json")).unwrap())
    };
    let first = make("a", "1", &[]);
    assert_eq!(first, make("b", "1", &[]));
    assert_ne!(first, make("c", "2", &[]));
    let (name, tensor) = confonnx_model::read_tensor_proto(&first.0).unwrap();
    assert_eq!((&*name, tensor.shape().dims()), ("image", &[1, 1, 28, 28][..]));
    let from_json = confonnx_client::json::read(&first.1).unwrap();
    assert_eq!(from_json, [(name, tensor)]);
}

#[test]
fn unusable_models_are_refused_with_their_path() {
    for command in ["model-info", "create-test-inputs"] {
        let output = confonnx(&[command, "/nonexistent.onnx"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).starts_with("confonnx: cannot read /nonexistent.onnx: "),
            "{}",
            stderr(&output)
        );
        let output = confonnx(&[command, env!("CARGO_BIN_EXE_confonnx")]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    }
    let digits = digits();
    let output = confonnx(&["create-test-inputs", digits.to_str().unwrap(), "--dim", "nobody=3"]);
    assert!(stderr(&output).contains("no input has a dimension named `nobody`"), "{}", stderr(&output));
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../confonnx-engine/tests/data").join(name)
}

#[test]
fn a_decoder_names_the_encoder_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, out) = (folder.path().join("encoder_model.onnx"), folder.path().join("model.onnx"));
    fs::copy(fixture("translator_encoder.onnx"), &encoder).unwrap();
    let annotate = |model: &str, encoder: &Path| {
        let (model, out) = (fixture(model), out.to_str().unwrap());
        confonnx(&["annotate", model.to_str().unwrap(), "--encoder", encoder.to_str().unwrap(), "--out", out])
    };
    let told = stdout(&annotate("translator.onnx", &encoder));
    let info = stdout(&confonnx(&["model-info", out.to_str().unwrap()]));
    assert!(info.lines().any(|line| line == "encoder encoder_model.onnx"), "{info}");
    let hash = stdout(&confonnx(&["hash-model", out.to_str().unwrap()]));
    assert!(told.contains(hash.trim()) && info.contains(hash.trim()), "{told}{info}{hash}");
    // The text inside stays, and the hash is of both files.
    let model = confonnx_model::ModelInfo::parse(&fs::read(&out).unwrap()).unwrap();
    assert!(model.text.contains_key("tokenizer.json") && model.external_data == ["encoder_model.onnx"]);
    fs::write(&encoder, b"another").unwrap();
    assert_ne!(stdout(&confonnx(&["hash-model", out.to_str().unwrap()])), hash);
    for (model, encoder, expected) in [
        (
            "translator.onnx",
            "encoder.onnx",
            "last_hidden_state FP32 [rows, tokens, 8], but the decoder takes",
        ),
        ("translator.onnx", "mlp.onnx", "is not an encoder of text"),
        ("decoder.onnx", "translator_encoder.onnx", "is not the decoder of an encoder"),
        ("translator.onnx", "absent.onnx", "absent.onnx"),
    ] {
        fs::write(&out, b"as it was").unwrap();
        let output = annotate(model, &fixture(encoder));
        assert!(output.status.code() == Some(1) && stderr(&output).contains(expected), "{}", stderr(&output));
        assert_eq!(fs::read(&out).unwrap(), b"as it was");
    }
}
