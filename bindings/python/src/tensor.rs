//! Tensors on their way between Python and Rust.

use confonnx_tensor::{DataType, Shape, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyList};

/// `confonnx._tensor.Tensor`, without a copy of the data.
#[derive(FromPyObject)]
pub(crate) struct PyTensor {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    data: Data,
}

#[derive(FromPyObject)]
enum Data {
    Bytes(PyBackedBytes),
    Items(Vec<PyBackedBytes>),
}

/// A tensor for Python.
#[pyclass(frozen, get_all, name = "Tensor", module = "confonnx._confonnx")]
pub(crate) struct Returned {
    name: String,
    datatype: &'static str,
    shape: Vec<u64>,
    /// A `bytearray`, or a list of `bytes` for strings.
    data: Py<PyAny>,
}

impl PyTensor {
    /// The tensor's name, and the tensor after checks.
    pub(crate) fn parse(&self) -> PyResult<(String, Tensor<'_>)> {
        let Self { name, datatype: dtype, shape, data } = self;
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

/// Copies a tensor into Python's memory, as a `bytearray`, so that the array over it is writable.
pub(crate) fn to_python(py: Python<'_>, name: String, tensor: &Tensor<'_>) -> PyResult<Returned> {
    let data = match tensor.dtype() {
        DataType::Bytes => {
            PyList::new(py, tensor.items().map(|item| PyBytes::new(py, item)).collect::<Vec<_>>())?.into_any()
        }
        _ => PyByteArray::new(py, tensor.data()).into_any(),
    };
    let (datatype, shape) = (tensor.dtype().name(), tensor.shape().dims().to_vec());
    Ok(Returned { name, datatype, shape, data: data.unbind() })
}
