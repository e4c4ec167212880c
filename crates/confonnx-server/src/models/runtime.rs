//! Where ONNX Runtime is, and where it runs.

use std::path::{Path, PathBuf};

use confonnx_engine::{BoxLimits, Boxes, Engine, EngineError, Library, Runtime};
use tracing::warn;

use crate::config::{Config, EngineKind};

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is none where one is looked for.
    #[error(
        "no ONNX Runtime library: looked for {}; run scripts/fetch-onnxruntime or give --onnxruntime-library",
        Paths(looked)
    )]
    Absent {
        /// The places where the library was looked for.
        looked: Vec<PathBuf>,
    },
    /// The library is not one that this version was made for.
    #[error(
        "ONNX Runtime library {}: its SHA-256 is {found}, expected {}; run scripts/fetch-onnxruntime, or give --debug to \
         develop with another",
        path.display(), Library::KNOWN.join(" or ")
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The library's digest, in hex.
        found: String,
    },
    /// The library is there but does not load.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The engine that runs the models of `config`; boxes are run by `program`.
///
/// # Errors
/// [`RuntimeError`]
pub fn open_engine(config: &Config, program: &Path) -> Result<Engine, RuntimeError> {
    let path = find(config.onnxruntime_library.as_deref())?;
    let library = Library::read(&path)?;
    if !library.is_known() && !config.insecure {
        let found = library.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
        return Err(RuntimeError::Unknown { path, found });
    }
    Ok(match config.engine {
        EngineKind::InProcess => Engine::InProcess(Runtime::open(&library)?),
        EngineKind::Isolated => {
            let boxes = {
                let answer = u64::try_from(config.limits.connection_bytes()).unwrap_or(u64::MAX);
                let limits = BoxLimits { memory: config.inference_memory, answer };
                Boxes::new(program.to_owned(), library, limits)?
            };
            if !boxes.are_landlocked() {
                warn!("this kernel has no Landlock: only the limits of system calls keep models from files");
            }
            Engine::Isolated(boxes)
        }
    })
}

/// Loads ONNX Runtime into this process from `given`, or else from the first built-in place that has it.
///
/// # Errors
/// [`RuntimeError`]
pub fn load_runtime(given: Option<&Path>) -> Result<Runtime, RuntimeError> {
    Ok(Runtime::load(&find(given)?)?)
}

fn find(given: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let looked = built_in_places();
    let found = looked.iter().find(|path| path.is_file()).cloned();
    found.ok_or(RuntimeError::Absent { looked })
}

/// `lib/` beside the executable; for development, `.cache/onnxruntime` in a folder above it. Never one that depends on
/// where the server is started.
fn built_in_places() -> Vec<PathBuf> {
    let executable = std::env::current_exe().unwrap_or_default();
    let beside = executable.parent().map(|folder| folder.join("lib"));
    let above = executable
        .ancestors()
        .skip(2)
        .take(3)
        .map(|folder| folder.join(CACHE))
        .filter(|cache| cache.is_dir());
    beside.into_iter().chain(above).map(|folder| folder.join(LIBRARY)).collect()
}

const CACHE: &str = ".cache/onnxruntime";
const LIBRARY: &str = "libonnxruntime.so.1.31.1";

struct Paths<'a>(&'a [PathBuf]);

impl std::fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}
