//! Tensors on their way between Python and Rust.

use confonnx_tensor::{DataType, Shape, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyList};

/// `(name, type, shape, data)` from Python, without a copy of the data.
#[derive(FromPyObject)]
pub(crate) struct PyTensor(String, String, Vec<u64>, Data);

#[derive(FromPyObject)]
enum Data {
    Bytes(PyBackedBytes),
    Items(Vec<PyBackedBytes>),
}

/// `(name, type, shape, data)` for Python.
pub(crate) type Returned<'py> = (String, &'static str, Vec<u64>, Bound<'py, PyAny>);

impl PyTensor {
    /// The name, and the tensor checked.
    pub(crate) fn parse(&self) -> PyResult<(String, Tensor<'_>)> {
        let Self(name, dtype, shape, data) = self;
        let invalid = |error: &dyn std::fmt::Display| PyValueError::new_err(format!("\"{name}\": {error}"));
        let dtype =
            DataType::from_name(dtype).ok_or_else(|| invalid(&format_args!("{dtype} is no tensor type")))?;
        let shape = Shape::new(shape.clone()).map_err(|error| invalid(&error))?;
        let tensor = match data {
            Data::Bytes(bytes) => Tensor::new(dtype, shape, &**bytes),
            Data::Items(items) => Tensor::from_strings(shape, items),
        };
        Ok((name.clone(), tensor.map_err(|error| invalid(&error))?))
    }
}

/// Copies a tensor into Python's memory; a `bytearray`, so that the array over it is writable.
pub(crate) fn to_python<'py>(py: Python<'py>, name: String, tensor: &Tensor<'_>) -> PyResult<Returned<'py>> {
    let data = match tensor.dtype() {
        DataType::Bytes => {
            PyList::new(py, tensor.items().map(|item| PyBytes::new(py, item)).collect::<Vec<_>>())?.into_any()
        }
        _ => PyByteArray::new(py, tensor.data()).into_any(),
    };
    Ok((name, tensor.dtype().name(), tensor.shape().dims().to_vec(), data))
}
