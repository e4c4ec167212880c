//! Concrete shapes.

use std::fmt;

use crate::{MAX_RANK, TensorError};

/// Concrete dimensions whose product fits `usize`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Vec<u64>,
    elements: usize,
}

impl Shape {
    /// Checks that the dimensions multiply to a `usize`, zeros counted as ones: `[0, u64::MAX, 2]` is refused too,
    /// because whoever multiplies in another order would overflow.
    pub fn new(dims: impl Into<Vec<u64>>) -> Result<Self, TensorError> {
        let dims = dims.into();
        if dims.len() > MAX_RANK {
            return Err(TensorError::Rank { found: dims.len() });
        }
        let product = dims
            .iter()
            .try_fold(1_usize, |n, &dim| n.checked_mul(usize::try_from(dim.max(1)).ok()?))
            .ok_or(TensorError::ShapeOverflow)?;
        let elements = if dims.contains(&0) { 0 } else { product };
        Ok(Self { dims, elements })
    }

    /// The dimensions, outermost first; none for a scalar.
    pub fn dims(&self) -> &[u64] {
        &self.dims
    }

    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.elements
    }
}

/// `[2, 3]`
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_elements() {
        assert_eq!(Shape::new([]).unwrap().elements(), 1);
        assert_eq!(Shape::new([2, 3, 4]).unwrap().elements(), 24);
        assert_eq!(Shape::new([5, 0]).unwrap().elements(), 0);
    }

    #[test]
    fn refuses_products_that_overflow_in_any_order() {
        for dims in [vec![u64::MAX, 2], vec![1 << 32, 1 << 32], vec![0, u64::MAX, 2], vec![u64::MAX, 2, 0]] {
            assert_eq!(Shape::new(dims), Err(TensorError::ShapeOverflow));
        }
    }

    #[test]
    fn refuses_more_than_64_dimensions() {
        assert!(Shape::new([1; 64]).is_ok());
        assert_eq!(Shape::new([1; 65]), Err(TensorError::Rank { found: 65 }));
    }
}
