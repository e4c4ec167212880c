//! Why there is no model to serve, load, unlock or run.

use std::{fmt, io, path::PathBuf};

use confonnx_attest::Digest;
use confonnx_engine::{EngineError, InferError};
use confonnx_generate::text::FilesError;
use confonnx_model::{
    EncoderError, ModelError,
    encrypted::{NotSigned, OpenModelError, OwnerKeyError},
    triton::ModelConfigError,
};

use super::index::Entry;

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The only model cannot be served.
    #[error("model {}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: LoadError,
    },
    /// The repository cannot be read.
    #[error("model repository {}: {source}", path.display())]
    Repository {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No model of the repository can be served, and nothing would change that.
    #[error("model repository {}: no model in it can be served{}", path.display(), Reasons(entries))]
    NothingServed {
        /// The folder.
        path: PathBuf,
        /// The versions that are there, and why each is not served.
        entries: Vec<Entry>,
    },
    /// The owner's key cannot be read.
    #[error("the model owner's key {}: {source}", path.display())]
    OwnerFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The owner's key cannot be used.
    #[error("the model owner's key {}: {source}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: OwnerKeyError,
    },
    /// An owner was named for models that are not locked.
    #[error("--model-owner-key-file says who may unlock models, which needs --use-model-key-provisioning")]
    OwnerOfNothing,
}

/// Why a model was not loaded or unloaded as a caller wanted.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Callers do not change what is served.
    #[error(
        "callers cannot load or unload models here; the server was started without --model-control explicit"
    )]
    Off,
    /// The model is not there.
    #[error("there is no model {name:?} in the repository")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Another change is going on.
    #[error("another model is being loaded; try again later")]
    Busy,
    /// The repository cannot be read.
    #[error("the model repository cannot be read: {0}")]
    Repository(io::Error),
    /// The model does not load; what was served before still is.
    #[error("the model cannot be served: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why a model cannot be served. Callers are told, so its text says nothing of where the files are.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file's name in the model's folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The model is a folder.
    #[error("expected an .onnx file, found a folder")]
    Folder,
    /// There is no version to serve.
    #[error("there is no version to serve; expected a folder with a number as its name (1, 2, …) for each")]
    NoVersion,
    /// A version's folder has no model.
    #[error("expected model.onnx or model.onnx.age in the version's folder, found neither")]
    NoFile,
    /// A version's folder has two.
    #[error("expected one of model.onnx and model.onnx.age in the version's folder, found both")]
    TwoFiles,
    /// The file is not a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The files in it do not say how its text is made.
    #[error("the files in the model do not say how its text is made: {0}")]
    Text(#[from] FilesError),
    /// The encoder that the model names is none of its own.
    #[error("{file}: {source}")]
    Encoder {
        /// The encoder's file.
        file: String,
        /// What is wrong.
        source: EncoderError,
    },
    /// The encoder's file is no model.
    #[error("{file}: {source}")]
    EncoderModel {
        /// The encoder's file.
        file: String,
        /// What is wrong.
        source: Box<ModelError>,
    },
    /// A model with a tokenizer needs an encoder and names none.
    #[error(
        "the model answers to what an encoder reads (input encoder_hidden_states), has a tokenizer in it, and names no encoder; \
         expected one: confonnx annotate MODEL --encoder encoder_model.onnx --out OUT, with that file beside OUT"
    )]
    NoEncoder,
    /// The model's external data is a link out of its folder, or not a file.
    #[error("the model's data {file} is not a file in the model's folder; copy it there")]
    Outside {
        /// The file's name.
        file: String,
    },
    /// What came encrypted with it is not the data that it names.
    #[error(
        "its encrypted file has the data files {}, but the model names {}; encrypt it again, with its data beside it",
        Names(found),
        Names(expected)
    )]
    EncryptedData {
        /// The data files it names.
        expected: Vec<String>,
        /// The files that are there.
        found: Vec<String>,
    },
    /// ONNX Runtime does not take the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model is encrypted, and nobody is expected to bring its key.
    #[error(
        "it is encrypted; with --use-model-key-provisioning the server waits for its owner to give the key"
    )]
    Encrypted,
    /// A key is expected for a model that needs none.
    #[error(
        "it is not encrypted, so there is no key to wait for; encrypt it with `confonnx encrypt-model`, or leave \
         --use-model-key-provisioning out"
    )]
    NotEncrypted,
    /// The model's configuration cannot be read.
    #[error("config.pbtxt, {0}")]
    Config(#[from] ModelConfigError),
    /// The model's configuration is of a model of another name.
    #[error("config.pbtxt names the model {found:?}; expected {expected:?}, as its folder is named")]
    ConfigName {
        /// The folder's name.
        expected: String,
        /// The configuration's.
        found: String,
    },
    /// The model's configuration says other inputs or outputs than the model has.
    #[error("config.pbtxt says {kind} {name:?} is {found}; the model has {expected}")]
    ConfigTensor {
        /// `input` or `output`.
        kind: &'static str,
        /// The input's or output's name.
        name: String,
        /// What the model says.
        expected: String,
        /// What the configuration says.
        found: String,
    },
    /// A request of its warm-up failed.
    #[error("the warm-up {name:?} failed: {source}")]
    Warmup {
        /// Its name.
        name: String,
        /// Why.
        source: InferError,
    },
    /// A request of its warm-up cannot be made.
    #[error(
        "the warm-up {name:?} has no size for an input: expected dims of 0 or more, as many as memory holds"
    )]
    WarmupShape {
        /// Its name.
        name: String,
    },
}

/// Why a model stays locked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The model is not there.
    #[error(transparent)]
    Absent(#[from] Absent),
    /// The model is not locked: it never was, or its key was given before.
    #[error("model {model} is not locked: it has its key, and takes no other")]
    NotLocked {
        /// The model's name.
        model: String,
    },
    /// Models are being loaded.
    #[error("another model is being loaded; try again later")]
    Busy,
    /// The model's owner did not sign the key.
    #[error(
        "{0}; this server takes the model's key only with its owner's signature (`confonnx provision --owner-key-file`)"
    )]
    Owner(#[from] NotSigned),
    /// The file cannot be opened with this key.
    #[error("the model does not open: {0}")]
    Open(#[from] OpenModelError),
    /// The file is not the one that the claims name.
    #[error("the encrypted file changed since it was found: expected SHA-256 {expected}, found {found}")]
    Changed {
        /// The digest in the claims.
        expected: Digest,
        /// The digest of the file.
        found: Digest,
    },
    /// The model opens, but is no model that can be served.
    #[error("the model cannot be served: {0}")]
    Load(#[from] LoadError),
}

/// There is no such model to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// No model has that name and version.
    #[error("there is no model {name:?}{} here; expected {}", Version(version.as_deref()), List(expected))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The version asked for, if one was.
        version: Option<String>,
        /// The models there are, and their versions.
        expected: Vec<(String, u64)>,
    },
    /// The model's owner has not given its key.
    #[error(
        "model {model} version {version} is locked: its owner has not yet given its key (`confonnx provision`)"
    )]
    Locked {
        /// The model's name.
        model: String,
        /// The model's version.
        version: String,
    },
    /// The model is known, but not served.
    #[error("model {model}{} is not served: {reason}", Version(version.as_deref()))]
    Unavailable {
        /// The model's name.
        model: String,
        /// The model's version.
        version: Option<String>,
        /// Why.
        reason: String,
    },
}

impl Absent {
    /// The name asked for.
    pub fn model(&self) -> &str {
        match self {
            Self::Unknown { name: model, .. }
            | Self::Locked { model, .. }
            | Self::Unavailable { model, .. } => model,
        }
    }

    /// This error, without the names of models that are not `visible`.
    pub fn among(mut self, visible: impl Fn(&str) -> bool) -> Self {
        if let Self::Unknown { expected, .. } = &mut self {
            expected.retain(|(name, _)| visible(name));
        }
        self
    }
}

/// How many models an error names at most.
const MAX_LISTED: usize = 16;

struct Version<'a>(Option<&'a str>);

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |version| write!(f, " version {version:?}"))
    }
}

struct List<'a>(&'a [(String, u64)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, rest)) = self.0.get(..self.0.len().min(MAX_LISTED)).and_then(<[_]>::split_last)
        else {
            return f.write_str("one of POST /v2/repository/index");
        };
        for (name, version) in rest {
            write!(f, "{name:?} version {version}, ")?;
        }
        write!(f, "{:?} version {}", last.0, last.1)
    }
}

struct Reasons<'a>(&'a [Entry]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; expected folders NAME/VERSION with model.onnx or model.onnx.age");
        }
        for Entry { name, version, reason, .. } in self.0 {
            write!(
                f,
                "; {name}{}{}: {reason}",
                if version.is_some() { "/" } else { "" },
                version.as_deref().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}
