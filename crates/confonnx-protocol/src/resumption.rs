//! Resumption (`docs/protocol.md`, section 4.1): requests sealed under a secret of an earlier request's HPKE context,
//! without a key encapsulation of their own.
//!
//! A request starts with the header of the request that opened the resumption, then the resumption's identifier, a counter and a
//! salt that is drawn for it. All of that goes into its key: no two messages share one, and a message altered in
//! any of it does not open.

#[cfg(feature = "client")]
mod client;
mod grant;
#[cfg(feature = "server")]
mod table;
#[cfg(feature = "server")]
mod window;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

#[cfg(feature = "client")]
pub use self::client::{Resumption, ResumptionOffer};
pub use self::grant::{GrantError, ResumptionGrant};
pub(crate) use self::grant::{ID_LEN, ResumptionId};
#[cfg(feature = "server")]
pub(crate) use self::table::{Entry, ResumptionTable};
use crate::{
    backend::{BulkKey, CipherFailure},
    context::{Export, HEADER_LEN},
    reply_key::ReplySecret,
    suite::{Aead, NONCE_LEN, TAG_LEN},
};

/// The inner field that offers a resumption in a request and grants it in the reply.
pub const RESUMPTION_FIELD: &str = "confonnx-session";
/// The field's value in a request.
pub const RESUMPTION_OFFER: &str = "offer";

const COUNTER_LEN: usize = 8;
const SALT_LEN: usize = 32;

/// How many bytes come before the ciphertext: header, identifier, counter, salt. With so many a message starts aligned,
/// as one behind an encapsulated key does.
pub(crate) const START_LEN: usize = HEADER_LEN + ID_LEN + COUNTER_LEN + SALT_LEN;

const SECRET: &[u8] = b"confonnx session v1";
const REQUEST_KEY: &[u8] = b"confonnx session v1 request key";
const REQUEST_NONCE: &[u8] = b"confonnx session v1 request nonce";
const REPLY: &[u8] = b"confonnx session v1 reply";

/// What all messages of a resumption are derived from; erased on drop.
pub(crate) struct ResumptionSecret(Zeroizing<Vec<u8>>);

impl ResumptionSecret {
    pub(crate) fn export(context: &(impl Export + ?Sized)) -> Result<Self, CipherFailure> {
        // The secret is on the heap from the first byte on, so that moving it leaves no copy behind.
        let mut secret = Zeroizing::new(vec![0; 32]);
        context.export(SECRET, &mut secret)?;
        Ok(Self(secret))
    }
}

/// The start of a request, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct Start([u8; START_LEN]);

impl Start {
    pub(crate) fn new(
        header: &[u8; HEADER_LEN],
        id: &ResumptionId,
        counter: u64,
        salt: &[u8; SALT_LEN],
    ) -> Self {
        let parts = header.iter().chain(&id.0).copied().chain(counter.to_be_bytes()).chain(*salt);
        let mut start = [0; START_LEN];
        start.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        Self(start)
    }

    /// The start of `message`, if all of it is there.
    #[cfg(feature = "server")]
    pub(crate) fn first(message: &[u8]) -> Option<Self> {
        message.first_chunk().copied().map(Self)
    }

    /// The start of `message`, and the sealed bytes after it: at least a tag.
    pub(crate) fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (start, sealed) = message.split_first_chunk()?;
        (sealed.len() >= TAG_LEN).then_some((Self(*start), sealed))
    }

    pub(crate) fn bytes(&self) -> &[u8; START_LEN] {
        &self.0
    }

    pub(crate) fn key_id(&self) -> u8 {
        let [key_id, ..] = self.0;
        key_id
    }

    pub(crate) fn header(&self) -> [u8; HEADER_LEN] {
        self.part(0)
    }

    pub(crate) fn id(&self) -> ResumptionId {
        ResumptionId(self.part(HEADER_LEN))
    }

    pub(crate) fn counter(&self) -> u64 {
        u64::from_be_bytes(self.part(HEADER_LEN + ID_LEN))
    }

    /// The bytes before the salt.
    fn head(&self) -> &[u8] {
        self.0.split_last_chunk::<SALT_LEN>().map_or(&[], |(head, _)| head)
    }

    fn salt(&self) -> [u8; SALT_LEN] {
        self.part(HEADER_LEN + ID_LEN + COUNTER_LEN)
    }

    fn part<const N: usize>(&self, from: usize) -> [u8; N] {
        let mut part = [0; N];
        part.iter_mut().zip(self.0.iter().skip(from)).for_each(|(byte, start)| *byte = *start);
        part
    }
}

/// What one request is sealed with, once.
pub(crate) struct MessageKey {
    key: BulkKey,
    nonce: [u8; NONCE_LEN],
    aead: Aead,
    reply: Zeroizing<Vec<u8>>,
}

impl MessageKey {
    pub(crate) fn derive(
        secret: &ResumptionSecret,
        aead: Aead,
        start: &Start,
    ) -> Result<Self, CipherFailure> {
        let prk = Hkdf::<Sha256>::new(Some(&start.salt()), &secret.0);
        let expand = |label, out: &mut [u8]| {
            prk.expand_multi_info(&[label, &[0], start.head()], out).map_err(|_| CipherFailure)
        };
        let mut key = Zeroizing::new(vec![0; aead.key_len()]);
        let mut nonce = [0; NONCE_LEN];
        let mut reply = Zeroizing::new(vec![0; aead.reply_nonce_len()]);
        expand(REQUEST_KEY, &mut key)?;
        expand(REQUEST_NONCE, &mut nonce)?;
        expand(REPLY, &mut reply)?;
        let key = BulkKey::new(aead, &key).ok_or(CipherFailure)?;
        Ok(Self { key, nonce, aead, reply })
    }

    /// Encrypts `data` in place; its tag, and the secret of the reply.
    #[cfg(feature = "client")]
    pub(crate) fn seal(
        self,
        data: &mut [u8],
        start: &Start,
    ) -> Result<([u8; TAG_LEN], ReplySecret), CipherFailure> {
        let tag = self.key.seal(self.nonce, b"", data)?;
        Ok((tag, self.reply_secret(start, &tag)))
    }

    /// Decrypts `data` in place; the secret of the reply. `data` holds nothing of value when that fails.
    #[cfg(feature = "server")]
    pub(crate) fn open(
        self,
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
        start: &Start,
    ) -> Result<ReplySecret, CipherFailure> {
        self.key.open(self.nonce, b"", data, tag)?;
        Ok(self.reply_secret(start, tag))
    }

    /// Start and tag stand where the encapsulated key does in the reply to a full request.
    fn reply_secret(self, start: &Start, tag: &[u8; TAG_LEN]) -> ReplySecret {
        ReplySecret::new(self.aead, self.reply, [start.bytes().as_slice(), tag].concat())
    }
}
