//! Documents of this enclave, by the Nitro security module.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ciborium::Value;
use confonnx_device::nsm_request;
use serde_json::Map;

use super::{Evidence, ParseError};
use crate::contract::Attested;
use crate::shown::shown;

/// The security module of this enclave.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot be opened.
    #[error("cannot open the Nitro security module {path}: {source}")]
    Open {
        /// The device's path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The security module did not answer.
    #[error("the Nitro security module {path} did not answer: {source}")]
    Io {
        /// The device's path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The security module refused.
    #[error("the Nitro security module refused to make an attestation document: {code}")]
    Refused {
        /// Its error code, such as `InternalError`.
        code: String,
    },
    /// The security module's answer is something else.
    #[error(
        "expected {{\"Attestation\": {{\"document\": bytes}}}} of the Nitro security module, found something else"
    )]
    Answer,
    /// The security module's document cannot be read.
    #[error("the Nitro security module's document cannot be read: {0}")]
    Document(#[from] ParseError),
}

impl Device {
    /// The module below `root`, which is `/` but in tests. `None`: there is none.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        let device = Self { path: root.join(DEVICE) };
        if !device.path.exists() {
            return Ok(None);
        }
        device.open()?;
        Ok(Some(device))
    }

    /// A document that carries `report_data`. Blocks for as long as the hypervisor takes.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, DeviceError> {
        self.evidence_by(report_data, nsm_request)
    }

    /// As [`evidence`](Self::evidence), with the exchange of a request for a response replaced, for tests.
    fn evidence_by(
        &self,
        report_data: &[u8; 64],
        exchange: impl FnOnce(&File, &[u8]) -> io::Result<Vec<u8>>,
    ) -> Result<Evidence, DeviceError> {
        let response = exchange(&self.open()?, &request(report_data));
        let response = response.map_err(|source| DeviceError::Io { path: self.path.clone(), source })?;
        Ok(Evidence::parse(&document(&response)?, &Map::new())?)
    }

    fn open(&self) -> Result<File, DeviceError> {
        let opened = OpenOptions::new().read(true).write(true).open(&self.path);
        opened.map_err(|source| DeviceError::Open { path: self.path.clone(), source })
    }
}

/// `Request::Attestation` of AWS's `aws-nitro-enclaves-nsm-api`, as its CBOR.
fn request(report_data: &[u8; 64]) -> Vec<u8> {
    let members = [
        ("user_data", Value::Bytes(report_data.to_vec())),
        ("nonce", Value::Null),
        ("public_key", Value::Null),
    ];
    let members = members.map(|(name, value)| (name.into(), value)).into();
    let request = Value::Map(vec![("Attestation".into(), Value::Map(members))]);
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = ciborium::into_writer(&request, &mut bytes);
    bytes
}

/// The document in a `Response`.
fn document(response: &[u8]) -> Result<Vec<u8>, DeviceError> {
    let value: Value = ciborium::from_reader(response).map_err(|_| DeviceError::Answer)?;
    let (name, content) = only_member(value).ok_or(DeviceError::Answer)?;
    match (name.as_str(), content) {
        ("Attestation", content) => match only_member(content) {
            Some((name, Value::Bytes(document))) if name == "document" => Ok(document),
            _ => Err(DeviceError::Answer),
        },
        ("Error", Value::Text(code)) => Err(DeviceError::Refused { code: shown(&code) }),
        _ => Err(DeviceError::Answer),
    }
}

/// Name and content of a map's one member.
fn only_member(value: Value) -> Option<(String, Value)> {
    let [(Value::Text(name), content)] = <[_; 1]>::try_from(value.into_map().ok()?).ok()? else {
        return None;
    };
    Some((name, content))
}

const DEVICE: &str = "dev/nsm";

#[cfg(test)]
mod tests;
