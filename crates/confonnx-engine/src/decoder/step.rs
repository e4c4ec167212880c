//! A step as tensors, as it crosses to the process that runs the model.

use confonnx_tensor::{DataType, Erased, Shape, Tensor};

use super::Feed;

/// What the model is to do: close sequences, then go on with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) close: Vec<u64>,
    pub(crate) feeds: Vec<Feed>,
}

impl Order {
    pub(crate) fn tensors(&self) -> Option<Vec<(String, Tensor<'static>)>> {
        let numbers = |numbers: Vec<u64>| {
            let shape = Shape::new([u64::try_from(numbers.len()).ok()?]).ok()?;
            Tensor::new(
                DataType::Uint64,
                shape,
                numbers.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>(),
            )
            .ok()
        };
        let of = |what: &dyn Fn(&Feed) -> u64| numbers(self.feeds.iter().map(what).collect());
        let tokens = |of: fn(&Feed) -> &Vec<i64>| {
            numbers(self.feeds.iter().flat_map(of).map(|token| token.cast_unsigned()).collect())
        };
        let all = [
            numbers(self.close.clone()),
            of(&|feed| feed.sequence),
            of(&|feed| feed.past as u64),
            of(&|feed| feed.tokens.len() as u64),
            of(&|feed| u64::from(feed.wanted)),
            tokens(|feed| &feed.tokens),
            of(&|feed| feed.source.len() as u64),
            tokens(|feed| &feed.source),
        ];
        NAMES.iter().zip(all).map(|(name, tensor)| Some(((*name).to_owned(), tensor?))).collect()
    }

    pub(crate) fn read(tensors: &[(String, Tensor<'_>)]) -> Option<Self> {
        let mut all = NAMES.iter().zip(tensors).map(|(name, (found, tensor))| {
            let words =
                tensor.data().chunks_exact(8).map(|word| word.try_into().map(u64::from_le_bytes).ok());
            (found == name && tensor.dtype() == DataType::Uint64)
                .then(|| words.collect::<Option<Vec<u64>>>())?
        });
        let mut next = || all.next()?;
        let (close, sequences, pasts, lengths, wanted, tokens) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        let (sources, source) = (next()?, next()?);
        let each = |lengths: Vec<u64>, tokens: Vec<u64>| {
            let mut tokens = tokens.into_iter().map(u64::cast_signed);
            let one = move |length: u64| {
                let length = usize::try_from(length).ok()?;
                Some(Erased::new(tokens.by_ref().take(length).collect::<Vec<_>>()))
            };
            lengths.into_iter().map(one)
        };
        let texts = each(lengths, tokens).zip(each(sources, source));
        let mut feeds = Vec::with_capacity(sequences.len());
        for (((sequence, past), (tokens, source)), wanted) in
            sequences.into_iter().zip(pasts).zip(texts).zip(wanted)
        {
            feeds.push(Feed {
                sequence,
                past: usize::try_from(past).ok()?,
                tokens: tokens?,
                source: source?,
                wanted: wanted != 0,
            });
        }
        Some(Self { close, feeds })
    }
}

const NAMES: [&str; 8] =
    ["close", "sequence", "past", "length", "wanted", "tokens", "source_length", "source"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_crosses_as_tensors() {
        let feed = |sequence, tokens: &[i64], source: &[i64], wanted| Feed {
            sequence,
            past: 3,
            tokens: tokens.to_vec().into(),
            source: source.to_vec().into(),
            wanted,
        };
        let feeds =
            vec![feed(1, &[5, 6], &[], false), feed(2, &[-1], &[8, 9, 7], true), feed(3, &[2], &[4], true)];
        let order = Order { close: vec![7, u64::MAX], feeds };
        assert_eq!(Order::read(&order.tensors().unwrap()), Some(order));
        assert_eq!(Order::read(&Order::default().tensors().unwrap()), Some(Order::default()));
        assert_eq!(Order::read(&[]), None);
    }
}
