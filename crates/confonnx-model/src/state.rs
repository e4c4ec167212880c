//! What a model's owner states of its state, inside the file, so that the hash covers it.

use confonnx_tensor::DataType;

use crate::{proto::StringStringEntryProto, rows::PropertyError};

/// An input that is kept from one request of a sequence to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The input.
    pub input: String,
    /// The output that it is in the next request; none if it stays what it was in the first.
    pub output: Option<String>,
}

/// What the metadata properties of a model say, of whose inputs and outputs these are the types.
pub(crate) fn of(
    properties: &[StringStringEntryProto],
    input: impl Fn(&str) -> Option<DataType>,
    output: impl Fn(&str) -> Option<DataType>,
) -> Result<Vec<Kept>, PropertyError> {
    let ours = properties.iter().filter_map(|property| Some((property, property.key.strip_prefix(STATE)?)));
    ours.map(|(property, name)| {
        let wrong =
            |expected| PropertyError { key: property.key.clone(), found: property.value.clone(), expected };
        let dtype = input(name).ok_or_else(|| wrong("such a property for inputs of the model alone"))?;
        let kept = (!property.value.is_empty()).then(|| property.value.clone());
        if kept.as_deref().is_some_and(|kept| output(kept) != Some(dtype)) {
            return Err(wrong("the name of an output of the input's type, or nothing"));
        }
        Ok(Kept { input: name.to_owned(), output: kept })
    })
    .collect()
}

/// Followed by the name of an input.
pub(crate) const STATE: &str = "confonnx.state.";
