//! The models this server answers for.
//!
//! What is served at one time is a [`Set`], which never changes: a change makes another one, and whoever holds the old one
//! keeps its models for as long as a request takes.

mod error;
mod folder;
mod index;
mod known;
mod loader;
mod place;
mod runtime;
mod set;
mod slot;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError},
};

use confonnx_attest::{Digest, ModelClaim};
use confonnx_engine::Engine;
use confonnx_model::{
    encrypted::{ModelKey, OwnerPublicKey},
    triton::ModelConfig,
};
use tracing::{info, warn};

use crate::{
    config::{Config, ModelControl, ModelSource},
    keys::Keys,
};
use folder::{FoundVersion, Signature};
use index::Slots;
use known::{Known, Outcome, Tried};
use loader::Loader;
use place::Place;

pub use error::{Absent, ControlError, LoadError, OpenError, UnlockError};
pub use index::Entry;
pub use runtime::{RuntimeError, load_runtime, open_engine};
pub use set::Set;
pub use slot::{Served, Slot};

/// Every model of this server, and what changes them.
pub struct Models {
    loader: Loader,
    source: ModelSource,
    control: ModelControl,
    shelf: Shelf,
    strict_readiness: bool,
    /// Held while models are loaded or unlocked, so that one change ends before the next begins.
    known: Mutex<Known>,
}

/// Models that are loaded and not served yet: there are no keys for them.
pub struct Unserved(Models);

/// Where the models are that are served.
enum Shelf {
    /// Models by which nobody is served yet.
    Unserved(RwLock<Arc<Set>>),
    /// Models that are served, beside the keys and claims that change with them.
    Served(Arc<Keys>),
}

impl Unserved {
    /// The models that were loaded.
    pub fn set(&self) -> Arc<Set> {
        self.0.current()
    }

    /// SHA-256 of the public key of who may unlock models, as SubjectPublicKeyInfo, if that is limited.
    pub fn owner(&self) -> Option<Digest> {
        self.0.loader.owner.as_ref().map(|owner| Digest(owner.fingerprint()))
    }

    /// Serves these models by `keys` from now on: requests that those open are answered by them.
    #[must_use]
    pub fn serve(self, keys: &Arc<Keys>) -> Models {
        Models { shelf: Shelf::Served(Arc::clone(keys)), ..self.0 }
    }
}

impl Shelf {
    fn current(&self) -> Arc<Set> {
        match self {
            Self::Unserved(set) => Arc::clone(&set.read().unwrap_or_else(PoisonError::into_inner)),
            Self::Served(keys) => keys.set(),
        }
    }

    /// Puts `set` there; what was before is returned.
    fn put(&self, set: Arc<Set>) -> Arc<Set> {
        match self {
            Self::Unserved(place) => {
                std::mem::replace(&mut *place.write().unwrap_or_else(PoisonError::into_inner), set)
            }
            Self::Served(keys) => keys.serve(set),
        }
    }
}

impl Models {
    /// Loads the models of `config`; encrypted ones wait for their keys if the settings say so. In a repository, one that
    /// does not load keeps no other from being served.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(config: &Config, engine: &Engine) -> Result<Unserved, OpenError> {
        let owner = owner(config)?;
        let models = Self {
            loader: Loader::new(config, engine, owner),
            source: config.models.clone(),
            control: config.model_control,
            shelf: Shelf::Unserved(RwLock::default()),
            strict_readiness: config.strict_readiness,
            known: Mutex::default(),
        };
        match &config.models {
            ModelSource::File { path, name } => models.open_file(path, name, &config.model_config)?,
            ModelSource::Repository { path } => {
                models.poll().map_err(|source| OpenError::Repository { path: path.clone(), source })?;
                let set = models.current();
                if set.claims().is_empty() && config.model_control == ModelControl::None {
                    return Err(OpenError::NothingServed {
                        path: path.clone(),
                        entries: set.index().to_vec(),
                    });
                }
            }
        }
        Ok(Unserved(models))
    }

    fn open_file(&self, path: &Path, name: &str, config: &ModelConfig) -> Result<(), OpenError> {
        let place = Place::only(path, name, config);
        let version = place.version;
        let slot =
            self.loader.open(&place).map_err(|source| OpenError::Model { path: path.to_owned(), source })?;
        let mut known = self.lock();
        let model = known.models.entry(name.into()).or_default();
        model.wanted.insert(version);
        let tried = Tried { signature: Signature::default(), outcome: Outcome::Loaded };
        model.versions.insert(version, tried);
        self.publish(&known, |slots| put(slots, name.into(), version, slot));
        Ok(())
    }

    /// What keeps the server from being ready: a version that should be served and is not. One that is locked does not: its
    /// owner could not reach a server that is said not to be ready.
    pub fn trouble(&self) -> Option<String> {
        let set = self.current();
        match set.lacking() {
            Some(absent @ Absent::Unavailable { .. }) if self.strict_readiness => Some(absent.to_string()),
            _ => None,
        }
    }

    /// The models served now.
    pub fn current(&self) -> Arc<Set> {
        self.shelf.current()
    }

    /// What changes them.
    pub fn control(&self) -> ModelControl {
        self.control
    }

    /// Looks at the repository, and serves what is there from now on. A version whose files did not change is not tried
    /// again. Blocks while models load.
    ///
    /// # Errors
    /// The folder cannot be read; everything stays as it was.
    pub fn poll(&self) -> io::Result<()> {
        let ModelSource::Repository { path } = &self.source else { return Ok(()) };
        let mut known = self.lock();
        let names = folder::names(path)?;
        for (name, reason) in folder::ignored(path)? {
            if known.ignored.insert(name.clone()) {
                warn!("{} in {} is not served: {reason}", name.display(), path.display());
            }
        }
        let gone: Vec<_> = known.models.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            known.models.remove(&name);
            info!("model {name} is no longer in the repository");
            self.publish(&known, |slots| drop(slots.remove(&name)));
        }
        for name in names {
            self.update(&mut known, path, &name, false);
        }
        Ok(())
    }

    /// Loads the model `name` as it is in the repository. Blocks while it loads.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn load(&self, name: &str) -> Result<(), ControlError> {
        let (path, mut known) = self.take_control()?;
        // Compared with the names there are, never joined to a path before.
        if !folder::names(path).map_err(ControlError::Repository)?.contains(name) {
            return Err(ControlError::Unknown { name: name.into() });
        }
        known.models.entry(name.into()).or_default().unloaded = false;
        self.update(&mut known, path, name, true);
        let problem = known.models.get(name).and_then(known::KnownModel::problem);
        problem.map_or(Ok(()), |reason| Err(ControlError::Failed { reason }))
    }

    /// Serves the model `name` no longer. Requests that were opened are answered.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn unload(&self, name: &str) -> Result<(), ControlError> {
        let (_, mut known) = self.take_control()?;
        let Some(model) = known.models.get_mut(name) else {
            return Err(ControlError::Unknown { name: name.into() });
        };
        model.unloaded = true;
        model.versions.retain(|_, tried| tried.outcome == Outcome::Loaded);
        self.publish(&known, |slots| drop(slots.remove(name)));
        info!("model {name} is unloaded");
        Ok(())
    }

    /// Opens a locked model with its key, which its owner signed if that is asked for, and serves it from now on. Without a
    /// version, the highest one that is locked. The key is not kept; after an error the model is as locked as before. Blocks
    /// while the model loads.
    ///
    /// # Errors
    /// [`UnlockError`]
    pub fn unlock(
        &self,
        name: &str,
        version: Option<&str>,
        key: &ModelKey,
        signature: &[u8],
    ) -> Result<ModelClaim, UnlockError> {
        // A caller who waited would hold a thread that others need, for as long as another's model loads.
        let known = match self.known.try_lock() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(known)) => known.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(UnlockError::Busy),
        };
        self.unlock_in(known, name, version, key, signature)
    }

    /// As [`unlock`](Self::unlock), but waits while other models are loaded: not for calls of which callers wait for
    /// the answer.
    ///
    /// # Errors
    /// [`UnlockError`]
    pub fn unlock_patiently(&self, name: &str, version: &str, key: &ModelKey) -> Result<(), UnlockError> {
        self.unlock_in(self.lock(), name, Some(version), key, b"").map(drop)
    }

    fn unlock_in(
        &self,
        mut known: MutexGuard<'_, Known>,
        name: &str,
        version: Option<&str>,
        key: &ModelKey,
        signature: &[u8],
    ) -> Result<ModelClaim, UnlockError> {
        let set = self.current();
        let slot = set.find_locked(name, version)?;
        let Slot::Locked(locked) = &**slot else {
            return Err(UnlockError::NotLocked { model: name.into() });
        };
        let served = self.loader.unlock(locked, key, signature)?;
        let (claim, version) = (served.claim.clone(), locked.place.version);
        self.publish(&known, |slots| put(slots, name.into(), version, Slot::Serving(Box::new(served))));
        info!("model {claim} is unlocked");
        self.settle(&mut known, name);
        Ok(claim)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The repository, if callers may change what is served and nobody else does so now: one who waited would hold a
    /// thread that others need.
    fn take_control(&self) -> Result<(&Path, MutexGuard<'_, Known>), ControlError> {
        let (ModelSource::Repository { path }, ModelControl::Explicit) = (&self.source, self.control) else {
            return Err(ControlError::Off);
        };
        match self.known.try_lock() {
            Ok(known) => Ok((path, known)),
            Err(TryLockError::Poisoned(known)) => Ok((path, known.into_inner())),
            Err(TryLockError::WouldBlock) => Err(ControlError::Busy),
        }
    }

    /// Serves of `name` what its folder says. `again` tries what failed before, too.
    fn update(&self, known: &mut Known, repository: &Path, name: &str, again: bool) {
        let model = known.models.entry(name.into()).or_default();
        let found = match folder::look(repository, name) {
            Ok(found) => found,
            Err(error) => {
                model.has(Some(error.to_string()), repository, name);
                return self.publish(known, |_| {});
            }
        };
        model.wanted = found.wanted();
        let lacks = model.wanted.is_empty().then(|| LoadError::NoVersion.to_string());
        model.has(lacks, repository, name);
        let served = self.current();
        for version in model.wanted.clone() {
            let Some(FoundVersion { signature, .. }) = found.versions.get(&version) else { continue };
            let known_model = known.models.entry(name.into()).or_default();
            let done = known_model.versions.get(&version).is_some_and(|tried| {
                let failed = matches!(tried.outcome, Outcome::Failed(_));
                let there = failed || served.has(name, version);
                tried.signature == *signature && there && !(again && failed)
            });
            if done {
                continue;
            }
            let tried = Tried { signature: signature.clone(), outcome: Outcome::Loading };
            known_model.versions.insert(version, tried);
            self.publish(known, |_| {});
            self.try_version(known, name, version, &found);
        }
        self.settle(known, name);
    }

    fn try_version(&self, known: &mut Known, name: &str, version: u64, found: &folder::Found) {
        let Some(there) = found.versions.get(&version) else { return };
        let opened = there.file().and_then(|path| {
            let place = Place { name: name.into(), version, path, config: Arc::clone(&found.config) };
            self.loader.open(&place)
        });
        let outcome = match &opened {
            Ok(slot) => {
                info!("model {name} version {version} from {}: {}", there.folder.display(), slot.claim());
                Outcome::Loaded
            }
            Err(error) => {
                warn!("model {name} version {version} from {}: {error}", there.folder.display());
                Outcome::Failed(error.to_string())
            }
        };
        if let Some(tried) = known.models.get_mut(name).and_then(|model| model.versions.get_mut(&version)) {
            tried.outcome = outcome;
        }
        self.publish(known, |slots| {
            if let Ok(slot) = opened {
                put(slots, name.into(), version, slot);
            }
        });
    }

    /// Ends versions that are no longer wanted, once all that are wanted are served.
    fn settle(&self, known: &mut Known, name: &str) {
        let set = self.current();
        let Some(model) = known.models.get_mut(name) else { return };
        let served = |version: &u64| set.slots.get(name).and_then(|slots| slots.get(version));
        if model.wanted.iter().all(|version| served(version).is_some_and(|slot| slot.served().is_some())) {
            let wanted = model.wanted.clone();
            model.versions.retain(|version, _| wanted.contains(version));
            self.publish(known, |slots| {
                if let Some(versions) = slots.get_mut(name) {
                    versions.retain(|version, _| wanted.contains(version));
                    if versions.is_empty() {
                        slots.remove(name);
                    }
                }
            });
        }
    }

    /// Serves from now on what `change` makes of what is served.
    fn publish(&self, known: &Known, change: impl FnOnce(&mut Slots)) {
        let mut slots = self.current().slots.clone();
        change(&mut slots);
        // Models that nobody uses any more are dropped here, where no request waits for it.
        drop(self.shelf.put(Arc::new(Set::new(slots, known))));
    }
}

fn put(slots: &mut Slots, name: String, version: u64, slot: Slot) {
    slots.entry(name).or_default().insert(version, Arc::new(slot));
}

/// Loads the model of `config`, which is in one file and not encrypted.
///
/// # Errors
/// [`OpenError`]
pub fn load(config: &Config, engine: &Engine) -> Result<Served, OpenError> {
    let ModelSource::File { path, name } = &config.models else {
        let entries = Vec::new();
        return Err(OpenError::NothingServed { path: PathBuf::new(), entries });
    };
    let failed = |source| OpenError::Model { path: path.clone(), source };
    match Loader::new(config, engine, None)
        .open(&Place::only(path, name, &config.model_config))
        .map_err(failed)?
    {
        Slot::Serving(served) => Ok(*served),
        Slot::Locked(_) => Err(failed(LoadError::Encrypted)),
    }
}

/// The models that `config` names, for people: their hashes, where they are not encrypted. Nothing is loaded.
///
/// # Errors
/// [`OpenError`]
pub fn found(config: &Config) -> Result<Vec<String>, OpenError> {
    owner(config)?;
    let hashed = |path: &Path| match confonnx_model::model_hash(path) {
        _ if path.extension().is_some_and(|extension| extension == "age") => "encrypted".into(),
        Ok(hash) => format!("sha256 {}", Digest(hash)),
        Err(error) => format!("will not be served: {error}"),
    };
    match &config.models {
        ModelSource::File { path, name } => {
            std::fs::metadata(path).map_err(|source| OpenError::Model {
                path: path.clone(),
                source: LoadError::Read { file: name.clone(), source },
            })?;
            Ok(vec![format!("{name}: {}", hashed(path))])
        }
        ModelSource::Repository { path } => {
            let failed = |source| OpenError::Repository { path: path.clone(), source };
            let mut lines = Vec::new();
            for name in folder::names(path).map_err(failed)? {
                match folder::look(path, &name) {
                    Err(error) => lines.push(format!("{name}: {error}")),
                    Ok(found) => {
                        for (version, there) in &found.versions {
                            let file = there.file().map_or_else(|err| err.to_string(), |path| hashed(&path));
                            lines.push(format!("{name} version {version}: {file}"));
                        }
                    }
                }
            }
            Ok(lines)
        }
    }
}

/// Who may unlock models, if that is limited.
fn owner(config: &Config) -> Result<Option<OwnerPublicKey>, OpenError> {
    let Some(path) = &config.model_owner_key_file else { return Ok(None) };
    if !config.use_model_key_provisioning {
        return Err(OpenError::OwnerOfNothing);
    }
    let pem = std::fs::read(path).map_err(|source| OpenError::OwnerFile { path: path.clone(), source })?;
    let owner = OwnerPublicKey::from_pem(&String::from_utf8_lossy(&pem));
    owner.map(Some).map_err(|source| OpenError::Owner { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::config::Settings;

    /// A change holds the lock while its model loads, which can take minutes.
    #[test]
    fn who_unlocks_a_model_does_not_wait_for_anothers() {
        let Some(runtime) = runtime() else { panic!("no ONNX Runtime: run scripts/fetch-onnxruntime") };
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            model_repository: Some(folder.path().into()),
            model_control: Some(ModelControl::Poll),
            ..Settings::default()
        };
        let models = Models::open(&Config::resolve(settings).unwrap(), &runtime).unwrap().0;
        let key = ModelKey::from_bytes(&[7; 32]).unwrap();
        let held = models.lock();
        std::thread::scope(|scope| {
            let ((done, result), models, key) = (mpsc::channel(), &models, &key);
            scope.spawn(move || done.send(models.unlock("m", None, key, b"")).unwrap());
            let result = result.recv_timeout(std::time::Duration::from_secs(30));
            drop(held);
            assert!(matches!(result, Ok(Err(UnlockError::Busy))), "it waited");
        });
        assert!(matches!(models.unlock("m", None, &key, b""), Err(UnlockError::Absent(_))));
    }

    fn runtime() -> Option<Engine> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let built_in = workspace.join(".cache/onnxruntime/libonnxruntime.so.1.31.1");
        let path = std::env::var_os("CONFONNX_ORT_LIB").map_or(built_in, PathBuf::from);
        confonnx_engine::Runtime::load(&path).ok().map(Engine::InProcess)
    }
}
