//! Which inputs are indices into tables of a known size.

use std::collections::BTreeMap;

use crate::proto::{GraphProto, NodeProto};

/// For inputs that are taken as indices into an initializer: how many there are, of the smallest.
pub(crate) fn tables(graph: &GraphProto) -> BTreeMap<String, i64> {
    let dims: BTreeMap<&str, &[i64]> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice())).collect();
    // Where values that are an input in another form come from. Nodes are in the order in which they run.
    let mut source: BTreeMap<&str, &str> =
        graph.input.iter().map(|input| (input.name.as_str(), input.name.as_str())).collect();
    let mut found = BTreeMap::new();
    for node in &graph.node {
        for (index, table, axis) in lookups(node) {
            let name = |at: usize| node.input.get(at).map(String::as_str);
            let (Some(input), Some(dims)) = (
                name(index).and_then(|index| source.get(index)),
                name(table).and_then(|table| dims.get(table)),
            ) else {
                continue;
            };
            let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
            let axis = usize::try_from(if axis < 0 { axis.saturating_add(rank) } else { axis });
            if let Some(size) = axis.ok().and_then(|axis| dims.get(axis)) {
                let least = found.entry((*input).to_owned()).or_insert(*size);
                *least = (*least).min(*size);
            }
        }
        if PASSED_ON.contains(&node.op_type.as_str())
            && let (Some(input), Some(output)) = (node.input.first(), node.output.first())
            && let Some(from) = source.get(input.as_str()).copied()
        {
            source.insert(output, from);
        }
    }
    found
}

/// Positions of indices and of the tables they are for, and the axis there.
fn lookups(node: &NodeProto) -> Vec<(usize, usize, i64)> {
    match node.op_type.as_str() {
        "Gather" | "GatherElements" => vec![(1, 0, node.attribute("axis").map_or(0, |axis| axis.i))],
        "EmbedLayerNormalization" => vec![(0, 2, 0), (1, 4, 0)],
        _ => Vec::new(),
    }
}

const PASSED_ON: &[&str] = &[
    "Cast",
    "Identity",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Flatten",
    "Expand",
    "Transpose",
    "Slice",
    "Dropout",
];
