//! A model and its data files as one stream, to be encrypted while it is read.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, Cursor, Read},
    path::PathBuf,
};

use sha2::{Digest, Sha256};

use super::{
    error::EncryptFileError,
    tar::{BLOCK, Entry},
    unpack::MODEL,
};

/// The archive: the model, its data files by name, two blocks of zeros.
pub(super) struct Pack {
    parts: VecDeque<Part>,
    /// Of the data files that were read whole.
    pub(super) hashes: BTreeMap<String, [u8; 32]>,
}

enum Part {
    Bytes(Cursor<Vec<u8>>),
    File { name: String, file: File, left: u64, hash: Sha256 },
}

impl Pack {
    pub(super) fn new(onnx: Vec<u8>, files: BTreeMap<String, PathBuf>) -> Result<Self, EncryptFileError> {
        let mut pack = Self { parts: VecDeque::new(), hashes: BTreeMap::new() };
        let model = Entry { name: MODEL.into(), size: onnx.len() as u64 };
        pack.push(&model, Part::Bytes(Cursor::new(onnx)))?;
        for (name, path) in files {
            if name == MODEL || name.starts_with(&format!("{MODEL}/")) {
                return Err(EncryptFileError::Location { location: name });
            }
            let failed = |error| EncryptFileError::File { path: path.clone(), error };
            let file = File::open(&path).map_err(failed)?;
            let left = file.metadata().map_err(failed)?.len();
            let entry = Entry { name: name.clone(), size: left };
            pack.push(&entry, Part::File { name, file, left, hash: Sha256::new() })?;
        }
        pack.parts.push_back(zeros(2 * BLOCK));
        Ok(pack)
    }

    fn push(&mut self, entry: &Entry, content: Part) -> Result<(), EncryptFileError> {
        let header =
            entry.header().ok_or_else(|| EncryptFileError::Location { location: entry.name.clone() })?;
        let header = Part::Bytes(Cursor::new(header.to_vec()));
        self.parts.extend([header, content, zeros(entry.padding())]);
        Ok(())
    }
}

fn zeros(len: usize) -> Part {
    Part::Bytes(Cursor::new(vec![0; len]))
}

impl Read for Pack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = self.parts.front_mut() {
            let read = match part {
                Part::Bytes(bytes) => bytes.read(buffer)?,
                Part::File { name, file, left, hash } => {
                    let read = file.take(*left).read(buffer)?;
                    hash.update(buffer.get(..read).unwrap_or_default());
                    *left = left.saturating_sub(read as u64);
                    if read == 0 && !buffer.is_empty() {
                        // The header has said how long the file is.
                        if *left > 0 || file.read(&mut [0])? > 0 {
                            let changed = format!("the data file {name} changed while it was read");
                            return Err(io::Error::other(changed));
                        }
                        self.hashes.insert(std::mem::take(name), hash.clone().finalize().into());
                    }
                    read
                }
            };
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.parts.pop_front();
        }
        Ok(0)
    }
}
