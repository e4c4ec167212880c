//! One version of a model: running, or encrypted and waiting for its key.

use confonnx_attest::{Digest, ModelClaim};
use confonnx_engine::Model;
use confonnx_model::encrypted::{NotSigned, OpenModelError};
use confonnx_protocol::oip::ModelMetadata;

use super::{Absent, LoadError, loader::Place};

/// A version of a model.
pub enum Slot {
    /// Encrypted: its owner has not given its key.
    Locked(Locked),
    /// Ready to run.
    Serving(Box<Served>),
}

/// A model, ready to run, and what is said of it.
pub struct Served {
    /// The sessions.
    pub model: Model,
    /// For the claims.
    pub claim: ModelClaim,
    /// For `GET /v2/models/{m}`.
    pub metadata: ModelMetadata,
}

impl Served {
    /// Whether requests are batched, and so have to be able to wait for each other.
    pub fn puts_together(&self) -> bool {
        self.model.largest_batch().is_ok_and(|rows| rows > 1)
    }
}

/// An encrypted model.
pub struct Locked {
    pub(super) place: Place,
    /// SHA-256 of the encrypted file, as it was when it was found.
    pub(super) ciphertext: Digest,
}

/// Why a model stays locked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// It is not there.
    #[error(transparent)]
    Absent(#[from] Absent),
    /// It is not locked: it never was, or its key was given before.
    #[error("model {model} is not locked: it has its key, and takes no other")]
    NotLocked {
        /// Its name.
        model: String,
    },
    /// Its owner did not sign the key.
    #[error(
        "{0}; this server takes the model's key only with its owner's signature (`confonnx provision --owner-key-file`)"
    )]
    Owner(#[from] NotSigned),
    /// The file cannot be opened with this key.
    #[error("the model does not open: {0}")]
    Open(#[from] OpenModelError),
    /// The file is not the one that the claims name.
    #[error("the encrypted file changed since it was found: expected SHA-256 {expected}, found {found}")]
    Changed {
        /// In the claims.
        expected: Digest,
        /// On disk.
        found: Digest,
    },
    /// It opens, but is no model that can be served.
    #[error("the model cannot be served: {0}")]
    Load(#[from] LoadError),
}

impl Slot {
    /// The model, unless it is locked.
    pub fn served(&self) -> Option<&Served> {
        match self {
            Self::Serving(served) => Some(served),
            Self::Locked(_) => None,
        }
    }

    /// For the claims.
    pub fn claim(&self) -> ModelClaim {
        match self {
            Self::Serving(served) => served.claim.clone(),
            Self::Locked(locked) => ModelClaim {
                name: locked.place.name.clone(),
                version: locked.place.version.to_string(),
                sha256: None,
                ciphertext_sha256: Some(locked.ciphertext),
            },
        }
    }
}
