//! Tensors as people write them: `{"name": {"type": "float32", "values": [[1, 2], [3, 4]]}}`.
//!
//! Types have NumPy's names (`float32`, `int64`, `bool`, …; `bfloat16`; `string`, also called `object`). The shape is
//! that of the nested lists; an optional `"shape": [2, 2]` overrides it, which a tensor without elements needs.
//! Floats that JSON has no number for are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.

use confonnx_tensor::{DataType, Shape, Tensor, TensorError};
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// JSON that is not such an object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, or not an object of tensors.
    #[error("expected {{\"name\": {{\"type\": \"float32\", \"values\": […]}}}}: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A type name is unknown.
    #[error("`{tensor}`: unknown type `{found}`; known are {}", KNOWN.map(|(name, _)| name).join(", "))]
    Type {
        /// Name of the tensor.
        tensor: String,
        /// The type's name.
        found: String,
    },
    /// Lists on one level differ in length or depth.
    #[error(
        "`{tensor}`: the nested lists of `values` are ragged: on each level all have to be equally long and deep"
    )]
    Ragged {
        /// Name of the tensor.
        tensor: String,
    },
    /// An element is no value of the type. The element is not shown, because inputs may be confidential.
    #[error("`{tensor}`: element {element} is not a value of type {expected}")]
    Element {
        /// Name of the tensor.
        tensor: String,
        /// The element's position in row-major order, from 0.
        element: usize,
        /// The type's name.
        expected: &'static str,
    },
    /// Shape and values do not fit.
    #[error("`{tensor}`: {source}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What does not fit.
        source: TensorError,
    },
    /// A string is not UTF-8, so JSON has no form for it.
    #[error("`{tensor}`: element {element} is not UTF-8, so it cannot be written as JSON")]
    Utf8 {
        /// Name of the tensor.
        tensor: String,
        /// The element's position in row-major order, from 0.
        element: usize,
    },
}

/// Reads named tensors, in the order of the names.
pub fn read(json: &[u8]) -> Result<Vec<(String, Tensor<'static>)>, JsonError> {
    let tensors: std::collections::BTreeMap<String, Wire> = confonnx_attest::json::from_slice(json)?;
    tensors.into_iter().map(|(name, wire)| read_one(&name, &wire).map(|tensor| (name, tensor))).collect()
}

/// Writes named tensors.
pub fn write(tensors: &[(String, Tensor<'_>)]) -> Result<String, JsonError> {
    let object = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), write_one(name, tensor)?)))
        .collect::<Result<Map<_, _>, JsonError>>()?;
    Ok(serde_json::to_string(&Value::Object(object))?)
}

/// NumPy's name for a type.
pub fn type_name(dtype: DataType) -> &'static str {
    KNOWN.iter().find(|(_, known)| *known == dtype).map_or("string", |(name, _)| name)
}

/// The type of that NumPy name.
pub fn type_from_name(name: &str) -> Option<DataType> {
    KNOWN.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(rename = "type")]
    dtype: String,
    values: Value,
    shape: Option<Vec<u64>>,
}

fn read_one(name: &str, wire: &Wire) -> Result<Tensor<'static>, JsonError> {
    let unknown = || JsonError::Type { tensor: name.into(), found: wire.dtype.chars().take(64).collect() };
    let dtype = type_from_name(&wire.dtype).ok_or_else(unknown)?;
    let (mut shape, mut leaves) = (Vec::new(), Vec::new());
    let mut level = &wire.values;
    while let Value::Array(items) = level {
        shape.push(items.len() as u64);
        let Some(first) = items.first() else { break };
        level = first;
    }
    flatten(&wire.values, &shape, &mut leaves).ok_or_else(|| JsonError::Ragged { tensor: name.into() })?;
    let tensor = |source| JsonError::Tensor { tensor: name.into(), source };
    let shape = Shape::new(wire.shape.clone().unwrap_or(shape)).map_err(tensor)?;
    let wrong = |element| JsonError::Element { tensor: name.into(), element, expected: type_name(dtype) };
    if dtype == DataType::Bytes {
        let items = leaves.iter().enumerate().map(|(i, leaf)| leaf.as_str().ok_or_else(|| wrong(i)));
        return Tensor::from_strings(shape, &items.collect::<Result<Vec<_>, _>>()?).map_err(tensor);
    }
    let mut data = Vec::with_capacity(leaves.len().saturating_mul(dtype.size().unwrap_or(1)));
    for (i, leaf) in leaves.iter().enumerate() {
        push_element(dtype, leaf, &mut data).ok_or_else(|| wrong(i))?;
    }
    Tensor::new(dtype, shape, data).map_err(tensor)
}

fn flatten<'v>(value: &'v Value, shape: &[u64], leaves: &mut Vec<&'v Value>) -> Option<()> {
    match (value, shape) {
        (Value::Array(items), [len, inner @ ..]) if items.len() as u64 == *len => {
            items.iter().try_for_each(|item| flatten(item, inner, leaves))
        }
        (Value::Array(_), _) | (_, [_, ..]) => None,
        (leaf, []) => {
            leaves.push(leaf);
            Some(())
        }
    }
}

fn push_element(dtype: DataType, value: &Value, data: &mut Vec<u8>) -> Option<()> {
    fn int<T: TryFrom<i64>>(value: &Value) -> Option<T> {
        T::try_from(value.as_i64()?).ok()
    }
    match dtype {
        DataType::Bool => data.push(value.as_bool()?.into()),
        DataType::Uint8 => data.extend(int::<u8>(value)?.to_le_bytes()),
        DataType::Uint16 => data.extend(int::<u16>(value)?.to_le_bytes()),
        DataType::Uint32 => data.extend(int::<u32>(value)?.to_le_bytes()),
        DataType::Uint64 => data.extend(value.as_u64()?.to_le_bytes()),
        DataType::Int8 => data.extend(int::<i8>(value)?.to_le_bytes()),
        DataType::Int16 => data.extend(int::<i16>(value)?.to_le_bytes()),
        DataType::Int32 => data.extend(int::<i32>(value)?.to_le_bytes()),
        DataType::Int64 => data.extend(value.as_i64()?.to_le_bytes()),
        DataType::Fp16 => {
            data.extend(in_range(f16::from_f64(float(value)?), f16::is_infinite, value)?.to_le_bytes());
        }
        DataType::Bf16 => {
            data.extend(in_range(bf16::from_f64(float(value)?), bf16::is_infinite, value)?.to_le_bytes());
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to the type's precision is what is wanted"
        )]
        DataType::Fp32 => {
            data.extend(in_range(float(value)? as f32, f32::is_infinite, value)?.to_le_bytes());
        }
        DataType::Fp64 => data.extend(in_range(float(value)?, f64::is_infinite, value)?.to_le_bytes()),
        DataType::Bytes => return None,
    }
    Some(())
}

/// `found`, unless it became an infinity that `value` does not say.
fn in_range<T: Copy>(found: T, is_infinite: impl Fn(T) -> bool, value: &Value) -> Option<T> {
    (value.is_string() || !is_infinite(found)).then_some(found)
}

fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
    }
}

fn write_one(name: &str, tensor: &Tensor<'_>) -> Result<Value, JsonError> {
    let data = tensor.data();
    let mut leaves: Vec<Value> = match tensor.dtype() {
        DataType::Bool => data.iter().map(|byte| Value::Bool(*byte != 0)).collect(),
        DataType::Uint8 => numbers(data, u8::from_le_bytes),
        DataType::Uint16 => numbers(data, u16::from_le_bytes),
        DataType::Uint32 => numbers(data, u32::from_le_bytes),
        DataType::Uint64 => numbers(data, u64::from_le_bytes),
        DataType::Int8 => numbers(data, i8::from_le_bytes),
        DataType::Int16 => numbers(data, i16::from_le_bytes),
        DataType::Int32 => numbers(data, i32::from_le_bytes),
        DataType::Int64 => numbers(data, i64::from_le_bytes),
        DataType::Fp16 => floats(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DataType::Bf16 => floats(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        DataType::Fp32 => floats(data, f32::from_le_bytes),
        DataType::Fp64 => floats(data, f64::from_le_bytes),
        DataType::Bytes => {
            let text = |(element, item)| match std::str::from_utf8(item) {
                Ok(text) => Ok(Value::from(text)),
                Err(_) => Err(JsonError::Utf8 { tensor: name.into(), element }),
            };
            tensor.items().enumerate().map(text).collect::<Result<_, _>>()?
        }
    };
    let dims = tensor.shape().dims();
    let dtype = type_name(tensor.dtype());
    if dims.contains(&0) {
        // Nested lists cannot say `[0, 3]`.
        return Ok(json!({ "type": dtype, "shape": dims, "values": [] }));
    }
    for len in dims.iter().skip(1).rev() {
        let len = usize::try_from(*len).unwrap_or(usize::MAX);
        let mut rest = leaves.into_iter();
        leaves = std::iter::from_fn(|| {
            let row: Vec<_> = rest.by_ref().take(len).collect();
            (!row.is_empty()).then_some(Value::Array(row))
        })
        .collect();
    }
    let values = if dims.is_empty() { leaves.pop().unwrap_or_default() } else { Value::Array(leaves) };
    Ok(json!({ "type": dtype, "values": values }))
}

fn numbers<const N: usize, T: Into<Value>>(data: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<Value> {
    data.as_chunks().0.iter().map(|bytes| from(*bytes).into()).collect()
}

fn floats<const N: usize, T: Into<Value> + Into<f64> + Copy>(
    data: &[u8],
    from: impl Fn([u8; N]) -> T,
) -> Vec<Value> {
    let float = |value: T| match value.into() {
        wide if f64::is_nan(wide) => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => value.into(),
    };
    data.as_chunks().0.iter().map(|bytes| float(from(*bytes))).collect()
}

const KNOWN: [(&str, DataType); 15] = [
    ("bool", DataType::Bool),
    ("uint8", DataType::Uint8),
    ("uint16", DataType::Uint16),
    ("uint32", DataType::Uint32),
    ("uint64", DataType::Uint64),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("float16", DataType::Fp16),
    ("bfloat16", DataType::Bf16),
    ("float32", DataType::Fp32),
    ("float64", DataType::Fp64),
    ("string", DataType::Bytes),
    ("object", DataType::Bytes),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) {
        let tensors = read(text.as_bytes()).unwrap();
        let written: Value = serde_json::from_str(&write(&tensors).unwrap()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn every_type_round_trips_with_its_extreme_values() {
        for text in [
            r#"{"x": {"type": "bool", "values": [true, false]}}"#,
            r#"{"x": {"type": "uint8", "values": [0, 255]}}"#,
            r#"{"x": {"type": "uint16", "values": [65535]}}"#,
            r#"{"x": {"type": "uint32", "values": [4294967295]}}"#,
            r#"{"x": {"type": "uint64", "values": [18446744073709551615]}}"#,
            r#"{"x": {"type": "int8", "values": [-128]}}"#,
            r#"{"x": {"type": "int16", "values": [-32768]}}"#,
            r#"{"x": {"type": "int32", "values": [-2147483648]}}"#,
            r#"{"x": {"type": "int64", "values": [9007199254740993, -9223372036854775808]}}"#,
            r#"{"x": {"type": "float16", "values": [0.5, 65504.0]}}"#,
            r#"{"x": {"type": "bfloat16", "values": [-2.5]}}"#,
            r#"{"x": {"type": "float32", "values": [[1.5, -2.0], ["NaN", "-Infinity"]]}}"#,
            r#"{"x": {"type": "float64", "values": [0.1]}}"#,
            r#"{"x": {"type": "string", "values": ["", "é"]}}"#,
            r#"{"a": {"type": "float32", "values": 1.0}, "b": {"type": "int8", "shape": [0, 3], "values": []}}"#,
            r#"{"x": {"type": "int8", "values": [[[1, 2, 3], [4, 5, 6]]]}}"#,
        ] {
            round_trip(text);
        }
    }

    #[test]
    fn shapes_follow_the_nesting() {
        let tensors = read(br#"{"x": {"type": "object", "values": [["a"], ["b"]]}}"#).unwrap();
        assert_eq!(tensors[0].1.shape().dims(), [2, 1]);
        assert_eq!(tensors[0].1.items().collect::<Vec<_>>(), [b"a", b"b"]);
    }

    #[test]
    fn wrong_values_are_named_but_not_shown() {
        for (text, message) in [
            (
                r#"{"x": {"type": "uint8", "values": [1, 256]}}"#,
                "`x`: element 1 is not a value of type uint8",
            ),
            (r#"{"x": {"type": "int64", "values": [1.5]}}"#, "`x`: element 0 is not a value of type int64"),
            (
                r#"{"x": {"type": "float32", "values": ["secret"]}}"#,
                "`x`: element 0 is not a value of type float32",
            ),
            (
                r#"{"x": {"type": "float32", "values": [1e39]}}"#,
                "`x`: element 0 is not a value of type float32",
            ),
            (
                r#"{"x": {"type": "float16", "values": [70000]}}"#,
                "`x`: element 0 is not a value of type float16",
            ),
            (
                r#"{"x": {"type": "bfloat16", "values": [1, -4e38]}}"#,
                "`x`: element 1 is not a value of type bfloat16",
            ),
            (
                r#"{"x": {"type": "int8", "values": [[1], [2, 3]]}}"#,
                "`x`: the nested lists of `values` are ragged",
            ),
            (
                r#"{"x": {"type": "int8", "values": [[1], 2]}}"#,
                "`x`: the nested lists of `values` are ragged",
            ),
            (
                r#"{"x": {"type": "int8", "values": [1, [2]]}}"#,
                "`x`: the nested lists of `values` are ragged",
            ),
            (
                r#"{"x": {"type": "float33", "values": []}}"#,
                "`x`: unknown type `float33`; known are bool, uint8",
            ),
            (r#"{"x": {"type": "int8", "shape": [3], "values": [1]}}"#, "`x`: "),
            (r#"{"x": {"values": [1]}}"#, "expected {\"name\": {\"type\""),
        ] {
            let found = read(text.as_bytes()).unwrap_err().to_string();
            assert!(found.starts_with(message), "{text}: {found}");
            assert!(!found.contains("secret"), "{found}");
        }
    }
}
