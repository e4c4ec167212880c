use confonnx_tensor::DataType;

/// The data type of an ONNX `TensorProto.DataType`; `None` for those the Open Inference Protocol lacks.
pub fn dtype_from_elem_type(elem_type: i32) -> Option<DataType> {
    Some(match elem_type {
        1 => DataType::Fp32,
        2 => DataType::Uint8,
        3 => DataType::Int8,
        4 => DataType::Uint16,
        5 => DataType::Int16,
        6 => DataType::Int32,
        7 => DataType::Int64,
        8 => DataType::Bytes,
        9 => DataType::Bool,
        10 => DataType::Fp16,
        11 => DataType::Fp64,
        12 => DataType::Uint32,
        13 => DataType::Uint64,
        16 => DataType::Bf16,
        _ => return None,
    })
}

/// The inverse of [`dtype_from_elem_type`].
pub fn elem_type(dtype: DataType) -> i32 {
    match dtype {
        DataType::Fp32 => 1,
        DataType::Uint8 => 2,
        DataType::Int8 => 3,
        DataType::Uint16 => 4,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Bytes => 8,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}

/// ONNX's name of a `TensorProto.DataType`, for messages.
pub(crate) fn elem_type_name(elem_type: i32) -> String {
    let known = match elem_type {
        0 => "UNDEFINED",
        14 => "COMPLEX64",
        15 => "COMPLEX128",
        17 => "FLOAT8E4M3FN",
        18 => "FLOAT8E4M3FNUZ",
        19 => "FLOAT8E5M2",
        20 => "FLOAT8E5M2FNUZ",
        21 => "UINT4",
        22 => "INT4",
        23 => "FLOAT4E2M1",
        24 => "FLOAT8E8M0",
        25 => "UINT2",
        26 => "INT2",
        _ => return dtype_from_elem_type(elem_type).map_or(format!("number {elem_type}"), |d| d.to_string()),
    };
    known.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_number() {
        for dtype in DataType::ALL {
            assert_eq!(dtype_from_elem_type(elem_type(dtype)), Some(dtype));
        }
        assert_eq!((0..100).filter_map(dtype_from_elem_type).count(), DataType::ALL.len());
        assert_eq!(elem_type_name(14), "COMPLEX64");
        assert_eq!(elem_type_name(99), "number 99");
    }
}
