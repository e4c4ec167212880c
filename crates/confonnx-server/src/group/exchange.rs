//! Messages to another member: its document, and sealed requests to it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use confonnx_attest::Nonce;
use confonnx_protocol::{
    Aead, Draft, Plaintext,
    bhttp::{self, RequestHead},
    client::SealingKey,
    oip::ErrorBody,
};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use crate::{config::Address, random::rng};

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody is there, or does not answer in time.
    #[error("{address} does not answer: {reason}")]
    Silent {
        /// The member's address.
        address: Address,
        /// What the system said.
        reason: String,
    },
    /// The member has no keys either.
    #[error("{0} has no keys yet")]
    NoKeys(Address),
    /// The member answers with an error, unsealed.
    #[error("{address} answers {code} (HTTP {status})")]
    Problem {
        /// The member's address.
        address: Address,
        /// HTTP status.
        status: u16,
        /// The code, or `none`.
        code: String,
    },
    /// The member answers with an error, sealed.
    #[error("{address} refuses: {message} ({code})")]
    Refused {
        /// The member's address.
        address: Address,
        /// The code.
        code: String,
        /// The member's words.
        message: String,
    },
    /// What was sent or answered is not of the protocol.
    #[error("{address}: {reason}")]
    Protocol {
        /// The member's address.
        address: Address,
        /// What is wrong.
        reason: String,
    },
}

/// The attestation document of the server at `address`, for `nonce`.
pub(super) async fn document(address: &Address, nonce: &Nonce) -> Result<Bytes, ExchangeError> {
    let path = format!("/.well-known/confonnx/attestation?nonce={nonce}");
    send(address, Request::get(path), Bytes::new(), MAX_DOCUMENT).await
}

/// The body of the answer to a request that only the holder of `key` can open.
pub(super) async fn ask(
    address: &Address,
    key: &SealingKey,
    path: &str,
    body: &[u8],
) -> Result<Vec<u8>, ExchangeError> {
    let protocol = |reason: String| ExchangeError::Protocol { address: address.clone(), reason };
    let mut head = RequestHead::new("POST", path);
    head.fields.push("date", httpdate::fmt_http_date(SystemTime::now()));
    let message = Draft::request(key.room(), &head, &[body]).map_err(|err| protocol(err.to_string()))?;
    let sealed = key.seal(Aead::Aes256Gcm, message, &mut rng());
    let (sealed, opener) = sealed.map_err(|err| protocol(err.to_string()))?;
    let request =
        Request::post("/.well-known/ohttp-gateway").header(header::CONTENT_TYPE, "message/ohttp-req");
    let reply = send(address, request, sealed.into(), MAX_REPLY).await?;
    let reply = opener.open(reply.into()).map_err(|err| protocol(err.to_string()))?;
    read(address, &reply)
}

fn read(address: &Address, reply: &Plaintext) -> Result<Vec<u8>, ExchangeError> {
    let protocol = |reason: String| ExchangeError::Protocol { address: address.clone(), reason };
    let (head, body) = bhttp::decode_response(reply.expose()).map_err(|err| protocol(err.to_string()))?;
    let body = body.bytes(reply.expose());
    if head.status == 200 {
        return Ok(body.to_vec());
    }
    let ErrorBody { error, code } = confonnx_attest::json::from_slice(body)
        .map_err(|_| protocol(format!("answers {} without a reason", head.status)))?;
    Err(ExchangeError::Refused { address: address.clone(), code: plain(&code), message: plain(&error) })
}

/// The body of a 200.
async fn send(
    address: &Address,
    request: http::request::Builder,
    body: Bytes,
    limit: usize,
) -> Result<Bytes, ExchangeError> {
    let silent = |reason: String| ExchangeError::Silent { address: address.clone(), reason };
    let exchange = async {
        let stream = TcpStream::connect(address.authority()).await.map_err(|err| silent(err.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|err| silent(err.to_string()))?;
        // Ends when the answer was read.
        tokio::spawn(connection);
        let request = request.header(header::HOST, address.authority()).body(Full::new(body));
        let request = request.map_err(|err| silent(err.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|err| silent(err.to_string()))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|err| silent(err.to_string()))?;
        Ok((head.status, body.to_bytes()))
    };
    let patience = PATIENCE.as_secs();
    let answered = timeout(PATIENCE, exchange).await;
    let (status, body) = answered.map_err(|_| silent(format!("nothing within {patience} s")))??;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let code = confonnx_attest::json::from_slice::<Problem>(&body)
        .map_or_else(|_| "none".into(), |problem| plain(&problem.code));
    Err(match code.as_str() {
        "keys-unavailable" => ExchangeError::NoKeys(address.clone()),
        // About to be gone.
        "shutting-down" => silent("it is shutting down".into()),
        _ => ExchangeError::Problem { address: address.clone(), status: status.as_u16(), code },
    })
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// Another server's words for our log: short, one line.
fn plain(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_DOCUMENT: usize = confonnx_attest::MAX_DOCUMENT_BYTES;
/// A state is 4 KiB at most.
const MAX_REPLY: usize = 64 * 1024;
