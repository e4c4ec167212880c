//! What is confidential, and how it goes.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use zeroize::{DefaultIsZeroes, Zeroize};

use crate::Tensor;

/// Something confidential: its memory is overwritten when it is dropped, and `Debug` shows nothing of it.
///
/// For messages, tensors, texts and models, which may be large: each byte in use is written once. Keys are `Zeroizing`, which
/// writes all that a `Vec` has room for.
///
/// ```
/// use confonnx_tensor::Erased;
///
/// let mut message = Erased::new(Vec::with_capacity(4));
/// // Grows without leaving a copy behind, which `Vec::extend` would.
/// message.append(b"attack");
/// message.append(b" at dawn");
/// assert_eq!(*message, b"attack at dawn");
/// assert_eq!(format!("{message:?}"), "Erased");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Erased<T: Erase>(T);

/// A value that can be overwritten in place.
pub trait Erase {
    /// Overwrites what is in use of the memory that this owns; what it borrows is for the owner to erase.
    fn erase(&mut self);
}

impl<T: Erase> Erased<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, to somebody else who erases it or makes it fit to be seen.
    #[must_use]
    pub fn take(mut self) -> T
    where
        T: Default,
    {
        std::mem::take(&mut self.0)
    }
}

impl<Z: DefaultIsZeroes> Erased<Vec<Z>>
where
    Vec<Z>: Erase,
{
    /// Appends; when it has to grow, what it grew out of is erased.
    pub fn append(&mut self, more: &[Z]) {
        let len = self.0.len().saturating_add(more.len());
        if self.0.capacity() < len {
            self.reserve_total(len.max(self.0.capacity().saturating_mul(2)));
        }
        self.0.extend_from_slice(more);
    }

    /// Makes room for `capacity` elements in all.
    pub fn reserve_total(&mut self, capacity: usize) {
        if self.0.capacity() < capacity {
            let mut grown = Vec::with_capacity(capacity);
            grown.extend_from_slice(&self.0);
            self.0.erase();
            self.0 = grown;
        }
    }
}

impl Erased<String> {
    /// Appends; when it has to grow, what it grew out of is erased.
    pub fn append(&mut self, more: &str) {
        let len = self.0.len().saturating_add(more.len());
        if self.0.capacity() < len {
            let mut grown = String::with_capacity(len.max(self.0.capacity().saturating_mul(2)));
            grown.push_str(&self.0);
            self.0.erase();
            self.0 = grown;
        }
        self.0.push_str(more);
    }
}

impl io::Write for Erased<Vec<u8>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Erase> Drop for Erased<T> {
    fn drop(&mut self) {
        self.0.erase();
    }
}

impl<T: Erase> Deref for Erased<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Whoever lets a `Vec` or a `String` grow through this leaves a copy behind: [`append`](Erased::append) does not.
impl<T: Erase> DerefMut for Erased<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Erase> From<T> for Erased<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T: Erase> fmt::Debug for Erased<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Erased")
    }
}

macro_rules! plain {
    ($($element:ty),*) => {$(
        impl Erase for Vec<$element> {
            fn erase(&mut self) {
                // The slice, not the `Vec`: that one is erased twice, once more as spare room.
                self.as_mut_slice().zeroize();
            }
        }
    )*};
}

plain!(u8, u32, u64, i64, f32);

impl<T: Erase> Erase for Vec<T> {
    fn erase(&mut self) {
        self.iter_mut().for_each(Erase::erase);
    }
}

impl Erase for String {
    fn erase(&mut self) {
        self.zeroize();
    }
}

impl Erase for Cow<'_, [u8]> {
    fn erase(&mut self) {
        if let Cow::Owned(bytes) = self {
            bytes.erase();
        }
    }
}

/// The last of the owners erases the bytes.
impl Erase for Arc<[u8]> {
    fn erase(&mut self) {
        if let Some(bytes) = Arc::get_mut(self) {
            bytes.zeroize();
        }
    }
}

impl Erase for Tensor<'_> {
    fn erase(&mut self) {
        self.bytes_mut().erase();
    }
}

/// The value is erased; the name stays.
impl<T: Erase> Erase for (String, T) {
    fn erase(&mut self) {
        self.1.erase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataType, Shape};

    #[test]
    fn owned_bytes_are_erased_and_borrowed_ones_are_not() {
        let bytes = [1, 2];
        let tensor =
            |data: Cow<'static, [u8]>| Tensor::new(DataType::Uint8, Shape::new([2]).unwrap(), data).unwrap();
        let mut all = vec![
            ("a".to_owned(), tensor(Cow::Owned(bytes.to_vec()))),
            ("b".to_owned(), tensor(Cow::Borrowed(&[1, 2]))),
        ];
        all.erase();
        assert_eq!((all[0].1.data(), all[1].1.data()), (&[0, 0][..], &[1, 2][..]));

        let mut shared: Arc<[u8]> = Arc::from(bytes);
        let other = Arc::clone(&shared);
        shared.erase();
        assert_eq!(*other, bytes);
        drop(other);
        shared.erase();
        assert_eq!(*shared, [0, 0]);

        let mut texts = vec![vec!["yes".to_owned()]];
        texts.erase();
        assert_eq!(texts, [[""]]);
    }

    /// Dropping a value erases it.
    #[test]
    fn drop_erases() {
        use std::cell::Cell;
        struct Told<'c>(&'c Cell<bool>);
        impl Erase for Told<'_> {
            fn erase(&mut self) {
                self.0.set(true);
            }
        }
        let told = Cell::new(false);
        drop(Erased::new(Told(&told)));
        assert!(told.get());
    }

    #[test]
    fn growing_keeps_what_was_there() {
        let mut bytes = Erased::new(Vec::new());
        for byte in 0..100_u8 {
            bytes.append(&[byte]);
        }
        assert!(bytes.iter().copied().eq(0..100));
        assert!(bytes.capacity() < 200);
        bytes.reserve_total(1000);
        assert!(bytes.capacity() >= 1000 && bytes.len() == 100);
        assert_eq!(bytes.take().len(), 100);
    }
}
