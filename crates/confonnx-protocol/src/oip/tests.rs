use confonnx_tensor::{DataType, Shape, Tensor, TensorError};
use half::{bf16, f16};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

use super::*;

fn shape(dims: &[u64]) -> Shape {
    Shape::new(dims).unwrap()
}

fn tensor<'a>(dtype: DataType, dims: &[u64], data: &'a [u8]) -> Tensor<'a> {
    Tensor::new(dtype, shape(dims), data).unwrap()
}

fn input(json: &str) -> Result<Tensor<'static>, OipError> {
    let body = format!(r#"{{"inputs":[{json}]}}"#);
    let mut request = InferRequest::decode(body.as_bytes(), None)?;
    Ok(request.inputs.remove(0).1.into_owned())
}

fn data(datatype: &str, dims: &str, data: &str) -> Result<Tensor<'static>, OipError> {
    input(&format!(r#"{{"name":"x","shape":{dims},"datatype":"{datatype}","data":{data}}}"#))
}

fn x() -> String {
    "x".into()
}

/// The message is the binary tensor data extension's own example, shortened.
#[test]
fn a_mixed_request_as_triton_documents_it() {
    let json = br#"{
        "model_name": "mymodel", "id": "7",
        "inputs": [
            {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": {"binary_data_size": 16}},
            {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [true, false, true]},
            {"name": "input2", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1, "more": []}}
        ],
        "parameters": {"binary_data_output": true, "priority": 3, "sequence_id": "a"},
        "outputs": [{"name": "output0", "parameters": {"binary_data": false}}, {"name": "output1"}]
    }"#;
    let body = [&json[..], &[7; 17]].concat();
    let request = InferRequest::decode(&body, Some(json.len())).unwrap();
    let expected = InferRequest {
        id: Some("7".into()),
        inputs: vec![
            ("input0".into(), tensor(DataType::Uint32, &[2, 2], &[7; 16])),
            ("input1".into(), tensor(DataType::Bool, &[3], &[1, 0, 1])),
            ("input2".into(), tensor(DataType::Uint8, &[1], &[7])),
        ],
        outputs: vec![
            RequestedOutput { name: "output0".into(), binary: Some(false) },
            RequestedOutput { name: "output1".into(), binary: None },
        ],
        binary_default: true,
        sequence: Some(Sequence { id: SequenceId::Text("a".into()), start: false, end: false }),
    };
    assert_eq!(request, expected);
    assert!(
        !request.wants_binary("output0") && request.wants_binary("output1") && request.wants_binary("other")
    );
    // The tensor was not copied.
    assert_eq!(request.inputs[0].1.data().as_ptr(), body[json.len()..].as_ptr());
}

#[test]
fn requests_are_written_as_the_protocol_says() {
    let request = InferRequest {
        id: None,
        inputs: vec![("x".into(), tensor(DataType::Int16, &[1, 2], &[1, 2, 3, 4]))],
        outputs: vec![RequestedOutput { name: "y".into(), binary: None }],
        binary_default: true,
        sequence: None,
    };
    let encoded = request.encode().unwrap();
    let json = concat!(
        r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"INT16","shape":[1,2],"#,
        r#""parameters":{"binary_data_size":4}}],"outputs":[{"name":"y"}]}"#
    );
    assert_eq!(encoded.parts(), [json.as_bytes(), &[1, 2, 3, 4]]);
    assert_eq!((encoded.json_len(), encoded.content_type()), (Some(json.len()), "application/octet-stream"));
    let sequence = Some(Sequence { id: SequenceId::Number(u64::MAX), start: true, end: false });
    let request = InferRequest { sequence, ..request };
    let encoded = request.encode().unwrap();
    let json = String::from_utf8(encoded.parts()[0].to_vec()).unwrap();
    assert!(
        json.contains(r#""sequence_id":18446744073709551615,"sequence_start":true,"sequence_end":false}"#),
        "{json}"
    );
    let again = InferRequest::decode(&encoded.parts().concat(), encoded.json_len()).unwrap().sequence;
    assert_eq!(again, request.sequence);
}

#[test]
fn responses_are_written_as_asked() {
    let numbers = [-1_i64, 1].map(i64::to_le_bytes).concat();
    let response = InferResponse {
        model_name: "digits".into(),
        model_version: Some("1".into()),
        id: Some("7".into()),
        outputs: vec![
            ("a".into(), tensor(DataType::Int64, &[2], &numbers)),
            ("b".into(), tensor(DataType::Uint8, &[0], &[])),
        ],
    };
    let json = concat!(
        r#"{"model_name":"digits","model_version":"1","id":"7","outputs":[{"name":"a","datatype":"INT64","#,
        r#""shape":[2],"data":[-1,1]},{"name":"b","datatype":"UINT8","shape":[0],"data":[]}]}"#
    );
    let encoded = response.encode(|_| false).unwrap();
    assert_eq!(encoded.parts(), [json.as_bytes()]);
    assert_eq!((encoded.json_len(), encoded.content_type()), (None, "application/json"));
    assert_eq!(InferResponse::decode(json.as_bytes(), None).unwrap(), response);

    // An empty tensor is binary too, if that was asked for.
    let encoded = response.encode(|name| name == "b").unwrap();
    let parts = encoded.parts();
    assert_eq!((parts.len(), encoded.json_len()), (2, Some(parts[0].len())));
    assert_eq!(InferResponse::decode(&parts.concat(), encoded.json_len()).unwrap(), response);
}

#[test]
fn data_may_be_nested_to_one_depth() {
    let expected = tensor(DataType::Uint8, &[2, 2], &[1, 2, 3, 4]);
    for json in ["[1,2,3,4]", "[[1,2],[3,4]]", " [ [ [1],[2] ] , [ [3],[4] ] ] ", "[[1,2,3,4]]"] {
        assert_eq!(data("UINT8", "[2,2]", json).unwrap(), expected, "{json}");
    }
    assert!(data("UINT8", "[2,0]", "[[],[]]").is_ok());
    for (json, index) in
        [("[1,[2,3,4]]", 1), ("[[1,2],3,4]", 2), ("7", 0), ("{}", 0), ("\"abcd\"", 0), ("true", 0)]
    {
        assert_eq!(data("UINT8", "[2,2]", json), Err(OipError::Nesting { name: x(), index }), "{json}");
    }
    // Deeper than serde_json goes.
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    assert!(data("UINT8", "[0]", &deep).is_err());
}

#[test]
fn integers_keep_their_bits_and_their_range() {
    let max = data("UINT64", "[2]", "[18446744073709551615, 9007199254740993]").unwrap();
    assert_eq!(max.data(), [u64::MAX.to_le_bytes(), 9007199254740993_u64.to_le_bytes()].concat());
    let min = data("INT64", "[1]", "[-9223372036854775808]").unwrap();
    assert_eq!(min.data(), i64::MIN.to_le_bytes());
    for (name, json) in [
        ("UINT8", "256"),
        ("UINT8", "-1"),
        ("INT8", "128"),
        ("INT16", "-32769"),
        ("UINT16", "65536"),
        ("INT32", "2147483648"),
        ("UINT32", "-1"),
        ("INT64", "9223372036854775808"),
        ("UINT64", "18446744073709551616"),
        ("UINT64", "-1"),
        ("INT32", "1.0"),
        ("INT32", "1e3"),
        ("INT32", "true"),
        ("INT32", "\"1\""),
        ("INT32", "null"),
        ("BOOL", "1"),
        ("BOOL", "\"true\""),
        ("BYTES", "1"),
        ("FP32", "\"1\""),
        ("FP32", "true"),
        ("FP32", "null"),
        ("FP32", "1e39"),
        ("FP16", "65520"),
        ("FP16", "-1e5"),
        ("BF16", "3.4e38"),
    ] {
        let expected = OipError::Element { name: x(), dtype: DataType::from_name(name).unwrap(), index: 1 };
        let good = if name == "BYTES" {
            "\"a\""
        } else if name == "BOOL" {
            "true"
        } else {
            "1"
        };
        assert_eq!(data(name, "[2]", &format!("[{good},{json}]")), Err(expected), "{name} {json}");
    }
    // Beyond binary64, the number is not even JSON to serde_json.
    assert!(data("FP64", "[1]", "[1e999]").is_err());
}

#[test]
fn floats_round_to_nearest() {
    let halves = data("FP16", "[3]", "[1, 0.1, 65504]").unwrap();
    let expected = [1.0, 0.1, 65504.0].map(|x| f16::from_f64(x).to_le_bytes()).concat();
    assert_eq!(halves.data(), expected);
    let brains = data("BF16", "[2]", "[-2.5, 1e30]").unwrap();
    assert_eq!(brains.data(), [-2.5, 1e30].map(|x| bf16::from_f64(x).to_le_bytes()).concat());
    let singles = data("FP32", "[3]", "[0.1, 16777217, -0.0]").unwrap();
    assert_eq!(singles.data(), [0.1_f32, 16777216.0, -0.0].map(f32::to_le_bytes).concat());
    // Just over halfway between two floats: by way of binary64 it would round down.
    let once = data("FP32", "[1]", "[1.00000005960464477540]").unwrap();
    assert_eq!(once.data(), 1.0000001_f32.to_le_bytes());
    let doubles = data("FP64", "[1]", "[0.30000000000000004]").unwrap();
    assert_eq!(doubles.data(), (0.1 + 0.2_f64).to_le_bytes());
}

#[test]
fn strings_are_utf8() {
    let strings = data("BYTES", "[3]", r#"["", "a\u00e9\n", "\ud83d\ude00"]"#).unwrap();
    assert_eq!(strings.items().collect::<Vec<_>>(), [&b""[..], "aé\n".as_bytes(), "😀".as_bytes()]);
    let body = b"{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"\xff\"]}]}";
    assert!(matches!(InferRequest::decode(body, None), Err(OipError::Json { .. })));
}

#[test]
fn element_counts_must_match() {
    let count = |found| Err(OipError::Count { name: x(), expected: 2, found });
    assert_eq!(data("UINT8", "[2]", "[1]"), count(1));
    assert_eq!(data("UINT8", "[2]", "[1,2,3]"), count(3));
    // However many elements there are, reading stops at one too many; however large the shape, nothing is allocated for
    // it.
    assert_eq!(data("UINT8", "[2]", &format!("[{}0]", "0,".repeat(1000))), count(3));
    assert_eq!(
        data("FP64", "[1000000000000]", "[1]"),
        Err(OipError::Count { name: x(), expected: 1_000_000_000_000, found: 1 })
    );
}

#[test]
fn shapes_are_checked() {
    let error = |error| Err(OipError::Tensor { name: x(), error });
    assert_eq!(data("UINT8", "[4,-1]", "[]"), Err(OipError::Dimension { name: x(), index: 1 }));
    assert_eq!(data("UINT8", "[9223372036854775807,4]", "[]"), error(TensorError::ShapeOverflow));
    let ones = format!("[{}1]", "1,".repeat(64));
    assert_eq!(data("UINT8", &ones, "[1]"), error(TensorError::Rank { found: 65 }));
    assert!(matches!(data("UINT8", "[1.5]", "[1]"), Err(OipError::Json { .. })));
    assert_eq!(data("UINT8", "[]", "[9]").unwrap().shape().dims(), &[0_u64; 0]);
    assert_eq!(data("STRING", "[1]", "[1]"), Err(OipError::DataType { name: x() }));
}

#[test]
fn binary_sizes_must_add_up() {
    let decode = |sizes: [u64; 2], binary: &[u8], header: bool| {
        let one = |name: &str, size| {
            format!(
                r#"{{"name":"{name}","shape":[2],"datatype":"UINT8","parameters":{{"binary_data_size":{size}}}}}"#
            )
        };
        let json = format!(r#"{{"inputs":[{},{}]}}"#, one("a", sizes[0]), one("b", sizes[1]));
        let body = [json.as_bytes(), binary].concat();
        InferRequest::decode(&body, header.then_some(json.len())).map(|request| request.inputs.len())
    };
    assert_eq!(decode([2, 2], &[0; 4], true), Ok(2));
    assert_eq!(decode([2, 2], &[0; 5], true), Err(OipError::BinarySurplus { left: 1 }));
    let name = || "b".to_owned();
    assert_eq!(
        decode([2, 2], &[0; 3], true),
        Err(OipError::BinaryTruncated { name: name(), size: 2, left: 1 })
    );
    let size = u64::MAX;
    assert_eq!(
        decode([2, size], &[0; 4], true),
        Err(OipError::BinaryTruncated { name: name(), size, left: 2 })
    );
    let error = TensorError::Length { expected: 2, found: 1 };
    assert_eq!(decode([2, 1], &[0; 3], true), Err(OipError::Tensor { name: name(), error }));
    assert_eq!(decode([2, 2], &[], false), Err(OipError::HeaderMissing { name: "a".into() }));
    assert!(matches!(decode([2, 2], &[0; 4], false), Err(OipError::Json { .. })));

    assert_eq!(InferRequest::decode(b"{}", Some(3)), Err(OipError::HeaderLength { header: 3, body: 2 }));
    assert_eq!(InferRequest::decode(b"\0\0", Some(0)), Err(OipError::NoHeader));
}

#[test]
fn a_tensor_has_one_kind_of_data() {
    let json = r#"{"name":"x","shape":[1],"datatype":"UINT8"}"#;
    assert_eq!(input(json), Err(OipError::NoData { name: x() }));
    let json =
        r#"{"name":"x","shape":[1],"datatype":"UINT8","data":[1],"parameters":{"binary_data_size":1}}"#;
    assert_eq!(input(json), Err(OipError::TwoData { name: x() }));
}

#[test]
fn names_are_given_once_and_bounded() {
    let request = |names: &[String]| InferRequest {
        inputs: names.iter().map(|name| (name.clone(), tensor(DataType::Uint8, &[1], &[1]))).collect(),
        ..InferRequest::default()
    };
    let names = |n: usize| (0..n).map(|i| format!("n{i}")).collect::<Vec<_>>();
    let input = |names: &[String]| {
        let one = |name: &String| format!(r#"{{"name":"{name}","shape":[0],"datatype":"UINT8","data":[]}}"#);
        let json = format!(r#"{{"inputs":[{}]}}"#, names.iter().map(one).collect::<Vec<_>>().join(","));
        InferRequest::decode(json.as_bytes(), None).map(|request| request.inputs.len())
    };
    let long = || "n".repeat(MAX_NAME + 1);
    for (names, expected) in [
        (names(MAX_TENSORS), Ok(MAX_TENSORS)),
        (names(MAX_TENSORS + 1), Err(OipError::TooMany { what: "inputs" })),
        (vec![x(), x()], Err(OipError::Duplicate { what: "input", name: x() })),
        (vec![x(), String::new()], Err(OipError::NameLength { what: "input", index: 1, len: 0 })),
        (vec![long()], Err(OipError::NameLength { what: "input", index: 0, len: MAX_NAME + 1 })),
    ] {
        assert_eq!(input(&names), expected);
        assert_eq!(request(&names).encode().map(|_| names.len()), expected);
    }
    let json = br#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#;
    let expected = OipError::Duplicate { what: "output", name: "y".into() };
    assert_eq!(InferRequest::decode(json, None), Err(expected));
}

#[test]
fn json_errors_say_where_and_what_but_no_value() {
    for (json, expected) in [
        (r#"{"inputs":[{"name":"x","shape":"secret","datatype":"UINT8"}]}"#, "expected an array"),
        (r#"{"inputs":[{"name":["secret"],"shape":[1]}]}"#, "expected a string"),
        (r#"{"inputs":[{"shape":[1]}]}"#, "missing field `name`"),
        (r#"{"id":"secret, expected nothing","inputs":5}"#, "expected an array"),
        (r#"{"inputs":[],"inputs":[]}"#, "duplicate field `inputs`"),
        (r#"{"id":"secret""#, "EOF while parsing an object"),
        (r#"{"inputs":[]} secret"#, "trailing characters"),
        ("secret", "expected value"),
        ("", "EOF while parsing a value"),
    ] {
        let Err(error @ OipError::Json { .. }) = InferRequest::decode(json.as_bytes(), None) else {
            panic!("{json}")
        };
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("line 1") && !text.contains("secret"),
            "{json}: {text}"
        );
    }
}

#[test]
fn values_without_json_form_are_errors_that_say_what_to_do() {
    let one = |dtype, data: &[u8]| {
        let output = Tensor::new(dtype, shape(&[2]), data.to_vec()).unwrap();
        let response = InferResponse { outputs: vec![("y".into(), output)], ..InferResponse::default() };
        assert!(response.encode(|_| true).is_ok());
        response.encode(|_| false).map(|_| ())
    };
    let not_json = OipError::NotJson { name: "y".into(), index: 1 };
    assert!(not_json.to_string().contains("binary_data"));
    for (dtype, data) in [
        (DataType::Fp32, [0.0, f32::NAN].map(f32::to_le_bytes).concat()),
        (DataType::Fp64, [0.0, f64::INFINITY].map(f64::to_le_bytes).concat()),
        (DataType::Fp16, [f16::ONE, f16::NEG_INFINITY].map(f16::to_le_bytes).concat()),
        (DataType::Bf16, [bf16::ONE, bf16::NAN].map(bf16::to_le_bytes).concat()),
        (DataType::Bytes, vec![0, 0, 0, 0, 1, 0, 0, 0, 0xff]),
    ] {
        assert_eq!(one(dtype, &data), Err(not_json.clone()), "{dtype}");
    }
}

#[test]
fn metadata_round_trips() {
    let json = concat!(
        r#"{"name":"digits","versions":["1"],"platform":"onnxruntime_onnx","#,
        r#""inputs":[{"name":"image","datatype":"FP32","shape":[-1,1,28,28]}],"outputs":[]}"#
    );
    let metadata: ModelMetadata = serde_json::from_str(json).unwrap();
    assert_eq!(metadata.inputs[0].datatype, DataType::Fp32);
    assert_eq!(serde_json::to_string(&metadata).unwrap(), json);
    assert!(serde_json::from_str::<ModelMetadata>(&json.replace("FP32", "FP31")).is_err());

    // KServe sends no code.
    let body: ErrorBody = serde_json::from_str(r#"{"error":"no such model"}"#).unwrap();
    assert_eq!((body.error.as_str(), body.code.as_str()), ("no such model", ""));
}

/// Any tensor whose values JSON can carry.
fn any_tensor() -> impl Strategy<Value = Tensor<'static>> {
    let strings = vec(".{0,9}", 0..9)
        .prop_map(|items| Tensor::from_strings(Shape::new([items.len() as u64]).unwrap(), &items).unwrap());
    let numbers = (proptest::sample::select(&DataType::ALL[..13]), vec(any::<[u8; 8]>(), 0..9)).prop_map(
        |(dtype, words)| {
            let word = |word: &[u8; 8]| match dtype {
                DataType::Bool => vec![word[0] & 1],
                DataType::Fp16 => finite(f16::from_le_bytes([word[0], word[1]]).to_f64(), |x| {
                    f16::from_f64(x).to_le_bytes()
                }),
                DataType::Bf16 => finite(bf16::from_le_bytes([word[0], word[1]]).to_f64(), |x| {
                    bf16::from_f64(x).to_le_bytes()
                }),
                DataType::Fp32 => {
                    finite(f32::from_le_bytes([word[0], word[1], word[2], word[3]]).into(), |x| {
                        (x as f32).to_le_bytes()
                    })
                }
                DataType::Fp64 => finite(f64::from_le_bytes(*word), f64::to_le_bytes),
                _ => word[..dtype.size().unwrap()].to_vec(),
            };
            let data: Vec<u8> = words.iter().flat_map(word).collect();
            Tensor::new(dtype, Shape::new([words.len() as u64, 1]).unwrap(), data).unwrap()
        },
    );
    prop_oneof![1 => strings, 9 => numbers]
}

fn finite<const N: usize>(x: f64, bytes: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    bytes(if x.is_finite() { x } else { 0.5 }).to_vec()
}

proptest! {
    #[test]
    fn responses_round_trip(tensors in vec((any_tensor(), any::<bool>()), 0..6)) {
        let outputs = tensors.iter().enumerate().map(|(i, (tensor, _))| (i.to_string(), tensor.clone())).collect();
        let response = InferResponse { model_name: "m".into(), outputs, ..InferResponse::default() };
        let encoded = response.encode(|name| tensors[name.parse::<usize>().unwrap()].1).unwrap();
        let body = encoded.parts().concat();
        prop_assert_eq!(InferResponse::decode(&body, encoded.json_len()).unwrap(), response);
    }

    #[test]
    fn requests_round_trip(tensors in vec(any_tensor(), 0..6), id in proptest::option::of(".{0,20}"), binary_default in any::<bool>(), sequence in proptest::option::of((".{0,20}", any::<bool>(), any::<bool>()))) {
        let request = InferRequest {
            id,
            inputs: tensors.into_iter().enumerate().map(|(i, tensor)| (format!("in \"{i}\""), tensor)).collect(),
            outputs: vec![RequestedOutput { name: "out".into(), binary: Some(!binary_default) }],
            binary_default,
            sequence: sequence.map(|(id, start, end)| Sequence { id: SequenceId::Text(id), start, end }),
        };
        let encoded = request.encode().unwrap();
        let body = encoded.parts().concat();
        prop_assert_eq!(&InferRequest::decode(&body, encoded.json_len()).unwrap(), &request);
        // No cut of the body is a request.
        for len in 0..body.len() {
            prop_assert!(InferRequest::decode(&body[..len], encoded.json_len()).is_err());
        }
    }

    #[test]
    fn changed_bytes_never_panic(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut body = br#"{"id":"a","inputs":[{"name":"x","shape":[2,2],"datatype":"INT8","data":[[1,-2],[3,4]]}],
            "outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = InferRequest::decode(&body, None);
        let _ = InferRequest::decode(&body, Some(at));
    }
}

/// `vectors/inference/*/case.json`: the body is `json` followed by the bytes of `binary`.
#[derive(Deserialize)]
struct Case {
    kind: String,
    json: String,
    binary: String,
    header: Option<usize>,
    expected: String,
}

#[test]
fn vectors_are_accepted_or_refused_as_they_say() {
    let mut seen = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/inference")).unwrap() {
        let path = entry.unwrap().path().join("case.json");
        let case: Case = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mut body = case.json.into_bytes();
        body.extend(
            case.binary
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()),
        );
        let result = match case.kind.as_str() {
            "request" => InferRequest::decode(&body, case.header).map(|_| ()),
            "response" => InferResponse::decode(&body, case.header).map(|_| ()),
            kind => panic!("{kind}"),
        };
        let found = result.as_ref().map_or_else(OipError::reason, |()| "accepted");
        assert_eq!(found, case.expected, "{}: {result:?}", path.display());
        seen.insert(found);
    }
    // There was one case for each reason of a decoder.
    assert_eq!(seen.len(), 18, "{seen:?}");
}
