//! The key that signs a guest's ID block, as reports name it.

use sha2::{Digest as _, Sha384};

use crate::x509::PublicKey;

/// The digest by which reports name an ID or author key: SHA-384 of the key in AMD's format (56860, "ECDSA P-384
/// Public Key"). `der` is a SubjectPublicKeyInfo; `None` when it is not of a P-384 key.
pub(super) fn signer_of(der: &[u8]) -> Option<Vec<u8>> {
    let Ok(PublicKey::P384(point)) = PublicKey::from_der(der) else { return None };
    let (x, y) = point.strip_prefix(&[UNCOMPRESSED])?.split_at_checked(48)?;
    (y.len() == 48).then_some(())?;
    let little_endian = |coordinate: &[u8]| coordinate.iter().rev().copied().collect::<Vec<_>>();
    let mut key = P384_CURVE.to_le_bytes().to_vec();
    for coordinate in [x, y] {
        key.extend(little_endian(coordinate));
        key.extend([0; COORDINATE_BYTES - 48]);
    }
    key.resize(KEY_BYTES, 0);
    Some(Sha384::digest(&key).to_vec())
}

const UNCOMPRESSED: u8 = 4;
const P384_CURVE: u32 = 2;
const COORDINATE_BYTES: usize = 72;
const KEY_BYTES: usize = 0x404;
