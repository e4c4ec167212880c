//! Rows of tensors: several requests' as one, one answer's as several.
//!
//! Rows lie along an axis that the model's owner states. Along the first one they follow each other; along another, each row
//! is in as many pieces as the dimensions before it say.

use std::borrow::Cow;

use confonnx_tensor::{DataType, Erased, Shape, Tensor};

use crate::run::Answer;

/// What tensors that differ only in their rows have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    dtype: DataType,
    axis: usize,
    /// All dimensions but that of the rows.
    rest: Vec<u64>,
    /// In how many pieces a row is.
    pieces: usize,
    /// How many bytes each piece has.
    piece: usize,
}

impl Layout {
    /// The layout of `tensor`, and how many rows it has; none if it has no such axis, or elements without a size.
    pub(super) fn of(tensor: &Tensor<'_>, axis: usize) -> Option<(Self, usize)> {
        let dtype = tensor.dtype();
        let mut rest = tensor.shape().dims().to_vec();
        let rows = (axis < rest.len()).then(|| rest.remove(axis))?;
        let product = |dims: &[u64]| {
            let size = dims.iter().try_fold(1_u64, |n, dim| n.checked_mul(*dim))?;
            usize::try_from(size).ok()
        };
        let pieces = product(rest.get(..axis)?)?;
        let piece = product(rest.get(axis..)?)?.checked_mul(dtype.size()?)?;
        Some((Self { dtype, axis, rest, pieces, piece }, usize::try_from(rows).ok()?))
    }

    /// The tensor whose rows are those of `members`, tensors of this layout that lie in `column` one after another, each with
    /// as many rows.
    pub(super) fn join<'c>(&self, column: &'c [u8], members: &[usize]) -> Option<Tensor<'c>> {
        let shape = self.shape(members.iter().try_fold(0_usize, |sum, rows| sum.checked_add(*rows))?)?;
        if self.pieces <= 1 {
            return Tensor::new(self.dtype, shape, column).ok();
        }
        let mut joined = Vec::with_capacity(column.len());
        for piece in 0..self.pieces {
            let mut start = 0_usize;
            for rows in members {
                let len = rows.checked_mul(self.piece)?;
                let from = piece.checked_mul(len)?.checked_add(start)?;
                joined.extend_from_slice(column.get(from..from.checked_add(len)?)?);
                start = len.checked_mul(self.pieces)?.checked_add(start)?;
            }
        }
        Tensor::new(self.dtype, shape, Cow::Owned(joined)).ok()
    }

    /// The other way round: a tensor of this layout with the rows of all `members`, as one for each.
    fn split(&self, data: &[u8], members: &[usize]) -> Option<Vec<Tensor<'static>>> {
        let total: usize = members.iter().try_fold(0_usize, |sum, rows| sum.checked_add(*rows))?;
        let stride = total.checked_mul(self.piece)?;
        let mut before = 0_usize;
        let mut split = Vec::with_capacity(members.len());
        for rows in members {
            let (start, len) = (before.checked_mul(self.piece)?, rows.checked_mul(self.piece)?);
            before = before.checked_add(*rows)?;
            let mut own = Vec::with_capacity(len.checked_mul(self.pieces)?);
            for piece in 0..self.pieces {
                let from = piece.checked_mul(stride)?.checked_add(start)?;
                own.extend_from_slice(data.get(from..from.checked_add(len)?)?);
            }
            split.push(Tensor::new(self.dtype, self.shape(*rows)?, Cow::Owned(own)).ok()?);
        }
        Some(split)
    }

    fn shape(&self, rows: usize) -> Option<Shape> {
        let mut dims = self.rest.clone();
        dims.insert(self.axis, u64::try_from(rows).ok()?);
        Shape::new(dims).ok()
    }

    /// How many bytes `rows` rows have.
    pub(super) fn bytes(&self, rows: usize) -> Option<usize> {
        rows.checked_mul(self.piece)?.checked_mul(self.pieces)
    }
}

/// The answers to the members, whose rows follow one another along the axis of each output; none if the answer does not have
/// as many there.
pub(super) fn split(answer: Answer, members: &[usize], axis: impl Fn(&str) -> usize) -> Option<Vec<Answer>> {
    let total: usize = members.iter().sum();
    let mut answers: Vec<Answer> = members.iter().map(|_| Vec::with_capacity(answer.len())).collect();
    for (name, tensor) in answer {
        let (layout, rows) = Layout::of(&tensor, axis(&name))?;
        let data = Erased::new(tensor.into_data());
        if rows != total {
            return None;
        }
        for (answer, own) in answers.iter_mut().zip(layout.split(&data, members)?) {
            answer.push((name.clone(), own));
        }
    }
    Some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(dims: &[u64], data: Vec<u8>) -> Answer {
        vec![("y".to_owned(), Tensor::new(DataType::Uint8, Shape::new(dims).unwrap(), data).unwrap())]
    }

    #[test]
    fn an_answer_without_a_row_for_each_is_no_answer() {
        let found = split(answer(&[3, 2], vec![1, 2, 3, 4, 5, 6]), &[1, 2], |_| 0).unwrap();
        assert_eq!(found, [answer(&[1, 2], vec![1, 2]), answer(&[2, 2], vec![3, 4, 5, 6])]);
        assert_eq!(split(answer(&[1, 2], vec![1, 2]), &[1, 2], |_| 0), None);
        assert_eq!(split(answer(&[], vec![1]), &[1], |_| 0), None);
        // There are as many rows, but not along the axis that the model states.
        assert_eq!(split(answer(&[3, 2], vec![0; 6]), &[1, 2], |_| 1), None);
    }

    #[test]
    fn rows_along_another_axis_are_in_pieces() {
        let whole = answer(&[2, 3], vec![1, 2, 3, 4, 5, 6]);
        let rows = [answer(&[2, 1], vec![1, 4]), answer(&[2, 2], vec![2, 3, 5, 6])];
        assert_eq!(split(whole.clone(), &[1, 2], |_| 1).unwrap(), rows);
        let column = [1, 4, 2, 3, 5, 6];
        let (layout, _) = Layout::of(&whole[0].1, 1).unwrap();
        assert_eq!(layout.join(&column, &[1, 2]).unwrap(), whole[0].1);
    }
}
