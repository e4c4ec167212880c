//! One version of a model: running, or encrypted and waiting for its key.

use std::sync::Arc;

use confonnx_attest::{Digest, ModelClaim};
use confonnx_engine::LoadedModel;
use confonnx_protocol::oip::ModelMetadata;

use super::place::Place;
use crate::{embedding::Embedder, generation::Generator, sequences::Sequences};

/// A version of a model.
pub enum Slot {
    /// Encrypted: its owner has not given its key.
    Locked(Locked),
    /// Ready to run.
    Serving(Box<Served>),
}

/// A model, ready to run, and what is said of it.
pub struct Served {
    /// The loaded model.
    pub model: Arc<LoadedModel>,
    /// What answers prompts with it, if it is a language model.
    pub generator: Option<Generator>,
    /// What makes vectors of texts with it, if it is a sentence encoder.
    pub embedder: Option<Arc<Embedder>>,
    /// What it keeps of sequences of requests, if its owner states that it does.
    pub sequences: Option<Sequences>,
    /// What the claims say of the model.
    pub claim: ModelClaim,
    /// The answer to `GET /v2/models/{m}`.
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

impl Slot {
    /// The model, unless it is locked.
    pub fn served(&self) -> Option<&Served> {
        match self {
            Self::Serving(served) => Some(served),
            Self::Locked(_) => None,
        }
    }

    /// What the claims say of the model.
    pub fn claim(&self) -> ModelClaim {
        match self {
            Self::Serving(served) => served.claim.clone(),
            Self::Locked(locked) => ModelClaim {
                name: locked.place.name.clone(),
                version: locked.place.version.to_string(),
                sha256: None,
                ciphertext_sha256: Some(locked.ciphertext),
                batching: None,
            },
        }
    }
}
