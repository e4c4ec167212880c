//! The key a client currently seals to, and the proof it rests on.

use std::sync::Arc;

use confonnx_attest::{Document, Nonce, Policy, Trusted, UnixTime};
use confonnx_protocol::client::SealingKey;
use confonnx_protocol::{Kem, KeyConfig};

use super::resuming::Resuming;
use crate::ClientError;

/// A trusted document and one of its keys.
pub(crate) struct AttestedKey {
    pub(crate) trusted: Arc<Trusted>,
    pub(crate) key: SealingKey,
    /// When the key ends: nothing may be sealed to it from then on.
    pub(crate) accepted_until: UnixTime,
    pub(crate) resuming: Arc<Resuming>,
}

impl AttestedKey {
    /// Verifies and appraises `document`, then picks its first key of that KEM.
    pub(crate) fn open(
        document: &[u8],
        nonce: &Nonce,
        policy: &Policy,
        kem: Kem,
        now: UnixTime,
    ) -> Result<Self, ClientError> {
        let trusted = Document::parse(document)?.verify(Some(nonce), now)?.appraise(policy, now)?;
        let unusable = |reason: String| ClientError::NoKey { reason };
        let configs =
            KeyConfig::parse_list(trusted.key_configs()).map_err(|err| unusable(err.to_string()))?;
        let Some(config) = configs.iter().find(|config| config.kem() == kem) else {
            let offered: Vec<_> = configs.iter().map(|config| config.kem().name()).collect();
            return Err(unusable(format!("expected one for KEM {kem}, found {}", offered.join(", "))));
        };
        let claimed =
            |key: &&confonnx_attest::KeyClaim| key.key_id == config.key_id() && key.kem == kem.name();
        let Some(claim) = trusted.claims().keys.iter().find(claimed) else {
            return Err(unusable(format!("the claims do not say how long key {} is valid", config.key_id())));
        };
        let accepted_until = claim.accepted_until;
        if accepted_until <= now {
            let (id, until, now) = (config.key_id(), accepted_until.0, now.0);
            let reason = format!(
                "key {id} was accepted until Unix time {until}, and here it is {now}: compare this machine's clock with the server's"
            );
            return Err(unusable(reason));
        }
        let key = SealingKey::new(config.clone(), &trusted).map_err(|err| unusable(err.to_string()))?;
        Ok(Self { trusted: Arc::new(trusted), key, accepted_until, resuming: Arc::default() })
    }

    /// Whether the server takes a sealed request of `len` bytes, as its claims have it.
    pub(crate) fn fits(&self, len: usize) -> Result<(), ClientError> {
        let limit = self.trusted.claims().settings.get("max_request_bytes").and_then(|limit| limit.as_u64());
        match limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)) {
            Some(limit) if len > limit => Err(ClientError::RequestTooLarge { len, limit }),
            _ => Ok(()),
        }
    }

    /// The same key, without what was resumed with it.
    pub(crate) fn afresh(&self) -> Self {
        let Self { trusted, key, accepted_until, .. } = self;
        let resuming = Arc::default();
        Self { trusted: Arc::clone(trusted), key: key.clone(), accepted_until: *accepted_until, resuming }
    }
}
