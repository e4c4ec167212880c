use confonnx_tensor::{DataType, Shape, Tensor, TensorError};
use prost::Message;

use crate::{
    elem_type::{dtype_from_elem_type, elem_type, elem_type_name},
    proto::EXTERNAL,
};

/// Why a file is not a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProtoError {
    /// Not a protobuf message of ONNX's form.
    #[error("this is not an ONNX TensorProto, or it was cut short ({0})")]
    Decode(#[from] prost::DecodeError),
    /// Elements that the Open Inference Protocol cannot carry.
    #[error("tensor {name:?} has elements of type {found}, which the Open Inference Protocol lacks")]
    DataType {
        /// The tensor's name; may be empty.
        name: String,
        /// ONNX's name of the type.
        found: String,
    },
    /// A dimension is negative.
    #[error("tensor {name:?} has a negative dimension at {index}")]
    Dimension {
        /// The tensor's name; may be empty.
        name: String,
        /// Position in its shape.
        index: usize,
    },
    /// Values are in another file, or in segments.
    #[error("tensor {name:?} does not hold its own data; save it again without external data and segments")]
    Elsewhere {
        /// The tensor's name; may be empty.
        name: String,
    },
    /// Values in `raw_data` and in a typed field too, or `raw_data` of strings.
    #[error("tensor {name:?} has data in fields that exclude each other, or that its type may not use")]
    Fields {
        /// The tensor's name; may be empty.
        name: String,
    },
    /// A typed field has more or fewer values than the shape.
    #[error("tensor {name:?} has {found} values; its shape needs {expected}")]
    Count {
        /// The tensor's name; may be empty.
        name: String,
        /// What the shape needs.
        expected: usize,
        /// What was found.
        found: usize,
    },
    /// A value of a typed field is out of the type's range.
    #[error("value {index} of tensor {name:?} is out of the range of {dtype}")]
    Range {
        /// The tensor's name; may be empty.
        name: String,
        /// Its type.
        dtype: DataType,
        /// Position of the value.
        index: usize,
    },
    /// Shape and bytes do not agree.
    #[error("tensor {name:?}: {error}")]
    Tensor {
        /// The tensor's name; may be empty.
        name: String,
        /// In which way.
        error: TensorError,
    },
}

/// Reads an ONNX `TensorProto` file (`.pb`): its name, which may be empty, and the tensor.
pub fn read_tensor_proto(file: &[u8]) -> Result<(String, Tensor<'static>), TensorProtoError> {
    let proto = TensorProto::decode(file)?;
    let name = proto.name.clone();
    let Some(dtype) = dtype_from_elem_type(proto.data_type) else {
        return Err(TensorProtoError::DataType { name, found: elem_type_name(proto.data_type) });
    };
    if proto.data_location == EXTERNAL || proto.segment.is_some() {
        return Err(TensorProtoError::Elsewhere { name });
    }
    let mut dims = Vec::with_capacity(proto.dims.len());
    for (index, &dim) in proto.dims.iter().enumerate() {
        dims.push(u64::try_from(dim).map_err(|_| TensorProtoError::Dimension { name: name.clone(), index })?);
    }
    let tensor = Shape::new(dims)
        .map_err(|error| TensorProtoError::Tensor { name: name.clone(), error })
        .and_then(|shape| proto.into_tensor(dtype, shape))?;
    Ok((name, tensor))
}

/// Writes an ONNX `TensorProto` file, values in `raw_data` or, for `BYTES`, in `string_data`.
pub fn write_tensor_proto(name: &str, tensor: &Tensor<'_>) -> Vec<u8> {
    let mut proto = TensorProto {
        // A dimension over i64::MAX can only stand beside a zero; no such tensor was ever in memory.
        dims: tensor.shape().dims().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
        data_type: elem_type(tensor.dtype()),
        name: name.into(),
        ..Default::default()
    };
    match tensor.dtype() {
        DataType::Bytes => proto.string_data = tensor.items().map(<[u8]>::to_vec).collect(),
        _ => proto.raw_data = Some(tensor.data().to_vec()),
    }
    proto.encode_to_vec()
}

#[derive(Clone, PartialEq, prost::Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(message, optional, tag = "3")]
    segment: Option<Segment>,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    raw_data: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    uint64_data: Vec<u64>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Segment {}

impl TensorProto {
    fn into_tensor(self, dtype: DataType, shape: Shape) -> Result<Tensor<'static>, TensorProtoError> {
        let typed = [
            self.float_data.len(),
            self.int32_data.len(),
            self.string_data.len(),
            self.int64_data.len(),
            self.double_data.len(),
            self.uint64_data.len(),
        ];
        let used = typed.iter().filter(|&&len| len > 0).count();
        let name = self.name;
        // Empty raw_data stands beside typed fields in files of some writers.
        let raw = self.raw_data.filter(|raw| !raw.is_empty() || used == 0);
        if used > 1 || raw.is_some() && (used > 0 || dtype == DataType::Bytes) {
            return Err(TensorProtoError::Fields { name });
        }
        let error = |error| TensorProtoError::Tensor { name: name.clone(), error };
        if let Some(raw) = raw {
            return Tensor::new(dtype, shape, raw).map_err(error);
        }
        let values = Values { name: &name, dtype, elements: shape.elements(), used };
        let int32 = self.int32_data.as_slice();
        let data = match dtype {
            DataType::Bytes => {
                values.count(self.string_data.len())?;
                return Tensor::from_strings(shape, &self.string_data).map_err(error);
            }
            DataType::Fp32 => values.pack(&self.float_data, |x| Some(x.to_le_bytes()))?,
            DataType::Fp64 => values.pack(&self.double_data, |x| Some(x.to_le_bytes()))?,
            DataType::Int64 => values.pack(&self.int64_data, |x| Some(x.to_le_bytes()))?,
            DataType::Uint64 => values.pack(&self.uint64_data, |x| Some(x.to_le_bytes()))?,
            DataType::Uint32 => {
                values.pack(&self.uint64_data, |x| Some(u32::try_from(x).ok()?.to_le_bytes()))?
            }
            DataType::Int32 => values.pack(int32, |x| Some(x.to_le_bytes()))?,
            DataType::Int16 => values.pack(int32, |x| Some(i16::try_from(x).ok()?.to_le_bytes()))?,
            DataType::Int8 => values.pack(int32, |x| Some(i8::try_from(x).ok()?.to_le_bytes()))?,
            DataType::Uint8 => values.pack(int32, |x| Some(u8::try_from(x).ok()?.to_le_bytes()))?,
            DataType::Bool => values.pack(int32, |x| Some([u8::try_from(x).ok().filter(|&x| x <= 1)?]))?,
            // The bits of a 16-bit float are the value's low half.
            DataType::Uint16 | DataType::Fp16 | DataType::Bf16 => {
                values.pack(int32, |x| Some(u16::try_from(x).ok()?.to_le_bytes()))?
            }
        };
        Tensor::new(dtype, shape, data).map_err(error)
    }
}

/// What the values of a typed field must be.
struct Values<'a> {
    name: &'a str,
    dtype: DataType,
    elements: usize,
    used: usize,
}

impl Values<'_> {
    fn pack<T: Copy, const N: usize>(
        &self,
        values: &[T],
        bytes: impl Fn(T) -> Option<[u8; N]>,
    ) -> Result<Vec<u8>, TensorProtoError> {
        self.count(values.len())?;
        let mut data = Vec::with_capacity(values.len().saturating_mul(N));
        for (index, &value) in values.iter().enumerate() {
            let name = || self.name.to_owned();
            let bytes = bytes(value).ok_or_else(|| TensorProtoError::Range {
                name: name(),
                dtype: self.dtype,
                index,
            })?;
            data.extend_from_slice(&bytes);
        }
        Ok(data)
    }

    fn count(&self, found: usize) -> Result<(), TensorProtoError> {
        let name = || self.name.to_owned();
        match found {
            // Values are there, but in a field of another type.
            0 if self.used > 0 => Err(TensorProtoError::Fields { name: name() }),
            _ if found != self.elements => {
                Err(TensorProtoError::Count { name: name(), expected: self.elements, found })
            }
            _ => Ok(()),
        }
    }
}
