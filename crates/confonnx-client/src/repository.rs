//! What OIP's repository extension says of models.

use serde::Deserialize;

/// A version of a model, and whether it is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ModelState {
    /// The model's name.
    pub name: String,
    /// The version; absent where the reason is about the model's folder as a whole.
    pub version: Option<String>,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: String,
    /// Why it is not ready; or, of one that is, why its changed files are not served. Else empty.
    #[serde(default)]
    pub reason: String,
}
