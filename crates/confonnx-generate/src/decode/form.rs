//! Answers that keep to a form: what they can go on with is worked out beside the model, not while others wait for it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::Id;
use crate::constrain::{Allowed, Constraint};

/// What is known of how an answer may go on.
#[derive(Debug)]
pub(super) enum Form {
    /// It may go on as it likes.
    Free,
    /// These tokens may come next.
    Known(Constraint, Allowed),
    /// What may come after this token is to be worked out.
    Due(Constraint, Option<u32>),
    /// That is being worked out.
    Away,
}

impl Form {
    pub(super) fn new(constraint: Option<Constraint>) -> Self {
        constraint.map_or(Self::Free, |constraint| Self::Due(constraint, None))
    }

    /// Whether it is known which tokens may come next.
    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Free | Self::Known(..))
    }

    pub(super) fn is_due(&self) -> bool {
        matches!(self, Self::Due(..))
    }

    pub(super) fn work(&mut self, id: Id) -> Option<Work> {
        match mem::replace(self, Self::Away) {
            Self::Due(constraint, token) => Some(Work { id, constraint, token }),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// What an answer can go on with is to be worked out.
#[derive(Debug)]
pub struct Work {
    pub(super) id: Id,
    constraint: Constraint,
    token: Option<u32>,
}

/// What an answer can go on with; none if that takes too much to say.
#[derive(Debug)]
pub struct Worked {
    pub(super) id: Id,
    pub(super) form: Option<(Constraint, Allowed)>,
}

impl Work {
    /// Works it out: some milliseconds if whoever asked for the form means harm.
    pub fn run(self) -> Worked {
        let Self { id, mut constraint, token } = self;
        let work = move || {
            if token.is_some_and(|token| !constraint.take(token)) {
                return None;
            }
            let allowed = constraint.allowed()?;
            Some((constraint, allowed))
        };
        // A panic of the library ends this answer, and not who works for all of them.
        Worked { id, form: catch_unwind(AssertUnwindSafe(work)).ok().flatten() }
    }
}
