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
        // Quotes carry their own PCK chain; another one must not take its place.
        Self { inner: QuoteCollateralV3 { pck_certificate_chain: None, ..inner } }
    }

    /// Reads the member `collateral` of endorsements.
    pub(crate) fn parse(value: &Value) -> Result<Self, CollateralError> {
        use serde::Deserialize;
        Ok(Self::new(QuoteCollateralV3::deserialize(value)?))
    }

    pub(crate) fn to_json(&self) -> Value {
        // Strings only: serializing them cannot fail.
        serde_json::to_value(&self.inner).unwrap_or_default()
    }
}
