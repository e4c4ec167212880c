//! Azure's instance metadata service, which makes TD quotes of TDREPORTs: the quoting enclave is on the host.
//!
//! The service is plain HTTP at a link-local address. What it answers is verified like everything else the host gives, so
//! that needs no protection; HTTP/1.0 keeps it to one answer, whole, until the connection ends.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};

/// Why there is no TD quote.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// The service cannot be reached, or stopped answering.
    #[error("cannot ask Azure's metadata service {address} for a TD quote: {source}")]
    Io {
        /// The service's address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The metadata service answered with another status.
    #[error("asked for a TD quote, Azure's metadata service answered: {found}")]
    Status {
        /// The first line, shortened.
        found: String,
    },
    /// The metadata service's answer is too long.
    #[error("expected an answer of Azure's metadata service of at most {MAX_ANSWER} bytes")]
    TooLong,
    /// The metadata service's answer is not a quote.
    #[error("expected {{\"quote\": base64url}} of Azure's metadata service, found something else")]
    Malformed,
}

/// A TD quote of `tdreport`, by the service at `address`. Blocks for some 100 ms.
pub(super) fn td_quote(address: SocketAddr, tdreport: &[u8]) -> Result<Vec<u8>, ImdsError> {
    let answer = post(address, tdreport).map_err(|source| ImdsError::Io { address, source })?;
    if answer.len() > MAX_ANSWER {
        return Err(ImdsError::TooLong);
    }
    let text = str::from_utf8(&answer).map_err(|_| ImdsError::Malformed)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(ImdsError::Malformed)?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(ImdsError::Status { found: crate::shown::shown(status) });
    }
    let quote: Answer = crate::json::from_str(body).map_err(|_| ImdsError::Malformed)?;
    Base64UrlUnpadded::decode_vec(quote.quote.trim_end_matches('=')).map_err(|_| ImdsError::Malformed)
}

fn post(address: SocketAddr, tdreport: &[u8]) -> io::Result<Vec<u8>> {
    let question = Question { report: Base64UrlUnpadded::encode_string(tdreport) };
    let body = serde_json::to_string(&question)?;
    let request = format!(
        "POST /acc/tdquote HTTP/1.0\r\nhost: {}\r\nmetadata: true\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        address.ip(),
        body.len()
    );
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // One byte more than allowed tells a long answer from one that just fits.
    stream.take(LIMIT).read_to_end(&mut answer)?;
    Ok(answer)
}

#[derive(Serialize)]
struct Question {
    report: String,
}

#[derive(Deserialize)]
struct Answer {
    quote: String,
}

/// A quote has some 5 KiB.
const MAX_ANSWER: usize = 64 * 1024;
const LIMIT: u64 = MAX_ANSWER as u64 + 1;
/// The time that each step of the exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(super) mod tests;
