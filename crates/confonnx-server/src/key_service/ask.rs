//! One request to a service that releases secrets.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use crate::https::{FetchError, Fetcher};

/// A request that was answered by a refusal, or not at all.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no answer.
    #[error("{url}: {source}")]
    Fetch {
        /// The URL that was asked.
        url: String,
        /// Why there is none.
        source: FetchError,
    },
    /// An answer with another status than 200.
    #[error("{url}: expected status 200, found {status}{}{detail}", separator(.detail))]
    Status {
        /// The URL that was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// The service's words, if it has any.
        detail: String,
    },
}

fn separator(detail: &str) -> &'static str {
    if detail.is_empty() { "" } else { ": " }
}

/// Sends `request`, and gives the answer if its status is 200. `problem` reads the service's errors.
pub(super) async fn ask(
    fetcher: &Fetcher,
    request: Request<Bytes>,
    problem: fn(&[u8]) -> String,
) -> Result<Response<Vec<u8>>, AskError> {
    // Neither path nor query has a secret.
    let url = request.uri().to_string();
    match fetcher.send(request).await {
        Err(source) => Err(AskError::Fetch { url, source }),
        Ok(answer) if answer.status() == StatusCode::OK => Ok(answer),
        Ok(answer) => Err(AskError::Status { url, status: answer.status(), detail: problem(answer.body()) }),
    }
}

/// How long one request may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
