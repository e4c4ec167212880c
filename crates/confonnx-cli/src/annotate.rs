use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use confonnx_model::{
    AnnotateError, IndependentRows, Kept, ModelInfo, TEXT_FILES, annotate, with_encoder, with_state,
    with_text,
};

use crate::args::bytes;
use crate::{model, print};

/// State in a model that its rows know nothing of one another, for batching
///
/// A server may then run requests of several callers together. Only the model's owner can know it: the answer to each row must be the same whatever the other rows are, which is not so
/// where a scale, a mean or a maximum is taken over all of them. The statement is part of the file, so the model hash changes.
/// A server tries the statement when it loads the model, and batches nothing if it sees a difference.
#[derive(Args)]
pub(crate) struct Annotate {
    /// The .onnx file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The file to write; external data is to lie beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Along which axis rows lie, counted from 0; NAME=AXIS for one input or output [default: 0]
    #[arg(long, value_name = "AXIS", value_parser = batch_axis)]
    batch_axis: Vec<(Option<String>, usize)>,
    /// Write the model without the statement
    #[arg(long, conflicts_with = "batch_axis")]
    remove: bool,
    /// Put tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json and config.json of this folder
    /// into the model, as far as they are there, for chats and completions; and for embeddings modules.json,
    /// 1_Pooling/config.json, sentence_bert_config.json and config_sentence_transformers.json. States nothing of rows
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["batch_axis", "remove"])]
    text: Option<PathBuf>,
    /// The encoder that reads what this decoder answers to, as encoder_model.onnx beside decoder_model_merged.onnx: the file of
    /// that name is then to lie beside the one written, and the model hash covers both. States nothing of rows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["batch_axis", "remove", "state"])]
    encoder: Option<PathBuf>,
    /// An input that is kept from one request of a sequence to the next: INPUT=OUTPUT is what that output was, INPUT alone what
    /// it was at first. States nothing of rows
    #[arg(long, value_name = "INPUT=OUTPUT", value_parser = kept, conflicts_with_all = ["batch_axis", "remove", "text"])]
    state: Vec<Kept>,
}

impl Annotate {
    pub(crate) fn run(&self) -> Result<()> {
        let mut rows = IndependentRows::default();
        for (name, axis) in &self.batch_axis {
            match name {
                Some(name) => rows.other_axes.push((name.clone(), *axis)),
                None => rows.axis = *axis,
            }
        }
        let onnx = bytes(&self.model)?;
        let annotated = match &self.text {
            Some(folder) => with_text(&onnx, &text_files(folder)?).map_err(AnnotateError::from),
            None if self.encoder.is_some() => Ok(onnx),
            None if !self.state.is_empty() => with_state(&onnx, &self.state).map_err(AnnotateError::from),
            None => annotate(&onnx, (!self.remove).then_some(&rows)),
        };
        let annotated = annotated.with_context(|| format!("cannot annotate {}", self.model.display()))?;
        let annotated = match &self.encoder {
            Some(encoder) => with(&annotated, encoder)?,
            None => annotated,
        };
        fs::write(&self.out, annotated).with_context(|| format!("cannot write {}", self.out.display()))?;
        Ok(print(&format!("model  {}\nhash   {}", self.out.display(), model::hash(&self.out)?))?)
    }
}

/// The decoder with the statement that the file `encoder` is its encoder.
fn with(decoder: &[u8], encoder: &Path) -> Result<Vec<u8>> {
    let location = encoder.file_name().and_then(|name| name.to_str());
    let location = location.with_context(|| format!("expected a file, found {}", encoder.display()))?;
    let info = model::read(encoder)?;
    ModelInfo::parse(decoder)?
        .check_encoder(&info)
        .with_context(|| format!("cannot go on with what {} reads", encoder.display()))?;
    Ok(with_encoder(decoder, location)?)
}

/// The files of a folder that say how text is made.
fn text_files(folder: &Path) -> Result<BTreeMap<&'static str, String>> {
    let mut files = BTreeMap::new();
    for name in TEXT_FILES {
        let path = folder.join(name);
        if path.is_file() {
            let content =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name, content);
        }
    }
    anyhow::ensure!(files.contains_key("tokenizer.json"), "{} has no tokenizer.json", folder.display());
    Ok(files)
}

fn kept(text: &str) -> Result<Kept, String> {
    let (input, output) = match text.split_once('=') {
        Some((input, output)) => (input, Some(output.to_owned())),
        None => (text, None),
    };
    if input.is_empty() || output.as_deref() == Some("") {
        return Err(format!("expected INPUT=OUTPUT or INPUT; found `{text}`"));
    }
    Ok(Kept { input: input.to_owned(), output })
}

fn batch_axis(text: &str) -> Result<(Option<String>, usize), String> {
    let (name, axis) = match text.rsplit_once('=') {
        Some((name, axis)) => (Some(name.to_owned()), axis),
        None => (None, text),
    };
    let axis = axis
        .parse()
        .map_err(|_| format!("expected AXIS or NAME=AXIS, AXIS counted from 0; found `{text}`"))?;
    Ok((name, axis))
}
