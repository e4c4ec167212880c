//! What a repository's folder holds: `NAME/VERSION/model.onnx` or `model.onnx.age`, and `NAME/config.pbtxt`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use confonnx_model::triton::{ModelConfig, VersionPolicy};

use super::error::LoadError;
use crate::config::is_name;

/// A model's folder.
pub(super) struct Found {
    pub(super) config: Arc<ModelConfig>,
    pub(super) versions: BTreeMap<u64, FoundVersion>,
}

pub(super) struct FoundVersion {
    pub(super) folder: PathBuf,
    pub(super) signature: Signature,
}

/// Tells whether files changed since they were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Signature {
    config: Option<String>,
    files: Vec<(PathBuf, u64, Option<SystemTime>, u64)>,
}

/// The models' names: folders whose name can stand in a request. Others are not looked at.
pub(super) fn names(repository: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(repository)? {
        let entry = entry?;
        // Links are followed: volumes are made of them.
        if let Some(name) = entry.file_name().to_str().filter(|name| is_name(name))
            && entry.path().is_dir()
        {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// What else lies in the repository, and why it is no model or version. What begins with a dot is the volume's or a tool's.
pub(super) fn ignored(repository: &Path) -> io::Result<Vec<(PathBuf, &'static str)>> {
    let mut ignored = Vec::new();
    for entry in fs::read_dir(repository)? {
        let entry = entry?;
        let name = entry.file_name();
        let reason = match name.to_str() {
            Some(name) if name.starts_with('.') => continue,
            _ if !entry.path().is_dir() => "it is no folder; expected NAME/VERSION/model.onnx",
            Some(name) if is_name(name) => {
                // A folder that cannot be read is told when it is looked at.
                let inside = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let folders = inside.filter(|inside| inside.path().is_dir());
                let others = folders.filter(|inside| version(&inside.file_name()).is_none());
                let others = others.map(|inside| Path::new(name).join(inside.file_name()));
                ignored.extend(
                    others.map(|path| (path, "no version; expected a number that begins with no zero")),
                );
                continue;
            }
            _ => "its name cannot stand in a request; expected letters, digits, '-', '_' and '.'",
        };
        ignored.push((name.into(), reason));
    }
    Ok(ignored)
}

/// Looks at the folder of the model `name`.
pub(super) fn look(repository: &Path, name: &str) -> Result<Found, LoadError> {
    let folder = repository.join(name);
    let text = match fs::read(folder.join(CONFIG)) {
        Ok(bytes) if bytes.len() > MAX_CONFIG => {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "expected 1 MiB at most");
            return Err(LoadError::Read { file: CONFIG.into(), source });
        }
        Ok(bytes) => Some(String::from_utf8(bytes).map_err(|_| LoadError::Read {
            file: CONFIG.into(),
            source: io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"),
        })?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(LoadError::Read { file: CONFIG.into(), source }),
    };
    let config = text.as_deref().map_or_else(|| Ok(ModelConfig::default()), ModelConfig::parse)?;
    if let Some(found) = config.name.clone().filter(|found| found != name) {
        return Err(LoadError::ConfigName { expected: name.into(), found });
    }
    let read = |source| LoadError::Read { file: name.into(), source };
    let mut versions = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if let Some(version) = version(&entry.file_name())
            && entry.path().is_dir()
        {
            let folder = entry.path();
            let mut files = Vec::new();
            list(&folder, &mut files).map_err(read)?;
            files.sort();
            versions.insert(
                version,
                FoundVersion { folder, signature: Signature { config: text.clone(), files } },
            );
        }
    }
    Ok(Found { config: Arc::new(config), versions })
}

/// The version of a folder's name. As with Triton, a name that is no number, or begins with a zero, is no version.
fn version(name: &OsStr) -> Option<u64> {
    let name = name.to_str().filter(|name| !name.starts_with('0'))?;
    name.bytes().all(|c| c.is_ascii_digit()).then(|| name.parse().ok())?
}

impl Found {
    /// The versions to serve.
    pub(super) fn wanted(&self) -> BTreeSet<u64> {
        let versions = self.versions.keys().copied();
        match &self.config.version_policy {
            VersionPolicy::All => versions.collect(),
            VersionPolicy::Latest(count) => versions.rev().take(*count).collect(),
            VersionPolicy::Specific(wanted) => versions.filter(|version| wanted.contains(version)).collect(),
        }
    }
}

impl FoundVersion {
    /// The model's file.
    pub(super) fn file(&self) -> Result<PathBuf, LoadError> {
        let [plain, encrypted] = ["model.onnx", "model.onnx.age"].map(|name| self.folder.join(name));
        match (plain.exists(), encrypted.exists()) {
            (true, false) => Ok(plain),
            (false, true) => Ok(encrypted),
            (true, true) => Err(LoadError::TwoFiles),
            (false, false) => Err(LoadError::NoFile),
        }
    }
}

fn list(folder: &Path, files: &mut Vec<(PathBuf, u64, Option<SystemTime>, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A link that leads nowhere is noticed when the model is loaded.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if files.len() >= MAX_FILES {
            return Err(io::Error::other("expected 10000 files at most"));
        }
        if metadata.is_dir() {
            list(&path, files)?;
        } else {
            files.push((path, metadata.len(), metadata.modified().ok(), metadata.ino()));
        }
    }
    Ok(())
}

const CONFIG: &str = "config.pbtxt";
const MAX_CONFIG: usize = 1 << 20;
const MAX_FILES: usize = 10_000;
