use confonnx_model::{TensorProtoError, read_tensor_proto, write_tensor_proto};
use confonnx_tensor::{DataType, Shape, Tensor};
use proptest::prelude::*;

use crate::data;

/// The values that `make.py` wrote: 0, 1 and the type's largest or smallest.
fn expected(dtype: DataType) -> Vec<u8> {
    fn bytes<const N: usize>(values: [[u8; N]; 3]) -> Vec<u8> {
        values.concat()
    }
    match dtype {
        DataType::Bool => vec![0, 1, 1],
        DataType::Uint8 => vec![0, 1, 255],
        DataType::Int8 => bytes([0, 1, i8::MIN].map(i8::to_le_bytes)),
        DataType::Uint16 => bytes([0, 1, u16::MAX].map(u16::to_le_bytes)),
        DataType::Int16 => bytes([0, 1, i16::MIN].map(i16::to_le_bytes)),
        DataType::Uint32 => bytes([0, 1, u32::MAX].map(u32::to_le_bytes)),
        DataType::Int32 => bytes([0, 1, i32::MIN].map(i32::to_le_bytes)),
        DataType::Uint64 => bytes([0, 1, u64::MAX].map(u64::to_le_bytes)),
        DataType::Int64 => bytes([0, 1, i64::MIN].map(i64::to_le_bytes)),
        DataType::Fp16 => bytes([0, 0x3c00, 0x7bff].map(u16::to_le_bytes)),
        DataType::Bf16 => bytes([0, 0x3f80, 0x7180].map(u16::to_le_bytes)),
        DataType::Fp32 => bytes([0.0, 1.0, f32::INFINITY].map(f32::to_le_bytes)),
        DataType::Fp64 => bytes([0.0, 1.0, f64::INFINITY].map(f64::to_le_bytes)),
        DataType::Bytes => {
            let shape = Shape::new([3]).unwrap();
            Tensor::from_strings(shape, &["", "é", "abc"]).unwrap().into_data().into_owned()
        }
    }
}

#[test]
fn reads_raw_and_typed_fields_of_every_type() {
    for dtype in DataType::ALL {
        for form in ["raw", "typed"] {
            let (name, tensor) = read_tensor_proto(&data(&format!("{form}-{dtype}.pb"))).unwrap();
            assert_eq!(name, if form == "raw" { dtype.name() } else { &name }, "{form}");
            assert_eq!(
                tensor,
                Tensor::new(dtype, Shape::new([3]).unwrap(), expected(dtype)).unwrap(),
                "{form}"
            );
        }
    }
}

#[test]
fn reads_scalars_and_empty_tensors() {
    let (_, scalar) = read_tensor_proto(&data("scalar.pb")).unwrap();
    assert_eq!((scalar.shape().dims(), scalar.data()), (&[][..], &0.5_f32.to_le_bytes()[..]));
    let (_, empty) = read_tensor_proto(&data("empty.pb")).unwrap();
    assert_eq!((empty.shape().dims(), empty.data()), (&[0, 4][..], &[][..]));
}

#[test]
fn writes_what_python_writes() {
    for dtype in DataType::ALL {
        let file = data(&format!("raw-{dtype}.pb"));
        let (name, tensor) = read_tensor_proto(&file).unwrap();
        assert_eq!(write_tensor_proto(&name, &tensor), file, "{dtype}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["raw-FP32.pb", "typed-FP32.pb", "typed-INT64.pb", "raw-BYTES.pb"] {
        let file = data(name);
        let whole = read_tensor_proto(&file).unwrap();
        for len in 0..file.len() {
            match read_tensor_proto(&file[..len]) {
                // In some files the name is the last field: a file cut before it must still have all values.
                Ok((_, tensor)) => assert_eq!(tensor, whole.1, "{name} {len}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// A TensorProto: dims 1 (packed), data_type, then the bytes `rest`.
fn proto(dims: &[u8], data_type: u8, rest: &[u8]) -> Vec<u8> {
    [&[0x0a, dims.len() as u8][..], dims, &[0x10, data_type], rest].concat()
}

#[test]
fn each_fault_has_its_own_error() {
    let name = String::new;
    let read =
        |dims: &[u8], data_type, rest: &[u8]| read_tensor_proto(&proto(dims, data_type, rest)).unwrap_err();
    let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(read(&minus_one, 1, &[]), TensorProtoError::Dimension { name: name(), index: 0 });
    let found = "COMPLEX64".into();
    assert_eq!(read(&[1], 14, &[]), TensorProtoError::DataType { name: name(), found });
    let found = "UNDEFINED".into();
    assert_eq!(read(&[1], 0, &[]), TensorProtoError::DataType { name: name(), found });
    // data_location: EXTERNAL
    assert_eq!(read(&[1], 1, &[0x70, 1]), TensorProtoError::Elsewhere { name: name() });
    // segment
    assert_eq!(read(&[1], 1, &[0x1a, 0]), TensorProtoError::Elsewhere { name: name() });
    // raw_data and int32_data
    assert_eq!(read(&[1], 2, &[0x4a, 1, 7, 0x2a, 1, 7]), TensorProtoError::Fields { name: name() });
    // int64_data of an INT32 tensor
    assert_eq!(read(&[1], 6, &[0x3a, 1, 7]), TensorProtoError::Fields { name: name() });
    // raw_data of strings
    assert_eq!(read(&[1], 8, &[0x4a, 4, 0, 0, 0, 0]), TensorProtoError::Fields { name: name() });
    assert_eq!(read(&[2], 2, &[0x2a, 1, 7]), TensorProtoError::Count { name: name(), expected: 2, found: 1 });
    let dtype = DataType::Uint8;
    assert_eq!(
        read(&[1], 2, &[0x2a, 2, 0x80, 0x02]),
        TensorProtoError::Range { name: name(), dtype, index: 0 }
    );
    let dtype = DataType::Bool;
    assert_eq!(read(&[1], 9, &[0x2a, 1, 2]), TensorProtoError::Range { name: name(), dtype, index: 0 });
    assert!(matches!(read(&[2], 1, &[0x4a, 4, 0, 0, 0, 0]), TensorProtoError::Tensor { .. }));
    // A shape of 2^62 elements costs nothing.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    assert!(matches!(read(&huge, 1, &[]), TensorProtoError::Count { .. }));
}

proptest! {
    #[test]
    fn round_trip(name in ".{0,20}", items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9)) {
        let shape = Shape::new([items.len() as u64, 1]).unwrap();
        let tensor = Tensor::from_strings(shape, &items).unwrap();
        prop_assert_eq!(read_tensor_proto(&write_tensor_proto(&name, &tensor)).unwrap(), (name, tensor));
    }

    #[test]
    fn any_bytes_give_a_tensor_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_tensor_proto(&bytes);
    }
}
