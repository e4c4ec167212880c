//! Expectations, one after the other.

use std::time::Duration;

use super::{AcceptedKeyService, Expectations, ModelPin, Platforms, ServerExpectations, SigningKey};
use crate::{Digest, EnclaveHash, ReleaseLog};

/// Each method adds to the field of its name, or sets it.
impl Expectations {
    /// Nothing is expected yet; no [`Policy`](super::Policy) can be made of that.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more program that is accepted.
    #[must_use]
    pub fn enclave_hash(mut self, accepted: EnclaveHash) -> Self {
        self.enclave_hashes.push(accepted);
        self
    }

    /// One more signer that is accepted.
    #[must_use]
    pub fn signing_key(mut self, accepted: SigningKey) -> Self {
        self.signing_keys.push(accepted);
        self
    }

    /// One more model that is accepted.
    #[must_use]
    pub fn model_hash(mut self, accepted: ModelPin) -> Self {
        self.model_hashes.push(accepted);
        self
    }

    /// Whether debug mode is accepted, and with it the insecure TEE: no confidentiality.
    #[must_use]
    pub fn allow_debug(mut self, value: bool) -> Self {
        self.allow_debug = value;
        self
    }

    /// Accepts documents without the caller's nonce that say they are no older.
    #[must_use]
    pub fn max_age(mut self, value: Duration) -> Self {
        self.max_age = Some(value);
        self
    }

    /// One more policy by which the server may let clients in, by its digest.
    #[must_use]
    pub fn client_auth(mut self, accepted: Digest) -> Self {
        self.client_auth.push(accepted);
        self
    }

    /// The log that has to have the program's release.
    #[must_use]
    pub fn release_log(mut self, value: ReleaseLog) -> Self {
        self.release_log = Some(value);
        self
    }

    /// One more service that may know the secret of the keys.
    #[must_use]
    pub fn key_service(mut self, accepted: AcceptedKeyService) -> Self {
        self.key_services.push(accepted);
        self
    }

    /// One more policy that members of the server's group may hold each other to, by its digest.
    #[must_use]
    pub fn peer_policy(mut self, accepted: Digest) -> Self {
        self.peer_policies.push(accepted);
        self
    }

    /// What the claims have to say of the program, its settings and keys.
    #[must_use]
    pub fn server(mut self, value: ServerExpectations) -> Self {
        self.server = value;
        self
    }

    /// What each kind of TEE has to be beyond that.
    #[must_use]
    pub fn platforms(mut self, value: Platforms) -> Self {
        self.platforms = value;
        self
    }
}
