//! Padmé: message sizes that leak little (`docs/protocol.md`, section 4).
//!
//! A length L is rounded up so that its binary form has at most as many significant bits as its exponent needs:
//! with E = ⌊log₂ L⌋ and S = ⌊log₂ E⌋ + 1, the last E − S bits are rounded up. So an observer learns
//! O(log log L) bits, and the cost is at most 12 %, falling with L. (Nikitin et al., "Reducing Metadata Leakage from
//! Encrypted Files and Communication with PURBs", section 4.)

#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

/// The smallest padded message, in bytes: requests for metadata and small answers all look alike.
pub const FLOOR: usize = 512;

/// The padded length of a message of `len` bytes; `len` itself where the next size would overflow.
pub fn padded_len(len: usize) -> usize {
    let len = len.max(FLOOR);
    let exponent = len.ilog2();
    let significant = exponent.ilog2().saturating_add(1);
    let mask =
        1_usize.checked_shl(exponent.saturating_sub(significant)).map_or(0, |step| step.saturating_sub(1));
    len.checked_add(mask).map_or(len, |sum| sum & !mask)
}

/// Appends zero bytes up to [`padded_len`]; binary HTTP allows them after a message (RFC 9292, section 3.8).
pub fn pad(buffer: &mut Vec<u8>) {
    pad_from(buffer, 0);
}

/// As [`pad`], for a message that starts at `start`.
pub(crate) fn pad_from(buffer: &mut Vec<u8>, start: usize) {
    let len = start.saturating_add(padded_len(buffer.len().saturating_sub(start)));
    buffer.reserve_exact(len.saturating_sub(buffer.len()));
    buffer.resize(len, 0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_sizes() {
        // Worked by hand: 1,000,000 has E = 19, S = 5, so steps of 2^14.
        let cases = [
            (0, 512),
            (512, 512),
            (513, 544),
            (600, 608),
            (1000, 1024),
            (1025, 1088),
            (1_000_000, 1_015_808),
        ];
        for (len, padded) in cases {
            assert_eq!(padded_len(len), padded, "{len}");
        }
        assert_eq!(padded_len(usize::MAX), usize::MAX);
    }

    #[test]
    fn sizes_are_few() {
        let sizes: BTreeSet<_> = (0..=1 << 20).map(padded_len).collect();
        // 2^20 lengths in 11 powers of two of 16 or 32 sizes each, plus the last.
        assert_eq!(sizes.len(), 7 * 16 + 4 * 32 + 1);
    }

    #[test]
    fn pad_appends_zeros_only() {
        let mut buffer = vec![7; 700];
        pad(&mut buffer);
        assert_eq!(buffer.len(), 704);
        assert!(buffer[..700].iter().all(|&b| b == 7) && buffer[700..].iter().all(|&b| b == 0));
    }

    proptest! {
        #[test]
        fn padding_is_idempotent_monotone_and_cheap(len in FLOOR..1 << 40, more in 0..1000_usize) {
            let padded = padded_len(len);
            prop_assert!(padded >= len);
            prop_assert_eq!(padded_len(padded), padded);
            prop_assert!(padded_len(len + more) >= padded);
            prop_assert!((padded - len) as f64 <= 0.12 * len as f64);
        }
    }
}
