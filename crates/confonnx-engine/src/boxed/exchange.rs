//! The memory of a lane, which key holder and box both write: each side's word, what it says beside that, and tensors.
//!
//! The threads of a box rest in a futex each, in the memory of the lane of the same number; one that runs is not woken up to
//! look for the next request. The key holder waits for the box's word by a bell, an eventfd among the many descriptors that
//! its threads wait for, so that no thread is held by a model that runs.
//!
//! Its first bytes are a window that both have mapped; the rest is a file that is read and written by calls, so that a key
//! holder maps little. Either way, what it reads are copies.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release, SeqCst},
    },
};

use confonnx_device::{Bell, Window};
use rustix::{fs::fstat, io::Errno, thread::futex};

use crate::memory;

/// One end of the memory of a lane.
#[derive(Debug)]
pub(super) struct Exchange {
    window: Window,
    file: OwnedFd,
    /// Rung by the box when there is an answer, and when it is gone.
    bell: Bell,
}

/// What one side says beside its word.
pub(super) type Note = [u64; NOTE_WORDS];

const NOTE_WORDS: usize = 5;

/// Whose word it is.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// The number of the job that is asked for.
    Holder,
    /// The number of the job that is answered.
    Box,
}

impl Exchange {
    /// A new memory, with the descriptors of which the other process makes its end.
    pub(super) fn new() -> io::Result<(Self, [OwnedFd; 2])> {
        let file = memory::growing("tensors", WINDOW as u64)?;
        let bell = Bell::new()?;
        let theirs = [file.try_clone()?, bell.fd().try_clone()?];
        Ok((Self::of(file, bell)?, theirs))
    }

    /// The end of the memory that `file` and `bell` are for.
    pub(super) fn of(file: OwnedFd, bell: Bell) -> io::Result<Self> {
        Ok(Self { window: Window::new(&file, WINDOW)?, file, bell })
    }

    /// The bell that is rung when there is an answer, and when there will be none.
    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Says `note`, then `number`.
    pub(super) fn say(&self, side: Side, number: u32, note: Note) -> io::Result<()> {
        if !self.window.set_numbers(side.at().saturating_add(NOTE), note) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.word(side.at())?.store(number, Release);
        Ok(())
    }

    /// Has the box's thread of this lane look at all lanes, if it rests.
    pub(super) fn knock(&self) -> io::Result<()> {
        let knocks = self.word(KNOCKS)?;
        knocks.fetch_add(1, SeqCst);
        // Either this side sees that the thread rests, or the thread sees that somebody knocked.
        if self.word(RESTS)?.load(SeqCst) != 0 {
            // Waking fails for no address that is mapped.
            let _ = futex::wake(knocks, futex::Flags::empty(), 1);
        }
        Ok(())
    }

    /// How often somebody knocked.
    pub(super) fn knocks(&self) -> io::Result<u32> {
        Ok(self.word(KNOCKS)?.load(SeqCst))
    }

    /// Waits until there were more knocks than `seen`; may return earlier.
    pub(super) fn rest(&self, seen: u32) -> io::Result<()> {
        let rests = self.word(RESTS)?;
        rests.store(1, SeqCst);
        let woken = futex::wait(self.word(KNOCKS)?, futex::Flags::empty(), seen, None);
        rests.store(0, SeqCst);
        match woken {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says that the request `number` runs from now on.
    pub(super) fn begin(&self, number: u32) -> io::Result<()> {
        self.word(BEGUN)?.store(number, Release);
        Ok(())
    }

    /// Whether the box says that the request `number` runs, or ran.
    pub(super) fn has_begun(&self, number: u32) -> bool {
        self.word(BEGUN).is_ok_and(|begun| begun.load(Acquire) == number)
    }

    /// What `side` says, if that is another number than `last`.
    pub(super) fn heard(&self, side: Side, last: u32) -> io::Result<Option<(u32, Note)>> {
        let number = self.word(side.at())?.load(Acquire);
        if number == last { Ok(None) } else { Ok(Some((number, self.note(side)?))) }
    }

    /// Writes `parts` one after another from `at` on.
    pub(super) fn write(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let mut at = at;
        for (index, part) in parts.iter().enumerate() {
            let here = usize::try_from(at).is_ok_and(|at| self.window.write(at, part));
            if !here {
                return memory::write_all(&self.file, parts.get(index..).unwrap_or_default(), at);
            }
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    /// A copy of the `len` bytes from `at` on.
    ///
    /// # Errors
    /// `OutOfMemory` when there is no room for them, `UnexpectedEof` when there are less.
    pub(super) fn read(&self, len: usize, at: u64) -> io::Result<Vec<u8>> {
        if len > WINDOW {
            return memory::read(&self.file, len, at);
        }
        let mut bytes = Vec::new();
        let here = usize::try_from(at).is_ok_and(|at| self.window.read(at, len, &mut bytes));
        if here { Ok(bytes) } else { memory::read(&self.file, len, at) }
    }

    /// Erases the bytes in `range`, and gives their memory back if it is much.
    pub(super) fn erase(&self, range: Range<u64>) -> io::Result<()> {
        let clamped = |at| usize::try_from(at).unwrap_or(usize::MAX).min(WINDOW);
        let (start, end) = (clamped(range.start), clamped(range.end));
        self.window.erase(start, end.saturating_sub(start));
        memory::erase(&self.file, range.start.max(WINDOW as u64)..range.end)
    }

    /// Erases all tensors, wherever they are.
    pub(super) fn erase_all(&self) -> io::Result<()> {
        let end = u64::try_from(fstat(&self.file)?.st_size).unwrap_or_default();
        self.erase(START as u64..end)
    }

    fn note(&self, side: Side) -> io::Result<Note> {
        self.window.numbers(side.at().saturating_add(NOTE)).ok_or(io::ErrorKind::InvalidData.into())
    }

    fn word(&self, at: usize) -> io::Result<&AtomicU32> {
        self.window.word(at).ok_or(io::ErrorKind::InvalidData.into())
    }
}

impl Side {
    /// The offset of the side's word: each side has a line of the processor's cache.
    fn at(self) -> usize {
        match self {
            Self::Holder => 0,
            Self::Box => 64,
        }
    }
}

/// The offset of a note from its word.
const NOTE: usize = 8;

/// The offset of the count of knocks, in the key holder's line.
const KNOCKS: usize = 48;

/// The offset at which the box says, in its line, whether its thread rests and which request was begun last.
const RESTS: usize = 112;
const BEGUN: usize = 116;

/// The offset at which requests begin.
pub(super) const START: usize = 128;

/// The offset at which answers begin that have room in the window.
pub(super) const ANSWERS: usize = WINDOW / 2;

/// How many bytes both sides have mapped: as many as a picture has, since files are written page by page.
pub(super) const WINDOW: usize = 1 << 20;
