//! The Concat KDF as JWA uses it (RFC 7518 §4.6.2; NIST SP 800-56A §5.8.1 with SHA-256).

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// One round's worth of key from the shared secret `z`: `N` bytes, at most 32. `None` when a part has no 32-bit length.
pub(super) fn concat_kdf<const N: usize>(
    z: &[u8],
    algorithm: &[u8],
    apu: &[u8],
    apv: &[u8],
) -> Option<Zeroizing<[u8; N]>> {
    const { assert!(N <= 32) };
    let mut hash = Sha256::new_with_prefix(1u32.to_be_bytes());
    hash.update(z);
    for part in [algorithm, apu, apv] {
        hash.update(u32::try_from(part.len()).ok()?.to_be_bytes());
        hash.update(part);
    }
    hash.update(u32::try_from(N).ok()?.checked_mul(8)?.to_be_bytes());
    let mut round = Zeroizing::new([0; 32]);
    hash.finalize_into((&mut *round).into());
    let mut key = Zeroizing::new([0; N]);
    key.iter_mut().zip(round.iter()).for_each(|(to, from)| *to = *from);
    Some(key)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement;

    use super::*;
    use crate::key_service::decode;

    /// RFC 7518, appendix C: Alice's ephemeral key to Bob's, for A128GCM.
    #[test]
    fn appendix_c() {
        let d = decode("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw").unwrap();
        let x = decode("gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0").unwrap();
        let y = decode("SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps").unwrap();
        let bob = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, &d).unwrap();
        let alice = [&[4], &x[..], &y[..]].concat();
        let alice = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, alice);
        let key = agreement::agree(&bob, alice, (), |z| {
            assert_eq!(z[..4], [158, 86, 217, 29]);
            concat_kdf::<16>(z, b"A128GCM", b"Alice", b"Bob").ok_or(())
        });
        assert_eq!(*key.unwrap(), decode("VqqN6vgjbSBcIijNcacQGg").unwrap()[..]);
    }
}
