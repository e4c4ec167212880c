//! Every check that was made, with what it expected and what it found.

use std::fmt;

use serde::Serialize;

use crate::UnixTime;

mod table;

/// The checks of one attestation, in the order they were made.
///
/// Displays as [`table`](Self::table).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// All checks, not only those up to the first that failed.
    pub checks: Vec<Check>,
    /// The step of the checks that are made from now on.
    #[serde(skip)]
    step: Step,
    /// The end of the first of all periods in which what was checked is valid.
    #[serde(skip)]
    until: Option<UnixTime>,
    /// The beginning of the last of these periods: whoever stated it had a clock that was there.
    #[serde(skip)]
    stated: Option<UnixTime>,
}

/// The two steps of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Is the evidence genuine?
    #[default]
    Verify,
    /// Is what it proves what the caller wants?
    Appraise,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The step that the check is part of.
    pub step: Step,
    /// What was checked, such as `enclave hash`.
    pub name: &'static str,
    /// What would pass.
    pub expected: String,
    /// What the document or its evidence says.
    pub found: String,
    /// How the check ended.
    pub outcome: Outcome,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Found what was expected.
    Passed,
    /// Found something else; the document is not trusted.
    Failed,
    /// What it takes to decide is absent or too old; the document is not trusted, but nothing speaks against it.
    Undecided,
    /// Nothing was expected by the caller: stated so that it is not overlooked.
    Info,
    /// Nothing was expected by the caller, of a setting that is not as it is unless somebody changes it.
    Notable,
}

impl Verdict {
    /// The checks that did not pass: failed ones and undecided ones.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Failed | Outcome::Undecided))
    }

    /// Whether nothing failed but something could not be decided.
    pub fn is_undecided(&self) -> bool {
        let has = |outcome| self.checks.iter().any(|check| check.outcome == outcome);
        has(Outcome::Undecided) && !has(Outcome::Failed)
    }

    /// What the policy does not judge: facts of the second step about which nothing was expected.
    pub fn not_judged(&self) -> impl Iterator<Item = &Check> {
        let stated = |check: &&Check| matches!(check.outcome, Outcome::Info | Outcome::Notable);
        self.checks.iter().filter(|check| check.step == Step::Appraise).filter(stated)
    }

    /// Until when the same evidence can be decided about: then the first of its certificates, revocation lists or statements
    /// of the vendor ends. `None` when nothing of it ends.
    pub fn decided_until(&self) -> Option<UnixTime> {
        self.until
    }

    /// The check of that name, if it was made.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    pub(crate) fn passes(&self) -> bool {
        self.failed().next().is_none()
    }

    /// Records a check that passes when both are equal.
    pub(crate) fn equal(
        &mut self,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        let (expected, found) = (expected.into(), found.into());
        let passed = expected == found;
        self.decide(name, expected, found, passed);
    }

    /// Records a check that `passed` or not.
    pub(crate) fn decide(
        &mut self,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
        passed: bool,
    ) {
        let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
        self.push(name, expected.into(), found.into(), outcome);
    }

    /// Records a check that could not be made because `found` says that something is missing or too old. It does not
    /// pass.
    pub(crate) fn undecided(
        &mut self,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.push(name, expected.into(), found.into(), Outcome::Undecided);
    }

    /// Records a fact that the caller expressed no expectation about.
    pub(crate) fn info(&mut self, name: &'static str, found: impl Into<String>) {
        self.push(name, String::from("anything"), found.into(), Outcome::Info);
    }

    /// Records a fact that the caller expressed no expectation about, and whether it is the usual one.
    pub(crate) fn state(&mut self, name: &'static str, found: impl Into<String>, usual: bool) {
        let outcome = if usual { Outcome::Info } else { Outcome::Notable };
        self.push(name, String::from("anything"), found.into(), outcome);
    }

    /// The latest time at which a vendor stated any of what was checked: it cannot be earlier than that now.
    pub(crate) fn stated_at(&self) -> Option<UnixTime> {
        self.stated
    }

    /// Remembers the period in which something that was checked is valid.
    pub(crate) fn valid(&mut self, from: UnixTime, until: Option<UnixTime>) {
        self.stated = self.stated.max(Some(from));
        if let Some(until) = until {
            self.until = Some(self.until.map_or(until, |known| known.min(until)));
        }
    }

    /// Nothing was expected of the report data: it is stated.
    pub(crate) fn carries_anything(&mut self) {
        for check in self.checks.iter_mut().filter(|check| check.name == "report data") {
            (check.expected, check.outcome) = ("anything".into(), Outcome::Info);
        }
    }

    /// From now on checks are those of the second step.
    pub(crate) fn appraising(&mut self) {
        self.step = Step::Appraise;
    }

    fn push(&mut self, name: &'static str, expected: String, found: String, outcome: Outcome) {
        self.checks.push(Check { step: self.step, name, expected, found, outcome });
    }

    /// The failed checks in one line, for error messages.
    pub(crate) fn summary(&self) -> String {
        self.failed()
            .map(|check| format!("{}: expected {}, found {}", check.name, check.expected, check.found))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl Outcome {
    /// `✓`, `✗`, `?`, `·` or `!`.
    pub fn mark(self) -> char {
        match self {
            Self::Passed => '✓',
            Self::Failed => '✗',
            Self::Undecided => '?',
            Self::Info => '·',
            Self::Notable => '!',
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_every_check_with_its_step_and_outcome() {
        let mut verdict = Verdict::default();
        verdict.undecided("revocation", "a list valid now", "none stapled");
        verdict.appraising();
        verdict.equal("enclave hash", "aa", "bb");
        let check = |step, name, expected, found, outcome| serde_json::json!({ "step": step, "name": name, "expected": expected, "found": found, "outcome": outcome });
        let expected = serde_json::json!({ "checks": [
            check("verify", "revocation", "a list valid now", "none stapled", "undecided"),
            check("appraise", "enclave hash", "aa", "bb", "failed"),
        ] });
        assert_eq!(serde_json::to_value(verdict).unwrap(), expected);
    }

    #[test]
    fn a_failure_decides_whatever_is_undecided() {
        let mut verdict = Verdict::default();
        assert!(!verdict.is_undecided());
        verdict.undecided("revocation", "a list valid now", "none stapled");
        assert!(verdict.is_undecided() && !verdict.passes());
        verdict.equal("signature", "valid", "invalid");
        assert!(!verdict.is_undecided());
    }
}
