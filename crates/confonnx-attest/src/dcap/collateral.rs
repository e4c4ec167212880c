//! What Intel says of a platform, as it is stapled.

use dcap_qvl::QuoteCollateralV3;
use serde_json::Value;

/// Collateral that is well-formed, and no more than that. Its members are those of Intel's `sgx_ql_qve_collateral_t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collateral {
    pub(super) inner: QuoteCollateralV3,
}

/// JSON that is not collateral.
#[derive(Debug, thiserror::Error)]
#[error("collateral: {0}")]
pub struct CollateralError(#[from] serde_json::Error);

impl Collateral {
    pub(crate) fn new(inner: QuoteCollateralV3) -> Self {
        // Quotes carry their own PCK chain; another one must not take its place, nor say who issues its revocation list.
        Self {
            inner: QuoteCollateralV3 {
                pck_crl_issuer_chain: String::new(),
                pck_certificate_chain: None,
                ..inner
            },
        }
    }

    /// Reads the member `collateral` of endorsements. What nothing here uses is not even looked at.
    pub(crate) fn parse(value: &Value) -> Result<Self, CollateralError> {
        let mut value = value.clone();
        if let Value::Object(members) = &mut value {
            members.insert("pck_crl_issuer_chain".into(), "".into());
            members.remove("pck_certificate_chain");
        }
        for member in HEX {
            let text = value.get(member).and_then(Value::as_str).unwrap_or_default();
            if text.bytes().any(|c| c.is_ascii_uppercase()) {
                let message = format!("{member}: expected hex in lower case, found upper case");
                return Err(<serde_json::Error as serde::de::Error>::custom(message).into());
            }
        }
        Ok(Self::new(crate::json::from_value(value)?))
    }

    pub(crate) fn to_json(&self) -> Value {
        // Strings only: serializing them cannot fail.
        serde_json::to_value(&self.inner).unwrap_or_default()
    }
}

/// Members in hex, which have one form only, though no signature covers their text.
const HEX: [&str; 4] = ["root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"];
