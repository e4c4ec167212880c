//! The key of one reply (RFC 9458 §4.4; draft-ietf-ohai-chunked-ohttp §6.2).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    backend::{BulkKey, CipherFailure},
    context::{Export, Framing, Open, Seal},
    suite::{Aead, NONCE_LEN, TAG_LEN},
};

/// What a reply's key is derived from, once its nonce is known: a secret of the request's context, and bytes of the
/// request that no other has, which for a full request are its encapsulated key.
pub(crate) struct ReplySecret {
    aead: Aead,
    secret: Zeroizing<Vec<u8>>,
    request: Vec<u8>,
}

impl ReplySecret {
    pub(crate) fn new(aead: Aead, secret: Zeroizing<Vec<u8>>, request: Vec<u8>) -> Self {
        Self { aead, secret, request }
    }

    pub(crate) fn export(
        context: &(impl Export + ?Sized),
        framing: Framing,
        aead: Aead,
        encapsulated: &[u8],
    ) -> Result<Self, CipherFailure> {
        let mut secret = Zeroizing::new(vec![0; aead.reply_nonce_len()]);
        context.export(framing.reply(), &mut secret)?;
        Ok(Self::new(aead, secret, encapsulated.to_vec()))
    }

    /// How many bytes the nonce has that starts the reply.
    pub(crate) fn nonce_len(&self) -> usize {
        self.aead.reply_nonce_len()
    }

    /// The key of the reply that starts with `nonce`.
    pub(crate) fn key(self, nonce: &[u8]) -> Result<ReplyKey, CipherFailure> {
        let salt = [self.request.as_slice(), nonce].concat();
        let prk = Hkdf::<Sha256>::new(Some(&salt), &self.secret);
        let mut key = Zeroizing::new(vec![0; self.aead.key_len()]);
        let mut base_nonce = [0; NONCE_LEN];
        prk.expand(b"key", &mut key).map_err(|_| CipherFailure)?;
        prk.expand(b"nonce", &mut base_nonce).map_err(|_| CipherFailure)?;
        let key = BulkKey::new(self.aead, &key).ok_or(CipherFailure)?;
        Ok(ReplyKey { key, base_nonce, counter: 0 })
    }
}

/// The key of one reply; each message under it has its own nonce, counted.
pub(crate) struct ReplyKey {
    key: BulkKey,
    base_nonce: [u8; NONCE_LEN],
    counter: u64,
}

impl ReplyKey {
    fn next_nonce(&mut self) -> Result<[u8; NONCE_LEN], CipherFailure> {
        let mut nonce = self.base_nonce;
        for (byte, count) in nonce.iter_mut().rev().zip(self.counter.to_le_bytes()) {
            *byte ^= count;
        }
        self.counter = self.counter.checked_add(1).ok_or(CipherFailure)?;
        Ok(nonce)
    }
}

impl Seal for ReplyKey {
    fn seal(&mut self, aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG_LEN], CipherFailure> {
        let nonce = self.next_nonce()?;
        self.key.seal(nonce, aad, data)
    }
}

impl Open for ReplyKey {
    fn open(&mut self, aad: &[u8], data: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), CipherFailure> {
        let nonce = self.next_nonce()?;
        self.key.open(nonce, aad, data, tag)
    }
}
