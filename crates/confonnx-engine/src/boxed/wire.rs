//! What crosses between the key holder and a box: how a model is to be run, what it is like, requests and answers.
//!
//! Numbers are little-endian, lists and texts carry their length before them. Nothing here does IO. What a box says is
//! read by the same rules as what a stranger sends: every length checked, no more than was asked for.

use std::{ops::Range, time::Duration};

use confonnx_tensor::{DataType, Shape, Tensor};

use crate::{batch::Batching, port::TensorInfo};

/// Bytes that say nothing, or something else than was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not say what was asked")]
pub struct Garbled;

/// How a model is to be run, and where in the data that comes with it its external data and its encoder are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) sessions: usize,
    pub(super) threads_per_session: Option<usize>,
    pub(super) batch: Option<Batching>,
    pub(super) free_width: bool,
    pub(super) external: Vec<(String, Range<u64>)>,
    pub(super) encoder: Option<Range<u64>>,
}

/// What a box says of its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) inputs: Vec<TensorInfo>,
    pub(super) optional: Vec<TensorInfo>,
    pub(super) outputs: Vec<TensorInfo>,
    pub(super) arrangement: String,
    pub(super) largest_batch: Result<usize, String>,
}

/// A request: tensors and where they are in the lane's memory, and the outputs that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) inputs: Vec<(String, Part)>,
    pub(super) outputs: Vec<String>,
}

/// Where a tensor is, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Element type.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: Shape,
    /// The tensor's bytes in the lane's memory.
    pub bytes: Range<u64>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Each output that was asked for, in that order.
    Done(Vec<Part>),
    /// There is no answer.
    Failed(Failure, String),
    /// The outputs have more bytes than are taken: this many.
    TooLong(u64),
}

/// What the fault of a failed request lies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request does not fit the model.
    Input,
    /// The model failed.
    Model,
    /// The run was told to stop.
    Stopped,
}

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.size(self.sessions);
        out.option(self.threads_per_session, |out, threads| out.size(threads));
        out.option(self.batch.as_ref(), |out, batch| {
            out.size(batch.max_batch_size);
            out.list(&batch.preferred, |out, size| out.size(*size));
            out.number(u64::try_from(batch.max_delay.as_nanos()).unwrap_or(u64::MAX));
            out.size(batch.axis);
            out.list(&batch.other_axes, |out, (name, axis)| {
                out.text(name);
                out.size(*axis);
            });
        });
        out.byte(u8::from(self.free_width));
        out.list(&self.external, |out, (name, range)| {
            out.text(name);
            out.range(range);
        });
        out.option(self.encoder.as_ref(), Writer::range);
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let order = Self {
            sessions: reader.size()?,
            threads_per_session: reader.option(Reader::size)?,
            batch: reader.option(|reader| {
                Ok(Batching {
                    max_batch_size: reader.size()?,
                    preferred: reader.list(MOST, Reader::size)?,
                    max_delay: Duration::from_nanos(reader.number()?),
                    axis: reader.size()?,
                    other_axes: reader.list(MOST, |reader| Ok((reader.text()?, reader.size()?)))?,
                })
            })?,
            free_width: reader.byte()? == 1,
            external: reader.list(MOST, |reader| Ok((reader.text()?, reader.range()?)))?,
            encoder: reader.option(Reader::range)?,
        };
        reader.end(order)
    }
}

impl Facts {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.list(&self.inputs, Writer::info);
        out.list(&self.optional, Writer::info);
        out.list(&self.outputs, Writer::info);
        out.text(&self.arrangement);
        match &self.largest_batch {
            Ok(rows) => {
                out.byte(0);
                out.size(*rows);
            }
            Err(reason) => {
                out.byte(1);
                out.text(reason);
            }
        }
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let facts = Self {
            inputs: reader.list(MOST, Reader::info)?,
            optional: reader.list(MOST, Reader::info)?,
            outputs: reader.list(MOST, Reader::info)?,
            arrangement: plain(&reader.text()?),
            largest_batch: match reader.byte()? {
                0 => Ok(reader.size()?),
                1 => Err(plain(&reader.text()?)),
                _ => return Err(Garbled),
            },
        };
        reader.end(facts)
    }
}

impl Job {
    /// Lays `inputs` out one after another, aligned, from `start` on in the lane's memory.
    ///
    /// # Errors
    /// When no memory has room for them.
    pub(super) fn lay_out(
        inputs: &[(String, Tensor<'_>)],
        outputs: &[String],
        start: u64,
    ) -> Result<Self, Garbled> {
        let mut end = start;
        let part = |(name, tensor): &(String, Tensor<'_>)| Ok((name.clone(), Part::after(&mut end, tensor)?));
        Ok(Self {
            inputs: inputs.iter().map(part).collect::<Result<_, Garbled>>()?,
            outputs: outputs.to_vec(),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.list(&self.inputs, |out, (name, part)| {
            out.text(name);
            out.part(part);
        });
        out.list(&self.outputs, |out, name| out.text(name));
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let job = Self {
            inputs: reader.list(MOST, |reader| Ok((reader.text()?, reader.part()?)))?,
            outputs: reader.list(MOST, Reader::text)?,
        };
        reader.end(job)
    }
}

impl Part {
    /// The part of `tensor` at the first aligned place from `end` on; `end` moves behind it.
    pub(super) fn after(end: &mut u64, tensor: &Tensor<'_>) -> Result<Self, Garbled> {
        let start = aligned(*end).ok_or(Garbled)?;
        let len = u64::try_from(tensor.data().len()).map_err(|_| Garbled)?;
        *end = start.checked_add(len).ok_or(Garbled)?;
        Ok(Self { dtype: tensor.dtype(), shape: tensor.shape().clone(), bytes: start..*end })
    }

    /// How many bytes the part says that it has.
    pub(super) fn len(&self) -> u64 {
        self.bytes.end.saturating_sub(self.bytes.start)
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Done(parts) => {
                out.byte(0);
                out.list(parts, Writer::part);
            }
            Self::Failed(failure, text) => {
                out.byte(match failure {
                    Failure::Input => 1,
                    Failure::Model => 2,
                    Failure::Stopped => 3,
                });
                out.text(text);
            }
            // An answer of this kind is read, and never written.
            Self::TooLong(_) => out.byte(u8::MAX),
        }
        out.0
    }

    /// Reads what a box says to a request for outputs of the types `wanted`. Parts are in order, of those types, as long
    /// as their shapes say, and take at most `limit` bytes together, or it is [`Answer::TooLong`]; whether there are such
    /// bytes is for who reads them.
    ///
    /// # Errors
    /// [`Garbled`], whatever else it says.
    pub fn decode(bytes: &[u8], wanted: &[DataType], limit: u64) -> Result<Self, Garbled> {
        let mut reader = Reader(bytes);
        let answer = match reader.byte()? {
            0 => {
                let parts = reader.list(wanted.len(), Reader::part)?;
                let mut total = 0_u64;
                for part in &parts {
                    total = total.checked_add(part.len()).ok_or(Garbled)?;
                }
                if !parts.iter().map(|part| part.dtype).eq(wanted.iter().copied()) {
                    return Err(Garbled);
                }
                if total > limit { Self::TooLong(total) } else { Self::Done(parts) }
            }
            1 => Self::Failed(Failure::Input, plain(&reader.text()?)),
            2 => Self::Failed(Failure::Model, plain(&reader.text()?)),
            3 => Self::Failed(Failure::Stopped, plain(&reader.text()?)),
            _ => return Err(Garbled),
        };
        reader.end(answer)
    }
}

/// The first place from `at` on where a tensor may begin: ONNX Runtime's own memory is aligned so, and some kernels answer
/// otherwise elsewhere.
pub(super) fn aligned(at: u64) -> Option<u64> {
    at.checked_next_multiple_of(ALIGNMENT)
}

pub(super) const ALIGNMENT: u64 = 64;

/// `len` bytes, less than the alignment, between two tensors.
pub(super) fn gap(len: usize) -> &'static [u8] {
    static ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    ZEROS.get(..len).unwrap_or_default()
}

/// The most inputs, outputs or dimensions: no model has so many.
const MOST: usize = 1 << 16;

/// The longest text that is passed on, in bytes.
const LONGEST_TEXT: usize = 4096;

/// What may stand in a log or an answer: no control characters, not too long.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn size(&mut self, size: usize) {
        self.number(size as u64);
    }

    fn text(&mut self, text: &str) {
        self.size(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn range(&mut self, range: &Range<u64>) {
        self.number(range.start);
        self.number(range.end);
    }

    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.size(items.len());
        items.iter().for_each(|item| write(self, item));
    }

    fn option<T>(&mut self, value: Option<T>, write: impl Fn(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn dtype(&mut self, dtype: DataType) {
        let code = DataType::ALL.iter().position(|other| *other == dtype);
        self.byte(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
    }

    fn info(&mut self, info: &TensorInfo) {
        self.text(&info.name);
        self.dtype(info.dtype);
        self.list(&info.shape, |out, dim| out.0.extend_from_slice(&dim.to_le_bytes()));
    }

    fn part(&mut self, part: &Part) {
        self.dtype(part.dtype);
        self.list(part.shape.dims(), |out, dim| out.number(*dim));
        self.range(&part.bytes);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        self.take(1)?.first().copied().ok_or(Garbled)
    }

    fn number(&mut self) -> Result<u64, Garbled> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Garbled)?))
    }

    fn size(&mut self) -> Result<usize, Garbled> {
        usize::try_from(self.number()?).map_err(|_| Garbled)
    }

    fn text(&mut self) -> Result<String, Garbled> {
        let len = self.size()?;
        std::str::from_utf8(self.take(len)?).map(str::to_owned).map_err(|_| Garbled)
    }

    /// A range that does not end before it starts.
    fn range(&mut self) -> Result<Range<u64>, Garbled> {
        let range = self.number()?..self.number()?;
        if range.start <= range.end { Ok(range) } else { Err(Garbled) }
    }

    /// At most `most` items. There is at least a byte of each, so that their number says nothing of memory.
    fn list<T>(
        &mut self,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, Garbled>,
    ) -> Result<Vec<T>, Garbled> {
        let len = self.size()?;
        if len > most || len > self.0.len() {
            return Err(Garbled);
        }
        (0..len).map(|_| read(self)).collect()
    }

    fn option<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, Garbled>) -> Result<Option<T>, Garbled> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Garbled),
        }
    }

    fn dtype(&mut self) -> Result<DataType, Garbled> {
        DataType::ALL.get(usize::from(self.byte()?)).copied().ok_or(Garbled)
    }

    fn info(&mut self) -> Result<TensorInfo, Garbled> {
        Ok(TensorInfo {
            name: self.text()?,
            dtype: self.dtype()?,
            shape: self.list(MOST, |reader| Ok(i64::from_le_bytes(reader.number()?.to_le_bytes())))?,
        })
    }

    /// A tensor whose length is its shape's.
    fn part(&mut self) -> Result<Part, Garbled> {
        let dtype = self.dtype()?;
        let dims = self.list(MOST, Self::number)?;
        let shape = Shape::new(dims).map_err(|_| Garbled)?;
        let part = Part { dtype, shape, bytes: self.range()? };
        let expected = dtype.size().map(|size| part.shape.elements().checked_mul(size).ok_or(Garbled));
        match expected.transpose()? {
            Some(expected) if u64::try_from(expected) != Ok(part.len()) => Err(Garbled),
            _ => Ok(part),
        }
    }

    fn end<T>(self, value: T) -> Result<T, Garbled> {
        if self.0.is_empty() { Ok(value) } else { Err(Garbled) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, dtype: DataType, shape: &[i64]) -> TensorInfo {
        TensorInfo { name: name.into(), dtype, shape: shape.to_vec() }
    }

    fn part(dtype: DataType, dims: &[u64], bytes: Range<u64>) -> Part {
        Part { dtype, shape: Shape::new(dims).unwrap(), bytes }
    }

    #[test]
    fn what_is_written_is_read() {
        let batch = Batching {
            max_batch_size: 8,
            preferred: vec![4],
            max_delay: Duration::from_micros(5),
            axis: 1,
            other_axes: vec![("y".into(), 0)],
        };
        let order = Order {
            sessions: 2,
            threads_per_session: Some(3),
            batch: Some(batch),
            free_width: true,
            external: vec![("w.bin".into(), 0..7)],
            encoder: Some(7..9),
        };
        assert_eq!(Order::decode(&order.encode()), Ok(order));
        let facts = Facts {
            inputs: vec![info("x", DataType::Fp32, &[-1, 4])],
            optional: vec![info("w", DataType::Fp32, &[4])],
            outputs: vec![info("y", DataType::Bytes, &[])],
            arrangement: "1 session".into(),
            largest_batch: Err("no rows".into()),
        };
        assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
        let tensors = [(
            "x".to_owned(),
            Tensor::new(DataType::Uint8, Shape::new([3]).unwrap(), vec![1, 2, 3]).unwrap(),
        )];
        let job = Job::lay_out(&tensors, &["y".into()], 70).unwrap();
        assert_eq!(job.inputs[0].1.bytes, 128..131);
        assert_eq!(Job::decode(&job.encode()), Ok(job));
    }

    #[test]
    fn a_box_that_says_something_else_is_not_believed() {
        let wanted = [DataType::Fp32];
        let honest = Answer::Done(vec![part(DataType::Fp32, &[2], 64..72)]).encode();
        assert!(Answer::decode(&honest, &wanted, 8).is_ok());
        assert_eq!(Answer::decode(&honest, &wanted, 7), Ok(Answer::TooLong(8)));
        // The box gives another number of outputs, or another type.
        for wanted in [&[][..], &[DataType::Fp32; 2], &[DataType::Int32]] {
            assert_eq!(Answer::decode(&honest, wanted, 8), Err(Garbled), "{wanted:?}");
        }
        for lie in [
            part(DataType::Fp32, &[3], 64..72),
            part(DataType::Fp32, &[1 << 40, 0], 64..72),
            part(DataType::Fp32, &[1 << 62], 0..u64::MAX),
            part(DataType::Fp32, &[2], Range { start: 72, end: 64 }),
        ] {
            let said = Answer::Done(vec![lie]).encode();
            assert_eq!(Answer::decode(&said, &wanted, u64::MAX), Err(Garbled));
        }
        // Strings have a length of their own, but not all of memory.
        let said = Answer::Done(vec![part(DataType::Bytes, &[2], 0..1 << 40)]).encode();
        assert_eq!(Answer::decode(&said, &[DataType::Bytes], 1 << 32), Ok(Answer::TooLong(1 << 40)));
        for len in 0..honest.len() {
            assert_eq!(Answer::decode(&honest[..len], &wanted, 8), Err(Garbled), "{len} bytes of it");
        }
        assert_eq!(Answer::decode(&[&honest[..], &[0]].concat(), &wanted, 8), Err(Garbled));
        assert_eq!(Answer::decode(&[9], &wanted, 8), Err(Garbled));
    }

    #[test]
    fn its_texts_are_short_and_have_no_control_characters() {
        let said = Answer::Failed(Failure::Model, format!("a\nb\u{1b}{}", "c".repeat(9000))).encode();
        let Ok(Answer::Failed(Failure::Model, text)) = Answer::decode(&said, &[], 0) else { panic!() };
        assert!(text.starts_with("abc") && text.len() == LONGEST_TEXT);
    }
}
