//! Requests to language models with the tensors of Triton's vLLM backend: `text_input`, and if given `stream`,
//! `sampling_parameters` (JSON) and `exclude_input_in_output`. Each answer has a `text_output`.

use bytes::Bytes;
use confonnx_client::{DataType, Request as Sealed};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tonic::{Status, metadata::MetadataMap};

use super::{
    calls::{Service, reference},
    inference::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
        model_infer_response::InferOutputTensor,
    },
    refused::{self, invalid},
};

/// What a request asks of a language model: the body for the server, and whether the answer is to come piece by piece.
pub(super) struct Order {
    body: Map<String, Value>,
    streams: bool,
}

/// The order, if the request has a `text_input` and its model none.
pub(super) async fn asked(
    service: &Service,
    metadata: &MetadataMap,
    request: &ModelInferRequest,
) -> Result<Option<Order>, Status> {
    if !request.inputs.iter().any(|input| input.name == TEXT) {
        return Ok(None);
    }
    let model = service.model(metadata, &request.model_name, &request.model_version).await?;
    if model.inputs.iter().any(|input| input.name == TEXT) {
        return Ok(None);
    }
    order(request).map(Some)
}

fn order(request: &ModelInferRequest) -> Result<Order, Status> {
    let (mut body, mut streams) = (Map::new(), false);
    for (place, input) in request.inputs.iter().enumerate() {
        let data = value(input, request.raw_input_contents.get(place))?;
        match input.name.as_str() {
            TEXT => drop(body.insert(TEXT.into(), text(input, &data)?.into())),
            "stream" => streams = flag(input, &data)?,
            EXCLUDE => drop(body.insert(EXCLUDE.into(), flag(input, &data)?.into())),
            "sampling_parameters" => {
                let wrong = || invalid("input 'sampling_parameters': expected the text of a JSON object");
                let given: Map<String, Value> =
                    serde_json::from_str(&text(input, &data)?).map_err(|_| wrong())?;
                body.insert("parameters".into(), given.into());
            }
            other => {
                let expected = "text_input, stream, sampling_parameters and exclude_input_in_output";
                return Err(invalid(format!(
                    "unexpected input '{other}': a language model takes {expected}"
                )));
            }
        }
    }
    Ok(Order { body, streams })
}

/// The bytes of the one element of an input; of BYTES without its length.
fn value(input: &InferInputTensor, raw: Option<&Bytes>) -> Result<Vec<u8>, Status> {
    let one = || invalid(format!("input '{}': expected one element, of shape [1]", input.name));
    if input.shape.iter().any(|dim| *dim != 1) {
        return Err(one());
    }
    match (raw, &input.contents) {
        (Some(raw), _) if input.datatype == DataType::Bytes.name() => {
            let (len, text) = raw.split_first_chunk::<4>().ok_or_else(one)?;
            let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
            if text.len() == len { Ok(text.to_vec()) } else { Err(one()) }
        }
        (Some(raw), _) => Ok(raw.to_vec()),
        (None, Some(contents)) => match (&contents.bytes_contents[..], &contents.bool_contents[..]) {
            ([text], []) => Ok(text.to_vec()),
            ([], [flag]) => Ok(vec![u8::from(*flag)]),
            _ => Err(one()),
        },
        (None, None) => Err(one()),
    }
}

fn text(input: &InferInputTensor, data: &[u8]) -> Result<String, Status> {
    if input.datatype != DataType::Bytes.name() {
        return Err(expected(input, DataType::Bytes));
    }
    let text = std::str::from_utf8(data).map(str::to_owned);
    text.map_err(|_| invalid(format!("input '{}': expected UTF-8", input.name)))
}

fn flag(input: &InferInputTensor, data: &[u8]) -> Result<bool, Status> {
    match data {
        [0] if input.datatype == DataType::Bool.name() => Ok(false),
        [1] if input.datatype == DataType::Bool.name() => Ok(true),
        _ => Err(expected(input, DataType::Bool)),
    }
}

fn expected(input: &InferInputTensor, dtype: DataType) -> Status {
    invalid(format!("input '{}': expected one {}, found {}", input.name, dtype.name(), input.datatype))
}

/// Sends all answers but the last one, which it returns: the whole answer if there is but one, and an empty text in a stream.
pub(super) async fn answers(
    service: &Service,
    metadata: &MetadataMap,
    request: &ModelInferRequest,
    order: &Order,
    said: &mpsc::Sender<ModelStreamInferResponse>,
    says_final: bool,
) -> Result<ModelInferResponse, Status> {
    let model = reference(&request.model_name, &request.model_version);
    let upstream = service.upstream(&request.model_name)?;
    let running = service.0.stats.begin(&upstream.counted(model));
    let path = if order.streams { "/generate_stream" } else { "/generate" };
    let body = Value::Object(order.body.clone()).to_string();
    let sealed = Sealed::post(path).field("content-type", "application/json").body(body).to_model(model);
    if !order.streams {
        let answer = service.ask(upstream, metadata, sealed).await?;
        running.succeeded();
        return response(request, &read(answer.body())?);
    }
    let sealed = service.with_token(upstream, metadata, sealed);
    let mut stream = upstream.stream(sealed).await.map_err(|fault| refused::fault(&fault))?;
    let (status, mut waiting, mut last) = (stream.status(), Vec::new(), None);
    while let Some(piece) = stream.chunk().await.map_err(|err| refused::fault(&upstream.fault(&err)))? {
        waiting.extend_from_slice(&piece);
        if status != 200 {
            continue;
        }
        while let Some(event) = next(&mut waiting) {
            let Some(data) = event.strip_prefix(b"data: ") else { continue };
            let next = response(request, &read(data)?)?;
            if let Some(mut before) = last.replace(next) {
                if says_final {
                    let no = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(false)) };
                    before.parameters.insert(FINAL.into(), no);
                }
                let answer =
                    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(before) };
                if said.send(answer).await.is_err() {
                    // The stream is dropped, and the model stops.
                    return Err(Status::cancelled("nobody reads the answer"));
                }
            }
        }
    }
    if status != 200 {
        return Err(refused::sealed(status, &waiting));
    }
    running.succeeded();
    last.ok_or_else(|| Status::internal("the server answered nothing"))
}

/// The next event, taken off.
fn next(waiting: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = waiting.windows(2).position(|two| two == b"\n\n")?;
    let event = waiting.drain(..end.saturating_add(2)).take(end).collect();
    Some(event)
}

fn read(json: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(json).map_err(|_| Status::internal("the server's answer is not JSON"))
}

fn response(request: &ModelInferRequest, answer: &Value) -> Result<ModelInferResponse, Status> {
    let field = |name: &str| answer.get(name).and_then(Value::as_str);
    let Some(text) = field("text_output") else {
        let error = field("error").unwrap_or("the server's answer has no text_output");
        return Err(Status::internal(error));
    };
    let len = u32::try_from(text.len()).map_err(|_| Status::internal("a text of more than 4 GiB"))?;
    let output = InferOutputTensor {
        name: "text_output".into(),
        datatype: DataType::Bytes.name().into(),
        shape: vec![1],
        ..InferOutputTensor::default()
    };
    Ok(ModelInferResponse {
        model_name: request.model_name.clone(),
        model_version: field("model_version").unwrap_or_default().to_owned(),
        id: request.id.clone(),
        outputs: vec![output],
        raw_output_contents: vec![[&len.to_le_bytes(), text.as_bytes()].concat().into()],
        ..ModelInferResponse::default()
    })
}

const TEXT: &str = "text_input";
const EXCLUDE: &str = "exclude_input_in_output";
pub(super) const FINAL: &str = "triton_final_response";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_off_as_they_are_complete() {
        let mut waiting = b"data: {}\n\n: x\n\ndata".to_vec();
        assert_eq!(next(&mut waiting).unwrap(), b"data: {}");
        assert_eq!(next(&mut waiting).unwrap(), b": x");
        assert!(next(&mut waiting).is_none() && waiting == b"data");
    }

    #[test]
    fn what_a_language_model_does_not_take_is_named() {
        let input = |name: &str, datatype: &str, raw: &'static [u8]| {
            let tensor = InferInputTensor {
                name: name.into(),
                datatype: datatype.into(),
                shape: vec![1],
                ..InferInputTensor::default()
            };
            (tensor, Bytes::from_static(raw))
        };
        let order = |inputs: Vec<(InferInputTensor, Bytes)>| {
            let (inputs, raw_input_contents) = inputs.into_iter().unzip();
            order(&ModelInferRequest { inputs, raw_input_contents, ..ModelInferRequest::default() })
        };
        let text = || input("text_input", "BYTES", b"\x02\0\0\0hi");
        let found = order(vec![
            text(),
            input("stream", "BOOL", &[1]),
            input("sampling_parameters", "BYTES", b"\x09\0\0\0{\"top_k\":1}".get(..13).unwrap()),
        ]);
        assert!(found.is_err(), "the length is not that of the text");
        let found = order(vec![
            text(),
            input("stream", "BOOL", &[1]),
            input("sampling_parameters", "BYTES", b"\x0b\0\0\0{\"top_k\":1}"),
        ])
        .unwrap();
        assert!(found.streams && found.body["parameters"]["top_k"] == 1 && found.body["text_input"] == "hi");
        for (inputs, said) in [
            (vec![input("text_input", "BYTES", b"hi")], "one element"),
            (vec![input("text_input", "FP32", &[0; 4])], "expected one BYTES, found FP32"),
            (vec![text(), input("stream", "BOOL", &[2])], "expected one BOOL"),
            (vec![text(), input("sampling_parameters", "BYTES", b"\x02\0\0\0[]")], "JSON object"),
            (vec![text(), input("image", "BYTES", b"\0\0\0\0")], "unexpected input 'image'"),
        ] {
            let refused = order(inputs).err().unwrap();
            assert!(refused.message().contains(said), "{}", refused.message());
        }
    }
}
