//! What a model's owner states of its rows, inside the file, so that the hash covers it.

use crate::proto::StringStringEntryProto;

/// The statement that rows know nothing of one another: the answer to each is the same whatever the others are. Requests of
/// several callers may then be run together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndependentRows {
    /// Along which axis rows lie, of all inputs and outputs.
    pub axis: usize,
    /// Inputs and outputs whose rows lie along another axis.
    pub other_axes: Vec<(String, usize)>,
}

/// A metadata property with a value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's metadata property {key:?} is {found:?}; expected {expected}")]
pub struct PropertyError {
    /// The property.
    pub key: String,
    /// Its value.
    pub found: String,
    /// What it can be.
    pub expected: &'static str,
}

impl IndependentRows {
    /// The axis of the input or output called `name`.
    pub fn axis(&self, name: &str) -> usize {
        self.other_axes.iter().find(|(other, _)| other == name).map_or(self.axis, |(_, axis)| *axis)
    }

    /// What the metadata properties of a model say.
    pub(crate) fn of(properties: &[StringStringEntryProto]) -> Result<Option<Self>, PropertyError> {
        let find = |key: &str| properties.iter().rev().find(|property| property.key == key);
        match find(ROWS).map(|property| property.value.as_str()) {
            None | Some("false") => return Ok(None),
            Some("true") => {}
            Some(found) => {
                let (key, expected) = (ROWS.to_owned(), "true or false");
                return Err(PropertyError { key, found: found.to_owned(), expected });
            }
        }
        let axis = |property: &StringStringEntryProto| {
            property.value.parse::<usize>().map_err(|_| PropertyError {
                key: property.key.clone(),
                found: property.value.clone(),
                expected: "an axis, counted from 0",
            })
        };
        let mut rows = Self { axis: find(AXIS).map(axis).transpose()?.unwrap_or(0), other_axes: Vec::new() };
        for property in properties {
            if let Some(name) = property.key.strip_prefix(AXIS_OF) {
                rows.other_axes.push((name.to_owned(), axis(property)?));
            }
        }
        Ok(Some(rows))
    }
}

pub(crate) const ROWS: &str = "confonnx.rows_independent";
pub(crate) const AXIS: &str = "confonnx.batch_axis";
/// Followed by the name of an input or output.
pub(crate) const AXIS_OF: &str = "confonnx.batch_axis.";
