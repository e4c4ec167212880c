//! Pooling: one vector of those of a text's tokens.

use confonnx_tensor::Erased;

/// Which of the tokens' vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The vector of the first token.
    First,
    /// The vector of the last token.
    Last,
}

/// The vectors of tokens that a model gave, 32-bit floats in little-endian order.
#[derive(Clone, Copy, Debug)]
pub struct Hidden<'h> {
    /// Row by row, token by token.
    pub data: &'h [u8],
    /// Tokens of a row, those that are no text too.
    pub width: usize,
    /// Numbers of a vector.
    pub size: usize,
}

/// The vector of each row, whose text has as many tokens as `lengths` says; none if that
/// does not fit `hidden`.
pub fn pooled(pooling: Pooling, hidden: Hidden<'_>, lengths: &[usize]) -> Option<Vec<Erased<Vec<f32>>>> {
    let vector = hidden.size.checked_mul(size_of::<f32>()).filter(|bytes| *bytes > 0)?;
    let row = vector.checked_mul(hidden.width).filter(|bytes| *bytes > 0)?;
    if hidden.data.len() != row.checked_mul(lengths.len())? {
        return None;
    }
    let one = |(data, length): (&[u8], &usize)| {
        let length = *length;
        if length == 0 || length > hidden.width {
            return None;
        }
        let mut tokens = data.chunks_exact(vector).take(length);
        Some(match pooling {
            Pooling::First => numbers(tokens.next()?),
            Pooling::Last => numbers(tokens.next_back()?),
            Pooling::Mean => {
                let mut sum = numbers(tokens.next()?);
                for token in tokens {
                    for (sum, bytes) in sum.iter_mut().zip(token.chunks_exact(size_of::<f32>())) {
                        *sum += number(bytes);
                    }
                }
                #[allow(clippy::cast_precision_loss, reason = "no text has 16 million tokens")]
                let count = length as f32;
                sum.iter_mut().for_each(|sum| *sum /= count);
                sum
            }
        })
    };
    hidden.data.chunks_exact(row).zip(lengths).map(one).collect()
}

/// A vector as it is given out: the first `dimensions` of its numbers, made as long as 1 if the model's are.
pub fn finished(
    mut vector: Erased<Vec<f32>>,
    dimensions: Option<usize>,
    normalizes: bool,
) -> Erased<Vec<f32>> {
    if let Some(dimensions) = dimensions
        && dimensions < vector.len()
    {
        let kept = vector.iter().take(dimensions).copied().collect::<Vec<_>>();
        vector = kept.into();
    }
    if normalizes {
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|number| *number /= length);
    }
    vector
}

fn numbers(bytes: &[u8]) -> Erased<Vec<f32>> {
    bytes.chunks_exact(size_of::<f32>()).map(number).collect::<Vec<_>>().into()
}

fn number(bytes: &[u8]) -> f32 {
    bytes.try_into().map_or(f32::NAN, f32::from_le_bytes)
}
