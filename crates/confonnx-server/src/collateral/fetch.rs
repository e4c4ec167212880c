//! One request to a vendor's service.

use std::time::Duration;

use confonnx_attest::collateral::{Answer, Request, Vendor};
use http::HeaderMap;

use crate::{
    config::Bases,
    https::{self, Fetched},
};

pub(super) use https::{FetchError, MAX_ANSWER};

/// Asks vendors' services.
pub struct Fetcher {
    https: https::Fetcher,
    bases: Bases,
}

impl Fetcher {
    /// Opens no connection yet.
    pub(crate) fn new(bases: Bases, timeout: Duration) -> Self {
        Self { https: https::Fetcher::for_signed(timeout), bases }
    }

    /// The answer with status 200.
    pub(crate) async fn get(&self, request: &Request) -> Result<Answer, FetchError> {
        let Fetched { headers, body } = self.https.get(&url(&self.bases, request)).await?;
        Ok(Answer { headers: text_fields(&headers), body })
    }
}

/// Where `request` goes.
pub(super) fn url(bases: &Bases, request: &Request) -> String {
    let base = match request.vendor {
        Vendor::Amd => &bases.amd,
        Vendor::Intel => &bases.intel,
    };
    request.url(base.as_deref())
}

/// Fields that are text; hyper bounds how many and how long they are.
fn text_fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}
