//! An encrypted model's key, from its owner.

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_model::encrypted::{DecryptError, KeyError, OpenModelError};

use super::{Answer, Call, LetsIn, Row, Runs, Subject};
use crate::{
    auth::Action,
    models::UnlockError,
    service::error::{InnerError, WireError},
};

pub(super) const ROWS: &[Row] = &[Row {
    name: "unlock",
    method: "POST",
    paths: &["/v2/models/{model}/key", "/v2/models/{model}/versions/{version}/key"],
    lets_in: LetsIn::Those(Action::Unlock),
    subject: Subject::Locked,
    runs: Runs::Long,
    answer: unlock,
}];

impl WireError for KeyError {
    fn wire(&self) -> (u16, &'static str) {
        (400, "model-key-invalid")
    }
}

impl WireError for UnlockError {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Absent(absent) => absent.wire(),
            Self::Busy => (409, "model-control-busy"),
            Self::Open(OpenModelError::Decrypt(DecryptError::WrongKey)) => (400, "model-key-invalid"),
            Self::Owner(_) => (403, "owner-signature-invalid"),
            Self::NotLocked { .. } => (409, "model-not-locked"),
            Self::Open(_) | Self::Changed { .. } | Self::Load(_) => (500, "model-unusable"),
        }
    }
}

/// Opens the model with the key in the body, as a key file holds it; answers with the claim it then has.
fn unlock(call: &Call<'_>) -> Result<Answer, InnerError> {
    let key = std::str::from_utf8(call.body).map_err(|_| KeyError::NoKey).and_then(str::parse)?;
    let signature = call.fields.get(OWNER_SIGNATURE).and_then(|value| std::str::from_utf8(value).ok());
    // Text that is no signature verifies as none.
    let signature = signature.and_then(|text| Base64UrlUnpadded::decode_vec(text).ok()).unwrap_or_default();
    let (name, version) = (&call.model.name, call.model.version.as_deref());
    let claim = call.service.models.unlock(name, version, &key, &signature).map_err(|err| match err {
        UnlockError::Absent(absent) => absent.among(|name| call.caller.may_see(name)).into(),
        err => err,
    })?;
    call.json(&claim)
}

/// Carries the signature of the model's owner, base64url.
const OWNER_SIGNATURE: &str = "confonnx-owner-signature";
