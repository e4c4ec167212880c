//! What services that release secrets against evidence are told, and what they answer: the Key Broker Service of
//! Confidential Containers Trustee ([`trustee`]), Microsoft Azure Attestation and Azure Key Vault ([`key_vault`]).
//!
//! The messages alone: who carries them, over which TLS, is the caller's to say. Each service encrypts the secret to a
//! key that was made for that one request and that the evidence vouches for ([`KbsKey`], [`AkvKey`]).

mod concat_kdf;
mod jwe;
pub mod key_vault;
mod root;
pub mod trustee;

pub use jwe::{JweError, KbsKey};
pub use key_vault::AkvKey;
pub use root::{MIN_ROOT, RootSecret, ShortRoot};

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

/// Unpadded base64url, erased on drop.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    Base64UrlUnpadded::decode_vec(text).ok().map(Zeroizing::new)
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// A service's text in a message for people: bounded, one line, no control characters.
fn shown(text: &str) -> String {
    let clean: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(200).is_some() { clean + "…" } else { clean }
}
