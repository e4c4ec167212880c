//! The tensor and the `BYTES` packing.

use std::borrow::Cow;
use std::fmt;

use crate::{DataType, Shape, TensorError};

/// A tensor that borrows its bytes where it can.
#[derive(Clone, PartialEq)]
pub struct Tensor<'a> {
    dtype: DataType,
    shape: Shape,
    data: Cow<'a, [u8]>,
}

impl<'a> Tensor<'a> {
    /// Checks `data`, row-major and little-endian, against type and shape: its length, that `BOOL` elements are 0
    /// or 1, and that `BYTES` elements are packed as their 4-byte length and bytes.
    pub fn new(dtype: DataType, shape: Shape, data: impl Into<Cow<'a, [u8]>>) -> Result<Self, TensorError> {
        let data = data.into();
        match dtype.size() {
            Some(size) => {
                let expected = shape.elements().checked_mul(size).ok_or(TensorError::ShapeOverflow)?;
                if data.len() != expected {
                    return Err(TensorError::Length { expected, found: data.len() });
                }
                if dtype == DataType::Bool
                    && let Some(element) = data.iter().position(|&byte| byte > 1)
                {
                    return Err(TensorError::Bool { element });
                }
            }
            None => check_packing(&data, shape.elements())?,
        }
        Ok(Self { dtype, shape, data })
    }

    /// Packs strings (or any byte strings) into a `BYTES` tensor.
    pub fn from_strings<S: AsRef<[u8]>>(shape: Shape, items: &[S]) -> Result<Tensor<'static>, TensorError> {
        if items.len() != shape.elements() {
            return Err(TensorError::Count { expected: shape.elements(), found: items.len() });
        }
        let total = items
            .iter()
            .try_fold(0_usize, |n, item| n.checked_add(4)?.checked_add(item.as_ref().len()))
            .ok_or(TensorError::ShapeOverflow)?;
        let mut data = Vec::with_capacity(total);
        for (element, item) in items.iter().enumerate() {
            let item = item.as_ref();
            let len = u32::try_from(item.len()).map_err(|_| TensorError::ItemLength { element })?;
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(item);
        }
        Ok(Tensor { dtype: DataType::Bytes, shape, data: Cow::Owned(data) })
    }

    /// The bytes, to be erased: nobody looks at them afterwards.
    pub(crate) fn bytes_mut(&mut self) -> &mut Cow<'a, [u8]> {
        &mut self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// The dimensions.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Row-major little-endian bytes; for `BYTES` the packed elements.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, without a copy when they are owned.
    pub fn into_data(self) -> Cow<'a, [u8]> {
        self.data
    }

    /// Copies the bytes if they are borrowed.
    pub fn into_owned(self) -> Tensor<'static> {
        Tensor { dtype: self.dtype, shape: self.shape, data: Cow::Owned(self.data.into_owned()) }
    }

    /// A second view of the same bytes.
    pub fn borrowed(&self) -> Tensor<'_> {
        Tensor { dtype: self.dtype, shape: self.shape.clone(), data: Cow::Borrowed(&self.data) }
    }

    /// The elements of a `BYTES` tensor; empty for other types.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> {
        Items(if self.dtype == DataType::Bytes { &self.data } else { &[] })
    }
}

/// Type, shape and size: values are confidential and never printed.
impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {}, {} bytes)", self.dtype, self.shape, self.data.len())
    }
}

struct Items<'a>(&'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (item, rest) = split_item(self.0)?;
        self.0 = rest;
        Some(item)
    }
}

fn check_packing(data: &[u8], elements: usize) -> Result<(), TensorError> {
    let mut rest = data;
    for element in 0..elements {
        (_, rest) = split_item(rest).ok_or(TensorError::Packing { element })?;
    }
    match rest.len() {
        0 => Ok(()),
        bytes => Err(TensorError::Surplus { expected: elements, bytes }),
    }
}

fn split_item(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(dims: &[u64]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn length_is_checked_for_every_type() {
        for dtype in DataType::ALL {
            let Some(size) = dtype.size() else { continue };
            let make = |len| Tensor::new(dtype, shape(&[2, 3]), vec![0; len]);
            assert!(make(6 * size).is_ok());
            assert_eq!(
                make(6 * size - 1),
                Err(TensorError::Length { expected: 6 * size, found: 6 * size - 1 })
            );
            assert_eq!(
                make(6 * size + 1),
                Err(TensorError::Length { expected: 6 * size, found: 6 * size + 1 })
            );
        }
    }

    #[test]
    fn scalars_and_empty_dimensions() {
        assert!(Tensor::new(DataType::Fp32, shape(&[]), vec![0; 4]).is_ok());
        assert!(Tensor::new(DataType::Fp32, shape(&[0, 7]), vec![]).is_ok());
        assert!(Tensor::new(DataType::Bytes, shape(&[0]), vec![]).is_ok());
        assert!(Tensor::new(DataType::Bytes, shape(&[]), vec![0; 4]).is_ok());
    }

    #[test]
    fn element_size_may_overflow_where_the_product_did_not() {
        let shape = shape(&[u64::MAX / 2]);
        assert_eq!(Tensor::new(DataType::Fp64, shape, vec![]), Err(TensorError::ShapeOverflow));
    }

    #[test]
    fn bool_bytes_are_zero_or_one() {
        assert!(Tensor::new(DataType::Bool, shape(&[2]), vec![0, 1]).is_ok());
        assert_eq!(
            Tensor::new(DataType::Bool, shape(&[2]), vec![1, 2]),
            Err(TensorError::Bool { element: 1 })
        );
    }

    #[test]
    fn packing_errors_name_the_element() {
        let packed = [1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b', b'c'];
        let make = |elements, data: &'static [u8]| Tensor::new(DataType::Bytes, shape(&[elements]), data);
        assert!(make(2, Box::leak(Box::new(packed))).is_ok());
        assert_eq!(make(2, &[1, 0, 0, 0, b'a', 2, 0, 0, 0, b'b']), Err(TensorError::Packing { element: 1 }));
        assert_eq!(make(3, Box::leak(Box::new(packed))), Err(TensorError::Packing { element: 2 }));
        assert_eq!(make(1, Box::leak(Box::new(packed))), Err(TensorError::Surplus { expected: 1, bytes: 6 }));
        assert_eq!(make(1, &[255; 8]), Err(TensorError::Packing { element: 0 }));
        // More elements than bytes must fail at the first missing one, not loop for ages.
        assert_eq!(make(u64::MAX, &[]), Err(TensorError::Packing { element: 0 }));
    }

    #[test]
    fn strings_must_match_the_shape() {
        assert_eq!(
            Tensor::from_strings(shape(&[3]), &["a", "b"]),
            Err(TensorError::Count { expected: 3, found: 2 })
        );
    }

    #[test]
    fn debug_shows_no_values() {
        let tensor = Tensor::from_strings(shape(&[1]), &["secret"]).unwrap();
        assert_eq!(format!("{tensor:?}"), "Tensor(BYTES [1], 10 bytes)");
    }

    #[test]
    fn items_of_other_types_are_none() {
        let tensor = Tensor::new(DataType::Uint8, shape(&[4]), vec![0; 4]).unwrap();
        assert_eq!(tensor.items().count(), 0);
    }

    proptest! {
        #[test]
        fn strings_round_trip(items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20)) {
            let shape = Shape::new([items.len() as u64]).unwrap();
            let tensor = Tensor::from_strings(shape.clone(), &items).unwrap();
            prop_assert_eq!(tensor.items().collect::<Vec<_>>(), items);
            prop_assert_eq!(&Tensor::new(DataType::Bytes, shape, tensor.data()).unwrap(), &tensor);
        }

        #[test]
        fn any_bytes_give_a_tensor_or_an_error(
            dtype in proptest::sample::select(&DataType::ALL[..]),
            dims in proptest::collection::vec(prop_oneof![0..5_u64, any::<u64>()], 0..5),
            data in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(shape) = Shape::new(dims) && let Ok(tensor) = Tensor::new(dtype, shape.clone(), data) {
                let expected = if dtype == DataType::Bytes { shape.elements() } else { 0 };
                prop_assert_eq!(tensor.items().count(), expected);
            }
        }
    }
}
