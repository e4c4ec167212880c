//! Values of PCRs, as evidence holds them beside a quote.

use std::collections::BTreeMap;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::Digest;
use crate::x509::Hash;

/// Values of PCRs, SHA-256 bank, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pcrs(pub BTreeMap<u8, [u8; 32]>);

/// Values that are not those a quote covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcrsError {
    /// A value is not unpadded base64url.
    #[error("pcrs is not base64url without padding")]
    Base64,
    /// There are more or fewer than the quote covers, or one has another length.
    #[error("pcrs: expected {expected} values of 32 bytes, as the quote's selection says, found others")]
    Values {
        /// PCRs in the quote's selection.
        expected: usize,
    },
}

impl Pcrs {
    /// Reads the member `pcrs` of a report: the values of a quote's selection, by index.
    pub(crate) fn parse(selection: &[u8], values: &[String]) -> Result<Self, PcrsError> {
        let wrong = PcrsError::Values { expected: selection.len() };
        if values.len() != selection.len() {
            return Err(wrong);
        }
        let value = |(&index, text): (&u8, &String)| {
            let bytes = Base64UrlUnpadded::decode_vec(text).map_err(|_| PcrsError::Base64)?;
            Ok((index, bytes.try_into().map_err(|_| wrong)?))
        };
        selection.iter().zip(values).map(value).collect::<Result<_, _>>().map(Self)
    }

    /// The values as the member `pcrs` of a report.
    pub(crate) fn to_wire(&self) -> Vec<String> {
        self.0.values().map(|value| Base64UrlUnpadded::encode_string(value)).collect()
    }

    /// SHA-256 of the values at `indices`, in that order; `None` when one is absent.
    pub fn digest_of(&self, indices: &[u8]) -> Option<Digest> {
        let mut hash = Sha256::default();
        for index in indices {
            hash.update(self.0.get(index)?);
        }
        Some(Digest(hash.finalize().into()))
    }

    /// The digest that a quote has: over all values, by index.
    pub(super) fn digest(&self, hash: Hash) -> Vec<u8> {
        let values = self.0.values().copied().collect::<Vec<_>>().concat();
        match hash {
            Hash::Sha256 => Sha256::digest(values).to_vec(),
            Hash::Sha384 => Sha384::digest(values).to_vec(),
            Hash::Sha512 => Sha512::digest(values).to_vec(),
        }
    }
}

/// Indices as people write them: `0-7, 9`.
pub(crate) fn list<'a>(indices: impl IntoIterator<Item = &'a u8>) -> String {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for &index in indices {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let range = |(first, last): &(u8, u8)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(", ")
}
