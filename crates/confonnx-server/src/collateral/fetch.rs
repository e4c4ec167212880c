//! One request to a vendor's service.

use std::time::Duration;

use confonnx_attest::collateral::{Answer, Request, Vendor};
use http::HeaderMap;

use crate::https::{self, Fetched};

pub(super) use https::{FetchError, MAX_ANSWER};

/// URLs of services to ask instead of the vendors' own.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    /// Instead of AMD's Key Distribution Service.
    pub amd: Option<String>,
    /// Instead of Intel's Provisioning Certification Service: a caching one (PCCS).
    pub intel: Option<String>,
}

/// Asks vendors' services.
pub struct Fetcher {
    https: https::Fetcher,
    bases: Bases,
}

impl Bases {
    /// Where `request` goes.
    pub(super) fn url(&self, request: &Request) -> String {
        let base = match request.vendor {
            Vendor::Amd => &self.amd,
            Vendor::Intel => &self.intel,
        };
        request.url(base.as_deref())
    }
}

impl Fetcher {
    /// Opens no connection yet.
    pub(crate) fn new(bases: Bases, timeout: Duration) -> Self {
        Self { https: https::Fetcher::for_signed(timeout), bases }
    }

    /// The answer with status 200.
    pub(crate) async fn get(&self, request: &Request) -> Result<Answer, FetchError> {
        let Fetched { headers, body } = self.https.get(&self.bases.url(request)).await?;
        Ok(Answer { headers: text_fields(&headers), body })
    }
}

/// Fields that are text; hyper bounds how many and how long they are.
fn text_fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}
