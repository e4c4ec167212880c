//! Tensors to ONNX Runtime values and back.

use std::fmt::Debug;

use confonnx_tensor::{DataType, Shape, Tensor};
use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{
        DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef, ValueType,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};
use zeroize::Zeroize;

/// Calls a function generic over the element type with the one that `$dtype` names.
macro_rules! with_element {
    ($dtype:expr, $function:ident($($argument:expr),*), bool => $bool:expr, bytes => $bytes:expr) => {
        match $dtype {
            DataType::Bool => $bool,
            DataType::Uint8 => $function::<u8>($($argument),*),
            DataType::Uint16 => $function::<u16>($($argument),*),
            DataType::Uint32 => $function::<u32>($($argument),*),
            DataType::Uint64 => $function::<u64>($($argument),*),
            DataType::Int8 => $function::<i8>($($argument),*),
            DataType::Int16 => $function::<i16>($($argument),*),
            DataType::Int32 => $function::<i32>($($argument),*),
            DataType::Int64 => $function::<i64>($($argument),*),
            DataType::Fp16 => $function::<f16>($($argument),*),
            DataType::Bf16 => $function::<bf16>($($argument),*),
            DataType::Fp32 => $function::<f32>($($argument),*),
            DataType::Fp64 => $function::<f64>($($argument),*),
            DataType::Bytes => $bytes,
        }
    };
}

/// A tensor whose bytes are aligned for every element type.
pub(crate) enum Aligned<'a> {
    /// They were already.
    Borrowed(&'a Tensor<'a>),
    /// Copied into 64-bit words, which are scrubbed after use.
    Copied(&'a Tensor<'a>, Words),
}

impl<'a> Aligned<'a> {
    pub(crate) fn new(tensor: &'a Tensor<'a>) -> Self {
        let data = tensor.data();
        let align = tensor.dtype().size().unwrap_or(1);
        if data.as_ptr().addr().is_multiple_of(align) {
            return Self::Borrowed(tensor);
        }
        let mut words = vec![0_u64; data.len().div_ceil(size_of::<u64>())];
        if let Some(start) = words.as_mut_bytes().get_mut(..data.len()) {
            start.copy_from_slice(data);
        }
        Self::Copied(tensor, Words(words))
    }

    /// A value that borrows these bytes. The caller has checked the tensor's values and dimensions.
    pub(crate) fn value(&self) -> ort::Result<SessionInputValue<'_>> {
        let (tensor, bytes) = match self {
            Self::Borrowed(tensor) => (tensor, tensor.data()),
            Self::Copied(tensor, words) => {
                (tensor, words.0.as_bytes().get(..tensor.data().len()).unwrap_or_default())
            }
        };
        let dims: Vec<i64> =
            tensor.shape().dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        with_element!(tensor.dtype(), view(dims, bytes), bool => view_bool(dims, bytes), bytes => strings(dims, tensor))
    }
}

pub(crate) struct Words(Vec<u64>);

impl Drop for Words {
    fn drop(&mut self) {
        // The slice, not the `Vec`, which is erased word by word.
        self.0.as_mut_slice().zeroize();
    }
}

/// Copies an output into an owned tensor; `None` when it is not one the protocol has a name for.
pub(crate) fn output(value: &DynValue) -> Option<Tensor<'static>> {
    let dtype = data_type(value.dtype().tensor_type()?)?;
    let (dims, data) =
        with_element!(dtype, copy(value), bool => copy_bool(value), bytes => return copy_strings(value))?;
    Tensor::new(dtype, dims, data).ok()
}

/// The protocol's name for an ONNX element type, if it has one.
pub(crate) fn data_type(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

fn view<'v, T>(dims: Vec<i64>, bytes: &'v [u8]) -> ort::Result<SessionInputValue<'v>>
where
    T: FromBytes + Immutable + KnownLayout + PrimitiveTensorElementType + Debug + Clone + 'static,
{
    let elements = <[T]>::ref_from_bytes(bytes).map_err(|_| layout())?;
    Ok(TensorRef::from_array_view((dims, elements))?.into())
}

fn view_bool(dims: Vec<i64>, bytes: &[u8]) -> ort::Result<SessionInputValue<'_>> {
    let elements = <[bool]>::try_ref_from_bytes(bytes).map_err(|_| layout())?;
    Ok(TensorRef::from_array_view((dims, elements))?.into())
}

fn strings(dims: Vec<i64>, tensor: &Tensor<'_>) -> ort::Result<SessionInputValue<'static>> {
    let mut items: Vec<String> =
        tensor.items().map(|item| String::from_utf8_lossy(item).into_owned()).collect();
    let value = OrtTensor::from_string_array((dims, items.as_slice()));
    items.zeroize();
    Ok(value?.into())
}

/// Bytes that do not fit their type; a checked tensor's always do.
fn layout() -> ort::Error {
    ort::Error::new_with_code(ort::ErrorCode::InvalidArgument, "bytes and element type disagree")
}

type Copied = Option<(Shape, Vec<u8>)>;

fn copy<T: IntoBytes + Immutable + PrimitiveTensorElementType>(value: &DynValue) -> Copied {
    let (_, elements) = value.try_extract_tensor::<T>().ok()?;
    Some((dims(value.dtype())?, elements.as_bytes().to_vec()))
}

fn copy_bool(value: &DynValue) -> Copied {
    copy::<bool>(value)
}

fn copy_strings(value: &DynValue) -> Option<Tensor<'static>> {
    let (_, strings) = value.try_extract_strings().ok()?;
    Tensor::from_strings(dims(value.dtype())?, &strings).ok()
}

fn dims(ty: &ValueType) -> Option<Shape> {
    let dims: Option<Vec<u64>> = ty.tensor_shape()?.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    Shape::new(dims?).ok()
}
