//! A model as ONNX Runtime gets it.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    info::{ModelError, ModelInfo},
    wire::{self, Field},
    zipmap::{ClassLabels, DOMAIN, ZIPMAP},
};

/// The bytes that ONNX Runtime loads: `onnx` itself, unless a `ZipMap` is at its end.
///
/// # Errors
/// [`ModelError`] when it is no model.
pub fn runnable(onnx: &[u8]) -> Result<Cow<'_, [u8]>, ModelError> {
    let info = ModelInfo::parse(onnx)?;
    if info.class_labels.is_empty() {
        return Ok(onnx.into());
    }
    let (mut out, mut has_default) = (Vec::with_capacity(onnx.len().saturating_add(64)), false);
    for field in wire::fields(onnx).ok_or(ModelError::NoGraph)? {
        match field.number {
            GRAPH => {
                wire::put(&mut out, GRAPH, &graph(field, &info.class_labels).ok_or(ModelError::NoGraph)?)
            }
            number => {
                has_default |= number == OPSET
                    && wire::fields(field.content).is_some_and(|opset| {
                        !opset.iter().any(|field| field.number == 1 && !field.content.is_empty())
                    });
                out.extend_from_slice(field.whole);
            }
        }
    }
    if !has_default {
        // The operator set of `Identity`.
        let mut opset = Vec::new();
        wire::put_number(&mut opset, 2, 13);
        wire::put(&mut out, OPSET, &opset);
    }
    Ok(out.into())
}

fn graph(field: Field<'_>, labels: &BTreeMap<String, ClassLabels>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(field.content.len());
    for field in wire::fields(field.content)? {
        let parts = || wire::fields(field.content);
        match field.number {
            NODE => {
                let text = |number| {
                    let found = parts()?.into_iter().find(|part| part.number == number)?;
                    std::str::from_utf8(found.content).ok()
                };
                if (text(7), text(4)) == (Some(DOMAIN), Some(ZIPMAP))
                    && let Some(output) = text(2).filter(|output| labels.contains_key(*output))
                {
                    let mut node = Vec::new();
                    wire::put(&mut node, 1, text(1)?.as_bytes());
                    wire::put(&mut node, 2, output.as_bytes());
                    wire::put(&mut node, 4, b"Identity");
                    wire::put(&mut out, NODE, &node);
                } else {
                    out.extend_from_slice(field.whole);
                }
            }
            OUTPUT | VALUE_INFO => {
                let name = parts()?.into_iter().find(|part| part.number == 1).map(|part| part.content);
                let name = name.and_then(|name| std::str::from_utf8(name).ok());
                match name.and_then(|name| Some((name, labels.get(name)?))) {
                    None => out.extend_from_slice(field.whole),
                    // The type that the graph gives the output is that of the maps.
                    Some(_) if field.number == VALUE_INFO => {}
                    Some((name, labels)) => {
                        let mut value = Vec::new();
                        wire::put(&mut value, 1, name.as_bytes());
                        wire::put(&mut value, 2, &tensor_type(labels.len()));
                        wire::put(&mut out, OUTPUT, &value);
                    }
                }
            }
            _ => out.extend_from_slice(field.whole),
        }
    }
    Some(out)
}

/// `TypeProto` of a float tensor with any number of rows and `columns`.
fn tensor_type(columns: usize) -> Vec<u8> {
    let (mut column, mut shape, mut tensor, mut out) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    wire::put_number(&mut column, 1, columns as u64);
    wire::put(&mut shape, 1, &[]);
    wire::put(&mut shape, 1, &column);
    wire::put_number(&mut tensor, 1, 1);
    wire::put(&mut tensor, 2, &shape);
    wire::put(&mut out, 1, &tensor);
    out
}

/// Fields of `ModelProto`.
const GRAPH: u64 = 7;
const OPSET: u64 = 8;
/// Fields of `GraphProto`.
const NODE: u64 = 1;
const OUTPUT: u64 = 12;
const VALUE_INFO: u64 = 13;
