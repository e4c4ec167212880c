//! The JSON form that requests and responses share.

use std::{borrow::Cow, collections::HashSet, fmt, marker::PhantomData};

use confonnx_tensor::{DataType, Erased, MAX_RANK, Shape, Tensor, TensorError};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{MAX_NAME, MAX_TENSORS, OipError, data};

/// An encoded message: a JSON object, and the tensors that follow it.
pub struct Encoded<'a> {
    json: Erased<Vec<u8>>,
    binary: Vec<&'a [u8]>,
    has_binary: bool,
}

impl Encoded<'_> {
    /// The value of the [`HEADER_LENGTH`](super::HEADER_LENGTH) field: bytes of JSON; `None` when the field must be
    /// left out because no tensor is binary.
    pub fn json_len(&self) -> Option<usize> {
        self.has_binary.then_some(self.json.len())
    }

    /// The body in pieces, to be sent one after the other.
    pub fn parts(&self) -> Vec<&[u8]> {
        std::iter::once(self.json.as_slice()).chain(self.binary.iter().copied()).collect()
    }

    /// The content type that Triton and KServe use for this body.
    pub fn content_type(&self) -> &'static str {
        if self.has_binary { "application/octet-stream" } else { "application/json" }
    }
}

impl fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({} bytes of JSON, {} binary tensors)", self.json.len(), self.binary.len())
    }
}

/// Serializes `message`, whose [`TensorOut`]s borrow from `tensors`; `binary` says which of them follow the JSON.
pub(super) fn encode<'a>(
    message: &impl Serialize,
    tensors: &'a [(String, Tensor<'_>)],
    binary: impl Fn(&str) -> bool,
) -> Result<Encoded<'a>, OipError> {
    // Room for the JSON numbers, so that growing leaves no copies of them behind.
    let room = tensors.iter().map(|(name, tensor)| {
        let values = if binary(name) { 0 } else { tensor.shape().elements().saturating_mul(8) };
        values.saturating_add(name.len()).saturating_add(128)
    });
    let room = room.fold(256, usize::saturating_add).min(MAX_ROOM);
    let mut json = Erased::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut json, message).map_err(|e| OipError::json(&e))?;
    let binary: Vec<_> =
        tensors.iter().filter(|(name, _)| binary(name)).map(|(_, tensor)| tensor.data()).collect();
    Ok(Encoded { json, has_binary: !binary.is_empty(), binary })
}

const MAX_ROOM: usize = 16 << 20;

#[derive(Serialize)]
pub(super) struct TensorOut<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<TensorParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<data::JsonData<'a>>,
}

impl<'a> TensorOut<'a> {
    pub(super) fn new(name: &'a str, tensor: &'a Tensor<'_>, binary: bool) -> Result<Self, OipError> {
        let (parameters, data) = if binary {
            (Some(TensorParameters { binary_data_size: Some(tensor.data().len() as u64) }), None)
        } else {
            let data = data::JsonData::new(tensor)
                .map_err(|index| OipError::NotJson { name: name.into(), index })?;
            (None, Some(data))
        };
        Ok(Self { name, datatype: tensor.dtype().name(), shape: tensor.shape().dims(), parameters, data })
    }
}

#[derive(Deserialize)]
pub(super) struct TensorIn<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Bounded<i64, MAX_RANK>,
    #[serde(default)]
    parameters: Option<TensorParameters>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct TensorParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binary_data_size: Option<u64>,
}

impl<'a> TensorIn<'a> {
    fn into_tensor(self, binary: &mut Option<&'a [u8]>) -> Result<(String, Tensor<'a>), OipError> {
        let name = self.name.into_owned();
        let tensor_error = |error| OipError::Tensor { name: name.clone(), error };
        let Some(dtype) = DataType::from_name(&self.datatype) else {
            return Err(OipError::DataType { name });
        };
        let mut dims = Vec::with_capacity(self.shape.items.len());
        if self.shape.more {
            return Err(tensor_error(TensorError::Rank { found: MAX_RANK.saturating_add(1) }));
        }
        for (index, dim) in self.shape.items.into_iter().enumerate() {
            dims.push(u64::try_from(dim).map_err(|_| OipError::Dimension { name: name.clone(), index })?);
        }
        let shape = Shape::new(dims).map_err(tensor_error)?;
        let data: Cow<'a, [u8]> = match (self.data, self.parameters.and_then(|p| p.binary_data_size)) {
            (None, None) => return Err(OipError::NoData { name }),
            (Some(_), Some(_)) => return Err(OipError::TwoData { name }),
            (Some(json), None) => data::parse(&name, dtype, shape.elements(), json.get())?.into(),
            (None, Some(size)) => {
                let Some(rest) = *binary else { return Err(OipError::HeaderMissing { name }) };
                let (tensor, rest) =
                    usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size)).ok_or_else(
                        || OipError::BinaryTruncated { name: name.clone(), size, left: rest.len() },
                    )?;
                *binary = Some(rest);
                tensor.into()
            }
        };
        let tensor = Tensor::new(dtype, shape, data).map_err(tensor_error)?;
        Ok((name, tensor))
    }
}

/// Splits a body into its JSON and, if `header_len` is given, its binary part.
pub(super) fn split(body: &[u8], header_len: Option<usize>) -> Result<(&[u8], Option<&[u8]>), OipError> {
    match header_len {
        None => Ok((body, None)),
        Some(0) => Err(OipError::NoHeader),
        Some(header) => body
            .split_at_checked(header)
            .map(|(json, binary)| (json, Some(binary)))
            .ok_or(OipError::HeaderLength { header, body: body.len() }),
    }
}

/// The tensors of a message, each name once and all of the binary part used.
pub(super) fn tensors<'a>(
    what: Names,
    tensors: Bounded<TensorIn<'a>, MAX_TENSORS>,
    mut binary: Option<&'a [u8]>,
) -> Result<Vec<(String, Tensor<'a>)>, OipError> {
    what.check(tensors.more, tensors.items.iter().map(|tensor| tensor.name.as_ref()))?;
    let tensors =
        tensors.items.into_iter().map(|tensor| tensor.into_tensor(&mut binary)).collect::<Result<_, _>>()?;
    match binary.map_or(0, <[u8]>::len) {
        0 => Ok(tensors),
        left => Err(OipError::BinarySurplus { left }),
    }
}

/// The kind of a list of names, for its errors.
#[derive(Clone, Copy)]
pub(super) struct Names {
    one: &'static str,
    many: &'static str,
}

pub(super) const INPUTS: Names = Names { one: "input", many: "inputs" };
pub(super) const OUTPUTS: Names = Names { one: "output", many: "outputs" };

impl Names {
    pub(super) fn check<'n>(
        self,
        more: bool,
        names: impl ExactSizeIterator<Item = &'n str>,
    ) -> Result<(), OipError> {
        if more || names.len() > MAX_TENSORS {
            return Err(OipError::TooMany { what: self.many });
        }
        let mut seen = HashSet::with_capacity(names.len());
        for (index, name) in names.enumerate() {
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(OipError::NameLength { what: self.one, index, len: name.len() });
            }
            if !seen.insert(name) {
                return Err(OipError::Duplicate { what: self.one, name: name.into() });
            }
        }
        Ok(())
    }
}

/// The first `N` items of an array; what follows is skipped unread, and `more` says so.
pub(super) struct Bounded<T, const N: usize> {
    pub(super) items: Vec<T>,
    pub(super) more: bool,
}

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self { items: Vec::new(), more: false }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = Bounded<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut bounded = Bounded::default();
                while bounded.items.len() < N {
                    match seq.next_element()? {
                        Some(item) => bounded.items.push(item),
                        None => return Ok(bounded),
                    }
                }
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
                    bounded.more = true;
                }
                Ok(bounded)
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}
