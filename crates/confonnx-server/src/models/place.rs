//! Where a version of a model is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use confonnx_model::triton::ModelConfig;

/// One version of a model: what it is called and where it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) path: PathBuf,
    pub(super) config: Arc<ModelConfig>,
}

impl Place {
    /// The place of a model that is in no repository.
    pub(super) fn only(path: &Path, name: &str, config: &ModelConfig) -> Self {
        Self { name: name.into(), version: 1, path: path.into(), config: Arc::new(config.clone()) }
    }
}
