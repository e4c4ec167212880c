//! `ZipMap` at the end of a model: what scikit-learn's exporter adds by default, a map from class labels to numbers for each
//! row. Only tensors can be sent, so the tensor before it is served, under the output's name, and the labels as metadata.
//! The file, and so its hash, stay as they are: `runnable` makes what ONNX Runtime gets, in memory.

use std::collections::BTreeMap;

use crate::proto::{GraphProto, NodeProto};

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

fn is_zipmap(node: &NodeProto) -> bool {
    node.is(DOMAIN, ZIPMAP)
}

pub(crate) const DOMAIN: &str = "ai.onnx.ml";
pub(crate) const ZIPMAP: &str = "ZipMap";
