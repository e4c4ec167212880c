//! Where ONNX Runtime is.

use std::path::{Path, PathBuf};

use confonnx_engine::{EngineError, Runtime};

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is none where one is looked for.
    #[error(
        "no ONNX Runtime library: looked for {}; run scripts/fetch-onnxruntime or give --onnxruntime-library",
        Paths(looked)
    )]
    Absent {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// It is there but does not load.
    #[error(transparent)]
    Runtime(#[from] EngineError),
}

/// Loads ONNX Runtime from `given`, or else from the first built-in place that has it.
///
/// # Errors
/// [`RuntimeError`]
pub fn load_runtime(given: Option<&Path>) -> Result<Runtime, RuntimeError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let looked = built_in_places();
            let Some(found) = looked.iter().find(|path| path.is_file()) else {
                return Err(RuntimeError::Absent { looked });
            };
            found.clone()
        }
    };
    Ok(Runtime::load(&path)?)
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

struct Paths<'a>(&'a [PathBuf]);

impl std::fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}
