//! Answers on disk, so that a restart needs no vendor. The files are the host's: whatever is in them is checked by
//! clients as if it had been fetched.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use confonnx_attest::{
    UnixTime,
    collateral::{Answer, Request},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Kept, fetch::MAX_ANSWER};

/// The folder.
pub(super) struct Store {
    folder: PathBuf,
}

/// A folder or file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Store {
    /// Uses `folder`, which is made if need be.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let store = Self { folder: folder.into() };
        let unusable = |source| StoreError { path: folder.into(), source };
        fs::create_dir_all(folder).map_err(unusable)?;
        // Better now than after the first fetch.
        let trial = store.folder.join(format!(".trial.{}", std::process::id()));
        fs::write(&trial, []).and_then(|()| fs::remove_file(&trial)).map_err(unusable)?;
        Ok(store)
    }

    /// The answer to `request`, if there is one.
    pub(super) fn read(&self, request: &Request) -> Result<Option<Kept>, StoreError> {
        let path = self.path(request);
        let unusable = |source| StoreError { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unusable)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unusable)?;
        let kept: Stored =
            confonnx_attest::json::from_slice(&bytes).map_err(|error| unusable(io::Error::other(error)))?;
        if (kept.vendor.as_str(), &kept.path) != (request.vendor.name(), &request.path) {
            return Err(unusable(io::Error::other("it answers another request")));
        }
        let body = Base64::decode_vec(&kept.body).map_err(|error| unusable(io::Error::other(error)))?;
        let answer = Answer { headers: kept.headers, body };
        Ok(Some(Kept { expires: answer.expires(), fetched: UnixTime(kept.fetched), answer }))
    }

    /// Replaces the answer to `request`; whoever reads meanwhile sees the old or the new file whole.
    pub(super) fn write(&self, request: &Request, kept: &Kept) -> Result<(), StoreError> {
        let stored = Stored {
            vendor: request.vendor.name().into(),
            path: request.path.clone(),
            fetched: kept.fetched.0,
            headers: kept.answer.headers.clone(),
            body: Base64::encode_string(&kept.answer.body),
        };
        let path = self.path(request);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(&stored).map_err(io::Error::other)?)?;
            // Renamed first and written later, a file could be empty after a crash.
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            // There may be no such file.
            let _ = fs::remove_file(&temporary);
            StoreError { path: path.clone(), source }
        })
    }

    fn path(&self, request: &Request) -> PathBuf {
        let digest = Sha256::digest(format!("{} {}", request.vendor.name(), request.path));
        self.folder.join(format!("{}.json", Base64UrlUnpadded::encode_string(&digest)))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    vendor: String,
    path: String,
    /// Unix seconds.
    fetched: u64,
    headers: Vec<(String, String)>,
    /// Base64.
    body: String,
}

/// Base64, header fields and the rest.
const MAX_FILE: u64 = 4 * MAX_ANSWER as u64;

#[cfg(test)]
mod tests {
    use confonnx_attest::collateral::Vendor;

    use super::*;

    fn request(path: &str) -> Request {
        Request { vendor: Vendor::Amd, path: path.into() }
    }

    fn kept(body: &[u8]) -> Kept {
        let headers = vec![("tcb-info-issuer-chain".into(), "%2D".into())];
        Kept { answer: Answer { headers, body: body.into() }, fetched: UnixTime(7), expires: None }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("not/yet/there")).unwrap();
        assert_eq!(store.read(&request("/a")).unwrap(), None);
        for body in [&[][..], &[0, 255, 16], &[7; 1000]] {
            store.write(&request("/a"), &kept(body)).unwrap();
            assert_eq!(Store::open(&store.folder).unwrap().read(&request("/a")).unwrap(), Some(kept(body)));
        }
        assert_eq!(store.read(&request("/b")).unwrap(), None);
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn damaged_files_are_no_answers() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = store.path(&request("/a"));
        store.write(&request("/b"), &kept(b"b")).unwrap();
        fs::rename(store.path(&request("/b")), &path).unwrap();
        assert!(store.read(&request("/a")).unwrap_err().to_string().contains("another request"));
        store.write(&request("/a"), &kept(b"a")).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            store.read(&request("/a")).unwrap_err();
        }
        let text = String::from_utf8(whole).unwrap();
        for body in ["\"YQ=\"", "\"YQ\"", "\"YR==\"", "\"é===\""] {
            fs::write(&path, text.replace("\"YQ==\"", body)).unwrap();
            store.read(&request("/a")).unwrap_err();
        }
        store.write(&request("/a"), &kept(b"a")).unwrap();
        assert_eq!(store.read(&request("/a")).unwrap(), Some(kept(b"a")));
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let error = Store::open(Path::new("/proc/collateral")).err().unwrap().to_string();
        assert!(error.starts_with("/proc/collateral: "), "{error}");
    }
}
