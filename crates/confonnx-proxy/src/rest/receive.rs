//! The program's request, whole, within bounds.

use std::io::Read;

use confonnx_client::BoxError;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};

use crate::answer::{Answer, refusal};

/// Says how many bytes of a body are JSON (OIP's binary tensor data extension).
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

/// A body.
#[derive(Default)]
pub(crate) struct Content {
    /// The whole body, or what comes before the tensors.
    pub(crate) json: Vec<u8>,
    pub(crate) tensors: Option<Vec<u8>>,
    /// The field about the JSON's length, where it is of no use: the server says what is wrong with it.
    pub(crate) length_said: Option<String>,
}

pub(crate) async fn receive<B>(fields: &HeaderMap, body: B, limit: usize) -> Result<Content, Answer>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let packed = match text(header::CONTENT_ENCODING.as_str()) {
        None | Some("identity" | "") => None,
        Some(name @ ("gzip" | "deflate")) => Some(name),
        Some(other) => {
            let text = format!("expected content-encoding gzip, deflate or none, found {other}");
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text));
        }
    };
    let length_said = text(HEADER_LENGTH);
    let split = length_said.and_then(|text| text.parse::<usize>().ok());
    let mut parts = Parts::new(split, limit, body.size_hint().exact().filter(|_| packed.is_none()));
    match packed {
        None => collect(body, |data| parts.push(data)).await?,
        Some(name) => {
            let mut whole = Vec::new();
            collect(body, |data| {
                whole.extend_from_slice(data);
                if whole.len() > limit { Err(too_large(limit)) } else { Ok(()) }
            })
            .await?;
            if name == "gzip" {
                unpack(GzDecoder::new(whole.as_slice()), &mut parts)?;
            } else {
                unpack(ZlibDecoder::new(whole.as_slice()), &mut parts)?;
            }
        }
    }
    Ok(parts.content(length_said))
}

async fn collect<B>(mut body: B, mut push: impl FnMut(&[u8]) -> Result<(), Answer>) -> Result<(), Answer>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    while let Some(frame) = body.frame().await {
        // The program hung up: nobody reads the answer.
        let frame =
            frame.map_err(|_| refusal(StatusCode::BAD_REQUEST, "the request's body did not arrive"))?;
        if let Some(data) = frame.data_ref() {
            push(data)?;
        }
    }
    Ok(())
}

fn unpack(mut packed: impl Read, parts: &mut Parts) -> Result<(), Answer> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match packed.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => parts.push(piece.get(..len).unwrap_or_default())?,
            Err(_) => return Err(refusal(StatusCode::BAD_REQUEST, "the request's body cannot be unpacked")),
        }
    }
}

/// JSON and tensors, apart as they arrive: the seal takes them as they are.
struct Parts {
    json: Vec<u8>,
    tensors: Vec<u8>,
    /// The place where tensors begin.
    split: usize,
    limit: usize,
}

impl Parts {
    fn new(split: Option<usize>, limit: usize, expected: Option<u64>) -> Self {
        let expected = expected.and_then(|len| usize::try_from(len).ok()).unwrap_or(0).min(limit);
        let split = split.unwrap_or(usize::MAX);
        let json = Vec::with_capacity(expected.min(split));
        Self { json, tensors: Vec::with_capacity(expected.saturating_sub(split)), split, limit }
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Answer> {
        let held = self.json.len().saturating_add(self.tensors.len());
        if held.saturating_add(data.len()) > self.limit {
            return Err(too_large(self.limit));
        }
        let room = self.split.saturating_sub(self.json.len()).min(data.len());
        let (json, tensors) = data.split_at(room);
        self.json.extend_from_slice(json);
        self.tensors.extend_from_slice(tensors);
        Ok(())
    }

    fn content(self, length_said: Option<&str>) -> Content {
        let Self { json, tensors, split, .. } = self;
        match length_said {
            None => Content { json, tensors: None, length_said: None },
            Some(_) if split > 0 && json.len() == split => {
                Content { json, tensors: Some(tensors), length_said: None }
            }
            Some(said) => {
                let whole = if json.is_empty() { tensors } else { json };
                Content { json: whole, tensors: None, length_said: Some(said.into()) }
            }
        }
    }
}

fn too_large(limit: usize) -> Answer {
    let text = format!("expected a request of at most {limit} bytes (--max-request-bytes)");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(split: Option<usize>, said: Option<&str>) -> (Vec<u8>, Option<Vec<u8>>, Option<String>) {
        let mut parts = Parts::new(split, 16, None);
        for piece in ["{\"a\"", ":1}", "xy"] {
            assert!(parts.push(piece.as_bytes()).is_ok());
        }
        let Content { json, tensors, length_said } = parts.content(said);
        (json, tensors, length_said)
    }

    #[test]
    fn tensors_are_apart_where_the_field_says_so() {
        assert_eq!(parts(Some(7), Some("7")), (b"{\"a\":1}".to_vec(), Some(b"xy".to_vec()), None));
        assert_eq!(parts(Some(9), Some("9")), (b"{\"a\":1}xy".to_vec(), Some(Vec::new()), None));
        assert_eq!(parts(None, None), (b"{\"a\":1}xy".to_vec(), None, None));
    }

    #[test]
    fn a_field_that_is_of_no_use_is_left_for_the_server_to_refuse() {
        for (split, said) in [(Some(10), "10"), (None, "ten"), (Some(0), "0")] {
            assert_eq!(parts(split, Some(said)), (b"{\"a\":1}xy".to_vec(), None, Some(said.into())));
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_held() {
        let mut parts = Parts::new(Some(4), 8, None);
        assert!(parts.push(b"12345678").is_ok());
        assert_eq!(parts.push(b"9").map_err(|answer| answer.status()), Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
