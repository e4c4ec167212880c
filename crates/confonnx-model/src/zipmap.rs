//! `ZipMap` at the end of a model: what scikit-learn's exporter adds by default, a map from class labels to numbers for each
//! row. Only tensors can be sent, so the tensor before it is served, under the output's name, and the labels as metadata.
//! The file, and so its hash, stay as they are: what ONNX Runtime gets is made in memory.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    info::ModelError,
    proto::{GraphProto, NodeProto},
    wire::{self, Field},
};

/// What the columns of an output stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassLabels {
    /// Numbers.
    Integers(Vec<i64>),
    /// Words.
    Strings(Vec<String>),
}

impl ClassLabels {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn of(node: &NodeProto) -> Self {
        match node.attribute("classlabels_int64s") {
            Some(labels) => Self::Integers(labels.ints.clone()),
            None => {
                let strings = node.attribute("classlabels_strings").map(|labels| labels.strings.as_slice());
                let text = |label: &Vec<u8>| String::from_utf8_lossy(label).into_owned();
                Self::Strings(strings.unwrap_or_default().iter().map(text).collect())
            }
        }
    }
}

/// The labels of each output that a `ZipMap` makes and nothing else takes.
pub(crate) fn at_the_end(graph: &GraphProto) -> BTreeMap<String, ClassLabels> {
    let maps = graph.node.iter().filter(|node| is_zipmap(node));
    let end = |node: &NodeProto| match (node.input.as_slice(), node.output.as_slice()) {
        ([_], [output]) => {
            let taken = graph.node.iter().any(|other| other.input.contains(output));
            let given = graph.output.iter().any(|value| value.name == *output);
            (given && !taken).then(|| (output.clone(), ClassLabels::of(node)))
        }
        _ => None,
    };
    maps.filter_map(end).collect()
}

/// The bytes that ONNX Runtime loads: `onnx` itself, unless a `ZipMap` is at its end.
///
/// # Errors
/// [`ModelError`] when it is no model.
pub fn runnable(onnx: &[u8]) -> Result<Cow<'_, [u8]>, ModelError> {
    let info = crate::ModelInfo::parse(onnx)?;
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
        // For `Identity`.
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
                    // Its type there is that of the maps.
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

fn is_zipmap(node: &NodeProto) -> bool {
    node.is(DOMAIN, ZIPMAP)
}

const DOMAIN: &str = "ai.onnx.ml";
const ZIPMAP: &str = "ZipMap";
/// Fields of `ModelProto`.
const GRAPH: u64 = 7;
const OPSET: u64 = 8;
/// Fields of `GraphProto`.
const NODE: u64 = 1;
const OUTPUT: u64 = 12;
const VALUE_INFO: u64 = 13;
