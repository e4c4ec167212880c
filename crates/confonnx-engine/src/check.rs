//! A request's inputs and outputs against the model's, before ONNX Runtime sees them.

use std::collections::{HashMap, HashSet};

use confonnx_tensor::{DataType, Tensor};

use crate::{
    error::{InferError, ValueFault},
    model::{Port, TensorInfo},
};

/// Checks names, types, shapes and values of `inputs`.
pub(crate) fn inputs(ports: &[Port], inputs: &[(String, Tensor<'_>)]) -> Result<(), InferError> {
    let names = || ports.iter().map(|port| port.info.name.clone()).collect();
    let mut given = HashSet::with_capacity(inputs.len().min(ports.len()));
    let mut symbols = HashMap::new();
    for (name, tensor) in inputs {
        let Some(port) = ports.iter().find(|port| port.info.name == *name) else {
            return Err(InferError::UnknownInput { name: name.clone(), expected: names() });
        };
        if !given.insert(name.as_str()) {
            return Err(InferError::DuplicateInput { name: name.clone() });
        }
        if tensor.dtype() != port.info.dtype {
            return Err(InferError::InputType {
                name: name.clone(),
                expected: port.info.dtype,
                found: tensor.dtype(),
            });
        }
        shape(port, tensor.shape().dims(), &mut symbols)?;
        values(name, tensor)?;
    }
    match ports.iter().find(|port| !given.contains(port.info.name.as_str())) {
        Some(port) => Err(InferError::MissingInput { name: port.info.name.clone(), expected: names() }),
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

fn shape<'m>(port: &'m Port, found: &[u64], symbols: &mut HashMap<&'m str, u64>) -> Result<(), InferError> {
    let TensorInfo { name, shape: expected, .. } = &port.info;
    let mismatch =
        || InferError::InputShape { name: name.clone(), expected: expected.clone(), found: found.to_vec() };
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
    if expected.len() != found.len() {
        return Err(mismatch());
    }
    for ((expected, found), symbol) in expected.iter().zip(found).zip(&port.symbols) {
        if u64::try_from(*expected).is_ok_and(|expected| expected != *found) {
            return Err(mismatch());
        }
        if !symbol.is_empty() {
            let first = *symbols.entry(symbol.as_str()).or_insert(*found);
            if first != *found {
                let (name, symbol) = (name.clone(), symbol.clone());
                return Err(InferError::Symbol { name, symbol, expected: first, found: *found });
            }
        }
    }
    Ok(())
}

fn values(name: &str, tensor: &Tensor<'_>) -> Result<(), InferError> {
    let fault = |(element, fault)| InferError::InputValue { name: name.to_owned(), element, fault };
    let found = match tensor.dtype() {
        DataType::Bytes => tensor.items().enumerate().find_map(|(i, item)| match std::str::from_utf8(item) {
            Err(_) => Some((i, ValueFault::Utf8)),
            Ok(text) if text.contains('\0') => Some((i, ValueFault::Nul)),
            Ok(_) => None,
        }),
        _ => None,
    };
    found.map_or(Ok(()), |found| Err(fault(found)))
}
