//! What a model's owner states of its state, inside the file, so that the hash covers it.

use crate::{info::ValueInfo, proto::StringStringEntryProto, rows::PropertyError};

/// An input that is kept from one request of a sequence to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The input.
    pub input: String,
    /// The output that it is in the next request; none if it stays what it was in the first.
    pub output: Option<String>,
}

/// What the metadata properties of a model with these inputs and outputs say.
pub(crate) fn of(
    properties: &[StringStringEntryProto],
    inputs: &[ValueInfo],
    outputs: &[ValueInfo],
) -> Result<Vec<Kept>, PropertyError> {
    let ours = properties.iter().filter_map(|property| Some((property, property.key.strip_prefix(STATE)?)));
    ours.map(|(property, name)| {
        let wrong =
            |expected| PropertyError { key: property.key.clone(), found: property.value.clone(), expected };
        let input = inputs.iter().find(|input| input.name == name);
        let input = input.ok_or_else(|| wrong("such a property for inputs of the model alone"))?;
        let output = (!property.value.is_empty()).then(|| property.value.clone());
        let is_it = |other: &ValueInfo| Some(&other.name) == output.as_ref() && other.dtype == input.dtype;
        if output.is_some() && !outputs.iter().any(is_it) {
            return Err(wrong("the name of an output of the input's type, or nothing"));
        }
        Ok(Kept { input: input.name.clone(), output })
    })
    .collect()
}

/// Followed by the name of an input.
pub(crate) const STATE: &str = "confonnx.state.";
