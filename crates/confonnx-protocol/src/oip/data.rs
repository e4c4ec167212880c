//! Tensor elements as JSON.

use std::fmt;

use confonnx_tensor::{DataType, Tensor};
use half::{bf16, f16};
use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor},
    ser::SerializeSeq,
};

use super::OipError;

/// Reads `elements` values of `dtype` from a JSON array into the tensor's bytes.
pub(super) fn parse(name: &str, dtype: DataType, elements: usize, json: &str) -> Result<Vec<u8>, OipError> {
    // An element takes two characters at least, so the shape alone never decides what is allocated.
    let room = elements.min(json.len() / 2).saturating_add(1).saturating_mul(dtype.size().unwrap_or(8));
    let depth = json.bytes().filter(|b| !b.is_ascii_whitespace()).take_while(|&b| b == b'[').count();
    if depth == 0 {
        return Err(OipError::Nesting { name: name.into(), index: 0 });
    }
    let mut out =
        Elements { dtype, expected: elements, found: 0, data: Vec::with_capacity(room), fault: None };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let result = Level { depth, out: &mut out }.deserialize(&mut deserializer);
    let name = || name.to_owned();
    match (result, out.fault) {
        (_, Some(Fault::Element)) => Err(OipError::Element { name: name(), dtype, index: out.found }),
        (_, Some(Fault::Nesting)) => Err(OipError::Nesting { name: name(), index: out.found }),
        (_, Some(Fault::Count)) => {
            Err(OipError::Count { name: name(), expected: elements, found: elements.saturating_add(1) })
        }
        // The JSON was read once already; what fails only now is a value serde_json refuses by itself.
        (Err(_), None) => Err(OipError::Element { name: name(), dtype, index: out.found }),
        (Ok(()), None) if out.found != elements => {
            Err(OipError::Count { name: name(), expected: elements, found: out.found })
        }
        (Ok(()), None) => Ok(out.data),
    }
}

/// A tensor's elements as one flat JSON array.
pub(super) struct JsonData<'a>(&'a Tensor<'a>);

impl<'a> JsonData<'a> {
    /// The tensor's data for JSON, or the position of the first element that JSON cannot carry.
    pub(super) fn new(tensor: &'a Tensor<'_>) -> Result<Self, usize> {
        let data = tensor.data();
        let bad = match tensor.dtype() {
            DataType::Bytes => tensor.items().position(|item| str::from_utf8(item).is_err()),
            DataType::Fp16 => chunks(data).position(|b| !f16::from_le_bytes(b).is_finite()),
            DataType::Bf16 => chunks(data).position(|b| !bf16::from_le_bytes(b).is_finite()),
            DataType::Fp32 => chunks(data).position(|b| !f32::from_le_bytes(b).is_finite()),
            DataType::Fp64 => chunks(data).position(|b| !f64::from_le_bytes(b).is_finite()),
            _ => None,
        };
        bad.map_or(Ok(Self(tensor)), Err)
    }
}

impl Serialize for JsonData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        match self.0.dtype() {
            DataType::Bool => serializer.collect_seq(data.iter().map(|&b| b != 0)),
            DataType::Uint8 => serializer.collect_seq(data),
            DataType::Int8 => serializer.collect_seq(chunks(data).map(i8::from_le_bytes)),
            DataType::Uint16 => serializer.collect_seq(chunks(data).map(u16::from_le_bytes)),
            DataType::Int16 => serializer.collect_seq(chunks(data).map(i16::from_le_bytes)),
            DataType::Uint32 => serializer.collect_seq(chunks(data).map(u32::from_le_bytes)),
            DataType::Int32 => serializer.collect_seq(chunks(data).map(i32::from_le_bytes)),
            DataType::Uint64 => serializer.collect_seq(chunks(data).map(u64::from_le_bytes)),
            DataType::Int64 => serializer.collect_seq(chunks(data).map(i64::from_le_bytes)),
            DataType::Fp16 => serializer.collect_seq(chunks(data).map(|b| f16::from_le_bytes(b).to_f32())),
            DataType::Bf16 => serializer.collect_seq(chunks(data).map(|b| bf16::from_le_bytes(b).to_f32())),
            DataType::Fp32 => serializer.collect_seq(chunks(data).map(f32::from_le_bytes)),
            DataType::Fp64 => serializer.collect_seq(chunks(data).map(f64::from_le_bytes)),
            DataType::Bytes => {
                let mut seq = serializer.serialize_seq(Some(self.0.shape().elements()))?;
                for item in self.0.items() {
                    seq.serialize_element(str::from_utf8(item).map_err(serde::ser::Error::custom)?)?;
                }
                seq.end()
            }
        }
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks().0.iter().copied()
}

struct Elements {
    dtype: DataType,
    expected: usize,
    found: usize,
    data: Vec<u8>,
    fault: Option<Fault>,
}

enum Fault {
    Element,
    Nesting,
    Count,
}

impl Elements {
    fn fail<E: Error>(&mut self, fault: Fault) -> E {
        self.fault = Some(fault);
        E::custom("tensor data")
    }

    /// `bytes` of one element, or `None` if the value was not of the type.
    fn push<E: Error, const N: usize>(&mut self, bytes: Option<[u8; N]>) -> Result<(), E> {
        let Some(bytes) = bytes else { return Err(self.fail(Fault::Element)) };
        if self.found == self.expected {
            return Err(self.fail(Fault::Count));
        }
        self.data.extend_from_slice(&bytes);
        self.found = self.found.saturating_add(1);
        Ok(())
    }

    fn push_integer<E: Error>(&mut self, value: i128) -> Result<(), E> {
        match self.dtype {
            DataType::Uint8 => self.push(u8::try_from(value).ok().map(u8::to_le_bytes)),
            DataType::Uint16 => self.push(u16::try_from(value).ok().map(u16::to_le_bytes)),
            DataType::Uint32 => self.push(u32::try_from(value).ok().map(u32::to_le_bytes)),
            DataType::Uint64 => self.push(u64::try_from(value).ok().map(u64::to_le_bytes)),
            DataType::Int8 => self.push(i8::try_from(value).ok().map(i8::to_le_bytes)),
            DataType::Int16 => self.push(i16::try_from(value).ok().map(i16::to_le_bytes)),
            DataType::Int32 => self.push(i32::try_from(value).ok().map(i32::to_le_bytes)),
            DataType::Int64 => self.push(i64::try_from(value).ok().map(i64::to_le_bytes)),
            DataType::Fp32 => self.push(Some((value as f32).to_le_bytes())),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp64 => self.push_float(value as f64),
            DataType::Bool | DataType::Bytes => Err(self.fail(Fault::Element)),
        }
    }

    fn push_float<E: Error>(&mut self, value: f64) -> Result<(), E> {
        match self.dtype {
            DataType::Fp16 => {
                self.push(Some(f16::from_f64(value)).filter(|x| x.is_finite()).map(f16::to_le_bytes))
            }
            DataType::Bf16 => {
                self.push(Some(bf16::from_f64(value)).filter(|x| x.is_finite()).map(bf16::to_le_bytes))
            }
            DataType::Fp32 => self.push(Some(value as f32).filter(|x| x.is_finite()).map(f32::to_le_bytes)),
            DataType::Fp64 => self.push(Some(value).filter(|x| x.is_finite()).map(f64::to_le_bytes)),
            _ => Err(self.fail(Fault::Element)),
        }
    }

    fn push_text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        let len = (self.dtype == DataType::Bytes).then(|| u32::try_from(text.len()).ok()).flatten();
        self.push(len.map(u32::to_le_bytes))?;
        self.data.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A value `depth` arrays above the elements.
struct Level<'o> {
    depth: usize,
    out: &'o mut Elements,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match (self.depth, self.out.dtype) {
            // Asks serde_json to round decimal digits to binary32 once, not by way of binary64.
            (0, DataType::Fp32) => deserializer.deserialize_f32(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensor data")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else { return Err(self.out.fail(Fault::Nesting)) };
        while seq.next_element_seed(Level { depth, out: &mut *self.out })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let value = (self.out.dtype == DataType::Bool).then_some([u8::from(value)]);
        self.leaf()?.push(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.leaf()?.push_integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.leaf()?.push_integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.leaf()?.push_float(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.leaf()?.push_text(value)
    }
}

impl<'o> Level<'o> {
    fn leaf<E: Error>(self) -> Result<&'o mut Elements, E> {
        if self.depth == 0 { Ok(self.out) } else { Err(self.out.fail(Fault::Nesting)) }
    }
}
