//! The owner's statements, written into a model.

use std::collections::BTreeMap;

use crate::{
    encoder::ENCODER,
    info::{Dim, ModelError, ModelInfo, ValueInfo},
    rows::{AXIS, AXIS_OF, IndependentRows, ROWS},
    state::{Kept, STATE},
    text::PREFIX,
    wire,
};

/// Why a statement cannot be written into a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotateError {
    /// The file is no model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model has no such input or output.
    #[error("the model has no input or output {name:?}; it has {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The inputs there are.
        known: Vec<String>,
    },
    /// A tensor has no such axis, or one of a fixed size.
    #[error(
        "{name:?} has the shape [{shape}]; expected rows along axis {axis}, counted from 0, with any size there (give \
         its own axis with NAME=AXIS)"
    )]
    Axis {
        /// The input or output.
        name: String,
        /// The input's or output's shape in the model.
        shape: String,
        /// The axis.
        axis: usize,
    },
}

/// The model `onnx` with the statement in it, or without one. All else stays as it is, byte for byte.
///
/// # Errors
/// [`AnnotateError`]
pub fn annotate(onnx: &[u8], rows: Option<&IndependentRows>) -> Result<Vec<u8>, AnnotateError> {
    let info = ModelInfo::parse(onnx)?;
    let mut out = Vec::with_capacity(onnx.len().saturating_add(256));
    for field in wire::fields(onnx).ok_or(ModelError::NoGraph)? {
        let is_ours = || {
            let parts = wire::fields(field.content).unwrap_or_default();
            let key = parts.iter().find(|part| part.number == 1);
            key.and_then(|key| std::str::from_utf8(key.content).ok())
                .is_some_and(|key| key == ROWS || key == AXIS || key.starts_with(AXIS_OF))
        };
        if field.number != METADATA || !is_ours() {
            out.extend_from_slice(field.whole);
        }
    }
    let Some(rows) = rows else { return Ok(out) };
    let tensors: Vec<&ValueInfo> = info.inputs.iter().chain(&info.outputs).collect();
    for (name, _) in &rows.other_axes {
        if !tensors.iter().any(|tensor| tensor.name == *name) {
            let known = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            return Err(AnnotateError::Unknown { name: name.clone(), known });
        }
    }
    for tensor in tensors.into_iter().filter(|tensor| !SAID_ONCE.contains(&tensor.name.as_str())) {
        let axis = rows.axis(&tensor.name);
        // Nothing can be said of a tensor of unknown rank before the model runs.
        let Some(shape) = &tensor.shape else { continue };
        if !matches!(shape.get(axis), Some(Dim::Symbolic(_) | Dim::Unknown)) {
            let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(AnnotateError::Axis { name: tensor.name.clone(), shape, axis });
        }
    }
    let mut put = |key: &str, value: &str| {
        let mut property = Vec::new();
        wire::put(&mut property, 1, key.as_bytes());
        wire::put(&mut property, 2, value.as_bytes());
        wire::put(&mut out, METADATA, &property);
    };
    put(ROWS, "true");
    put(AXIS, &rows.axis.to_string());
    for (name, axis) in &rows.other_axes {
        put(&format!("{AXIS_OF}{name}"), &axis.to_string());
    }
    Ok(out)
}

/// Inputs of language models that are the same for all rows.
const SAID_ONCE: [&str; 2] = ["num_logits_to_keep", "use_cache_branch"];

/// The model `onnx` with `files` in it, by their names, instead of those it had. All else stays as it is, byte for byte.
///
/// # Errors
/// [`ModelError`] when it is no model.
pub fn with_text(onnx: &[u8], files: &BTreeMap<&str, String>) -> Result<Vec<u8>, ModelError> {
    ModelInfo::parse(onnx)?;
    instead(onnx, PREFIX, files.iter().map(|(name, content)| (*name, content.as_str())))
}

/// The model `onnx` with the statement which inputs are kept from one request of a sequence to the next, instead of the one it
/// had. All else stays as it is, byte for byte.
///
/// # Errors
/// [`ModelError`] when it is no model, or has no such input or output.
pub fn with_state(onnx: &[u8], state: &[Kept]) -> Result<Vec<u8>, ModelError> {
    let each = state.iter().map(|kept| (kept.input.as_str(), kept.output.as_deref().unwrap_or_default()));
    let stated = instead(onnx, STATE, each)?;
    ModelInfo::parse(&stated)?;
    Ok(stated)
}

/// The model `onnx` with the statement that the file at `location`, relative to it, is its encoder, instead of the one it had.
/// All else stays as it is, byte for byte.
///
/// # Errors
/// [`ModelError`] when it is no model, or the location is not below it.
pub fn with_encoder(onnx: &[u8], location: &str) -> Result<Vec<u8>, ModelError> {
    let stated = instead(onnx, ENCODER, std::iter::once(("", location)))?;
    ModelInfo::parse(&stated)?;
    Ok(stated)
}

/// The model with these properties, whose keys begin with `prefix`, instead of all that do.
fn instead<'p>(
    onnx: &[u8],
    prefix: &str,
    properties: impl Iterator<Item = (&'p str, &'p str)> + Clone,
) -> Result<Vec<u8>, ModelError> {
    let added = properties.clone().map(|(_, value)| value.len().saturating_add(64));
    let mut out = Vec::with_capacity(onnx.len().saturating_add(added.fold(0, usize::saturating_add)));
    for field in wire::fields(onnx).ok_or(ModelError::NoGraph)? {
        let is_ours = || {
            let parts = wire::fields(field.content).unwrap_or_default();
            let key = parts.iter().find(|part| part.number == 1).map(|part| part.content);
            key.is_some_and(|key| key.starts_with(prefix.as_bytes()))
        };
        if field.number != METADATA || !is_ours() {
            out.extend_from_slice(field.whole);
        }
    }
    for (name, value) in properties {
        let mut property = Vec::new();
        wire::put(&mut property, 1, format!("{prefix}{name}").as_bytes());
        wire::put(&mut property, 2, value.as_bytes());
        wire::put(&mut out, METADATA, &property);
    }
    Ok(out)
}

/// The field of `ModelProto`.
const METADATA: u64 = 14;
