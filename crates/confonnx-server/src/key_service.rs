//! Secrets that a service releases to this server against evidence of it: a Key Broker Service, or Azure Key Vault.
//!
//! The service's operator knows the secret. So what names that service, and whose word is taken for the name, is in the
//! claims ([`KeyService`]), and clients decide: the host chooses the service, and could run one of its own.

mod ask;

mod key_vault;
pub mod model_key;
mod roots;
mod trustee;

use confonnx_attest::KeyService;
use confonnx_protocol::key_service::{
    key_vault::{KeyName, Released},
    trustee::Resource,
};
use zeroize::Zeroizing;

use crate::{config::SecretConfig, evidence::Prover};

pub use ask::AskError;
pub use key_vault::{Akv, AkvError};
pub use roots::RootsError;
pub use trustee::{Kbs, KbsError};

/// One secret of a service.
#[derive(Debug)]
pub enum Secret {
    /// A resource of a Key Broker Service.
    Kbs(Box<Kbs>, Resource),
    /// A key of Azure Key Vault.
    Akv(Box<Akv>, KeyName),
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

impl Secret {
    /// The secret of `config`, to be asked for with evidence of `prover`.
    ///
    /// # Errors
    /// When the service cannot be asked, whatever it says.
    pub fn open(config: &SecretConfig, prover: Prover) -> Result<Self, ReleaseError> {
        Ok(match config {
            SecretConfig::Kbs(config, resource) => {
                Self::Kbs(Kbs::new(config, prover)?.into(), resource.clone())
            }
            SecretConfig::Akv(config, key) => {
                Self::Akv(Akv::new((**config).clone(), prover)?.into(), key.clone())
            }
        })
    }

    /// Asks for it. Nothing of it is kept here.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, ReleaseError> {
        match self {
            Self::Kbs(kbs, resource) => Ok(kbs.resource(resource).await?),
            Self::Akv(akv, key) => match akv.release(key).await? {
                Released::Bytes(bytes) | Released::Scalar(bytes) => Ok(Zeroizing::new(bytes.to_vec())),
            },
        }
    }

    /// The service that is trusted to release the secret, for the claims.
    pub fn service(&self) -> KeyService {
        match self {
            Self::Kbs(kbs, resource) => kbs.service(resource),
            Self::Akv(akv, key) => akv.service(key),
        }
    }

    /// The service's name for `--key-provider`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kbs(..) => "kbs",
            Self::Akv(..) => "akv",
        }
    }
}
