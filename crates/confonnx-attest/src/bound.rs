//! What evidence has to carry.

/// The report data that hardware has to report, and what the check of it is called: the hardware's report may be only a
/// part of the evidence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) name: &'static str,
    pub(crate) bytes: &'a [u8; 64],
}

impl<'a> From<&'a [u8; 64]> for Bound<'a> {
    fn from(bytes: &'a [u8; 64]) -> Self {
        Self { name: "report data", bytes }
    }
}
