//! What a verifier needs of the TEE's vendor: certificates, revocation lists, TCB information.
//!
//! Nothing here does IO. [`Evidence`](crate::Evidence) says what to fetch and takes the answers; the server fetches,
//! keeps and staples them, and a client checks them offline. They are signed by the vendor, so whoever fetches or stores
//! them need not be trusted.

/// Whose service answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vendor {
    /// AMD's Key Distribution Service.
    Amd,
    /// Intel's Provisioning Certification Service, or a caching service (PCCS) with the same API.
    Intel,
}

/// One thing to fetch with `GET`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// Whose service.
    pub vendor: Vendor,
    /// Path and query, such as `/vcek/v1/Milan/cert_chain`.
    pub path: String,
}

/// What the service answered with status 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Answers that are not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StapleError {
    /// There are more or fewer answers than requests.
    #[error("expected {expected} answers of the vendor's service, found {found}")]
    Count {
        /// Requests made.
        expected: usize,
        /// Answers given.
        found: usize,
    },
    /// An answer cannot be read.
    #[error("the vendor's answer to {path} is not {expected}")]
    Malformed {
        /// The request's path.
        path: String,
        /// What it should have been, such as `a DER certificate`.
        expected: &'static str,
    },
    /// An answer lacks a header field.
    #[error("the vendor's answer to {path} has no header field {field}")]
    Header {
        /// The request's path.
        path: String,
        /// Name of the field.
        field: &'static str,
    },
}

impl Vendor {
    /// Where the vendor's own service is.
    pub fn base_url(self) -> &'static str {
        match self {
            Self::Amd => "https://kdsintf.amd.com",
            Self::Intel => "https://api.trustedservices.intel.com",
        }
    }

    /// Its name in settings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Intel => "intel",
        }
    }
}

impl Answer {
    /// The value of a header field, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}
