//! Every check that was made, with what it expected and what it found.

use std::fmt;

use serde::Serialize;

/// The checks of one attestation, in the order they were made.
///
/// Displays as a table: one line for each check, two when expected and found differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// All of them, not only the first that failed.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked, such as `enclave hash`.
    pub name: &'static str,
    /// What would pass.
    pub expected: String,
    /// What the document or its evidence says.
    pub found: String,
    /// How it ended.
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
        let outcome = if expected == found { Outcome::Passed } else { Outcome::Failed };
        self.checks.push(Check { name, expected, found, outcome });
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
        self.checks.push(Check { name, expected: expected.into(), found: found.into(), outcome });
    }

    /// Records a check that could not be made because `found` says that something is missing or too old. It does not
    /// pass.
    pub(crate) fn undecided(
        &mut self,
        name: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        let outcome = Outcome::Undecided;
        self.checks.push(Check { name, expected: expected.into(), found: found.into(), outcome });
    }

    /// Records a fact that the caller expressed no expectation about.
    pub(crate) fn info(&mut self, name: &'static str, found: impl Into<String>) {
        let expected = String::from("anything");
        self.checks.push(Check { name, expected, found: found.into(), outcome: Outcome::Info });
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
    /// `✓`, `✗`, `?` or `·`.
    pub fn mark(self) -> char {
        match self {
            Self::Passed => '✓',
            Self::Failed => '✗',
            Self::Undecided => '?',
            Self::Info => '·',
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for (i, check) in self.checks.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let (mark, name) = (check.outcome.mark(), check.name);
            match check.outcome {
                Outcome::Failed | Outcome::Undecided => {
                    writeln!(f, "{mark} {name:width$}  expected {}", check.expected)?;
                    write!(f, "  {:width$}  found    {}", "", check.found)?;
                }
                Outcome::Passed if !check.found.contains(&check.expected) => {
                    write!(
                        f,
                        "{mark} {name:width$}  {} ({})",
                        shorten(&check.found),
                        shorten(&check.expected)
                    )?;
                }
                Outcome::Passed | Outcome::Info => {
                    write!(f, "{mark} {name:width$}  {}", shorten(&check.found))?
                }
            }
        }
        Ok(())
    }
}

/// Long hex in the lines that are too long and need no comparing.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 96 {
        return text.to_owned();
    }
    let words =
        text.split(' ').map(|word| match (word.get(..16), word.get(word.len().saturating_sub(8)..)) {
            (Some(head), Some(tail)) if word.len() > 32 && word.bytes().all(|c| c.is_ascii_hexdigit()) => {
                format!("{head}…{tail}")
            }
            _ => word.to_owned(),
        });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Verdict {
        let mut verdict = Verdict::default();
        verdict.equal("report data", "ab".repeat(64), "ab".repeat(64));
        verdict.decide("age", "at most 60 s", "5 s", true);
        verdict.equal("enclave hash", "aa".repeat(64), "bb".repeat(64));
        verdict.info("tee", "insecure");
        verdict
    }

    #[test]
    fn the_table_is_aligned_and_shows_both_values_of_a_failure_in_full() {
        let expected = format!(
            "✓ report data   {}…{}\n✓ age           5 s (at most 60 s)\n✗ enclave hash  expected {}\n                found    {}\n· tee           insecure",
            "ab".repeat(8),
            "ab".repeat(4),
            "aa".repeat(64),
            "bb".repeat(64)
        );
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn json_has_every_check_with_its_outcome() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["checks"].as_array().unwrap().len(), 4);
        assert_eq!(json["checks"][2]["outcome"], "failed");
        assert_eq!(json["checks"][3]["found"], "insecure");
    }
}
