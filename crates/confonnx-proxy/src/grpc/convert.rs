//! Between gRPC's tensors and those of the REST API, which is what is sealed.

use std::borrow::Cow;

use bytes::Bytes;
use confonnx_client::{DataType, ModelMetadata, Shape, Tensor, TensorMetadata};
use confonnx_protocol::oip::{InferRequest, InferResponse, RequestedOutput, Sequence, SequenceId};
use tonic::Status;

use super::{
    inference::{
        InferTensorContents, ModelConfig, ModelInferRequest, ModelInferResponse, ModelInput, ModelOutput,
        ModelTransactionPolicy, ModelVersionPolicy,
        infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor,
        model_infer_response::InferOutputTensor,
        model_metadata_response::TensorMetadata as Described,
        model_version_policy::{Latest, PolicyChoice},
    },
    refused::{invalid, tensor},
};
use crate::rest::extensions::{BACKEND, no_classes, no_region, type_name};

/// The request as it is sealed: its JSON, and the bytes of its tensors.
pub(super) fn sealed(request: &ModelInferRequest) -> Result<(Vec<u8>, Vec<u8>), Status> {
    refuse_what_is_absent(request)?;
    let raw = &request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(invalid(format!(
            "expected raw_input_contents for each of the {} inputs or for none, found {}",
            request.inputs.len(),
            raw.len()
        )));
    }
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for (place, input) in request.inputs.iter().enumerate() {
        inputs.push((input.name.clone(), given(input, raw.get(place))?));
    }
    let wanted = request.outputs.iter();
    let oip = InferRequest {
        id: (!request.id.is_empty()).then(|| request.id.clone()),
        inputs,
        outputs: wanted.map(|output| RequestedOutput { name: output.name.clone(), binary: None }).collect(),
        binary_default: true,
        sequence: sequence(request)?,
    };
    let encoded = oip.encode().map_err(|err| invalid(err.to_string()))?;
    let parts = encoded.parts();
    let Some((json, tensors)) = parts.split_first() else { return Err(Status::internal("nothing to send")) };
    Ok((json.to_vec(), tensors.concat()))
}

/// Which of a sequence the request is, as Triton's clients say it.
fn sequence(request: &ModelInferRequest) -> Result<Option<Sequence>, Status> {
    let parameter = |key: &str| request.parameters.get(key).and_then(|value| value.parameter_choice.as_ref());
    let flag = |key: &str| match parameter(key) {
        None => Ok(false),
        Some(ParameterChoice::BoolParam(flag)) => Ok(*flag),
        Some(_) => Err(invalid(format!("{key}: expected a bool"))),
    };
    let id = match parameter("sequence_id") {
        None | Some(ParameterChoice::Int64Param(0)) => return Ok(None),
        Some(ParameterChoice::Int64Param(number)) => SequenceId::Number(number.cast_unsigned()),
        Some(ParameterChoice::Uint64Param(number)) => SequenceId::Number(*number),
        Some(ParameterChoice::StringParam(text)) => SequenceId::Text(text.clone()),
        Some(_) => return Err(invalid("sequence_id: expected a number or a string")),
    };
    Ok(Some(Sequence { id, start: flag("sequence_start")?, end: flag("sequence_end")? }))
}

/// Refuses Triton's shared memory and labels, which are not there.
fn refuse_what_is_absent(request: &ModelInferRequest) -> Result<(), Status> {
    let inputs = request.inputs.iter().map(|input| (&input.name, &input.parameters));
    let outputs = request.outputs.iter().map(|output| (&output.name, &output.parameters));
    for (name, parameters) in inputs.chain(outputs) {
        let parameter = |key: &str| parameters.get(key).and_then(|value| value.parameter_choice.as_ref());
        if let Some(ParameterChoice::StringParam(region)) = parameter("shared_memory_region") {
            return Err(Status::not_found(no_region(region)));
        }
        if !matches!(parameter("classification"), None | Some(ParameterChoice::Int64Param(0))) {
            return Err(Status::unimplemented(no_classes(name)));
        }
    }
    Ok(())
}

fn given<'r>(input: &'r InferInputTensor, raw: Option<&'r Bytes>) -> Result<Tensor<'r>, Status> {
    let Some(dtype) = DataType::from_name(&input.datatype) else {
        return Err(invalid(format!("input '{}': unknown datatype '{}'", input.name, input.datatype)));
    };
    let dims: Result<Vec<u64>, _> = input.shape.iter().map(|dim| u64::try_from(*dim)).collect();
    let dims = dims.map_err(|_| invalid(format!("input '{}': a dimension is negative", input.name)))?;
    let shape = Shape::new(dims).map_err(|err| tensor(&input.name, &err))?;
    let data: Cow<'r, [u8]> = match (raw, &input.contents) {
        (Some(raw), _) => Cow::Borrowed(raw),
        (None, Some(contents)) => Cow::Owned(typed(&input.name, dtype, contents)?),
        (None, None) => Cow::Borrowed(&[]),
    };
    Tensor::new(dtype, shape, data).map_err(|err| tensor(&input.name, &err))
}

/// Values of a field of their type, as bytes.
fn typed(name: &str, dtype: DataType, contents: &InferTensorContents) -> Result<Vec<u8>, Status> {
    fn narrow<W: Copy, N: TryFrom<W>, const B: usize>(
        name: &str,
        values: &[W],
        bytes: impl Fn(N) -> [u8; B],
    ) -> Result<Vec<u8>, Status> {
        let mut out = Vec::with_capacity(values.len().saturating_mul(B));
        for (element, value) in values.iter().enumerate() {
            let value = N::try_from(*value).map_err(|_| {
                invalid(format!("input '{name}': element {element} is no value of its datatype"))
            })?;
            out.extend(bytes(value));
        }
        Ok(out)
    }
    let InferTensorContents { int_contents: int, uint_contents: uint, .. } = contents;
    match dtype {
        DataType::Bool => Ok(contents.bool_contents.iter().map(|value| u8::from(*value)).collect()),
        DataType::Int8 => narrow(name, int, i8::to_le_bytes),
        DataType::Int16 => narrow(name, int, i16::to_le_bytes),
        DataType::Int32 => narrow(name, int, i32::to_le_bytes),
        DataType::Int64 => narrow(name, &contents.int64_contents, i64::to_le_bytes),
        DataType::Uint8 => narrow(name, uint, u8::to_le_bytes),
        DataType::Uint16 => narrow(name, uint, u16::to_le_bytes),
        DataType::Uint32 => narrow(name, uint, u32::to_le_bytes),
        DataType::Uint64 => narrow(name, &contents.uint64_contents, u64::to_le_bytes),
        DataType::Fp32 => narrow(name, &contents.fp32_contents, f32::to_le_bytes),
        DataType::Fp64 => narrow(name, &contents.fp64_contents, f64::to_le_bytes),
        DataType::Bytes => {
            let mut out = Vec::new();
            for item in &contents.bytes_contents {
                let len = u32::try_from(item.len())
                    .map_err(|_| invalid(format!("input '{name}': an element is longer than 4 GiB")))?;
                out.extend(len.to_le_bytes());
                out.extend_from_slice(item);
            }
            Ok(out)
        }
        DataType::Fp16 | DataType::Bf16 => Err(invalid(format!(
            "input '{name}': expected {} in raw_input_contents, found it in contents, which have no field for it",
            dtype.name()
        ))),
    }
}

/// The server's answer, its outputs raw as Triton's are.
pub(super) fn inferred(answer: InferResponse<'_>) -> ModelInferResponse {
    let (mut outputs, mut raw) = (Vec::new(), Vec::new());
    for (name, tensor) in answer.outputs {
        let shape = tensor.shape().dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        let datatype = tensor.dtype().name().to_owned();
        outputs.push(InferOutputTensor { name, datatype, shape, ..InferOutputTensor::default() });
        raw.push(Bytes::copy_from_slice(tensor.data()));
    }
    ModelInferResponse {
        model_name: answer.model_name,
        model_version: answer.model_version.unwrap_or_default(),
        id: answer.id.unwrap_or_default(),
        outputs,
        raw_output_contents: raw,
        ..ModelInferResponse::default()
    }
}

pub(super) fn described(tensor: &TensorMetadata) -> Described {
    let (name, datatype) = (tensor.name.clone(), tensor.datatype.name().to_owned());
    Described { name, datatype, shape: tensor.shape.clone() }
}

/// As much of Triton's model configuration as the metadata tells.
pub(super) fn config(metadata: &ModelMetadata) -> ModelConfig {
    let kind = |tensor: &TensorMetadata| {
        let name = type_name(tensor.datatype);
        super::inference::DataType::from_str_name(&name).unwrap_or_default().into()
    };
    let input = |tensor: &TensorMetadata| ModelInput {
        name: tensor.name.clone(),
        data_type: kind(tensor),
        dims: tensor.shape.clone(),
        ..ModelInput::default()
    };
    let output = |tensor: &TensorMetadata| ModelOutput {
        name: tensor.name.clone(),
        data_type: kind(tensor),
        dims: tensor.shape.clone(),
        ..ModelOutput::default()
    };
    ModelConfig {
        name: metadata.name.clone(),
        platform: metadata.platform.clone(),
        backend: BACKEND.into(),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Latest(Latest { num_versions: 1 })),
        }),
        max_batch_size: 0,
        input: metadata.inputs.iter().map(input).collect(),
        output: metadata.outputs.iter().map(output).collect(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
        let input = InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: shape.into(),
            contents: Some(contents),
            ..InferInputTensor::default()
        };
        ModelInferRequest { inputs: vec![input], ..ModelInferRequest::default() }
    }

    #[test]
    fn typed_values_become_the_bytes_that_raw_ones_are() {
        let ints = || InferTensorContents { int_contents: vec![-1, 2], ..InferTensorContents::default() };
        assert_eq!(sealed(&request("INT16", &[2], ints())).unwrap().1, [0xff, 0xff, 2, 0]);
        let texts = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"ab")],
            ..InferTensorContents::default()
        };
        assert_eq!(sealed(&request("BYTES", &[1], texts)).unwrap().1, [2, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn what_does_not_fit_is_refused_here() {
        let ints = |values: &[i32]| InferTensorContents {
            int_contents: values.into(),
            ..InferTensorContents::default()
        };
        for (datatype, shape, contents, said) in [
            ("INT8", vec![1], ints(&[300]), "element 0 is no value"),
            ("INT32", vec![3], ints(&[1]), "input 'x'"),
            ("INT32", vec![-1], ints(&[1]), "a dimension is negative"),
            ("INT31", vec![1], ints(&[1]), "unknown datatype 'INT31'"),
            ("FP16", vec![1], ints(&[1]), "raw_input_contents"),
        ] {
            let refused = sealed(&request(datatype, &shape, contents)).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            assert!(refused.message().contains(said), "{}", refused.message());
        }
        let mut twice = request("INT32", &[1], ints(&[1]));
        twice.raw_input_contents = vec![Bytes::new(), Bytes::new()];
        assert!(sealed(&twice).unwrap_err().message().contains("found 2"));
    }
}
