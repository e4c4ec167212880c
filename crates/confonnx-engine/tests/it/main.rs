//! Real models through the real ONNX Runtime.

#![allow(clippy::restriction, reason = "a test may panic")]

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use confonnx_engine::{EngineError, InferError, Model, ModelOptions, Runtime, ValueFault};
use confonnx_tensor::{DataType, Shape, Tensor};

mod batch;
mod decode;
mod liar;
mod reject;
mod run;
mod translate;

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The library under test: `CONFONNX_ORT_LIB`, else where `scripts/fetch-onnxruntime` puts it.
fn library() -> PathBuf {
    let path = std::env::var_os("CONFONNX_ORT_LIB")
        .map_or_else(|| workspace().join(".cache/onnxruntime/libonnxruntime.so.1.31.1"), PathBuf::from);
    assert!(
        path.is_file(),
        "no ONNX Runtime at {}: run scripts/fetch-onnxruntime or set CONFONNX_ORT_LIB",
        path.display()
    );
    path
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::load(&library()).unwrap())
}

fn onnx(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn options() -> ModelOptions {
    ModelOptions {
        sessions: 1,
        threads_per_session: Some(1),
        external_data: Vec::new(),
        encoder: None,
        batch: None,
        free_width: true,
    }
}

fn load(name: &str) -> Model {
    Model::load(runtime(), &onnx(&format!("{name}.onnx")), &options()).unwrap()
}

fn refusal(bytes: &[u8]) -> EngineError {
    Model::load(runtime(), bytes, &options()).unwrap_err()
}

fn named<'a>(name: &str, tensor: Tensor<'a>) -> (String, Tensor<'a>) {
    (name.to_owned(), tensor)
}

fn shape(dims: &[u64]) -> Shape {
    Shape::new(dims.to_vec()).unwrap()
}

fn fp32(dims: &[u64], values: &[f32]) -> Tensor<'static> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, shape(dims), bytes).unwrap()
}

fn floats(tensor: &Tensor<'_>) -> Vec<f32> {
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}
