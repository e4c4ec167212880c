//! Reading untrusted little-endian structures, front to back.

/// The bytes not read yet. Every read says what it wanted, and reads nothing when there is less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

/// Bytes that end too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {wanted} more bytes for the {what}, found {left}")]
pub(crate) struct Truncated {
    /// What was to be read.
    pub(crate) what: &'static str,
    /// The length of what was to be read, in bytes.
    pub(crate) wanted: usize,
    /// Bytes that were left.
    pub(crate) left: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, what: &'static str, wanted: usize) -> Result<&'a [u8], Truncated> {
        let truncated = Truncated { what, wanted, left: self.rest.len() };
        let (taken, rest) = self.rest.split_at_checked(wanted).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Truncated> {
        let truncated = Truncated { what, wanted: N, left: self.rest.len() };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Truncated> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Truncated> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Truncated> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// As many bytes as the `u32` before them says.
    pub(crate) fn sized_u32(&mut self, what: &'static str) -> Result<&'a [u8], Truncated> {
        let wanted = self.u32(what)?;
        // A length that no `usize` holds is longer than what is left anyway.
        self.take(what, usize::try_from(wanted).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_takes_nothing_and_says_what_it_wanted() {
        let mut cursor = Cursor::new(&[1, 0, 2]);
        assert_eq!(cursor.u32("size"), Err(Truncated { what: "size", wanted: 4, left: 3 }));
        assert_eq!(cursor.u16("count"), Ok(1));
        assert_eq!(cursor.take("rest", 2), Err(Truncated { what: "rest", wanted: 2, left: 1 }));
        assert_eq!((cursor.u8("kind"), cursor.rest()), (Ok(2), &[][..]));
        let huge = [0xff; 6];
        assert!(Cursor::new(&huge).sized_u32("data").is_err());
    }
}
