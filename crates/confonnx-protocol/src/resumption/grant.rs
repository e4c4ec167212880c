//! The grant of a resumption: the field `confonnx-session` of a sealed reply.

use std::{fmt, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding};
use thiserror::Error;

/// How many bytes a resumption's identifier has.
pub(crate) const ID_LEN: usize = 16;

/// Names a resumption to its server. On the wire in the clear, so it links a resumption's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ResumptionId(pub(crate) [u8; ID_LEN]);

/// A resumption that a server granted; `<identifier, base64url>; lifetime=<seconds>` in the reply's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumptionGrant {
    pub(crate) id: ResumptionId,
    pub(crate) lifetime: u32,
}

/// The field is not what a server writes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "expected `<22 characters of base64url>; lifetime=<seconds>` by the resumption field, found {len} bytes of another form"
)]
pub struct GrantError {
    /// How many bytes the field's value has.
    pub len: usize,
}

impl ResumptionGrant {
    /// How many seconds pass from when the server opened the request until it forgets the resumption.
    pub fn lifetime(&self) -> u32 {
        self.lifetime
    }
}

impl fmt::Display for ResumptionGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; ID_TEXT];
        let id = Base64UrlUnpadded::encode(&self.id.0, &mut text).map_err(|_| fmt::Error)?;
        write!(f, "{id}{LIFETIME}{}", self.lifetime)
    }
}

impl FromStr for ResumptionGrant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let malformed = || GrantError { len: text.len() };
        let (id_text, lifetime) = text.split_once(LIFETIME).ok_or_else(malformed)?;
        let mut id = [0; ID_LEN];
        let decoded = Base64UrlUnpadded::decode(id_text, &mut id).map_err(|_| malformed())?;
        let digits = !lifetime.is_empty() && lifetime.bytes().all(|byte| byte.is_ascii_digit());
        if decoded.len() != ID_LEN || !digits {
            return Err(malformed());
        }
        Ok(Self { id: ResumptionId(id), lifetime: lifetime.parse().map_err(|_| malformed())? })
    }
}

const ID_TEXT: usize = 22;
const LIFETIME: &str = "; lifetime=";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_server_writes_is_refused() {
        let good = "AAECAwQFBgcICQoLDA0ODw; lifetime=600";
        assert_eq!(good.parse::<ResumptionGrant>().unwrap().to_string(), good);
        for bad in [
            "",
            "offer",
            "AAECAwQFBgcICQoLDA0ODw",
            "AAECAwQFBgcICQoLDA0ODw;lifetime=600",
            "AAECAwQFBgcICQoLDA0ODw; lifetime=",
            "AAECAwQFBgcICQoLDA0ODw; lifetime=+600",
            "AAECAwQFBgcICQoLDA0ODw; lifetime=4294967296",
            "AAECAwQFBgcICQoLDA0ODw; lifetime=600 ",
            "AAECAwQFBgcICQoLDA0ODw==; lifetime=600",
            "AAECAwQFBgcICQoLDA0O; lifetime=600",
            "AAECAwQFBgcICQoLDA0ODxA; lifetime=600",
            "AAECAwQFBgcICQoLDA0OD+; lifetime=600",
        ] {
            assert_eq!(bad.parse::<ResumptionGrant>(), Err(GrantError { len: bad.len() }), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_grant_is_read_as_written(id: [u8; ID_LEN], lifetime: u32) {
            let grant = ResumptionGrant { id: ResumptionId(id), lifetime };
            prop_assert_eq!(grant.to_string().parse(), Ok(grant));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            if let Ok(grant) = text.parse::<ResumptionGrant>() {
                // Leading zeros aside, there is one way to write it.
                prop_assert_eq!(grant.to_string().len() <= text.len(), true);
            }
        }
    }
}
