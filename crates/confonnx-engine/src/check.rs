//! A request's inputs and outputs against the model's, before ONNX Runtime sees them.

use std::collections::HashSet;

use confonnx_tensor::{DataType, Tensor};

use crate::{
    error::{InferError, ValueFault},
    port::{Ports, TensorInfo},
};

/// Checks names, types, shapes and values of `inputs`.
pub(crate) fn inputs(ports: &Ports, inputs: &[(String, Tensor<'_>)]) -> Result<(), InferError> {
    let names = || ports.inputs.iter().chain(&ports.optional).map(|info| info.name.clone()).collect();
    let mut given = HashSet::with_capacity(inputs.len());
    for (name, tensor) in inputs {
        let Some(info) = ports.input(name) else {
            return Err(InferError::UnknownInput { name: name.clone(), expected: names() });
        };
        if !given.insert(name.as_str()) {
            return Err(InferError::DuplicateInput { name: name.clone() });
        }
        if tensor.dtype() != info.dtype {
            return Err(InferError::InputType {
                name: name.clone(),
                expected: info.dtype,
                found: tensor.dtype(),
            });
        }
        shape(info, tensor.shape().dims())?;
        values(name, tensor)?;
    }
    match ports.inputs.iter().find(|info| !given.contains(info.name.as_str())) {
        Some(info) => Err(InferError::MissingInput { name: info.name.clone(), expected: names() }),
        None => Ok(()),
    }
}

/// Checks that each of `wanted` is an output of the model, once.
pub(crate) fn outputs(outputs: &[TensorInfo], wanted: &[String]) -> Result<(), InferError> {
    let mut seen = HashSet::with_capacity(wanted.len().min(outputs.len()));
    for name in wanted {
        if !outputs.iter().any(|output| output.name == *name) {
            let expected = outputs.iter().map(|output| output.name.clone()).collect();
            return Err(InferError::UnknownOutput { name: name.clone(), expected });
        }
        if !seen.insert(name) {
            return Err(InferError::DuplicateOutput { name: name.clone() });
        }
    }
    Ok(())
}

/// Rank and fixed dimensions. Dimensions that bear one symbol may differ: ONNX Runtime does not ask, and exporters give one
/// name to dimensions that have nothing to do with each other.
fn shape(info: &TensorInfo, found: &[u64]) -> Result<(), InferError> {
    let expected = &info.shape;
    let mismatch = || InferError::InputShape {
        name: info.name.clone(),
        expected: expected.clone(),
        found: found.to_vec(),
    };
    // ONNX Runtime multiplies the dimensions, zeros last or not, as 64-bit signed integers.
    let product = found
        .iter()
        .filter(|dim| **dim != 0)
        .try_fold(1_i64, |n, dim| n.checked_mul(i64::try_from(*dim).ok()?));
    if product.is_none() {
        return Err(mismatch());
    }
    // ONNX Runtime reports a scalar and an unknown rank alike, as no dimensions; either way it checks the rest.
    if expected.is_empty() {
        return Ok(());
    }
    let fits = |(expected, found): (&i64, &u64)| u64::try_from(*expected).map_or(true, |size| size == *found);
    if expected.len() != found.len() || !expected.iter().zip(found).all(fits) {
        return Err(mismatch());
    }
    Ok(())
}

fn values(name: &str, tensor: &Tensor<'_>) -> Result<(), InferError> {
    let fault = |(element, fault)| InferError::InputValue { name: name.to_owned(), element, fault };
    let found = match tensor.dtype() {
        DataType::Bytes => tensor.items().position(|item| std::str::from_utf8(item).is_err()),
        _ => None,
    };
    found.map_or(Ok(()), |element| Err(fault((element, ValueFault::Utf8))))
}
