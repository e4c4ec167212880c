//! The encoder of a decoder, which the decoder's owner names in its file, so that one hash covers both.

use crate::{proto::StringStringEntryProto, rows::PropertyError};

/// Where the encoder is, relative to the model, as its metadata properties say; `plain` is the one spelling of a location.
pub(crate) fn of(
    properties: &[StringStringEntryProto],
    plain: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, PropertyError> {
    let Some(property) = properties.iter().rev().find(|property| property.key == ENCODER) else {
        return Ok(None);
    };
    match plain(&property.value) {
        Some(location) if location == property.value => Ok(Some(location)),
        _ => Err(PropertyError {
            key: property.key.clone(),
            found: property.value.clone(),
            expected: "a relative path below the model's folder, of plain names and '/'",
        }),
    }
}

/// The key of the metadata property that names the encoder's file.
pub(crate) const ENCODER: &str = "confonnx.encoder";
