//! Reading TPM structures: big-endian, sized buffers, nothing left over (TPM 2.0 library, part 2).

/// Bytes that are not the TPM structure they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The structure ends before `field`.
    #[error("it ends within {field}")]
    Truncated {
        /// Name of the field in the specification.
        field: &'static str,
    },
    /// Bytes follow the structure.
    #[error("{found} bytes follow its end")]
    Trailing {
        /// How many bytes follow.
        found: usize,
    },
    /// A field has a value that this reader does not accept.
    #[error("{field} is {found:#x}, expected {expected}")]
    Value {
        /// Name of the field in the specification.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
        /// The value found.
        found: u64,
    },
}

/// The rest of a structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(WireError::Truncated { field })?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Truncated { field })?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A number that has one accepted value, which `expected` names.
    pub(super) fn expect_u16(
        &mut self,
        field: &'static str,
        expected: &'static str,
        value: u16,
    ) -> Result<(), WireError> {
        let found = self.u16(field)?;
        if found == value { Ok(()) } else { Err(WireError::Value { field, expected, found: found.into() }) }
    }

    /// Reads a TPM2B: two bytes of length, then that many.
    pub(super) fn sized(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.u16(field)?;
        self.bytes(field, len.into())
    }

    /// What is left, without reading it.
    #[cfg(feature = "produce")]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing { found: self.0.len() }) }
    }
}
