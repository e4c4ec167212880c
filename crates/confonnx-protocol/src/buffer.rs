//! Messages in the buffers they are sealed and opened in, so that neither takes a copy.

use std::fmt;

use confonnx_tensor::Erased;

use crate::{
    bhttp::{self, BhttpError, RequestHead, ResponseHead},
    padding,
    suite::{Kem, TAG_LEN},
};

/// A message to seal, with room before it for what sealing puts there. Erased on drop.
pub struct Draft {
    buffer: Erased<Vec<u8>>,
    /// Where the message starts.
    start: usize,
}

impl Draft {
    /// A padded binary HTTP request. `room` is that of the key it will be sealed to
    /// ([`SealingKey::room`](crate::client::SealingKey::room)); with another, sealing moves the message.
    ///
    /// # Errors
    /// [`BhttpError`]: what does not decode is not encoded.
    pub fn request(room: usize, head: &RequestHead, body_parts: &[&[u8]]) -> Result<Self, BhttpError> {
        Self::with_room(room, |out| bhttp::encode_request(head, body_parts, out))
    }

    /// A padded binary HTTP response.
    ///
    /// # Errors
    /// [`BhttpError`]: what does not decode is not encoded.
    pub fn response(head: &ResponseHead, body_parts: &[&[u8]]) -> Result<Self, BhttpError> {
        Self::with_room(REPLY_ROOM, |out| bhttp::encode_response(head, body_parts, out))
    }

    /// The message.
    pub fn message(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn with_room<E>(room: usize, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Self, E> {
        let mut draft = Self { buffer: vec![0; room].into(), start: room };
        encode(&mut draft.buffer)?;
        padding::pad_from(&mut draft.buffer, room);
        Ok(draft)
    }

    /// `prefix`, then what `seal` makes of the message in place, then its tag.
    pub(crate) fn seal<E>(
        mut self,
        prefix: &[u8],
        seal: impl FnOnce(&mut [u8]) -> Result<[u8; TAG_LEN], E>,
    ) -> Result<Vec<u8>, E> {
        if self.start != prefix.len() {
            self.buffer.splice(..self.start, prefix.iter().copied());
            self.start = prefix.len();
        } else if let Some(room) = self.buffer.get_mut(..self.start) {
            room.copy_from_slice(prefix);
        }
        let tag = seal(self.buffer.get_mut(self.start..).unwrap_or_default())?;
        let mut sealed = self.buffer.take();
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Draft {
    /// A copy of a message, as it is.
    fn from(message: &T) -> Self {
        let (message, room) = (message.as_ref(), LARGEST_ROOM);
        let mut buffer = Vec::with_capacity(room.saturating_add(message.len()).saturating_add(TAG_LEN));
        buffer.resize(room, 0);
        buffer.extend_from_slice(message);
        Self { buffer: buffer.into(), start: room }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} bytes)", self.message().len())
    }
}

/// A sealed request as it arrives, placed so that the message inside starts at a multiple of eight bytes of the
/// buffer. Tensors that the client aligned within the message are then used where they lie.
pub struct Incoming {
    buffer: Vec<u8>,
    /// Where the request starts.
    start: usize,
}

impl Incoming {
    /// The bytes of the request that there are.
    pub fn received(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// An empty one, with room for a request of `len` bytes.
    pub fn with_capacity(len: usize) -> Self {
        let mut buffer = Vec::with_capacity(LEAD.saturating_add(len));
        buffer.resize(LEAD, 0);
        Self { buffer, start: LEAD }
    }

    /// Appends the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// How many bytes were received.
    pub fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer, and where in it the request starts.
    pub(crate) fn into_parts(self) -> (Vec<u8>, usize) {
        (self.buffer, self.start)
    }
}

impl From<Vec<u8>> for Incoming {
    fn from(request: Vec<u8>) -> Self {
        Self { buffer: request, start: 0 }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({} bytes)", self.len())
    }
}

/// The largest nonce that starts a reply: max(Nn, Nk) of the AEADs.
const REPLY_ROOM: usize = 32;

/// How many bytes the largest KEM puts before a message: header and encapsulated key.
const LARGEST_ROOM: usize = crate::context::HEADER_LEN + Kem::XWing.encapsulated_key_len();

/// Header and encapsulated key are 7 modulo 8 bytes with X-Wing and X25519.
const LEAD: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(draft: Draft, prefix: &[u8]) -> Vec<u8> {
        let flip = |data: &mut [u8]| {
            data.iter_mut().for_each(|byte| *byte ^= 0xff);
            Ok::<_, ()>([9; TAG_LEN])
        };
        draft.seal(prefix, flip).unwrap()
    }

    #[test]
    fn a_message_is_sealed_whatever_room_was_left() {
        for len in [0, 7, REPLY_ROOM, LARGEST_ROOM, 4000] {
            let prefix = vec![5; len];
            let mut expected = prefix.clone();
            expected.extend([!1, !2]);
            expected.extend([9; TAG_LEN]);
            assert_eq!(sealed(Draft::from(&[1, 2]), &prefix), expected, "{len}");
        }
    }

    #[test]
    fn a_draft_of_the_right_room_is_never_moved() {
        let head = ResponseHead::new(200);
        let draft = Draft::response(&head, &[&[7; 1000]]).unwrap();
        let (address, capacity) = (draft.buffer.as_ptr(), draft.buffer.capacity());
        let sealed = sealed(draft, &[0; REPLY_ROOM]);
        assert_eq!((sealed.as_ptr(), sealed.capacity()), (address, capacity));
    }

    #[test]
    fn messages_to_the_usual_kems_start_aligned() {
        for kem in [Kem::XWing, Kem::X25519] {
            let room = crate::context::HEADER_LEN + kem.encapsulated_key_len();
            assert_eq!((LEAD + room) % 8, 0, "{kem}");
        }
        let mut incoming = Incoming::with_capacity(3);
        incoming.push(b"ab");
        incoming.push(b"c");
        let (buffer, start) = incoming.into_parts();
        assert_eq!(&buffer[start..], b"abc");
    }
}
