//! What every TEE says of the program it runs.

use std::fmt;

use crate::{EnclaveHash, digest};

/// What a TEE measured; `facts` are what only this kind of TEE says.
#[derive(Debug)]
pub(crate) struct Measured<F> {
    pub(crate) enclave_hash: EnclaveHash,
    /// Who signed the program, where programs are signed.
    pub(crate) signer: Option<Signer>,
    pub(crate) debug: bool,
    pub(crate) facts: F,
}

/// Who signed a program, as the TEE reports it: by a digest of the key.
#[derive(Debug)]
pub(crate) struct Signer {
    reported: Vec<u8>,
    digest_of: DigestOf,
}

/// How a TEE reports a public key, a SubjectPublicKeyInfo as DER; `None` when it has no such keys.
pub(crate) type DigestOf = fn(&[u8]) -> Option<Vec<u8>>;

impl<F> Measured<F> {
    /// What was measured, with other facts.
    pub(crate) fn map<T>(self, facts: impl FnOnce(F) -> T) -> Measured<T> {
        let Self { enclave_hash, signer, debug, facts: own } = self;
        Measured { enclave_hash, signer, debug, facts: facts(own) }
    }
}

impl Signer {
    pub(crate) fn new(reported: &[u8], digest_of: DigestOf) -> Self {
        Self { reported: reported.to_vec(), digest_of }
    }

    /// How the TEE that reported this signer would report the key `der`.
    pub(crate) fn would_be(&self, der: &[u8]) -> Option<String> {
        (self.digest_of)(der).map(|digest| digest::encode(&digest))
    }

    /// The digest, as the TEE reports it.
    #[cfg(test)]
    pub(crate) fn reported(&self) -> &[u8] {
        &self.reported
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&digest::encode(&self.reported))
    }
}
