//! Encrypting a model file as a whole: all of it or nothing.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read},
    path::{Path, PathBuf},
};

use super::{Digests, EncryptError, ModelKey, encrypt, is_encrypted};
use crate::{ModelError, ModelInfo};

/// Why there is no encrypted file.
#[derive(Debug, thiserror::Error)]
pub enum EncryptFileError {
    /// A file cannot be opened, written or renamed.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is encrypted already.
    #[error("{} is encrypted already", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// It is not a model.
    #[error("{} is not a model: {error}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: ModelError,
    },
    /// It has its data in other files.
    #[error(
        "{} keeps data in other files ({}); an encrypted model has to be one file: save it with its data inside",
        path.display(),
        locations.join(", ")
    )]
    External {
        /// The file.
        path: PathBuf,
        /// The files it names.
        locations: Vec<String>,
    },
    /// It could not be encrypted.
    #[error("{}: {error}", path.display())]
    Encrypt {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: EncryptError,
    },
}

/// Encrypts the `.onnx` file at `model` to `key`; `out` appears whole or not at all.
///
/// # Errors
/// [`EncryptFileError`]
pub fn encrypt_file(key: &ModelKey, model: &Path, out: &Path) -> Result<Digests, EncryptFileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| EncryptFileError::File { path, error }
    };
    check(model)?;
    let file = File::open(model).map_err(failed(model))?;
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let writer = BufWriter::new(File::create(&partial).map_err(failed(&partial))?);
    let result = encrypt(key, file, writer)
        .map_err(|error| EncryptFileError::Encrypt { path: model.to_owned(), error })
        .and_then(|digests| fs::rename(&partial, out).map(|()| digests).map_err(failed(out)));
    if result.is_err() {
        // What is half written is of no use to anyone.
        let _ = fs::remove_file(&partial);
    }
    result
}

/// Whether it is a model in one file. One file is 2 GiB at most: protobuf has no longer messages.
fn check(model: &Path) -> Result<(), EncryptFileError> {
    let path = || model.to_owned();
    let failed = |error| EncryptFileError::File { path: path(), error };
    let mut file = File::open(model).map_err(failed)?;
    let mut onnx = Vec::new();
    file.by_ref().take(64).read_to_end(&mut onnx).map_err(failed)?;
    if is_encrypted(&onnx) {
        return Err(EncryptFileError::Encrypted { path: path() });
    }
    file.read_to_end(&mut onnx).map_err(failed)?;
    let info = ModelInfo::parse(&onnx).map_err(|error| EncryptFileError::Model { path: path(), error })?;
    if !info.external_data.is_empty() {
        return Err(EncryptFileError::External { path: path(), locations: info.external_data });
    }
    Ok(())
}
