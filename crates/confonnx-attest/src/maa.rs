//! Microsoft Azure Attestation, asked by whatever has evidence in one of its forms.

use serde_json::Value;

/// A request to Microsoft Azure Attestation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaaRequest {
    /// Path and query, for the instance's base URL.
    pub path: &'static str,
    /// The JSON to post.
    pub body: Value,
}
