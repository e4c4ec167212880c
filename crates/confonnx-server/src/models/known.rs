//! What is known of a repository's models: what was found, what was tried, what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{
    folder::Signature,
    index::{Entry, READY, Slots},
    slot::Slot,
};

/// Models by name.
#[derive(Default)]
pub(super) struct Known {
    /// Paths of which the log says that they are no model.
    pub(super) ignored: BTreeSet<PathBuf>,
    pub(super) models: BTreeMap<String, KnownModel>,
}

#[derive(Default)]
pub(super) struct KnownModel {
    /// Why its folder says nothing of use.
    pub(super) problem: Option<String>,
    /// The versions that should be served.
    pub(super) wanted: BTreeSet<u64>,
    pub(super) versions: BTreeMap<u64, Tried>,
    /// Somebody asked for that.
    pub(super) unloaded: bool,
}

/// A version that was loaded, or tried to.
pub(super) struct Tried {
    pub(super) signature: Signature,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Loading,
    Loaded,
    Failed(String),
}

impl KnownModel {
    /// Notes what is wrong with the model's folder in `repository` as a whole, or that nothing is any more. A new problem is
    /// logged.
    pub(super) fn has(&mut self, problem: Option<String>, repository: &Path, name: &str) {
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem)) {
            warn!("model {name} in {}: {problem}", repository.display());
        }
        self.problem = problem;
    }

    /// Why it is not served as it should be.
    pub(super) fn problem(&self) -> Option<String> {
        let failed = self.wanted.iter().find_map(|version| match &self.versions.get(version)?.outcome {
            Outcome::Failed(why) => Some(format!("version {version}: {why}")),
            Outcome::Loading | Outcome::Loaded => None,
        });
        self.problem.clone().or(failed)
    }
}

impl Known {
    /// Whether the version of that line should be served.
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        self.models.get(&entry.name).is_some_and(|model| match &entry.version {
            _ if model.unloaded => false,
            None => true,
            Some(version) => version.parse().is_ok_and(|version: u64| model.wanted.contains(&version)),
        })
    }

    pub(super) fn index(&self, slots: &Slots) -> Vec<Entry> {
        let mut index = Vec::new();
        for (name, model) in &self.models {
            let none = BTreeMap::new();
            let served = slots.get(name).unwrap_or(&none);
            if let Some(problem) = &model.problem {
                let reason = problem.clone();
                index.push(Entry { name: name.clone(), version: None, state: UNAVAILABLE, reason });
            }
            let versions: BTreeSet<_> = served.keys().chain(model.versions.keys()).collect();
            for version in versions {
                let outcome = model.versions.get(version).map(|tried| &tried.outcome);
                let slot = served.get(version).map(|slot| &**slot);
                let (state, reason) = match (slot, outcome) {
                    (Some(Slot::Serving(_)), Some(Outcome::Failed(why))) => {
                        (READY, format!("its files changed, but those before are served: {why}"))
                    }
                    (Some(Slot::Serving(_)), _) => (READY, String::new()),
                    (Some(Slot::Locked(_)), Some(Outcome::Failed(why))) => (UNAVAILABLE, why.clone()),
                    (Some(Slot::Locked(_)), _) => {
                        (UNAVAILABLE, "locked: its owner has not yet given its key".into())
                    }
                    (None, Some(Outcome::Loading)) => ("LOADING", String::new()),
                    (None, Some(Outcome::Failed(why))) => (UNAVAILABLE, why.clone()),
                    (None, Some(Outcome::Loaded) | None) => (UNAVAILABLE, "unloaded".into()),
                };
                let version = Some(version.to_string());
                index.push(Entry { name: name.clone(), version, state, reason });
            }
        }
        index
    }
}

const UNAVAILABLE: &str = "UNAVAILABLE";
