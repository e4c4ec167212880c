//! Boxes that lie, to the key holder that asks them.
//!
//! The box is this test program, which speaks the whole protocol and lies at one place: the model's bytes name the lie.

mod box_side;

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use confonnx_engine::{BoxLimits, BoxedModel, Boxes, Deaths, EngineError, InferError, Library, ModelOptions};
use confonnx_tensor::{DataType, Shape, Tensor};

use super::{named, options};

/// Where and how a box lies.
const LIES: [&str; 16] = [
    "honest",
    "another job",
    "no head there",
    "a head of 2^60 bytes",
    "an endless list",
    "no tensor there",
    "a tensor of 2^62 elements",
    "more bytes than its shape",
    "another type",
    "two tensors",
    "no tensor",
    "cut off",
    "ends",
    "hangs up",
    "floods the control channel",
    "an unknown outcome",
];

#[test]
fn whatever_a_box_says_costs_its_request_and_no_more() {
    for lie in LIES {
        let model = boxed(lie, Duration::from_secs(20)).unwrap();
        let answer = ask(&model);
        if lie == "honest" {
            let [(name, y)] = &answer.unwrap()[..] else { panic!("one output") };
            assert_eq!(
                (name.as_str(), y.shape().dims(), y.data()),
                ("y", &[2][..], &[1, 2, 3, 4, 5, 6, 7, 8][..])
            );
            assert_eq!(model.deaths(), Deaths::default());
            continue;
        }
        assert_eq!(answer.unwrap_err(), InferError::Crashed, "{lie}");
        assert_eq!(model.deaths().timeouts, 0, "{lie}");
        assert!(model.deaths().crashes > 0, "{lie}");
        // Another box is started, and lies again.
        assert!(matches!(ask(&model), Err(InferError::Crashed | InferError::Restarting)), "{lie}");
    }
}

/// The box announces an answer of terabytes, in a file that has them.
#[test]
fn no_more_is_read_than_is_taken() {
    let model = boxed("terabytes", Duration::from_secs(20)).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&model).unwrap_err(), InferError::TooLong { found: 1 << 42, expected: 1 << 20 });
    }
    assert_eq!(model.deaths(), Deaths::default());
}

#[test]
fn a_box_that_says_nothing_is_ended_in_time() {
    for lie in [
        "says nothing",
        "rings and says nothing",
        "says nothing and hangs up",
        "rings as often as it can and hangs up",
    ] {
        let model = boxed(lie, Duration::from_millis(200)).unwrap();
        let error = ask(&model).unwrap_err();
        let expected =
            if lie.ends_with("hangs up") { InferError::Crashed } else { InferError::Timeout { seconds: 0 } };
        assert_eq!(error, expected, "{lie}");
    }
}

/// Others' runs may be why a request was not begun in time, so the box gets longer than the timeout, but not for ever.
#[test]
fn a_box_that_begins_nothing_is_ended_too() {
    let model = boxed("says nothing and begins nothing", Duration::from_millis(200)).unwrap();
    let start = Instant::now();
    while model.deaths().timeouts == 0 {
        let error = ask(&model).unwrap_err();
        assert!(matches!(error, InferError::Timeout { .. } | InferError::Restarting), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", model.deaths());
    }
}

/// The box changes the head of its answer while the head is read: the key holder reads it once and keeps to that.
#[test]
fn a_box_that_changes_its_mind_is_taken_at_its_word() {
    let model = boxed("changes its mind", Duration::from_secs(20)).unwrap();
    let (mut long, mut short) = (0, 0);
    for _ in 0..2000 {
        match ask(&model) {
            Ok(outputs) => {
                let [(_, y)] = &outputs[..] else { panic!("one output") };
                assert_eq!(y.data().len() as u64, y.shape().dims()[0] * 4);
                if y.data().len() == 8 { long += 1 } else { short += 1 }
            }
            Err(error) => assert!(matches!(error, InferError::Crashed | InferError::Restarting), "{error}"),
        }
        if long > 0 && short > 0 {
            return;
        }
    }
    panic!("it said {long} times one thing and {short} times another");
}

#[test]
fn a_model_whose_box_lies_about_it_is_not_loaded() {
    for lie in
        ["facts of 2^60 bytes", "garbled facts", "no facts", "refuses with 2^60 bytes", "loads and ends"]
    {
        let error = boxed(lie, Duration::from_secs(20)).unwrap_err();
        assert!(matches!(error, EngineError::Boxed(_)), "{lie}: {error:?}");
    }
}

fn ask(model: &BoxedModel) -> Result<Vec<(String, Tensor<'static>)>, InferError> {
    let x = Tensor::new(DataType::Fp32, Shape::new([2]).unwrap(), vec![0; 8]).unwrap();
    model.run(&[named("x", x)], &[], false)
}

fn boxed(lie: &str, timeout: Duration) -> Result<BoxedModel, EngineError> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    // A box is started without environment variables; the script sets the one that makes this program a box.
    let program = file("liar");
    let own = std::env::current_exe().unwrap();
    let script = format!("#!/bin/sh\nexec env LIAR=1 '{}' --exact --ignored liar::the_box\n", own.display());
    write_program(&program, &script);
    let library = file("libonnxruntime.so");
    std::fs::write(&library, b"\x7fELF\0VERS_1.31.1\0").unwrap();
    let boxes =
        Boxes::new(program, Library::read(&library).unwrap(), BoxLimits { memory: 0, answer: 1 << 20 })?;
    let model = boxes.load(lie, lie.as_bytes(), &ModelOptions { ..options() }, timeout);
    // The folder with the program stays, because the box may be started again.
    std::mem::forget(folder);
    model
}

fn write_program(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// This program as a box; ignored when tests are run by themselves.
#[test]
#[ignore = "the other side of the tests here"]
fn the_box() {
    assert!(std::env::var_os("LIAR").is_some(), "the tests here start it");
    box_side::serve(|model| String::from_utf8(model).unwrap());
}
