//! Model files, and tensors in files: functions that need no server.

use std::fs;
use std::path::Path;

use confonnx_client::json;
use confonnx_model::encrypted::{ModelKey, encrypt_file};
use confonnx_model::{Dim, IndependentRows, ValueInfo};
use pyo3::prelude::*;

use crate::error;
use crate::tensor::{PyTensor, Returned, to_python};

/// A dimension: a number, a symbol's name, or `None`.
#[derive(Clone, IntoPyObject)]
pub(crate) enum PyDim {
    Fixed(i64),
    Symbolic(String),
    Unknown(Option<()>),
}

/// An input or output of a model file.
#[pyclass(frozen, module = "confonnx._confonnx")]
pub(crate) struct Value {
    #[pyo3(get)]
    name: String,
    /// NumPy's name of the type.
    #[pyo3(get, name = "type")]
    dtype: &'static str,
    #[pyo3(get)]
    shape: Vec<PyDim>,
}

/// Inputs and outputs of a model file.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
pub(crate) struct ModelInfo {
    inputs: Vec<Py<Value>>,
    outputs: Vec<Py<Value>>,
}

/// Hashes of an encrypted model.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
pub(crate) struct Encrypted {
    model_hash: String,
    ciphertext_hash: String,
}

#[pyfunction]
pub(crate) fn model_hash(py: Python<'_>, path: &str) -> PyResult<String> {
    let hash =
        py.detach(|| confonnx_model::model_hash(Path::new(path))).map_err(|err| error::hash(path, err))?;
    Ok(confonnx_client::Digest(hash).to_string())
}

/// Writes `model` to `out` with the statement that its rows are independent, or without it, and gives the new hash.
#[pyfunction]
pub(crate) fn annotate(
    py: Python<'_>,
    model: &str,
    out: &str,
    independent: bool,
    axis: usize,
    other_axes: Vec<(String, usize)>,
) -> PyResult<String> {
    let content = py.detach(|| fs::read(model)).map_err(|err| error::file(model, err))?;
    let rows = IndependentRows { axis, other_axes };
    let annotated = confonnx_model::annotate(&content, independent.then_some(&rows));
    let annotated = annotated.map_err(|err| error::annotate(model, err))?;
    fs::write(out, annotated).map_err(|err| error::file(out, err))?;
    model_hash(py, out)
}

/// A new key for encrypted models, as text.
#[pyfunction]
pub(crate) fn generate_model_key() -> PyResult<String> {
    let key = ModelKey::generate().ok_or_else(|| std::io::Error::other("no random bytes from the system"))?;
    Ok(key.expose().to_string())
}

/// The public half of a key for encrypted models.
#[pyfunction]
pub(crate) fn model_key_recipient(key: &str) -> PyResult<String> {
    key.parse::<ModelKey>().map(|key| key.recipient()).map_err(error::model_key)
}

/// Encrypts a model; gives the hashes of the model and of its encrypted form.
#[pyfunction]
pub(crate) fn encrypt_model(py: Python<'_>, model: &str, out: &str, key: &str) -> PyResult<Encrypted> {
    let key: ModelKey = key.parse().map_err(error::model_key)?;
    let digests =
        py.detach(|| encrypt_file(&key, Path::new(model), Path::new(out))).map_err(error::encrypt)?;
    let hex = |digest| confonnx_client::Digest(digest).to_string();
    Ok(Encrypted { model_hash: hex(digests.plaintext), ciphertext_hash: hex(digests.ciphertext) })
}

/// Inputs and outputs of a model file.
#[pyfunction]
pub(crate) fn model_info(py: Python<'_>, path: &str) -> PyResult<ModelInfo> {
    let content = py.detach(|| fs::read(path)).map_err(|err| error::file(path, err))?;
    let info = confonnx_model::ModelInfo::parse(&content).map_err(|err| error::model(path, err))?;
    Ok(ModelInfo { inputs: describe(py, info.inputs)?, outputs: describe(py, info.outputs)? })
}

#[pyfunction]
pub(crate) fn read_tensor_proto(py: Python<'_>, content: &[u8]) -> PyResult<Returned> {
    let (name, tensor) = confonnx_model::read_tensor_proto(content).map_err(error::tensor_proto)?;
    to_python(py, name, &tensor)
}

#[pyfunction]
pub(crate) fn write_tensor_proto(tensor: PyTensor) -> PyResult<Vec<u8>> {
    let (name, tensor) = tensor.parse()?;
    Ok(confonnx_model::write_tensor_proto(&name, &tensor))
}

#[pyfunction]
pub(crate) fn tensors_from_json(py: Python<'_>, content: &[u8]) -> PyResult<Vec<Returned>> {
    let tensors = json::read(content).map_err(error::json)?;
    tensors.into_iter().map(|(name, tensor)| to_python(py, name, &tensor)).collect()
}

#[pyfunction]
pub(crate) fn tensors_to_json(tensors: Vec<PyTensor>) -> PyResult<String> {
    let tensors = tensors.iter().map(PyTensor::parse).collect::<PyResult<Vec<_>>>()?;
    json::write(&tensors).map_err(error::json)
}

fn describe(py: Python<'_>, values: Vec<ValueInfo>) -> PyResult<Vec<Py<Value>>> {
    let dim = |dim| match dim {
        Dim::Fixed(size) => PyDim::Fixed(size),
        Dim::Symbolic(name) => PyDim::Symbolic(name),
        Dim::Unknown => PyDim::Unknown(None),
    };
    let shape = |shape: Option<Vec<Dim>>| shape.unwrap_or_default().into_iter().map(dim).collect();
    let value = |info: ValueInfo| {
        let dtype = json::type_name(info.dtype);
        Py::new(py, Value { name: info.name, dtype, shape: shape(info.shape) })
    };
    values.into_iter().map(value).collect()
}
