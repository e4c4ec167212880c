//! Bearer tokens (RFC 6750), checked inside the TEE.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// Who may ask.
pub enum Auth {
    /// Anyone who can reach the server.
    Anyone,
    /// Whoever knows one of the tokens; these are their SHA-256.
    Bearer(Vec<[u8; 32]>),
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("auth key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has no token; starting would let anyone in, or no one.
    #[error("auth key file {} has no key; expected one a line", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A token cannot be sent in a header field.
    #[error("auth key file {}: line {line} is not a key; expected visible ASCII without spaces", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

impl Auth {
    /// The tokens in `path`, one a line; blank lines and spaces around them do not count.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn from_file(path: &Path) -> Result<Self, AuthError> {
        let path = path.to_owned();
        let text = match std::fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(source) => return Err(AuthError::Read { path, source }),
        };
        let mut digests = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let token = line.trim_ascii();
            if token.is_empty() {
                continue;
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                return Err(AuthError::Token { path, line: index + 1 });
            }
            digests.push(Sha256::digest(token).into());
        }
        if digests.is_empty() {
            return Err(AuthError::Empty { path });
        }
        Ok(Self::Bearer(digests))
    }

    /// The name in the claims.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anyone => "none",
            Self::Bearer(_) => "bearer",
        }
    }

    /// Whether the value of an `authorization` field lets the request in. How long it takes depends on the number of
    /// tokens and the length of the value, not on their content.
    pub fn allows(&self, authorization: Option<&[u8]>) -> bool {
        let Self::Bearer(tokens) = self else { return true };
        let Some((scheme, token)) = authorization.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return false;
        }
        let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        let matches = tokens.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest));
        matches.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &[u8]) -> Result<Auth, AuthError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, text).unwrap();
        Auth::from_file(&path)
    }

    #[test]
    fn any_of_the_tokens_and_nothing_else() {
        let auth = from(b"  battery \r\n\nstaple\n").unwrap();
        let allows = |value: &str| auth.allows(Some(value.as_bytes()));
        assert!(allows("Bearer battery") && allows("bearer staple") && allows("BEARER  staple"));
        for value in ["", "Bearer", "Bearer ", "Bearer batter", "Bearer batteryx", "Basic battery", "battery"]
        {
            assert!(!allows(value), "{value}");
        }
        assert!(!auth.allows(None));
        assert!(Auth::Anyone.allows(None));
    }

    #[test]
    fn files_without_tokens_are_refused() {
        assert!(matches!(from(b""), Err(AuthError::Empty { .. })));
        assert!(matches!(from(b" \n\r\n"), Err(AuthError::Empty { .. })));
        assert!(matches!(from(b"ok\ntwo words\n"), Err(AuthError::Token { line: 2, .. })));
        let Err(error) = Auth::from_file(Path::new("/nowhere")) else { panic!("no such file") };
        assert!(error.to_string().contains("/nowhere"));
    }
}
