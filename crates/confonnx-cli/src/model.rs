use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use confonnx_client::{Digest, json};
use confonnx_model::ValueInfo;

use crate::args::bytes;
use crate::print;

/// Print the hash of a model, for --enclave-model-hash
///
/// It is the SHA-256 of the .onnx file; with external data, of a list of the hashes of all its files.
#[derive(Args)]
pub(crate) struct HashModel {
    /// The .onnx file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// File to write the hash to, as --enclave-model-hash-file reads it, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Print what a model takes and gives, and its hash
#[derive(Args)]
pub(crate) struct ModelInfo {
    /// The .onnx file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
}

impl HashModel {
    pub(crate) fn run(&self) -> Result<()> {
        let hash = hash(&self.model)?;
        match &self.out {
            None => Ok(print(&hash)?),
            Some(path) => {
                fs::write(path, hash + "\n").with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }
}

impl ModelInfo {
    pub(crate) fn run(&self) -> Result<()> {
        let info = read(&self.model)?;
        let mut rows = vec![["".into(), "name".into(), "type".into(), "shape".into()]];
        rows.extend(info.inputs.iter().map(|value| row("input", value)));
        rows.extend(info.optional_inputs.iter().map(|value| row("optional", value)));
        rows.extend(info.outputs.iter().map(|value| row("output", value)));
        let opsets = info.opsets.iter().map(|opset| {
            let domain = if opset.domain.is_empty() { "ai.onnx" } else { &opset.domain };
            format!("{domain} {}", opset.version)
        });
        let mut text = aligned(&rows);
        writeln!(text, "\nopset   {}", opsets.collect::<Vec<_>>().join(", "))?;
        if !info.external_data.is_empty() {
            writeln!(text, "files   {}", info.external_data.join(", "))?;
        }
        if let Some(encoder) = &info.encoder {
            writeln!(text, "encoder {encoder}")?;
        }
        if let Some(rows) = &info.rows {
            let others = rows.other_axes.iter().map(|(name, axis)| format!(", {axis} of {name}"));
            writeln!(text, "rows    independent, along axis {}{}", rows.axis, others.collect::<String>())?;
        }
        write!(text, "hash    {}", hash(&self.model)?)?;
        Ok(print(&text)?)
    }
}

/// Reads a model's metadata.
pub(crate) fn read(path: &std::path::Path) -> Result<confonnx_model::ModelInfo> {
    confonnx_model::ModelInfo::parse(&bytes(path)?).with_context(|| format!("cannot use {}", path.display()))
}

pub(crate) fn hash(path: &std::path::Path) -> Result<String> {
    let hash = confonnx_model::model_hash(path).with_context(|| format!("cannot hash {}", path.display()))?;
    Ok(Digest(hash).to_string())
}

fn row(kind: &str, value: &ValueInfo) -> [String; 4] {
    let shape = match &value.shape {
        None => "any".into(),
        Some(dims) => format!("[{}]", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    [kind.into(), value.name.clone(), json::type_name(value.dtype).into(), shape]
}

/// The rows as lines, the columns as wide as their widest cell; what the last column has no room for in the terminal goes on
/// below.
pub(crate) fn aligned(rows: &[[String; 4]]) -> String {
    let terminal = terminal_size::terminal_size_of(std::io::stdout());
    within(rows, terminal.map(|(terminal_size::Width(width), _)| width.into()))
}

fn within(rows: &[[String; 4]], width: Option<usize>) -> String {
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; 4] = std::array::from_fn(widest);
    let [first, second, third, _] = widths;
    let lead =
        [first, second, third].iter().fold(0_usize, |all, one| all.saturating_add(*one).saturating_add(2));
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(lead).max(LEAST_ROOM));
    let mut text = String::new();
    for [one, two, three, last] in rows {
        let mut line = format!("{one:first$}  {two:second$}  {three:third$}  ");
        let mut used = 0_usize;
        for word in last.split(' ') {
            let length = word.chars().count();
            if used > 0 && used.saturating_add(1).saturating_add(length) > room {
                text.push_str(line.trim_end());
                text.push('\n');
                (line, used) = (" ".repeat(lead), 0);
            } else if used > 0 {
                line.push(' ');
                used = used.saturating_add(1);
            }
            line.push_str(word);
            used = used.saturating_add(length);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The least width of the last column: narrower ones cannot be read.
const LEAST_ROOM: usize = 24;

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn what_has_no_room_goes_on_below_and_nothing_is_lost() {
        let rows = [
            ["name", "version", "state", "reason"].map(String::from),
            ["row", "1", "UNAVAILABLE", "expected model.onnx or model.onnx.age in the folder, found neither"]
                .map(String::from),
            ["digits", "1", "READY", ""].map(String::from),
        ];
        let shown = within(&rows, Some(60));
        assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
        assert!(shown.lines().nth(2).unwrap().starts_with("                              "), "{shown}");
        assert_eq!(
            shown.split_whitespace().collect::<Vec<_>>(),
            within(&rows, None).split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(within(&rows, None).lines().count(), 3);
        assert!(shown.ends_with("digits  1        READY\n"), "{shown}");
    }
}
