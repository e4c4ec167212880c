//! What OIP's repository extension says of models.

use serde::Deserialize;

/// A version of a model, and whether it is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ModelState {
    /// The model's name.
    pub name: String,
    /// Its version; absent where none is found.
    pub version: Option<String>,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: String,
    /// Why it is not ready; empty when it is.
    #[serde(default)]
    pub reason: String,
}
