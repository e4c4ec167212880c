//! Whose turn it is among callers: each has as many, however many answers it has.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::Id;

/// Who asks for an answer, by a number: thousands of answers are looked through between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(u64);

impl Holder {
    /// All those whom nothing tells apart.
    pub(super) const ANYBODY: Self = Self(0);
}

/// Callers with answers, whoever went longest ago first.
#[derive(Debug, Default)]
pub(super) struct Turns {
    callers: VecDeque<Caller>,
    /// How many there were.
    known: u64,
}

#[derive(Debug)]
struct Caller {
    name: Option<Arc<str>>,
    holder: Holder,
    /// Whether it has answers, or prompts; else it is here for what it owes.
    is_here: bool,
    /// Whether its last turn was for a prompt.
    prefilled: bool,
    /// How much longer others waited for its prompts than they have been answered since.
    owed: Duration,
}

impl Turns {
    /// Has the caller of that name take part. Who comes anew goes last, so that nobody gains a turn by going and coming again.
    pub(super) fn come(&mut self, name: &Option<Arc<str>>) -> Holder {
        let known = self.callers.iter().find(|caller| caller.name == *name).map(|caller| caller.holder);
        let holder = known.unwrap_or_else(|| {
            self.known = self.known.saturating_add(1);
            if name.is_none() { Holder::ANYBODY } else { Holder(self.known) }
        });
        self.join(holder);
        if let Some(caller) = self.of(holder) {
            caller.name.clone_from(name);
        }
        holder
    }

    /// As [`come`](Self::come), of one who is known elsewhere.
    pub(super) fn join(&mut self, holder: Holder) {
        if let Some(caller) = self.of(holder) {
            caller.is_here = true;
        } else {
            let (name, is_here, prefilled, owed) = (None, true, false, Duration::ZERO);
            self.callers.push_back(Caller { name, holder, is_here, prefilled, owed });
        }
    }

    /// `holder` has no answers any more. What it owes is not forgotten by that, nor what it will for the step that is running.
    pub(super) fn leave(&mut self, holder: Holder) {
        if let Some(caller) = self.of(holder) {
            caller.is_here = false;
        }
    }

    /// Whose turn it is, and whether for a prompt, of those who have `answers` or `prompts` that can go on.
    pub(super) fn first(&self, answers: &[Holder], prompts: &[Holder]) -> Option<(Holder, bool)> {
        self.callers.iter().find_map(|caller| {
            let has = |all: &[Holder]| all.contains(&caller.holder);
            let may = caller.owed.is_zero() || !caller.keeps_waiting(answers);
            let prompt = has(prompts) && may && !(caller.prefilled && has(answers));
            (prompt || has(answers)).then_some((caller.holder, prompt))
        })
    }

    /// `holder` had its turn, for a prompt if it was `prefilled`.
    pub(super) fn went(&mut self, holder: Holder, prefilled: bool) {
        let place = self.callers.iter().position(|caller| caller.holder == holder);
        if let Some(mut caller) = place.and_then(|place| self.callers.remove(place)) {
            caller.prefilled = prefilled;
            self.callers.push_back(caller);
        }
    }

    /// A part of a prompt of `holder` took as long, while there were `answers` that could go on.
    pub(super) fn owes(&mut self, holder: Holder, took: Duration, answers: &[Holder]) {
        if let Some(caller) = self.of(holder).filter(|caller| caller.keeps_waiting(answers)) {
            caller.owed = caller.owed.saturating_add(took);
        }
        self.forget();
    }

    /// Answers went on for as long.
    pub(super) fn repaid(&mut self, took: Duration) {
        for caller in &mut self.callers {
            caller.owed = caller.owed.saturating_sub(took);
        }
        self.forget();
    }

    fn of(&mut self, holder: Holder) -> Option<&mut Caller> {
        self.callers.iter_mut().find(|caller| caller.holder == holder)
    }

    /// Forgets who is gone and owes nothing.
    pub(super) fn forget(&mut self) {
        self.callers.retain(|caller| caller.is_here || !caller.owed.is_zero());
    }

    /// Which of `able`, of each caller the most patient first, go on together, `most` at most, and had their turn by that: as many
    /// of each caller as of the one that has the fewest. More of one would make all wait longer.
    pub(super) fn together(&mut self, able: &[(Holder, Id)], most: usize) -> Vec<Id> {
        let of = |caller: &Caller| -> Vec<Id> {
            able.iter().filter(|(holder, _)| *holder == caller.holder).map(|(_, id)| *id).collect()
        };
        let all = self.callers.iter().map(|caller| (caller.holder, of(caller)));
        let all: Vec<(Holder, Vec<Id>)> = all.filter(|(_, ids)| !ids.is_empty()).collect();
        let each = all.iter().map(|(_, ids)| ids.len()).min().unwrap_or(0);
        let rounds = (0..each)
            .flat_map(|round| all.iter().filter_map(move |(holder, ids)| Some((holder, *ids.get(round)?))));
        let mut chosen = Vec::new();
        for (holder, id) in rounds.take(most) {
            self.went(*holder, false);
            chosen.push(id);
        }
        chosen
    }
}

impl Caller {
    /// Whether any of `answers` is somebody else's, who waits while a prompt of this one is read. Those whom nothing tells apart
    /// are many.
    fn keeps_waiting(&self, answers: &[Holder]) -> bool {
        answers.iter().any(|holder| *holder == Holder::ANYBODY || *holder != self.holder)
    }
}
