//! The memory of a lane, which key holder and box both write: words that wake the other side, what each says beside them,
//! and tensors.
//!
//! Its first bytes are a window that both have mapped; the rest is a file that is read and written by calls, so that a key
//! holder maps little. Either way, what it reads are copies.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
    time::{Duration, Instant},
};

use confonnx_device::Window;
use rustix::{
    fs::fstat,
    io::Errno,
    thread::futex::{self, Timespec},
};

use crate::memory;

/// One end of the memory of a lane.
#[derive(Debug)]
pub(super) struct Exchange {
    window: Window,
    file: OwnedFd,
}

/// What one side says beside its word.
pub(super) type Note = [u64; NOTE_WORDS];

const NOTE_WORDS: usize = 4;

/// Whose word it is.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// The number of the job that is asked for.
    Holder,
    /// The number of the job that is answered.
    Box,
}

/// The other side took too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TimedOut;

impl Exchange {
    /// A new one, and what the other process makes its end of.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let file = memory::growing("tensors", WINDOW as u64)?;
        let theirs = file.try_clone()?;
        Ok((Self::of(file)?, theirs))
    }

    /// The end of it that `file` is for.
    pub(super) fn of(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { window: Window::new(&file, WINDOW)?, file })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Says `note`, then `number`, and wakes who waits for it.
    pub(super) fn say(&self, side: Side, number: u32, note: Note) -> io::Result<()> {
        if !self.window.set_numbers(side.at().saturating_add(NOTE), note) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let word = self.word(side)?;
        word.store(number, Release);
        wake(word);
        Ok(())
    }

    /// Waits until `side` says another number than `last`, and returns that with its note; or until it is `due`.
    ///
    /// `over` is asked after each time that this is woken up: when nobody will say anything any more, there is an error.
    pub(super) fn hear(
        &self,
        side: Side,
        last: u32,
        due: Option<Instant>,
        over: impl Fn() -> bool,
    ) -> io::Result<Result<(u32, Note), TimedOut>> {
        let word = self.word(side)?;
        loop {
            if over() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let number = word.load(Acquire);
            if number != last {
                return Ok(Ok((number, self.note(side)?)));
            }
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Err(TimedOut));
            }
            // A signal, another number by now, the time: all are looked at above.
            let left = left.map(timespec);
            match futex::wait(word, futex::Flags::empty(), last, left.as_ref()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets whoever waits for `side` look whether anybody will say anything any more.
    pub(super) fn startle(&self, side: Side) {
        if let Ok(word) = self.word(side) {
            // Who has looked and not begun to wait sees that the number is another.
            word.fetch_xor(1 << 31, Release);
            wake(word);
        }
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

    fn word(&self, side: Side) -> io::Result<&AtomicU32> {
        self.window.word(side.at()).ok_or(io::ErrorKind::InvalidData.into())
    }
}

impl Side {
    /// Each has a line of the processor's cache.
    fn at(self) -> usize {
        match self {
            Self::Holder => 0,
            Self::Box => 64,
        }
    }
}

fn wake(word: &AtomicU32) {
    // It fails for no address that is mapped.
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

/// Where a note is, after its word.
const NOTE: usize = 8;

/// Where requests begin.
pub(super) const START: usize = 128;

/// Where answers begin that have room in the window.
pub(super) const ANSWERS: usize = WINDOW / 2;

/// Bytes that both sides have mapped.
pub(super) const WINDOW: usize = 64 << 10;
