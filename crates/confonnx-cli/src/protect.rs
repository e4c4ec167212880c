use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use confonnx_client::blocking::Client;
use confonnx_model::encrypted::{ModelKey, OwnerKey, encrypt_file};

use crate::args::{Called, Connection, Expected, bytes};
use crate::print;

/// Encrypt a model, so that only a TEE that its owner trusts can run it
///
/// The file is in the age format: `age -d -i KEY` opens it too. Serve it with --use-model-key-provisioning, then give the
/// key with `confonnx provision`.
#[derive(Args)]
pub(crate) struct EncryptModel {
    /// The .onnx file; its external data, if any, lies beside it and is encrypted with it
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The key's file, as age-keygen writes it. Made anew if there is none: keep it, and keep it secret
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The encrypted file [default: MODEL.age]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Give an encrypted model's key to a server
///
/// The server is verified first: the key goes, sealed, only to what you expect. Give the enclave hash, and as
/// --enclave-model-hash the hash of the encrypted file.
#[derive(Args)]
pub(crate) struct Provision {
    /// The server
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    model: Called,
    /// The key's file
    #[arg(long, value_name = "FILE")]
    model_key_file: PathBuf,
    /// The owner's private key (PEM; Ed25519 or P-256), for a server that was told whose model it is
    #[arg(long, value_name = "FILE")]
    owner_key_file: Option<PathBuf>,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    connection: Connection,
}

impl EncryptModel {
    pub(crate) fn run(&self) -> Result<()> {
        let (key, made) = key(&self.key)?;
        let out = self.out.clone().unwrap_or_else(|| {
            let mut name = self.model.clone().into_os_string();
            name.push(".age");
            name.into()
        });
        let digests = encrypt_file(&key, &self.model, &out)?;
        let mut text = String::new();
        if made {
            text += &format!("key               {} (new: keep it, and keep it secret)\n", self.key.display());
        }
        text += &format!("encrypted model   {}\n", out.display());
        text += &format!("model hash        {}\n", hex(&digests.plaintext));
        text += &format!("hash when locked  {}", hex(&digests.ciphertext));
        Ok(print(&text)?)
    }
}

impl Provision {
    pub(crate) fn run(&self) -> Result<()> {
        let policy = self.expected.policy(None)?;
        let key: ModelKey = read(&self.model_key_file, str::parse)?;
        let owner = self.owner_key_file.as_deref().map(|path| read(path, OwnerKey::from_pem)).transpose()?;
        let client = Client::new(&self.url, policy, self.connection.options()?)?;
        let claim = client.provision_model_key(self.model.get(), &key, owner.as_ref())?;
        Ok(print(&format!("Unlocked: {claim}"))?)
    }
}

/// The key in that file, or a new one, written there; whether it is new.
fn key(path: &Path) -> Result<(ModelKey, bool)> {
    if path.exists() {
        return Ok((read(path, str::parse)?, false));
    }
    let key = ModelKey::generate().context("the operating system gives no random bytes")?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "# public key: {}\n{}", key.recipient(), *key.expose())?;
    Ok((key, true))
}

/// A key in a file. The file's content is no part of any error.
fn read<T, E: std::error::Error + Send + Sync + 'static>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T> {
    let text =
        String::from_utf8(bytes(path)?).ok().with_context(|| format!("{} is not text", path.display()))?;
    parse(&text).with_context(|| format!("cannot use {}", path.display()))
}

fn hex(digest: &[u8; 32]) -> String {
    confonnx_client::Digest(*digest).to_string()
}
