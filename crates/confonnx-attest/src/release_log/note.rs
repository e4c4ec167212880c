//! Signed notes and the keys that sign them (C2SP `signed-note`, `tlog-cosignature`): Ed25519 signatures of logs, and
//! Ed25519 cosignatures of witnesses.

use std::{fmt, str::FromStr};

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::backend::{self, Algorithm, Key};

/// A text and who signed it. Nothing is verified.
#[derive(Debug)]
pub(super) struct Note<'n> {
    /// The text with its last line's end.
    pub(super) text: &'n str,
    signatures: Vec<Signature<'n>>,
}

#[derive(Debug)]
struct Signature<'n> {
    name: &'n str,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// The public key of a log or of a witness, as verifier keys are written: `name+id+key`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct NoteKey {
    name: String,
    id: [u8; 4],
    kind: Kind,
    key: [u8; 32],
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The key signs notes, as logs do.
    Log,
    /// The key signs notes and the time, as witnesses do.
    Witness,
}

/// Why a text is no verifier key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("{0:?} is no verifier key; expected name+id+key, as c2sp.org/signed-note has it")]
    Form(String),
    #[error("the verifier key of {name} has the id {found}; its name and key give {expected}")]
    Id { name: String, expected: String, found: String },
    #[error(
        "the verifier key of {name} is of type {found}; expected 1 (Ed25519, a log) or 4 (Ed25519 cosignatures, a witness)"
    )]
    Type { name: String, found: u8 },
}

/// What a note says of a key's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// The key signed it.
    Yes,
    /// Nothing is said to be by this key.
    No,
    /// Something is said to be by this key and is not.
    Wrong,
}

impl<'n> Note<'n> {
    /// Reads a note; none if it has another form.
    pub(super) fn parse(note: &'n str) -> Option<Self> {
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return None;
        }
        let end = note.rfind("\n\n")?.checked_add(1)?;
        let (text, rest) = note.split_at_checked(end)?;
        let lines = rest.strip_prefix('\n')?.strip_suffix('\n')?;
        let signatures: Vec<_> = lines.split('\n').map(Signature::parse).collect::<Option<_>>()?;
        (signatures.len() <= MOST_SIGNATURES).then_some(Self { text, signatures })
    }

    /// Whether `key` signed the note. A key that signed twice has to be right each time.
    pub(super) fn signed_by(&self, key: &NoteKey) -> Signed {
        let mut by = self.signatures.iter().filter(|one| one.name == key.name && one.id == key.id).peekable();
        if by.peek().is_none() {
            return Signed::No;
        }
        if by.all(|one| key.signed(self.text, &one.bytes)) { Signed::Yes } else { Signed::Wrong }
    }
}

impl<'n> Signature<'n> {
    fn parse(line: &'n str) -> Option<Self> {
        let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
        if !is_name(name) {
            return None;
        }
        let bytes = Base64::decode_vec(base64).ok()?;
        let (id, bytes) = bytes.split_first_chunk::<4>()?;
        Some(Self { name, id: *id, bytes: bytes.to_vec() })
    }
}

impl NoteKey {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is the same key, whatever it is called.
    pub(super) fn same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    fn signed(&self, text: &str, signature: &[u8]) -> bool {
        let verify = |message: &str, signature: &[u8]| {
            let key = Key::Ed25519(&self.key);
            backend::verify(key, Algorithm::Ed25519, message.as_bytes(), signature).is_ok()
        };
        match self.kind {
            Kind::Log => verify(text, signature),
            Kind::Witness => signature.split_first_chunk::<8>().is_some_and(|(time, signature)| {
                let message = format!("cosignature/v1\ntime {}\n{text}", u64::from_be_bytes(*time));
                verify(&message, signature)
            }),
        }
    }
}

impl FromStr for NoteKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let form = || KeyError::Form(text.chars().take(200).collect());
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let bytes = Base64::decode_vec(key).map_err(|_| form())?;
        let (kind, key) = bytes.split_first().ok_or_else(form)?;
        let expected = Sha256::digest([name.as_bytes(), b"\n", &bytes].concat());
        let expected = crate::digest::encode(expected.get(..4).unwrap_or_default());
        if !is_name(name) {
            return Err(form());
        }
        if id != expected {
            return Err(KeyError::Id { name: name.into(), expected, found: id.chars().take(16).collect() });
        }
        let kind = match kind {
            1 => Kind::Log,
            4 => Kind::Witness,
            found => return Err(KeyError::Type { name: name.into(), found: *found }),
        };
        let key = key.try_into().map_err(|_| form())?;
        let id = crate::digest::decode_array(id).map_err(|_| form())?;
        Ok(Self { name: name.into(), id, kind, key })
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Log => 1,
            Kind::Witness => 4,
        };
        let key = Base64::encode_string(&[&[kind], &self.key[..]].concat());
        write!(f, "{}+{}+{key}", self.name, crate::digest::encode(&self.id))
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoteKey({self})")
    }
}

impl<'de> Deserialize<'de> for NoteKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

const MOST_SIGNATURES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    // The key and note in the documentation of Go's package golang.org/x/mod/sumdb/note.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_published_note_is_its_keys() {
        let key: NoteKey = KEY.parse().unwrap();
        assert_eq!((key.to_string().as_str(), key.kind()), (KEY, Kind::Log));
        let note = Note::parse(NOTE).unwrap();
        assert_eq!(note.signed_by(&key), Signed::Yes);
        let other = NOTE.replace("problem is", "problem was");
        assert_eq!(Note::parse(&other).unwrap().signed_by(&key), Signed::Wrong);
        let other = NOTE.replace("— Peter", "— Paul");
        assert_eq!(Note::parse(&other).unwrap().signed_by(&key), Signed::No);
    }

    #[test]
    fn what_has_another_form_is_no_note() {
        for broken in [
            "",
            "text\n",
            "text\n\n",
            "text\n\n— name\n",
            "text\n\n— name AAAA",
            "text\n\n— name AAA=\n",
            "te\txt\n\n",
        ] {
            assert!(Note::parse(broken).is_none(), "{broken:?}");
        }
        assert!(Note::parse(&NOTE.replace("— Peter", "- Peter")).is_none());
    }

    #[test]
    fn keys_name_what_is_wrong_with_them() {
        let error = |text: &str| text.parse::<NoteKey>().unwrap_err();
        for form in [
            "",
            "name",
            "name+c74f20a3",
            &KEY.replace("PeterNeumann", "Peter Neumann"),
            &KEY.replace("10TW", "10T"),
        ] {
            assert!(matches!(error(form), KeyError::Form(_)), "{form}");
        }
        assert!(matches!(error(&KEY.replace("Peter", "Paul")), KeyError::Id { .. }));
        let mldsa = Base64::encode_string(&[6; 33]);
        let id = Sha256::digest([&b"w\n"[..], &[6; 33]].concat());
        let key = format!("w+{}+{mldsa}", crate::digest::encode(&id[..4]));
        assert_eq!(error(&key), KeyError::Type { name: "w".into(), found: 6 });
    }
}
