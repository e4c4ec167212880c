use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{ModelError, ModelInfo};

/// Why a model has no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Not a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// External data is a link out of the model's folder, or not a file.
    #[error("the model's data {} is not a file in the model's folder; copy it there", path.display())]
    Outside {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The hash of these bytes alone would not cover all of the model.
    #[error("the model keeps data in other files ({}); hash it as a file, with them beside it", locations.join(", "))]
    External {
        /// The files it names.
        locations: Vec<String>,
    },
}

/// The model hash (`docs/protocol.md`, section 7) of the `.onnx` file at `path` with its external data.
pub fn model_hash(path: &Path) -> Result<[u8; 32], HashError> {
    let read_error = |path: &Path| {
        let path = path.to_owned();
        move |error| HashError::Read { path, error }
    };
    let onnx = fs::read(path).map_err(read_error(path))?;
    let locations = ModelInfo::parse(&onnx)?.external_data;
    let mut external = BTreeMap::new();
    if !locations.is_empty() {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().map_err(read_error(folder))?;
        for location in locations {
            let joined = folder.join(&location);
            // Resolves links first: one may point anywhere.
            let resolved = joined.canonicalize().map_err(read_error(&joined))?;
            if !resolved.starts_with(&folder) || !resolved.is_file() {
                return Err(HashError::Outside { path: joined });
            }
            external.insert(location, file_hash(&resolved).map_err(read_error(&joined))?);
        }
    }
    Ok(hash_files(&onnx, &external))
}

/// The model hash of a model that is all in `onnx`; an error if it names other files.
pub fn hash_bytes(onnx: &[u8]) -> Result<[u8; 32], HashError> {
    match ModelInfo::parse(onnx)?.external_data {
        locations if locations.is_empty() => Ok(Sha256::digest(onnx).into()),
        locations => Err(HashError::External { locations }),
    }
}

/// The model hash from the bytes of the `.onnx` file and the SHA-256 of each external file, by its location.
pub fn hash_files(onnx: &[u8], external: &BTreeMap<String, [u8; 32]>) -> [u8; 32] {
    let model = Sha256::digest(onnx).into();
    if external.is_empty() {
        return model;
    }
    let mut manifest = String::from("confonnx model manifest v1\n");
    let mut line = |hash: &[u8; 32], name: &str| {
        for byte in hash {
            let _ = write!(manifest, "{byte:02x}");
        }
        let _ = writeln!(manifest, "  {name}");
    };
    // No location is ".", so the model's own line does not depend on the name of its file.
    line(&model, ".");
    for (location, hash) in external {
        line(hash, location);
    }
    Sha256::digest(manifest).into()
}

fn file_hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}
