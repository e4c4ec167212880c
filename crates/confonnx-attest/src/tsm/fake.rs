//! A file tree that behaves as the kernel's: what is written to `inblob` comes back in `outblob`. Both are named pipes, so
//! that the code under test waits for the answer as it waits for the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::REPORTS;

/// A root directory with configfs-tsm in it.
pub(crate) struct Fake {
    root: tempfile::TempDir,
}

/// What the fake kernel does with one request.
pub(crate) struct Round {
    /// By how much `generation` grows; 1 when nobody else writes.
    pub(crate) writes: u64,
    /// Makes `outblob` of `inblob`.
    pub(crate) answer: fn(&[u8]) -> Vec<u8>,
}

impl Fake {
    /// A kernel without a TEE: the directory of reports does not exist.
    pub(crate) fn empty() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// A kernel with a TEE that answers as many requests as there are rounds.
    pub(crate) fn new(provider: &str, auxblob: Option<&[u8]>, rounds: Vec<Round>) -> Self {
        let fake = Self::empty();
        let entry = fake.entry();
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("provider"), format!("{provider}\n")).unwrap();
        fs::write(entry.join("generation"), "0\n").unwrap();
        if let Some(auxblob) = auxblob {
            fs::write(entry.join("auxblob"), auxblob).unwrap();
        }
        for pipe in ["inblob", "outblob"] {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, entry.join(pipe), FileType::Fifo, mode, 0).unwrap();
        }
        thread::spawn(move || serve(&entry, rounds));
        fake
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The directory that the kernel would make attributes in.
    pub(crate) fn entry(&self) -> PathBuf {
        self.root().join(REPORTS).join(format!("confonnx-{}", std::process::id()))
    }
}

fn serve(entry: &Path, rounds: Vec<Round>) {
    let mut generation = 0;
    for round in rounds {
        let Ok(inblob) = fs::read(entry.join("inblob")) else { return };
        generation += round.writes;
        fs::write(entry.join("generation"), format!("{generation}\n")).unwrap();
        fs::write(entry.join("outblob"), (round.answer)(&inblob)).unwrap();
    }
}
