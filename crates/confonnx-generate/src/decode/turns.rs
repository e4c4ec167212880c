//! Whose turn it is among callers: each has as many, however many answers it has.

use std::{collections::VecDeque, sync::Arc};

use super::Id;

/// Who asks for an answer. None is all those whom nothing tells apart.
pub(super) type Holder = Option<Arc<str>>;

/// Callers with answers, whoever went longest ago first.
#[derive(Debug, Default)]
pub(super) struct Turns(VecDeque<Holder>);

impl Turns {
    /// Has `holder` take part. Who comes anew goes last, so that nobody gains a turn by going and coming again.
    pub(super) fn come(&mut self, holder: &Holder) {
        if !self.0.contains(holder) {
            self.0.push_back(holder.clone());
        }
    }

    /// `holder` has no answers any more.
    pub(super) fn leave(&mut self, holder: &Holder) {
        self.0.retain(|caller| caller != holder);
    }

    /// The first of whom `goes_on` holds.
    pub(super) fn first(&self, goes_on: impl Fn(&Holder) -> bool) -> Option<Holder> {
        self.0.iter().find(|caller| goes_on(caller)).cloned()
    }

    /// `holder` had its turn.
    pub(super) fn went(&mut self, holder: &Holder) {
        let place = self.0.iter().position(|caller| caller == holder);
        if let Some(caller) = place.and_then(|place| self.0.remove(place)) {
            self.0.push_back(caller);
        }
    }

    /// Which of `able`, of each caller the most patient first, go on together, `most` at most, and had their turn by that: as many
    /// of each caller as of the one that has the fewest. More of one would make all wait longer.
    pub(super) fn together(&mut self, able: &[(Holder, Id)], most: usize) -> Vec<Id> {
        let of = |caller: &Holder| -> Vec<Id> {
            able.iter().filter(|(holder, _)| holder == caller).map(|(_, id)| *id).collect()
        };
        let all = self.0.iter().map(|caller| (caller.clone(), of(caller)));
        let all: Vec<(Holder, Vec<Id>)> = all.filter(|(_, ids)| !ids.is_empty()).collect();
        let each = all.iter().map(|(_, ids)| ids.len()).min().unwrap_or(0);
        let rounds = (0..each)
            .flat_map(|round| all.iter().filter_map(move |(holder, ids)| Some((holder, *ids.get(round)?))));
        let mut chosen = Vec::new();
        for (holder, id) in rounds.take(most) {
            self.went(holder);
            chosen.push(id);
        }
        chosen
    }
}
