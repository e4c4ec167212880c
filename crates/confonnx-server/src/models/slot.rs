//! The place of the model: empty of anything to run until its owner has given the key, if it is encrypted.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use confonnx_attest::{Digest, ModelClaim};
use confonnx_model::encrypted::{ModelKey, NotSigned, OpenModelError, OwnerPublicKey, open_model};

use super::{LoadError, Loader, Served, VERSION};

/// The model, or what is known of it while it is locked.
pub struct Slot {
    name: String,
    state: RwLock<State>,
    /// Held while a key is tried, so that one attempt ends before the next begins.
    unlocking: Mutex<()>,
}

enum State {
    Locked(Arc<Locked>),
    Serving(Arc<Served>),
}

/// An encrypted model and what loads it.
pub(super) struct Locked {
    loader: Loader,
    /// SHA-256 of the encrypted file, as it was at the start.
    ciphertext: Digest,
    /// Who may unlock it, if that is limited.
    owner: Option<OwnerPublicKey>,
}

/// Why a model stays locked.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
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
    #[error(
        "the encrypted file changed since the server started: expected SHA-256 {expected}, found {found}"
    )]
    Changed {
        /// In the claims.
        expected: Digest,
        /// On disk.
        found: Digest,
    },
    /// It opens, but is no model that can be served.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Slot {
    /// A model that is served from the start.
    pub fn serving(served: Served) -> Self {
        Self::new(served.claim.name.clone(), State::Serving(Arc::new(served)))
    }

    /// An encrypted model that waits for its key.
    pub(super) fn locked(loader: Loader, ciphertext: Digest, owner: Option<OwnerPublicKey>) -> Self {
        Self::new(loader.name.clone(), State::Locked(Arc::new(Locked { loader, ciphertext, owner })))
    }

    fn new(name: String, state: State) -> Self {
        Self { name, state: RwLock::new(state), unlocking: Mutex::new(()) }
    }

    /// The model's name in requests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model, unless it is locked.
    pub fn served(&self) -> Option<Arc<Served>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Serving(served) => Some(Arc::clone(served)),
            State::Locked(_) => None,
        }
    }

    /// For the claims.
    pub fn claims(&self) -> Vec<ModelClaim> {
        let claim = match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Serving(served) => served.claim.clone(),
            State::Locked(locked) => ModelClaim {
                name: self.name.clone(),
                version: VERSION.into(),
                sha256: None,
                ciphertext_sha256: Some(locked.ciphertext),
            },
        };
        vec![claim]
    }

    /// SHA-256 of the public key of who may unlock the model, as SubjectPublicKeyInfo, if it is locked and that is
    /// limited.
    pub fn owner(&self) -> Option<Digest> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Locked(locked) => locked.owner.as_ref().map(|owner| Digest(owner.fingerprint())),
            State::Serving(_) => None,
        }
    }

    /// Opens the model with its key, which its owner signed if that is asked for, and serves it from now on. The key is not kept; after an error the model is as
    /// locked as before. Blocks while the model loads.
    ///
    /// # Errors
    /// [`UnlockError`]
    pub fn unlock(&self, key: &ModelKey, signature: &[u8]) -> Result<ModelClaim, UnlockError> {
        let _alone = self.unlocking.lock().unwrap_or_else(PoisonError::into_inner);
        let locked = match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Locked(locked) => Arc::clone(locked),
            State::Serving(_) => return Err(UnlockError::NotLocked { model: self.name.clone() }),
        };
        if let Some(owner) = &locked.owner {
            owner.verify(&locked.ciphertext.0, key, signature)?;
        }
        let served = locked.open(key)?;
        let claim = served.claim.clone();
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Serving(Arc::new(served));
        Ok(claim)
    }
}

impl Locked {
    fn open(&self, key: &ModelKey) -> Result<Served, UnlockError> {
        let path = &self.loader.path;
        let read = |source: io::Error| LoadError::Read { path: path.clone(), source };
        let file = File::open(path).map_err(read)?;
        let len = usize::try_from(file.metadata().map_err(read)?.len()).unwrap_or(usize::MAX);
        let opened = open_model(key, file, len)?;
        let found = Digest(opened.ciphertext);
        if found != self.ciphertext {
            return Err(UnlockError::Changed { expected: self.ciphertext, found });
        }
        Ok(self.loader.load_encrypted(opened)?)
    }
}
