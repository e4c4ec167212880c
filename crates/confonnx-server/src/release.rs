//! Secrets that a service releases to this server against evidence of it: a Key Broker Service, or Azure Key Vault.
//!
//! The service's operator knows the secret. So what names that service, and whose word is taken for the name, is in the
//! claims ([`KeyService`]), and clients decide: the host chooses the service, and could run one of its own.

mod akv;
mod kbs;
pub mod model_key;
mod prover;
mod roots;

use std::{path::PathBuf, time::Duration};

use confonnx_attest::KeyService;
use confonnx_protocol::key_service::{
    key_vault::{KeyName, Released},
    trustee::Resource,
};
use http::StatusCode;
use zeroize::Zeroizing;

use crate::https::FetchError;

pub use akv::{Akv, AkvConfig, AkvError};
pub use kbs::{Kbs, KbsConfig, KbsError};
pub use prover::{NoEvidence, Prover};
pub use roots::RootsError;

use roots::Roots;

/// One secret of a service.
#[derive(Debug)]
pub enum Secret {
    /// A resource of a Key Broker Service.
    Kbs(Box<Kbs>, Resource),
    /// A key of Azure Key Vault.
    Akv(Box<Akv>, KeyName),
}

/// A secret that a setting names.
#[derive(Clone, Debug)]
pub enum SecretConfig {
    /// A resource of a Key Broker Service.
    Kbs(KbsConfig, Resource),
    /// A key of Azure Key Vault.
    Akv(Box<AkvConfig>, KeyName),
}

/// Why a service releases nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A Key Broker Service.
    #[error(transparent)]
    Kbs(#[from] KbsError),
    /// Azure Key Vault, or what it needs.
    #[error(transparent)]
    Akv(#[from] AkvError),
}

impl SecretConfig {
    /// The secret, to be asked for with evidence of `prover`.
    ///
    /// # Errors
    /// When the service cannot be asked, whatever it says.
    pub fn open(&self, prover: Prover) -> Result<Secret, ReleaseError> {
        Ok(match self {
            Self::Kbs(config, resource) => Secret::Kbs(Kbs::new(config, prover)?.into(), resource.clone()),
            Self::Akv(config, key) => Secret::Akv(Akv::new((**config).clone(), prover)?.into(), key.clone()),
        })
    }
}

impl Secret {
    /// Asks for it. Nothing of it is kept here.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, ReleaseError> {
        match self {
            Self::Kbs(kbs, resource) => Ok(kbs.resource(resource).await?),
            Self::Akv(akv, key) => match akv.release(key).await? {
                Released::Bytes(bytes) | Released::Scalar(bytes) => {
                    Ok(Zeroizing::new(bytes.expose().to_vec()))
                }
            },
        }
    }

    /// For the claims: what is trusted to release it.
    pub fn service(&self) -> KeyService {
        match self {
            Self::Kbs(kbs, resource) => kbs.service(resource),
            Self::Akv(akv, key) => akv.service(key),
        }
    }

    /// As `--key-provider` names the service.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kbs(..) => "kbs",
            Self::Akv(..) => "akv",
        }
    }
}

/// A request that was answered by a refusal, or not at all.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer.
    #[error("{url}: {source}")]
    Fetch {
        /// What was asked.
        url: String,
        /// Why there is none.
        source: FetchError,
    },
    /// An answer with another status than 200.
    #[error("{url}: expected status 200, found {status}{}{detail}", separator(.detail))]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the service says of it, if anything.
        detail: String,
    },
}

fn separator(detail: &str) -> &'static str {
    if detail.is_empty() { "" } else { ": " }
}

/// Sends `request`, and gives the answer if its status is 200. `problem` reads the service's errors.
async fn ask(
    fetcher: &crate::https::Fetcher,
    request: http::Request<bytes::Bytes>,
    problem: fn(&[u8]) -> String,
) -> Result<http::Response<Vec<u8>>, AskError> {
    // Neither path nor query has a secret.
    let url = request.uri().to_string();
    match fetcher.send(request).await {
        Err(source) => Err(AskError::Fetch { url, source }),
        Ok(answer) if answer.status() == StatusCode::OK => Ok(answer),
        Ok(answer) => Err(AskError::Status { url, status: answer.status(), detail: problem(answer.body()) }),
    }
}

/// Who is asked, and who is believed to be them.
#[derive(Clone, Debug)]
pub struct Service {
    /// `https://…`, without a `/` at the end; `http://…` where nothing is confidential anyway.
    pub url: String,
    /// Certificates of authorities in PEM, to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
