//! A verdict for people.

use super::{Check, Outcome, Step, Verdict};

impl Verdict {
    /// The checks as a table, grouped by step, and apart what the policy does not judge; its lines at most `width` columns wide
    /// where that can be (`None`: as long as they come). A check takes one line, or two with expected and found when it did not pass.
    pub fn table(&self, width: Option<usize>) -> String {
        let names = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let mut lines = Vec::new();
        let mut group = |title: &str, checks: Vec<&Check>| {
            if !checks.is_empty() {
                lines.push(title.to_owned());
                lines.extend(checks.into_iter().flat_map(|check| rows(check, names, width)));
            }
        };
        let stated = |check: &&Check| matches!(check.outcome, Outcome::Info | Outcome::Notable);
        let of = |step: Step| self.checks.iter().filter(move |check| check.step == step);
        group("Is the evidence genuine?", of(Step::Verify).collect());
        group("Is it what was asked for?", of(Step::Appraise).filter(|check| !stated(check)).collect());
        let not_judged: Vec<_> = self.not_judged().collect();
        let notable = not_judged.iter().any(|check| check.outcome == Outcome::Notable);
        group(if notable { NOT_JUDGED_NOTABLE } else { NOT_JUDGED }, not_judged);
        lines.join("\n")
    }
}

fn rows(check: &Check, names: usize, width: Option<usize>) -> Vec<String> {
    let Check { name, expected, found, outcome, .. } = check;
    let lead = format!("{} {name:names$}  ", outcome.mark());
    let indent = names.saturating_add(4);
    let column = width.map(|width| width.saturating_sub(indent).max(MIN_COLUMN));
    match outcome {
        Outcome::Failed | Outcome::Undecided => {
            let column = column.map(|column| column.saturating_sub(LABEL).max(MIN_COLUMN));
            let mut rows =
                hanging(&format!("{lead}expected "), indent.saturating_add(LABEL), expected, column);
            let lead = format!("{:indent$}found    ", "");
            rows.extend(hanging(&lead, indent.saturating_add(LABEL), found, column));
            rows
        }
        Outcome::Passed => {
            let text = if found.contains(expected.as_str()) {
                found.clone()
            } else {
                format!("{} ({})", shorten(found, LONG), shorten(expected, LONG))
            };
            hanging(&lead, indent, &shorten(&text, column.unwrap_or(LONG)), column)
        }
        // The value is shown in full: this is where reference values are read off.
        Outcome::Info | Outcome::Notable => hanging(&lead, indent, found, column),
    }
}

/// `text` after `lead`, in lines of `column` columns, all but the first indented.
fn hanging(lead: &str, indent: usize, text: &str, column: Option<usize>) -> Vec<String> {
    let lines = match column {
        Some(column) => wrap(text, column),
        None => vec![text.to_owned()],
    };
    lines
        .iter()
        .enumerate()
        .map(|(i, line)| if i == 0 { format!("{lead}{line}") } else { format!("{:indent$}{line}", "") })
        .collect()
}

/// Lines of at most `column` columns, broken at spaces where possible.
fn wrap(text: &str, column: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let used = line.chars().count();
        if used > 0 && used.saturating_add(1).saturating_add(word.len()) <= column {
            line.push(' ');
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > column {
            let rest = word.split_off(column);
            lines.push(word.iter().collect());
            word = rest;
        }
        line.extend(word);
    }
    lines.push(line);
    lines
}

/// Hex words abbreviated when `text` is longer than `limit`: they passed and need no comparing.
fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
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

const NOT_JUDGED: &str = "Not judged by the policy:";
const NOT_JUDGED_NOTABLE: &str = "Not judged (! is not as by default):";
/// Length of `expected ` and `found    `.
const LABEL: usize = 9;
/// The least width of a column of values: narrower ones cannot be read.
const MIN_COLUMN: usize = 24;
/// Values longer than this are abbreviated where there is no width to keep.
const LONG: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Verdict {
        let mut verdict = Verdict::default();
        verdict.equal("report data", "ab".repeat(64), "ab".repeat(64));
        verdict.undecided("revocation", "a list valid now", "none stapled");
        verdict.appraising();
        verdict.decide("age", "at most 60 s", "5 s", true);
        verdict.equal("enclave hash", "aa".repeat(64), "bb".repeat(64));
        verdict.info("tee", "insecure");
        verdict.state("audit log", "true", false);
        verdict
    }

    #[test]
    fn it_is_aligned_and_shows_both_values_of_a_failure_in_full() {
        let expected = format!(
            "Is the evidence genuine?\n\
             ✓ report data   {}…{}\n\
             ? revocation    expected a list valid now\n                found    none stapled\n\
             Is it what was asked for?\n\
             ✓ age           5 s (at most 60 s)\n\
             ✗ enclave hash  expected {}\n                found    {}\n\
             Not judged (! is not as by default):\n\
             · tee           insecure\n\
             ! audit log     true",
            "ab".repeat(8),
            "ab".repeat(4),
            "aa".repeat(64),
            "bb".repeat(64)
        );
        assert_eq!(sample().table(None), expected);
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn it_keeps_to_the_width_and_loses_nothing_of_a_failure() {
        for width in [40, 60, 80, 100, 200] {
            let table = sample().table(Some(width));
            for line in table.lines() {
                assert!(line.chars().count() <= width.max(49), "{width}: {line}");
            }
            let values: String = table
                .lines()
                .skip_while(|line| !line.starts_with('✗'))
                .collect::<String>()
                .split(' ')
                .collect();
            assert!(
                values.contains(&"aa".repeat(64)) && values.contains(&"bb".repeat(64)),
                "{width}: {table}"
            );
        }
    }

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
