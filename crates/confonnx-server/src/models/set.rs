//! The models of one moment.

use std::{collections::BTreeMap, sync::Arc};

use confonnx_attest::ModelClaim;
use confonnx_engine::Deaths;

use super::{
    error::Absent,
    index::{Entry, Slots},
    known::Known,
    slot::Slot,
};
use crate::metrics::{Family, model_label};

/// The models that are served or locked, and what is known of the others. Never changes: a change makes another one.
#[derive(Default)]
pub struct Set {
    pub(super) slots: Slots,
    index: Vec<Entry>,
    /// The first version, by name, that should be served and is not.
    lacking: Option<Absent>,
}

impl Set {
    pub(super) fn new(slots: Slots, known: &Known) -> Self {
        let index = known.index(&slots);
        let lacking = index.iter().find(|entry| !entry.is_ready() && known.wants(entry)).map(|entry| {
            let slot = entry
                .version
                .as_ref()
                .and_then(|version| version.parse().ok())
                .and_then(|version: u64| slots.get(&entry.name)?.get(&version));
            let (model, version) = (entry.name.clone(), entry.version.clone());
            match (slot.map(|slot| &**slot), version) {
                (Some(Slot::Locked(_)), Some(version)) => Absent::Locked { model, version },
                (_, version) => Absent::Unavailable { model, version, reason: entry.reason.clone() },
            }
        });
        Self { slots, index, lacking }
    }

    /// The counters of what became of models and their processes.
    pub fn samples(&self) -> Vec<Family> {
        let (mut batched, mut ended) = (Vec::new(), Vec::new());
        for served in self.slots.values().flat_map(BTreeMap::values).filter_map(|slot| slot.served()) {
            let ModelClaim { name, version, .. } = &served.claim;
            // A label as Prometheus' text format wants it: three characters are escaped, and nothing else.
            let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let labels = format!("model=\"{name}\",version=\"{version}\"");
            if served.puts_together() {
                batched.push((format!("{{{labels}}}"), served.model.batched_requests().to_string()));
            }
            if let Some(Deaths { crashes, timeouts }) = served.model.deaths() {
                for (why, count) in [("crash", crashes), ("timeout", timeouts)] {
                    ended.push((format!("{{{labels},reason=\"{why}\"}}"), count.to_string()));
                }
            }
        }
        let batched_help = "Requests run together with others, by model.";
        let ended_help =
            "Processes of models that ended while they were wanted, by model and reason: crash or timeout.";
        vec![
            ("batched_requests_total", "counter", batched_help, batched),
            ("model_processes_ended_total", "counter", ended_help, ended),
            ("model_ready", "gauge", "Whether a version of a model is served.", self.readiness()),
        ]
    }

    fn readiness(&self) -> Vec<(String, String)> {
        let sample = |entry: &Entry| {
            let label = model_label(&entry.name, entry.version.as_deref().unwrap_or_default());
            (label, u8::from(entry.is_ready()).to_string())
        };
        self.index.iter().map(sample).collect()
    }

    /// The models for the claims: by name, then version.
    pub fn claims(&self) -> Vec<ModelClaim> {
        self.slots.values().flat_map(BTreeMap::values).map(|slot| slot.claim()).collect()
    }

    /// The repository's index.
    pub fn index(&self) -> &[Entry] {
        &self.index
    }

    /// What keeps the server from being ready: a version that should be served and is not.
    pub fn lacking(&self) -> Option<&Absent> {
        self.lacking.as_ref()
    }

    /// The model of that name; without a version the highest one that runs, or else the highest one.
    pub fn look(&self, name: &str, version: Option<&str>) -> Option<&Arc<Slot>> {
        let versions = self.slots.get(name)?;
        let Some(version) = version else {
            let served = versions.values().rev().find(|slot| slot.served().is_some());
            return served.or_else(|| versions.values().next_back());
        };
        versions.get(&number(version)?)
    }

    /// [`look`](Self::look), or why there is none.
    ///
    /// # Errors
    /// [`Absent`], with what is there.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<Slot>, Absent> {
        self.look(name, version).ok_or_else(|| self.absent(name, version))
    }

    /// The model of that name, to unlock it: without a version the highest one that is locked, else as [`look`](Self::look) has
    /// it. With a version that one, locked or not.
    pub fn look_locked(&self, name: &str, version: Option<&str>) -> Option<&Arc<Slot>> {
        let versions = self.slots.get(name).filter(|_| version.is_none());
        let locked =
            versions.and_then(|versions| versions.values().rev().find(|slot| slot.served().is_none()));
        locked.or_else(|| self.look(name, version))
    }

    /// [`look_locked`](Self::look_locked), or why there is none.
    ///
    /// # Errors
    /// [`Absent`], with what is there.
    pub fn find_locked(&self, name: &str, version: Option<&str>) -> Result<&Arc<Slot>, Absent> {
        self.look_locked(name, version).ok_or_else(|| self.absent(name, version))
    }

    /// Whether the index has that name.
    pub fn knows(&self, name: &str) -> bool {
        self.index.iter().any(|entry| entry.name == name)
    }

    pub(super) fn has(&self, name: &str, version: u64) -> bool {
        self.slots.get(name).is_some_and(|versions| versions.contains_key(&version))
    }

    /// The versions of a model that run.
    pub fn versions(&self, name: &str) -> Vec<String> {
        let versions = self.slots.get(name).into_iter().flatten();
        versions.filter(|(_, slot)| slot.served().is_some()).map(|(version, _)| version.to_string()).collect()
    }

    fn absent(&self, name: &str, version: Option<&str>) -> Absent {
        let same = |entry: &&Entry| {
            entry.name == name
                && (version.is_none() || entry.version.as_deref().is_none_or(|v| Some(v) == version))
        };
        if let Some(entry) = self.index.iter().find(same) {
            let (model, version) = (name.into(), entry.version.clone());
            return Absent::Unavailable { model, version, reason: entry.reason.clone() };
        }
        let expected = self
            .slots
            .iter()
            .flat_map(|(name, versions)| versions.keys().map(move |version| (name.clone(), *version)));
        let (name, version) = (name.into(), version.map(Into::into));
        Absent::Unknown { name, version, expected: expected.collect() }
    }
}

/// A version has one spelling.
fn number(version: &str) -> Option<u64> {
    version.parse().ok().filter(|number: &u64| number.to_string() == version)
}
