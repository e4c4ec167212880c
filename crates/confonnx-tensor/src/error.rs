//! What can be wrong with a tensor. By hand, because this crate depends on `zeroize` alone.

use std::fmt;

/// Most dimensions a shape may have; NumPy has the same bound.
pub const MAX_RANK: usize = 64;

/// Why dimensions and bytes do not make a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorError {
    /// There are more than [`MAX_RANK`] dimensions.
    Rank {
        /// How many dimensions there are.
        found: usize,
    },
    /// The product of the dimensions, or that times the size of an element, does not fit.
    ShapeOverflow,
    /// `found` bytes where shape and type need `expected`.
    Length {
        /// How many bytes shape and type need.
        expected: usize,
        /// How many bytes were given.
        found: usize,
    },
    /// A `BOOL` element is neither 0 nor 1.
    Bool {
        /// The element's index.
        element: usize,
    },
    /// A `BYTES` element is cut short.
    Packing {
        /// The index of the first element that does not fit into the bytes.
        element: usize,
    },
    /// Bytes are left after the last `BYTES` element that the shape allows.
    Surplus {
        /// Elements the shape allows.
        expected: usize,
        /// How many bytes are left over.
        bytes: usize,
    },
    /// The number of strings is not the number of elements.
    Count {
        /// Elements of the shape.
        expected: usize,
        /// Strings that were given.
        found: usize,
    },
    /// A string is longer than the 4 GiB that its packing can say.
    ItemLength {
        /// The element's index.
        element: usize,
    },
}

impl fmt::Display for TensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank { found } => {
                write!(f, "the shape has {found} dimensions; at most {MAX_RANK} are allowed")
            }
            Self::ShapeOverflow => {
                f.write_str("the shape's dimensions multiply to more than memory can address")
            }
            Self::Length { expected, found } => {
                write!(f, "shape and data type need {expected} bytes of data, found {found}")
            }
            Self::Bool { element } => write!(f, "element {element} of a BOOL tensor is neither 0 nor 1"),
            Self::Packing { element } => write!(
                f,
                "element {element} of a BYTES tensor is cut short; each element is its 4-byte little-endian length \
                 and that many bytes"
            ),
            Self::Surplus { expected, bytes } => {
                write!(f, "{bytes} bytes are left after the {expected} elements the shape allows")
            }
            Self::Count { expected, found } => {
                write!(f, "the shape needs {expected} elements, found {found}")
            }
            Self::ItemLength { element } => write!(f, "element {element} is longer than 4 GiB"),
        }
    }
}

impl std::error::Error for TensorError {}
