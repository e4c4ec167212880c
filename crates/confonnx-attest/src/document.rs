//! The attestation document: parsing, writing, verifying (protocol.md 2.2, 2.3).

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::{self, HexError};
use crate::merkle::InclusionProof;
use crate::shown::shown;
use crate::x509::shown_time;
use crate::{Claims, Digest, Evidence, EvidenceError, Genuine, Nonce, UnixTime, Verdict, report_data};

/// Longest document a client reads.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// A server's attestation document, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    key_configs: Vec<u8>,
    claims: Vec<u8>,
    evidence: Evidence,
    root: [u8; 32],
    proof: Option<InclusionProof>,
    release_proof: Option<String>,
}

/// The documents for the nonces of one tree, encoded once for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// The document's JSON up to where the proof belongs.
    shared: Vec<u8>,
}

/// Bytes that are not an attestation document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Longer than [`MAX_DOCUMENT_BYTES`].
    #[error("an attestation document has at most {MAX_DOCUMENT_BYTES} bytes, found {found}")]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// Not JSON with the members of a document.
    #[error("not an attestation document: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("expected an attestation document of version 1, found version {found}: use a newer client")]
    Version {
        /// The document's version.
        found: u64,
    },
    /// A member is not unpadded base64url.
    #[error("{member} is not base64url without padding")]
    Base64 {
        /// Name of the member.
        member: &'static str,
    },
    /// A member is not hex of 32 bytes.
    #[error("{member}: {source}")]
    Hex {
        /// Name of the member.
        member: &'static str,
        /// What is wrong with the member.
        source: HexError,
    },
    /// The evidence cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// Evidence that is not genuine, or not about this document, or not fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyError {
    /// Every check that was made.
    pub verdict: Verdict,
}

impl Document {
    /// A document for `key_configs` (`application/ohttp-keys` bytes) and `claims` (JSON bytes), whose `evidence`
    /// carries [`report_data`] of both and `root`. `proof` is absent when the client sent no nonce.
    pub fn new(
        key_configs: Vec<u8>,
        claims: Vec<u8>,
        evidence: Evidence,
        root: [u8; 32],
        proof: Option<InclusionProof>,
    ) -> Self {
        Self { key_configs, claims, evidence, root, proof, release_proof: None }
    }

    /// The same with a proof that the program's release is in a transparency log ([`ReleaseLog`](crate::ReleaseLog)).
    #[must_use]
    pub fn with_release_proof(self, proof: String) -> Self {
        Self { release_proof: Some(proof), ..self }
    }

    /// Reads a document; members it does not know are ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DocumentError::TooLong { found: bytes.len() });
        }
        // The version first: other members may look different in another one.
        let Versioned { version } = crate::json::from_slice(bytes)?;
        if version != VERSION {
            return Err(DocumentError::Version { found: version });
        }
        let wire: Wire = crate::json::from_slice(bytes)?;
        let report = base64("evidence.report", &wire.evidence.report)?;
        Ok(Self {
            key_configs: base64("key_configs", &wire.key_configs)?,
            claims: base64("claims", &wire.claims)?,
            evidence: Evidence::parse(&wire.evidence.tee, &report, &wire.evidence.endorsements)?,
            root: hash("freshness.root", &wire.freshness.root)?,
            proof: wire.freshness.proof.map(WireProof::read).transpose()?,
            release_proof: wire.release_proof,
        })
    }

    /// The document as the server sends it.
    pub fn to_json(&self) -> Vec<u8> {
        let release_proof = self.release_proof.as_deref();
        Documents::new(&self.key_configs, &self.claims, &self.evidence, self.root, release_proof)
            .to_json(self.proof.as_ref())
    }

    /// The TEE the document says it comes from.
    pub fn tee(&self) -> crate::Tee {
        self.evidence.tee()
    }

    /// Decides whether the evidence is genuine, vouches for this document's key configs and claims, and was made
    /// for `nonce`. Without a nonce freshness is left to [`Genuine::appraise`], which then wants a maximum age.
    pub fn verify(&self, nonce: Option<&Nonce>, now: UnixTime) -> Result<Genuine, VerifyError> {
        let mut verdict = Verdict::default();
        let bound = report_data(&self.root, &self.key_configs, &self.claims);
        let measured = self.evidence.verify(&bound, now, &mut verdict);
        self.check_nonce(nonce, &mut verdict);
        let claims = Claims::parse(&self.claims);
        let found = claims.as_ref().map_or_else(|err| shown(&err.to_string()), |_| CLAIMS.into());
        verdict.equal("claims", CLAIMS, found);
        if let Some(until) = verdict.decided_until() {
            verdict.info("decided until", shown_time(until));
        }
        match (claims, measured) {
            (Ok(claims), Some(measured)) if verdict.passes() => Ok(Genuine {
                key_configs: self.key_configs.clone(),
                claims,
                tee: self.evidence.tee(),
                measured,
                fresh: nonce.is_some(),
                release_proof: self.release_proof.clone(),
                verdict,
            }),
            (_, measured) => {
                // So that reference values can be read off evidence that cannot be decided about.
                let hash = measured.map(|measured| measured.enclave_hash).or_else(|| self.evidence.says());
                if let Some(hash) = hash {
                    verdict.info("measured", format!("{hash}, as the evidence says"));
                }
                Err(VerifyError { verdict })
            }
        }
    }

    /// The claims as they were sent, if they are JSON. Nothing vouches for them before [`verify`](Self::verify).
    pub fn claims_json(&self) -> Option<Value> {
        serde_json::from_slice(&self.claims).ok()
    }

    fn check_nonce(&self, nonce: Option<&Nonce>, verdict: &mut Verdict) {
        let root = Digest(self.root);
        let Some(nonce) = nonce else {
            return verdict.info("nonce", format!("not sent (root {root})"));
        };
        let expected = format!("our nonce {nonce} under the root {root}");
        match self.proof.as_ref().map(|proof| proof.verify(nonce, &self.root)) {
            Some(Ok(())) => verdict.equal("nonce", expected.clone(), expected),
            Some(Err(err)) => verdict.decide("nonce", expected, err.to_string(), false),
            None => verdict.decide("nonce", expected, "no inclusion proof", false),
        }
    }
}

impl Documents {
    /// The documents that differ in nothing but their proof; see [`Document::new`] and [`Document::with_release_proof`].
    pub fn new(
        key_configs: &[u8],
        claims: &[u8],
        evidence: &Evidence,
        root: [u8; 32],
        release_proof: Option<&str>,
    ) -> Self {
        let wire = Wire {
            version: VERSION,
            key_configs: Base64UrlUnpadded::encode_string(key_configs),
            claims: Base64UrlUnpadded::encode_string(claims),
            evidence: WireEvidence {
                tee: evidence.tee().name().into(),
                report: Base64UrlUnpadded::encode_string(&evidence.report()),
                endorsements: evidence.endorsements(),
            },
            release_proof: release_proof.map(str::to_owned),
            freshness: WireFreshness { root: digest::encode(&root), proof: None },
        };
        // Strings, numbers and string-keyed maps only: serializing them cannot fail.
        let mut shared = serde_json::to_vec(&wire).unwrap_or_default();
        // The proof is the last member of the last member.
        shared.truncate(shared.len().saturating_sub(CLOSING.len()));
        Self { shared }
    }

    /// The document with `proof`, as the server sends it.
    pub fn to_json(&self, proof: Option<&InclusionProof>) -> Vec<u8> {
        let mut json = self.shared.clone();
        if let Some(proof) = proof {
            json.extend_from_slice(b",\"proof\":");
            // Numbers and strings only: serializing them cannot fail.
            json.append(&mut serde_json::to_vec(&WireProof::write(proof)).unwrap_or_default());
        }
        json.extend_from_slice(CLOSING);
        json
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.verdict.is_undecided() {
            "whether the server's evidence is genuine cannot be decided"
        } else {
            "the server's evidence is not genuine"
        };
        write!(f, "{what}: {}", self.verdict.summary())
    }
}

impl std::error::Error for VerifyError {}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u64,
    key_configs: String,
    claims: String,
    evidence: WireEvidence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release_proof: Option<String>,
    freshness: WireFreshness,
}

#[derive(Serialize, Deserialize)]
struct WireEvidence {
    tee: String,
    report: String,
    endorsements: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct WireFreshness {
    root: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<WireProof>,
}

#[derive(Serialize, Deserialize)]
struct WireProof {
    leaf_index: u64,
    tree_size: u64,
    path: Vec<String>,
}

impl WireProof {
    fn read(self) -> Result<InclusionProof, DocumentError> {
        let path = self
            .path
            .iter()
            .map(|sibling| hash("freshness.proof.path", sibling))
            .collect::<Result<_, _>>()?;
        Ok(InclusionProof { leaf_index: self.leaf_index, tree_size: self.tree_size, path })
    }

    fn write(proof: &InclusionProof) -> Self {
        let path = proof.path.iter().map(|sibling| digest::encode(sibling)).collect();
        Self { leaf_index: proof.leaf_index, tree_size: proof.tree_size, path }
    }
}

fn base64(member: &'static str, text: &str) -> Result<Vec<u8>, DocumentError> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| DocumentError::Base64 { member })
}

fn hash(member: &'static str, text: &str) -> Result<[u8; 32], DocumentError> {
    digest::decode_array_lower(text).map_err(|source| DocumentError::Hex { member, source })
}

/// The braces that close `freshness` and the document.
const CLOSING: &[u8] = b"}}";
const VERSION: u64 = 1;
const CLAIMS: &str = "a claims object";
