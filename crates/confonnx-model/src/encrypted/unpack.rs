//! What an encrypted model holds: an `.onnx` file, or a tar archive of one and its data files.

use std::{io::Read, mem};

use confonnx_tensor::Erased;

use super::{
    DecryptError, ModelKey, decrypt,
    tar::{BLOCK, Entry},
};
use crate::info::is_plain;

/// The name of the model in an archive. No `.onnx` file begins with these bytes and a zero: they are no protobuf.
pub(super) const MODEL: &str = "model.onnx";

/// A decrypted model, in memory alone.
#[derive(Debug)]
pub struct OpenedModel {
    /// The `.onnx` file.
    pub onnx: Erased<Vec<u8>>,
    /// Its data files by location, in ascending order. Whether they are those that the model names is for the caller to see.
    pub external: Named,
    /// SHA-256 of the encrypted file.
    pub ciphertext: [u8; 32],
}

/// Why an encrypted model was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenModelError {
    /// The file does not decrypt.
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    /// What it holds is neither a model nor an archive of one.
    #[error("what the encrypted model holds cannot be used: {0}")]
    Unpack(#[from] UnpackError),
}

/// Why a decrypted archive is not a model with its data files.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// A part is not as expected.
    #[error("{0}")]
    Malformed(&'static str),
    /// A file has a name that is no location of a model's data.
    #[error("{name:?} is not a relative path of plain names")]
    Name {
        /// The name.
        name: String,
    },
    /// The files are not in order, or one is there twice.
    #[error("{name:?} is not in order; expected {MODEL}, then its data files in ascending order, each once")]
    Order {
        /// The name.
        name: String,
    },
    /// A file is said to be longer than the archive.
    #[error("{name:?} is said to have {size} bytes, more than there are")]
    Size {
        /// The file's name.
        name: String,
        /// Its bytes, as the archive says.
        size: u64,
    },
    /// The file ends too early.
    #[error("it ends before its end")]
    Truncated,
}

/// Opens an encrypted file of `len` bytes with `key`. What it holds is bounded by that length before memory is taken.
///
/// # Errors
/// [`OpenModelError`]
pub fn open_model(key: &ModelKey, file: impl Read, len: usize) -> Result<OpenedModel, OpenModelError> {
    let mut unpacker = Unpacker::new(len);
    let mut unpacked = Ok(());
    // To its end even after an error: whether the file is authentic as a whole comes first.
    let digests = decrypt(key, file, |piece| {
        if unpacked.is_ok() {
            unpacked = unpacker.push(piece);
        }
    })?;
    unpacked?;
    let (onnx, external) = unpacker.finish()?;
    Ok(OpenedModel { onnx, external, ciphertext: digests.ciphertext })
}

/// Takes a decrypted model piece by piece.
#[derive(Debug)]
pub struct Unpacker {
    /// Bytes that there can be still.
    room: usize,
    state: State,
    block: Block,
    files: Named,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing is known before there is a block.
    Start,
    /// An `.onnx` file.
    Model,
    /// Between files.
    Header,
    /// In the last of the files: bytes it lacks, and zeros that follow.
    Content(usize, usize),
    /// After a file.
    Padding(usize),
    /// After that many blocks of zeros.
    End(usize),
}

impl Unpacker {
    /// For at most `room` bytes.
    pub fn new(room: usize) -> Self {
        Self { room, state: State::Start, block: Block::default(), files: Vec::new() }
    }

    /// Takes the next bytes, however they are split.
    ///
    /// # Errors
    /// [`UnpackError`]; nothing is of use after one.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), UnpackError> {
        while !piece.is_empty() {
            match self.state {
                State::Start | State::Header | State::End(_) => {
                    piece = self.block.fill(piece);
                    if self.block.0.len() == BLOCK {
                        self.take_block()?;
                    }
                }
                State::Model => {
                    self.append(piece)?;
                    piece = &[];
                }
                State::Content(left, zeros) => {
                    let (content, rest) = piece.split_at_checked(left).unwrap_or((piece, b""));
                    self.append(content)?;
                    let left = left.saturating_sub(content.len());
                    self.state = if left == 0 { after(zeros) } else { State::Content(left, zeros) };
                    piece = rest;
                }
                State::Padding(left) => {
                    let (zeros, rest) = piece.split_at_checked(left).unwrap_or((piece, b""));
                    if zeros.iter().any(|byte| *byte != 0) {
                        return Err(UnpackError::Malformed("there is something between two files"));
                    }
                    self.state = after(left.saturating_sub(zeros.len()));
                    piece = rest;
                }
            }
        }
        Ok(())
    }

    /// The model, and its data files by location.
    ///
    /// # Errors
    /// [`UnpackError`]
    pub fn finish(mut self) -> Result<(Erased<Vec<u8>>, Named), UnpackError> {
        match self.state {
            // Shorter than a block.
            State::Start => self.begin_model()?,
            State::Model => {}
            // Programs fill up their last record with zeros.
            State::End(2..) if self.block.0.is_empty() => {}
            State::Header | State::Content(..) | State::Padding(_) | State::End(_) => {
                return Err(UnpackError::Truncated);
            }
        }
        let mut files = mem::take(&mut self.files).into_iter();
        let (_, onnx) = files.next().ok_or(UnpackError::Truncated)?;
        Ok((onnx, files.collect()))
    }

    fn take_block(&mut self) -> Result<(), UnpackError> {
        if let State::Start = self.state {
            if self.block.0.strip_prefix(MODEL.as_bytes()).is_none_or(|rest| rest.first() != Some(&0)) {
                return self.begin_model();
            }
            self.state = State::Header;
        }
        let block = mem::take(&mut self.block);
        let zero = block.0.iter().all(|byte| *byte == 0);
        match self.state {
            State::End(count) if zero => self.state = State::End(count.saturating_add(1)),
            State::End(_) => return Err(UnpackError::Malformed("there is something after its end")),
            _ if zero => self.state = State::End(1),
            _ => {
                let block: &[u8; BLOCK] =
                    block.0.as_slice().try_into().map_err(|_| UnpackError::Truncated)?;
                self.begin_file(Entry::read(block).map_err(UnpackError::Malformed)?)?;
            }
        }
        Ok(())
    }

    /// What was decrypted is the model alone.
    fn begin_model(&mut self) -> Result<(), UnpackError> {
        self.state = State::Model;
        let block = mem::take(&mut self.block);
        let mut onnx = Erased::<Vec<u8>>::default();
        // Read into where it stays.
        onnx.try_reserve_exact(self.room.max(block.0.len())).map_err(|_| out_of_memory(MODEL, self.room))?;
        self.files.push((MODEL.into(), onnx));
        self.append(&block.0)
    }

    fn begin_file(&mut self, entry: Entry) -> Result<(), UnpackError> {
        let zeros = entry.padding();
        let Entry { name, size } = entry;
        let in_order = match self.files.as_slice() {
            [] => name == MODEL,
            [_] => name != MODEL,
            [.., (last, _)] => *last < name && name != MODEL,
        };
        if !is_plain(&name) {
            return Err(UnpackError::Name { name });
        }
        if !in_order {
            return Err(UnpackError::Order { name });
        }
        let Some(len) = usize::try_from(size).ok().filter(|len| *len <= self.room) else {
            return Err(UnpackError::Size { name, size });
        };
        let mut content = Erased::<Vec<u8>>::default();
        content.try_reserve_exact(len).map_err(|_| out_of_memory(&name, len))?;
        self.files.push((name, content));
        self.state = if len == 0 { after(zeros) } else { State::Content(len, zeros) };
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        let (name, file) = self.files.last_mut().ok_or(UnpackError::Truncated)?;
        self.room = match self.room.checked_sub(bytes.len()) {
            Some(room) => room,
            None => return Err(UnpackError::Size { name: name.clone(), size: bytes.len() as u64 }),
        };
        file.append(bytes);
        Ok(())
    }
}

fn after(zeros: usize) -> State {
    if zeros == 0 { State::Header } else { State::Padding(zeros) }
}

fn out_of_memory(name: &str, len: usize) -> UnpackError {
    UnpackError::Size { name: name.into(), size: len as u64 }
}

/// Contents of files, by name.
pub type Named = Vec<(String, Erased<Vec<u8>>)>;

/// The beginning of a block.
#[derive(Debug)]
struct Block(Erased<Vec<u8>>);

impl Default for Block {
    fn default() -> Self {
        Self(Vec::with_capacity(BLOCK).into())
    }
}

impl Block {
    /// Takes what it lacks; the rest.
    fn fill<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let lacks = BLOCK.saturating_sub(self.0.len());
        let (taken, rest) = piece.split_at_checked(lacks).unwrap_or((piece, b""));
        self.0.append(taken);
        rest
    }
}

#[cfg(test)]
mod tests;
