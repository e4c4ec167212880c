//! Where a server is.

use http::Uri;

use crate::ClientError;

/// The URL that all others are below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(String);

impl Base {
    pub(crate) fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |reason: &str| ClientError::Url { url: url.into(), reason: reason.into() };
        let uri: Uri = url.parse().map_err(|err: http::uri::InvalidUri| wrong(&err.to_string()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("it has to start with http:// or https://"));
        }
        if uri.query().is_some() {
            return Err(wrong("it must have no query"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(ClientError::Url {
                url: "(with user name)".into(),
                reason: "give user and password as options, not in the URL".into(),
            });
        }
        Ok(Self(url.trim_end_matches('/').into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}
