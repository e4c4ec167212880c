//! Encrypting a model file as a whole: all of it or nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{error::EncryptFileError, pack::Pack};
use crate::age::{Digests, EncryptError, ModelKey, encrypt, is_encrypted};
use crate::{ModelInfo, data_files, hash::hash_parts};

/// Encrypts the `.onnx` file at `model`, with its data files if it has some, to `key`; `out` appears whole or not at all.
/// Data files are read as they are encrypted, so they may be larger than the memory.
///
/// # Errors
/// [`EncryptFileError`]
pub fn encrypt_file(key: &ModelKey, model: &Path, out: &Path) -> Result<Digests, EncryptFileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| EncryptFileError::File { path, error }
    };
    let (onnx, locations) = read(model)?;
    let files = data_files(model, &locations)
        .map_err(|error| EncryptFileError::Data { path: model.to_owned(), error })?;
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let writer = BufWriter::new(File::create(&partial).map_err(failed(&partial))?);
    let result = write(key, onnx, files, writer)
        .map_err(|error| error.of(model))
        .and_then(|digests| fs::rename(&partial, out).map(|()| digests).map_err(failed(out)));
    if result.is_err() {
        // What is half written is of no use to anyone.
        let _ = fs::remove_file(&partial);
    }
    result
}

enum WriteError {
    Pack(EncryptFileError),
    Encrypt(EncryptError),
}

impl WriteError {
    fn of(self, model: &Path) -> EncryptFileError {
        match self {
            Self::Pack(error) => error,
            Self::Encrypt(error) => EncryptFileError::Encrypt { path: model.to_owned(), error },
        }
    }
}

fn write(
    key: &ModelKey,
    onnx: Vec<u8>,
    files: BTreeMap<String, PathBuf>,
    out: impl Write,
) -> Result<Digests, WriteError> {
    if files.is_empty() {
        return encrypt(key, onnx.as_slice(), out).map_err(WriteError::Encrypt);
    }
    let model = Sha256::digest(&onnx).into();
    let mut pack = Pack::new(onnx, files).map_err(WriteError::Pack)?;
    let digests = encrypt(key, &mut pack, out).map_err(WriteError::Encrypt)?;
    Ok(Digests { plaintext: hash_parts(model, &pack.hashes), ..digests })
}

/// A model, and where it keeps data. One file is 2 GiB at most: protobuf has no longer messages.
fn read(model: &Path) -> Result<(Vec<u8>, Vec<String>), EncryptFileError> {
    let path = || model.to_owned();
    let failed = |error| EncryptFileError::File { path: path(), error };
    let mut file = File::open(model).map_err(failed)?;
    let mut onnx = Vec::new();
    (&file).take(64).read_to_end(&mut onnx).map_err(failed)?;
    if is_encrypted(&onnx) {
        return Err(EncryptFileError::Encrypted { path: path() });
    }
    file.read_to_end(&mut onnx).map_err(failed)?;
    let info = ModelInfo::parse(&onnx).map_err(|error| EncryptFileError::Model { path: path(), error })?;
    Ok((onnx, info.external_data))
}
