//! What keeps a model file from being encrypted.

use std::{io, path::PathBuf};

use super::unpack::MODEL;
use crate::age::EncryptError;
use crate::{HashError, ModelError};

/// Why there is no encrypted file.
#[derive(Debug, thiserror::Error)]
pub enum EncryptFileError {
    /// A file cannot be opened, written or renamed.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The model is encrypted already.
    #[error("{} is encrypted already", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a model.
    #[error("{} is not a model: {error}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: ModelError,
    },
    /// The model's data files are not where they should be.
    #[error("{}: {error}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: HashError,
    },
    /// A data file has a name that cannot be kept.
    #[error(
        "the model's data file {location:?} cannot be encrypted with it; give it a shorter name (100 bytes without its \
         folders), and not that of `{MODEL}`"
    )]
    Location {
        /// Its name.
        location: String,
    },
    /// The model could not be encrypted.
    #[error("{}: {error}", path.display())]
    Encrypt {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: EncryptError,
    },
}
