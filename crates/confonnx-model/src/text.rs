//! The files that say how a model's text is made, inside the model, so that its hash covers them.

use std::collections::BTreeMap;

use crate::proto::StringStringEntryProto;

/// The names of such files, as they lie beside models where those are published.
pub const TEXT_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
    // Of sentence encoders.
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];

/// The text files that a model has.
pub(crate) fn of(properties: &[StringStringEntryProto]) -> BTreeMap<String, String> {
    let ours = properties.iter().filter_map(|property| {
        let name = property.key.strip_prefix(PREFIX)?;
        TEXT_FILES.contains(&name).then(|| (name.to_owned(), property.value.clone()))
    });
    ours.collect()
}

/// Before the name of a file, as the key of a metadata property.
pub(crate) const PREFIX: &str = "confonnx.text.";
