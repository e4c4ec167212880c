//! Files of programs, from which measurements are predicted.

pub(crate) mod firmware;
pub(crate) mod ovmf;
pub(crate) mod pe;
pub(crate) mod uki;

/// Files from which nothing can be predicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// A part of the file is not there.
    #[error("expected {what} in the {file}, found none: {hint}")]
    Absent {
        /// The file, such as `firmware`.
        file: &'static str,
        /// The part.
        what: &'static str,
        /// What may be done about it.
        hint: &'static str,
    },
    /// A part of the file is not what it has to be.
    #[error("{file}, {what}: expected {expected}, found {found}")]
    Malformed {
        /// The file, such as `firmware`.
        file: &'static str,
        /// The part.
        what: &'static str,
        /// What would do.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An argument is out of range.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// The argument's name.
        what: &'static str,
        /// What would do.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
}
