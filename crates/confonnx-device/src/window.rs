//! Memory that two processes write, one of which may be hostile.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first bytes of a memory file, mapped to be read and written, while another process does so, too.
///
/// It lends no view of the bytes: whoever reads has a copy that nobody changes any more, and each byte of it was read
/// once. All accesses are atomic, so that what the other process does meanwhile decides which values are read and nothing
/// else.
#[derive(Debug)]
pub struct Window {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is memory that all threads of the process see, and all accesses are atomic.
#[allow(unsafe_code)]
unsafe impl Send for Window {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Window {}

impl Window {
    /// Maps `len` bytes of `file`, from its start. The file has as many and keeps them: a memory file that is sealed
    /// against shrinking.
    ///
    /// # Errors
    /// When `len` is 0 or more than the system maps, or `file` is none that can be mapped so.
    pub fn new(file: impl AsFd, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without a wish for an address nothing that is mapped changes.
        #[allow(unsafe_code)]
        let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The word at `at`, for signals; none when that is no multiple of 4 within the window.
    pub fn word(&self, at: usize) -> Option<&AtomicU32> {
        let end = at.checked_add(size_of::<AtomicU32>())?;
        if end > self.len || !at.is_multiple_of(align_of::<AtomicU32>()) {
            return None;
        }
        // SAFETY: `at` is within the window.
        #[allow(unsafe_code)]
        let at = unsafe { self.start.add(at) };
        // SAFETY: four bytes from there are within the window, which is mapped at a page for as long as `self` is, so that
        // `at` is aligned; and all accesses to them are atomic.
        #[allow(unsafe_code)]
        Some(unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) })
    }

    /// Appends the `len` bytes from `at` on to `to`; whether there are as many.
    #[must_use]
    pub fn read(&self, at: usize, len: usize, to: &mut Vec<u8>) -> bool {
        let Some(cells) = self.cells(at, len) else { return false };
        to.reserve_exact(len);
        to.extend(cells.before.iter().map(|byte| byte.load(Relaxed)));
        for word in cells.words {
            to.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        to.extend(cells.after.iter().map(|byte| byte.load(Relaxed)));
        true
    }

    /// Writes `from` to where it has room from `at` on; whether it has.
    #[must_use]
    pub fn write(&self, at: usize, from: &[u8]) -> bool {
        let Some(cells) = self.cells(at, from.len()) else { return false };
        let (before, rest) = from.split_at(cells.before.len().min(from.len()));
        let (words, after) =
            rest.split_at(cells.words.len().saturating_mul(size_of::<u64>()).min(rest.len()));
        for (to, from) in cells.before.iter().zip(before) {
            to.store(*from, Relaxed);
        }
        for (to, from) in cells.words.iter().zip(words.chunks_exact(size_of::<u64>())) {
            to.store(from.try_into().map_or(0, u64::from_ne_bytes), Relaxed);
        }
        for (to, from) in cells.after.iter().zip(after) {
            to.store(*from, Relaxed);
        }
        true
    }

    /// The numbers at `at`; none when that is no multiple of 8 with as many within the window.
    pub fn numbers<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let words = self.cells(at, N.checked_mul(size_of::<u64>())?)?.words;
        let mut numbers = [0; N];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = word.load(Relaxed);
        }
        (words.len() == N).then_some(numbers)
    }

    /// Writes numbers to `at`; whether that is a multiple of 8 with as many within the window.
    #[must_use]
    pub fn set_numbers<const N: usize>(&self, at: usize, numbers: [u64; N]) -> bool {
        let Some(cells) = self.cells(at, N.saturating_mul(size_of::<u64>())) else { return false };
        cells.words.iter().zip(numbers).for_each(|(word, number)| word.store(number, Relaxed));
        cells.words.len() == N
    }

    /// Writes `len` zeros from `at` on, or as many as it has room for.
    pub fn erase(&self, at: usize, len: usize) {
        let room = self.len.saturating_sub(at);
        let Some(cells) = self.cells(at, len.min(room)) else { return };
        cells.before.iter().chain(cells.after).for_each(|byte| byte.store(0, Relaxed));
        cells.words.iter().for_each(|word| word.store(0, Relaxed));
    }

    fn cells(&self, at: usize, len: usize) -> Option<Cells<'_>> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `at` is within the window, or its end.
        #[allow(unsafe_code)]
        let at = unsafe { self.start.add(at) };
        // SAFETY: `len` bytes from there are within the window, which is mapped for as long as `self` is; and all accesses
        // to them are atomic.
        #[allow(unsafe_code)]
        let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr().cast::<AtomicU8>(), len) };
        // SAFETY: words have the bytes' representation, whatever they hold, and are as good for atomic accesses.
        #[allow(unsafe_code)]
        let (before, words, after) = unsafe { bytes.align_to::<AtomicU64>() };
        Some(Cells { before, words, after })
    }
}

/// Some bytes of a window, most of them eight at a time.
struct Cells<'w> {
    before: &'w [AtomicU8],
    words: &'w [AtomicU64],
    after: &'w [AtomicU8],
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and every view of it has ended. It cannot fail for what was mapped.
        #[allow(unsafe_code)]
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    fn two() -> (Window, Window) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        (Window::new(&file, 4096).unwrap(), Window::new(&file, 4096).unwrap())
    }

    fn bytes(window: &Window, at: usize, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![7];
        window.read(at, len, &mut bytes).then(|| bytes.split_off(1))
    }

    #[test]
    fn what_one_writes_the_other_reads_wherever_it_begins_and_ends() {
        let (ours, theirs) = two();
        let text: Vec<u8> = (1..=40).collect();
        for (at, len) in (0..17).flat_map(|at| (0..40).map(move |len| (at, len))) {
            assert!(ours.write(at, &text[..len]));
            assert_eq!(bytes(&theirs, at, len).as_deref(), Some(&text[..len]), "{len} at {at}");
            theirs.erase(at, len);
            assert_eq!(bytes(&ours, 0, 64), Some(vec![0; 64]), "{len} at {at}");
        }
    }

    #[test]
    fn nothing_outside_is_touched() {
        let (ours, theirs) = two();
        assert!(ours.write(4090, b"to end") && !ours.write(4091, b"to end") && !ours.write(usize::MAX, b"x"));
        assert_eq!(bytes(&theirs, 4090, 6).as_deref(), Some(&b"to end"[..]));
        assert_eq!((bytes(&ours, 4090, 7), bytes(&ours, 1, usize::MAX)), (None, None));
        theirs.erase(4093, usize::MAX);
        theirs.erase(usize::MAX, 9);
        assert_eq!(bytes(&ours, 4090, 6).as_deref(), Some(&b"to \0\0\0"[..]));
        assert!(Window::new(tempfile::tempfile().unwrap(), 0).is_err());
    }

    #[test]
    fn words_and_numbers_are_shared() {
        let (ours, theirs) = two();
        assert!(ours.set_numbers(4080, [1, u64::MAX]) && !ours.set_numbers(4088, [3, 4]));
        assert_eq!(theirs.numbers(4080), Some([1, u64::MAX]));
        assert_eq!((theirs.numbers::<1>(4081), theirs.numbers::<3>(4080)), (None, None));
        ours.word(4092).unwrap().store(0x0403_0201, SeqCst);
        assert_eq!(theirs.word(4092).unwrap().load(SeqCst), 0x0403_0201);
        for at in [1, 2, 4093, 4096, usize::MAX - 3] {
            assert!(ours.word(at).is_none(), "{at}");
        }
    }
}
