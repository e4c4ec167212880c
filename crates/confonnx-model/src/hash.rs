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
    let mut external = BTreeMap::new();
    for (location, file) in data_files(path, &ModelInfo::parse(&onnx)?.external_data)? {
        let hash = file_hash(&file).map_err(read_error(&file))?;
        external.insert(location, hash);
    }
    Ok(hash_files(&onnx, &external))
}

/// Where the data files of the model at `path` are, by location.
///
/// # Errors
/// [`HashError::Read`] and [`HashError::Outside`].
pub fn data_files(path: &Path, locations: &[String]) -> Result<BTreeMap<String, PathBuf>, HashError> {
    if locations.is_empty() {
        return Ok(BTreeMap::new());
    }
    let resolve =
        |path: &Path| path.canonicalize().map_err(|error| HashError::Read { path: path.to_owned(), error });
    let folder = resolve(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let file = |location: &String| {
        let joined = folder.join(location);
        // Resolves links first: one may point anywhere.
        let resolved = resolve(&joined)?;
        if !resolved.starts_with(&folder) || !resolved.is_file() {
            return Err(HashError::Outside { path: joined });
        }
        Ok((location.clone(), resolved))
    };
    locations.iter().map(file).collect()
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
    hash_parts(Sha256::digest(onnx).into(), external)
}

/// As [`hash_files`], from the SHA-256 of the `.onnx` file.
pub(crate) fn hash_parts(model: [u8; 32], external: &BTreeMap<String, [u8; 32]>) -> [u8; 32] {
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
