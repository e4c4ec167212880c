//! The files that say how a language model's text is made, inside the model, so that its hash covers them.

use std::collections::BTreeMap;

use crate::{
    info::{ModelError, ModelInfo},
    proto::StringStringEntryProto,
    wire,
};

/// The names of such files, as they lie beside models where those are published.
pub const TEXT_FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
];

/// The model `onnx` with `files` in it, by their names, instead of those it had. All else stays as it is, byte for byte.
///
/// # Errors
/// [`ModelError`] when it is no model.
pub fn with_text(onnx: &[u8], files: &BTreeMap<&str, String>) -> Result<Vec<u8>, ModelError> {
    ModelInfo::parse(onnx)?;
    let added = files.values().map(|content| content.len().saturating_add(64)).fold(0, usize::saturating_add);
    let mut out = Vec::with_capacity(onnx.len().saturating_add(added));
    for field in wire::fields(onnx).ok_or(ModelError::NoGraph)? {
        let is_ours = || {
            let parts = wire::fields(field.content).unwrap_or_default();
            let key = parts.iter().find(|part| part.number == 1).map(|part| part.content);
            key.is_some_and(|key| key.starts_with(PREFIX.as_bytes()))
        };
        if field.number != METADATA || !is_ours() {
            out.extend_from_slice(field.whole);
        }
    }
    for (name, content) in files {
        let mut property = Vec::new();
        wire::put(&mut property, 1, format!("{PREFIX}{name}").as_bytes());
        wire::put(&mut property, 2, content.as_bytes());
        wire::put(&mut out, METADATA, &property);
    }
    Ok(out)
}

/// Those that a model has.
pub(crate) fn of(properties: &[StringStringEntryProto]) -> BTreeMap<String, String> {
    let ours = properties.iter().filter_map(|property| {
        let name = property.key.strip_prefix(PREFIX)?;
        TEXT_FILES.contains(&name).then(|| (name.to_owned(), property.value.clone()))
    });
    ours.collect()
}

/// Before the name of a file, as the key of a metadata property.
const PREFIX: &str = "confonnx.text.";
/// The field of `ModelProto`.
const METADATA: u64 = 14;
