//! The model this server answers for.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use confonnx_attest::{Digest, ModelClaim};
use confonnx_engine::{EngineError, Model, ModelOptions, Runtime, TensorInfo};
use confonnx_model::{
    HashError, ModelError, ModelInfo, data_files,
    encrypted::{self, Erased, OpenedModel, OwnerKeyError, OwnerPublicKey},
    hash_files,
};
use confonnx_protocol::oip::{ModelMetadata, TensorMetadata};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

use crate::config::Config;

mod slot;

pub use slot::{Slot, UnlockError};

/// The only version a model has.
pub const VERSION: &str = "1";

/// A model, ready to run, and what is said of it.
pub struct Served {
    /// The sessions.
    pub model: Model,
    /// For the claims.
    pub claim: ModelClaim,
    /// For `GET /v2/models/{m}`.
    pub metadata: ModelMetadata,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("model {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is a folder.
    #[error("model {} is a folder; expected an .onnx file", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// It is not a model.
    #[error("model {}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ModelError,
    },
    /// Its external data is not where it should be.
    #[error("model {}: {source}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: HashError,
    },
    /// ONNX Runtime does not take it.
    #[error("model {}: {source}", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: EngineError,
    },
    /// It is encrypted, and nobody is expected to bring its key.
    #[error(
        "model {} is encrypted; with --use-model-key-provisioning the server waits for its owner to give the key",
        path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A key is expected for a model that needs none.
    #[error(
        "model {} is not encrypted, so there is no key to wait for; encrypt it with `confonnx encrypt-model`, or leave \
         --use-model-key-provisioning out",
        path.display()
    )]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// What came encrypted with it is not the data that it names.
    #[error(
        "model {}: its encrypted file has the data files {}, but the model names {}; encrypt it again, with its data \
         beside it",
        path.display(),
        Names(found),
        Names(expected)
    )]
    EncryptedData {
        /// The file.
        path: PathBuf,
        /// The data files it names.
        expected: Vec<String>,
        /// Those that are there.
        found: Vec<String>,
    },
    /// The owner's key cannot be used.
    #[error("the model owner's key {}: {source}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: OwnerKeyError,
    },
    /// An owner was named for a model that is not locked.
    #[error("--model-owner-key-file says who may unlock the model, which needs --use-model-key-provisioning")]
    OwnerOfNothing,
    /// There is no ONNX Runtime where one is looked for.
    #[error(
        "no ONNX Runtime library: looked for {}; run scripts/fetch-onnxruntime or give --onnxruntime-library",
        Paths(looked)
    )]
    NoRuntime {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// ONNX Runtime is there but does not load.
    #[error(transparent)]
    Runtime(EngineError),
}

/// Loads ONNX Runtime from `given`, or else from the first built-in place that has it.
///
/// # Errors
/// [`LoadError::NoRuntime`] and [`LoadError::Runtime`].
pub fn load_runtime(given: Option<&Path>) -> Result<Runtime, LoadError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let looked = built_in_places();
            let Some(found) = looked.iter().find(|path| path.is_file()) else {
                return Err(LoadError::NoRuntime { looked });
            };
            found.clone()
        }
    };
    Runtime::load(&path).map_err(LoadError::Runtime)
}

/// Loads the model of `config`; an encrypted one waits for its key if the settings say so.
///
/// # Errors
/// See [`LoadError`].
pub fn open(config: &Config, runtime: &Runtime) -> Result<Slot, LoadError> {
    let path = &config.model_path;
    let read = |source| LoadError::Read { path: path.clone(), source };
    if path.is_dir() {
        return Err(LoadError::Folder { path: path.clone() });
    }
    let mut file = File::open(path).map_err(read)?;
    let mut head = Vec::new();
    file.by_ref().take(64).read_to_end(&mut head).map_err(read)?;
    if config.model_owner_key_file.is_some() && !config.use_model_key_provisioning {
        return Err(LoadError::OwnerOfNothing);
    }
    match (encrypted::is_encrypted(&head), config.use_model_key_provisioning) {
        (false, false) => load(config, runtime).map(Slot::serving),
        (true, false) => Err(LoadError::Encrypted { path: path.clone() }),
        (false, true) => Err(LoadError::NotEncrypted { path: path.clone() }),
        (true, true) => {
            let mut hash = Sha256::new_with_prefix(&head);
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer).map_err(read)? {
                    0 => break,
                    n => hash.update(buffer.get(..n).unwrap_or_default()),
                }
            }
            let ciphertext = Digest(hash.finalize().into());
            Ok(Slot::locked(Loader::new(config, runtime), ciphertext, owner(config)?))
        }
    }
}

/// Who may unlock the model, if that is limited.
fn owner(config: &Config) -> Result<Option<OwnerPublicKey>, LoadError> {
    let Some(path) = &config.model_owner_key_file else { return Ok(None) };
    let pem = String::from_utf8_lossy(&read(path)?).into_owned();
    let owner = OwnerPublicKey::from_pem(&pem);
    owner.map(Some).map_err(|source| LoadError::Owner { path: path.clone(), source })
}

/// Loads the model of `config`, which is not encrypted.
///
/// Every byte is read once: what is hashed is what runs.
///
/// # Errors
/// See [`LoadError`].
pub fn load(config: &Config, runtime: &Runtime) -> Result<Served, LoadError> {
    let onnx = Erased::from(read(&config.model_path)?);
    Loader::new(config, runtime).load_plain(&onnx)
}

/// What it takes to load a model from its bytes.
struct Loader {
    path: PathBuf,
    name: String,
    sessions: usize,
    threads_per_session: usize,
    runtime: Runtime,
}

impl Loader {
    fn new(config: &Config, runtime: &Runtime) -> Self {
        Self {
            path: config.model_path.clone(),
            name: config.model_name.clone(),
            sessions: config.sessions,
            threads_per_session: config.threads_per_session,
            runtime: runtime.clone(),
        }
    }

    /// Loads `onnx`, the content of the model's file, with the data files beside it.
    fn load_plain(&self, onnx: &[u8]) -> Result<Served, LoadError> {
        let path = || self.path.clone();
        let info = ModelInfo::parse(onnx).map_err(|source| LoadError::Model { path: path(), source })?;
        let files = data_files(&self.path, &info.external_data).map_err(|error| match error {
            HashError::Read { path, error } => LoadError::Read { path, source: error },
            source => LoadError::Data { path: path(), source },
        })?;
        let data =
            files.into_iter().map(|(location, path)| Ok((location, SharedOctets(read(&path)?.into()))));
        self.load(onnx, data.collect::<Result<_, LoadError>>()?, None)
    }

    /// Loads a model that was stored encrypted, with the data files that came with it.
    fn load_encrypted(&self, opened: OpenedModel) -> Result<Served, LoadError> {
        let OpenedModel { onnx, external, ciphertext } = opened;
        let info =
            ModelInfo::parse(&onnx).map_err(|source| LoadError::Model { path: self.path.clone(), source })?;
        if !external.iter().map(|(name, _)| name).eq(&info.external_data) {
            let found = external.into_iter().map(|(name, _)| name).collect();
            let (path, expected) = (self.path.clone(), info.external_data);
            return Err(LoadError::EncryptedData { path, expected, found });
        }
        // One by one: each is copied, and its first copy erased, before the next.
        let data = external.into_iter().map(|(name, octets)| (name, SharedOctets(Arc::from(&octets[..]))));
        self.load(&onnx, data.collect(), Some(Digest(ciphertext)))
    }

    fn load(
        &self,
        onnx: &[u8],
        data: Vec<(String, SharedOctets)>,
        ciphertext: Option<Digest>,
    ) -> Result<Served, LoadError> {
        let path = || self.path.clone();
        let digest = |(location, octets): &(String, SharedOctets)| {
            (location.clone(), Sha256::digest(&octets.0).into())
        };
        let digests: BTreeMap<_, _> = data.iter().map(digest).collect();
        let external_data =
            data.iter().map(|(location, octets)| (location.clone(), Arc::clone(&octets.0))).collect();
        let options = ModelOptions {
            sessions: self.sessions,
            threads_per_session: self.threads_per_session,
            external_data,
        };
        let loaded = Model::load(&self.runtime, onnx, &options);
        // Before `data`, which is erased only if nobody else has it.
        drop(options);
        let model = loaded.map_err(|source| LoadError::Engine { path: path(), source })?;
        let tensors = |infos: &[TensorInfo]| infos.iter().map(tensor_metadata).collect();
        let metadata = ModelMetadata {
            name: self.name.clone(),
            versions: vec![VERSION.into()],
            platform: "onnxruntime_onnx".into(),
            inputs: tensors(model.inputs()),
            outputs: tensors(model.outputs()),
        };
        let claim = ModelClaim {
            name: self.name.clone(),
            version: VERSION.into(),
            sha256: Some(Digest(hash_files(onnx, &digests))),
            ciphertext_sha256: ciphertext,
        };
        Ok(Served { model, claim, metadata })
    }
}

/// What ONNX Runtime reads while it loads a model; erased when the last owner drops it.
struct SharedOctets(Arc<[u8]>);

impl Drop for SharedOctets {
    fn drop(&mut self) {
        if let Some(octets) = Arc::get_mut(&mut self.0) {
            octets.zeroize();
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn tensor_metadata(info: &TensorInfo) -> TensorMetadata {
    TensorMetadata { name: info.name.clone(), datatype: info.dtype, shape: info.shape.clone() }
}

/// `lib/` beside the executable; for development, `.cache/onnxruntime` in a folder above it or in this one.
fn built_in_places() -> Vec<PathBuf> {
    let executable = std::env::current_exe().unwrap_or_default();
    let beside = executable.parent().map(|folder| folder.join("lib"));
    let above = executable
        .ancestors()
        .skip(2)
        .take(3)
        .map(|folder| folder.join(CACHE))
        .filter(|cache| cache.is_dir());
    beside.into_iter().chain(above).chain([PathBuf::from(CACHE)]).map(|folder| folder.join(LIBRARY)).collect()
}

const CACHE: &str = ".cache/onnxruntime";
const LIBRARY: &str = "libonnxruntime.so.1.31.1";

struct Names<'a>(&'a [String]);

impl std::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}

struct Paths<'a>(&'a [PathBuf]);

impl std::fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}
