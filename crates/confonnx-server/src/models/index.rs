//! The repository's index: what is there, and what of it runs.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::slot::Slot;

/// Versions by name and number.
pub(super) type Slots = BTreeMap<String, BTreeMap<u64, Arc<Slot>>>;

/// A line of the repository's index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The model.
    pub name: String,
    /// The version; absent where the reason is about the model's folder as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why, or what else there is to know; may be empty.
    pub reason: String,
}

impl Entry {
    /// Whether it runs.
    pub fn is_ready(&self) -> bool {
        self.state == READY
    }
}

/// The state in the index of a model that runs.
pub(super) const READY: &str = "READY";
