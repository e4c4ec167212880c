//! Proofs as files: an attestation document with what it takes to judge it again.

use anyhow::{Context, Result};
use confonnx_client::{Digest, Nonce, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A document, and what is known of how it came about. Only the document is signed: for what nonce and when it was
/// judged is the word of whoever saved the proof.
#[derive(Clone)]
pub(crate) struct Proof {
    /// The document as the server sent it.
    pub(crate) document: Vec<u8>,
    pub(crate) nonce: Option<Nonce>,
    pub(crate) at: Option<UnixTime>,
    /// The digest of the policy by which the document was judged.
    pub(crate) policy: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    confonnx_proof: u32,
    nonce: Option<String>,
    at: UnixTime,
    policy_sha256: Digest,
    #[serde(borrow)]
    document: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    confonnx_proof: Option<u32>,
}

impl Proof {
    /// Reads a proof, or a document by itself.
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self> {
        let Versioned { confonnx_proof } = serde_json::from_slice(&bytes)?;
        let Some(version) = confonnx_proof else {
            return Ok(Self { document: bytes, nonce: None, at: None, policy: None });
        };
        if version != VERSION {
            anyhow::bail!(
                "expected a proof of version {VERSION}, found version {version}: use a newer command"
            );
        }
        let wire: Wire<'_> = serde_json::from_slice(&bytes)?;
        let document = wire.document.get().as_bytes().to_vec();
        let nonce = wire.nonce.map(|nonce| nonce.parse()).transpose().context("its nonce")?;
        Ok(Self { document, nonce, at: Some(wire.at), policy: Some(wire.policy_sha256) })
    }

    /// The proof's file.
    pub(crate) fn to_json(&self) -> Result<String> {
        let document = std::str::from_utf8(&self.document).context("the server's document is no text")?;
        let document: &RawValue =
            serde_json::from_str(document).context("the server's document is no JSON")?;
        let (at, policy_sha256) = self.at.zip(self.policy).context("a proof has an instant and a policy")?;
        let nonce = self.nonce.map(|nonce| nonce.to_string());
        let wire = Wire { confonnx_proof: VERSION, nonce, at, policy_sha256, document };
        Ok(serde_json::to_string_pretty(&wire)? + "\n")
    }
}

const VERSION: u32 = 1;
