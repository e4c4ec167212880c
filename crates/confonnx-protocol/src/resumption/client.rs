//! The client's end of a resumption.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use rand_core::CryptoRng;

use super::{MessageKey, ResumptionGrant, ResumptionId, ResumptionSecret, SALT_LEN, START_LEN, Start};
use crate::{
    Draft,
    client::ReplyOpener,
    context::{HEADER_LEN, SealError},
    suite::Aead,
};

/// What a resumption can be made of, when the server grants one in its sealed reply.
pub struct ResumptionOffer {
    secret: ResumptionSecret,
    header: [u8; HEADER_LEN],
    aead: Aead,
}

impl ResumptionOffer {
    pub(crate) fn new(secret: ResumptionSecret, header: [u8; HEADER_LEN], aead: Aead) -> Self {
        Self { secret, header, aead }
    }

    /// The resumption that was granted in the reply to the request that carried this offer, and in no other.
    pub fn accept(self, grant: &ResumptionGrant) -> Resumption {
        let Self { secret, header, aead } = self;
        Resumption { secret, header, aead, id: grant.id, next: AtomicU64::new(0) }
    }
}

impl fmt::Debug for ResumptionOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumptionOffer")
    }
}

/// Seals requests without key encapsulation. May be used by many threads at once; its secret is erased on drop.
pub struct Resumption {
    secret: ResumptionSecret,
    header: [u8; HEADER_LEN],
    aead: Aead,
    id: ResumptionId,
    /// The counter of the next request. Messages stay apart even if a copy of this process counts on from the same one:
    /// their salts do it.
    next: AtomicU64,
}

impl Resumption {
    /// How many bytes sealing puts before a message, for [`Draft::request`].
    pub const ROOM: usize = START_LEN;

    /// Seals `message`, padded binary HTTP, as `message/confonnx-session-req`, in its buffer. The opener is for its
    /// reply alone.
    ///
    /// # Errors
    /// [`SealError::TooLong`] over 64 GiB.
    pub fn seal(
        &self,
        message: impl Into<Draft>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, ReplyOpener), SealError> {
        let message = message.into();
        let too_long = SealError::TooLong { len: message.message().len() };
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        let start = Start::new(&self.header, &self.id, counter, &salt);
        let mut reply = None;
        let sealed = message.seal(start.bytes(), |data| {
            let (tag, secret) = MessageKey::derive(&self.secret, self.aead, &start)?.seal(data, &start)?;
            reply = Some(secret);
            Ok::<_, crate::backend::CipherFailure>(tag)
        });
        match (sealed, reply) {
            (Ok(sealed), Some(reply)) => Ok((sealed, ReplyOpener::new(reply))),
            _ => Err(too_long),
        }
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resumption")
    }
}
