//! What a verifier needs of the TEE's vendor: certificates, revocation lists, TCB information.
//!
//! Nothing here does IO. [`Evidence`](crate::Evidence) says what to fetch and takes the answers; the server fetches,
//! keeps and staples them, and a client checks them offline. They are signed by the vendor, so whoever fetches or stores
//! them need not be trusted.

use std::str;

use serde_json::Value;

use crate::x509::{Certificate, Crl, certificates_from_pem};
use crate::{UnixTime, digest};

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
    /// The vendor whose service is asked.
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

    /// The vendor's name in settings and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Intel => "intel",
        }
    }
}

impl Request {
    /// Where to send the request: to the service at `base` (a URL such as `https://pccs.example:8081`), or to the
    /// vendor's own.
    pub fn url(&self, base: Option<&str>) -> String {
        match base {
            Some(base) => format!("{}{}", base.trim_end_matches('/'), self.path),
            // Intel publishes this list elsewhere, and only a PCCS has it under this path.
            None if *self == Self::intel_root_crl() => INTEL_ROOT_CRL.into(),
            None => format!("{}{}", self.vendor.base_url(), self.path),
        }
    }

    /// The revocation list of Intel's root CA, as a PCCS names it.
    pub(crate) fn intel_root_crl() -> Self {
        Self { vendor: Vendor::Intel, path: "/sgx/certification/v4/rootcacrl".into() }
    }
}

impl Answer {
    /// When the first of what the answer holds expires: certificates (DER, PEM, or PEM within JSON), a revocation list
    /// (DER, or hex of it), Intel's TCB info or enclave identity. `None` when it is none of these, or does not say.
    /// This tells when to fetch anew, and nothing more: signatures are not checked.
    pub fn expires(&self) -> Option<UnixTime> {
        if let Ok(certificate) = Certificate::from_der(&self.body) {
            return Some(certificate.validity().1);
        }
        if let Ok(list) = Crl::from_der(&self.body) {
            return list.next_update();
        }
        let text = str::from_utf8(&self.body).ok()?.trim_ascii();
        if let Ok(der) = digest::decode(text) {
            return Crl::from_der(&der).ok()?.next_update();
        }
        match crate::json::from_str(text) {
            Ok(Value::Object(members)) => members.values().filter_map(member_expires).min(),
            _ => pem_expires(text),
        }
    }

    /// The value of a header field, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

fn member_expires(member: &Value) -> Option<UnixTime> {
    match member {
        Value::String(text) => pem_expires(text),
        Value::Object(signed) => {
            let time: der::DateTime = signed.get("nextUpdate")?.as_str()?.parse().ok()?;
            Some(UnixTime(time.unix_duration().as_secs()))
        }
        _ => None,
    }
}

fn pem_expires(text: &str) -> Option<UnixTime> {
    let chain = certificates_from_pem(text).ok()?;
    chain.iter().map(|certificate| certificate.validity().1).min()
}

const INTEL_ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

#[cfg(test)]
mod tests;
