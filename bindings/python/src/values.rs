//! What crosses to Python: frozen classes, read by attribute.

use confonnx_client::{ModelMetadata, ModelState, TensorMetadata, Trusted};
use pyo3::prelude::*;

use crate::error::{self, PyCheck};

/// What a server proved.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
pub(crate) struct Proof {
    tee: &'static str,
    /// The claims as JSON, in the bytes that were hashed.
    claims: String,
    checks: Vec<PyCheck>,
    /// The checks as a table for people.
    table: String,
}

impl Proof {
    pub(crate) fn of(trusted: &Trusted) -> Self {
        let verdict = trusted.verdict();
        Self {
            tee: trusted.tee().name(),
            claims: String::from_utf8_lossy(&trusted.claims().to_bytes()).into_owned(),
            checks: error::checks(&verdict.checks),
            table: verdict.to_string(),
        }
    }
}

/// What a server says of a model.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
pub(crate) struct Metadata {
    name: String,
    versions: Vec<String>,
    platform: String,
    inputs: Vec<Described>,
    outputs: Vec<Described>,
}

/// An input or output; in its shape, -1 means any size.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
#[derive(Clone)]
pub(crate) struct Described {
    name: String,
    datatype: &'static str,
    shape: Vec<i64>,
}

impl From<ModelMetadata> for Metadata {
    fn from(model: ModelMetadata) -> Self {
        let described = |tensors: Vec<TensorMetadata>| {
            let describe = |tensor: TensorMetadata| Described {
                name: tensor.name,
                datatype: tensor.datatype.name(),
                shape: tensor.shape,
            };
            tensors.into_iter().map(describe).collect()
        };
        Self {
            name: model.name,
            versions: model.versions,
            platform: model.platform,
            inputs: described(model.inputs),
            outputs: described(model.outputs),
        }
    }
}

/// A version of a model, and whether it is served.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
pub(crate) struct State {
    name: String,
    version: Option<String>,
    state: String,
    reason: String,
}

impl From<ModelState> for State {
    fn from(model: ModelState) -> Self {
        Self { name: model.name, version: model.version, state: model.state, reason: model.reason }
    }
}
