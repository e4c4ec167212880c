//! What members demand of each other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use confonnx_attest::{
    Claims, Digest, Expectations, Genuine, Platforms, Policy, PolicyBuildError, PolicyFileError, Tee,
    UnixTime,
};
use sha2::{Digest as _, Sha256};

use crate::config::TomlError;

/// A policy that every member of the group has.
pub struct PeerPolicy {
    policy: Policy,
    sha256: Digest,
    /// Whether build and runtime have to be the same, as without a policy file.
    same_program: bool,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PeerPolicyError {
    /// The file cannot be read.
    #[error("the peer policy {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no policy.
    #[error("the peer policy {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        source: PolicyFileError,
    },
    /// The file is not TOML, or has keys or values that a policy has not.
    #[error("the peer policy {}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: TomlError,
    },
    /// The policy would accept anybody.
    #[error("the peer policy: {0}")]
    Build(#[from] PolicyBuildError),
}

/// Two servers cannot be of one group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("members of a group have the same {what}: here it is {here}, there {there}")]
pub struct Disagree {
    what: &'static str,
    here: String,
    there: String,
}

impl PeerPolicy {
    /// The one in the file, whatever other files it names beside it.
    ///
    /// # Errors
    /// [`PeerPolicyError`]
    pub fn from_file(path: &Path) -> Result<Self, PeerPolicyError> {
        let text = fs::read_to_string(path)
            .map_err(|source| PeerPolicyError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut hash = Sha256::new();
        let mut hashed = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        hashed(&text);
        let expected = Expectations::from_toml(&text, &mut |name| {
            let text = fs::read_to_string(folder.join(name))?;
            hashed(&text);
            Ok(text)
        });
        let mut expected = expected.map_err(|source| match source {
            PolicyFileError::Toml(error) => {
                PeerPolicyError::Toml { path: path.to_owned(), source: TomlError::of(&text, &error) }
            }
            source => PeerPolicyError::File { path: path.to_owned(), source },
        })?;
        let sha256 = Digest(hash.finalize().into());
        expected.peer_policies = vec![sha256];
        Ok(Self { policy: Policy::new(expected)?, sha256, same_program: false })
    }

    /// What this server is itself: the same TEE, program and ONNX Runtime, on a platform as clouds run them.
    ///
    /// # Errors
    /// [`PeerPolicyError::Build`]
    pub fn like(own: &Genuine) -> Result<Self, PeerPolicyError> {
        let (tee, sha256) = (own.tee(), own.same_program());
        let expected = Expectations::new()
            .enclave_hash(own.enclave_hash().clone())
            .allow_debug(tee == Tee::Insecure)
            .peer_policy(sha256)
            .platforms(Platforms::cloud().only(tee));
        let policy = Policy::new(expected)?;
        Ok(Self { policy, sha256, same_program: true })
    }

    /// This policy, which takes this server's own evidence for the least that others have to show: no older word of the TEE's
    /// vendor, and no earlier time.
    #[must_use]
    pub fn no_older_than(self, own: &Genuine) -> Self {
        Self { policy: self.policy.no_older_than(own), ..self }
    }

    /// The time by which others are judged.
    pub fn time(&self, now: UnixTime) -> UnixTime {
        self.policy.time(now)
    }

    /// The policy to appraise evidence by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy's digest, for the claims.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// Whether servers with these claims can be of one group. `theirs` are of trusted evidence.
    ///
    /// # Errors
    /// [`Disagree`]
    pub fn agree(&self, here: &Claims, there: &Claims) -> Result<(), Disagree> {
        let same = |what, here: String, there: String| {
            if here == there { Ok(()) } else { Err(Disagree { what, here, there }) }
        };
        same("key provider", "peer".into(), short(&there.key_source.kind))?;
        let policy = there.key_source.peer_policy_sha256.map_or("none".into(), |digest| digest.to_string());
        same("peer policy (by SHA-256)", self.sha256.to_string(), policy)?;
        for name in ["key_rollover_interval_s", "key_grace_s", "date_window_s"] {
            let of = |claims: &Claims| {
                claims.settings.get(name).map_or("none".into(), |value| short(&value.to_string()))
            };
            same(name, of(here), of(there))?;
        }
        if self.same_program {
            same("build", here.build.sha256.to_string(), there.build.sha256.to_string())?;
            same("runtime", here.runtime.sha256.to_string(), there.runtime.sha256.to_string())?;
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
