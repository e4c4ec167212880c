//! What users write never becomes a control token: where it would, or where it would together with what a template puts
//! beside it, a mark goes in that no text has, and tokens are made of the pieces between marks.

use super::TextError;

/// The texts of a model's control tokens.
pub(super) struct Guard(Vec<String>);

impl Guard {
    pub(super) fn new(controls: Vec<String>) -> Self {
        Self(controls)
    }

    /// `text` with `mark` within, or at the border of, all that is or could become a control token.
    pub(super) fn apart(&self, text: &str, mark: char) -> Result<String, TextError> {
        let mut marks = vec![false; text.len().saturating_add(1)];
        let mut set = |at: usize| {
            if let Some(slot) = marks.get_mut(at) {
                *slot = true;
            }
        };
        for control in &self.0 {
            let Some(first) = control.chars().next() else { continue };
            let is_one = first.len_utf8() == control.len();
            for (at, _) in text.match_indices(first) {
                let rest = text.get(at..).unwrap_or_default();
                let becomes = rest.starts_with(control.as_str()) || control.starts_with(rest);
                if becomes && is_one {
                    return Err(TextError::Control);
                }
                if becomes {
                    set(at.saturating_add(first.len_utf8()));
                }
            }
            // A template could end in the first part of one.
            let begins = control.char_indices().skip(1).any(|(at, _)| {
                let tail = control.get(at..).unwrap_or_default();
                !text.is_empty() && (text.starts_with(tail) || tail.starts_with(text))
            });
            if begins {
                set(0);
            }
        }
        let mut out = String::with_capacity(text.len().saturating_add(8));
        for (at, character) in text.char_indices() {
            if marks.get(at) == Some(&true) {
                out.push(mark);
            }
            out.push(character);
        }
        if marks.last() == Some(&true) && !text.is_empty() {
            out.push(mark);
        }
        Ok(out)
    }
}

/// A character that none of `texts` has: one of those that Unicode keeps for programs' own use.
pub(super) fn mark<'t>(texts: impl Iterator<Item = &'t str> + Clone) -> Result<char, TextError> {
    let is_free = |mark: &char| texts.clone().all(|text| !text.contains(*mark));
    ('\u{fdd0}'..='\u{fdef}').find(is_free).ok_or(TextError::Control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard() -> Guard {
        Guard::new(["<|im_start|>", "<|im_end|>", "<s>", "aa"].map(str::to_owned).into())
    }

    #[test]
    fn whole_and_partial_control_tokens_are_cut() {
        let apart = |text| guard().apart(text, '#').unwrap();
        assert_eq!(apart("hi <|im_end|> there"), "hi <#|im_end|> there");
        assert_eq!(apart("aaa"), "#a#a#a#");
        assert_eq!(apart("1 <"), "1 <#");
        assert_eq!(apart("<|im_"), "<#|im_");
        assert_eq!(apart("|im_end|> x"), "#|im_end|> x");
        assert_eq!(apart("> x"), "#> x");
        assert_eq!(apart("x < y, 1 > 0"), "x < y, 1 > 0");
        assert_eq!(apart(""), "");
    }

    #[test]
    fn a_control_token_of_one_character_is_refused() {
        assert_eq!(Guard::new(vec!["†".into()]).apart("a†", '#'), Err(TextError::Control));
    }

    #[test]
    fn the_mark_is_no_character_of_the_text() {
        assert_eq!(mark(["a\u{fdd0}b", "\u{fdd1}"].into_iter()), Ok('\u{fdd2}'));
        let all: String = ('\u{fdd0}'..='\u{fdef}').collect();
        assert_eq!(mark([all.as_str()].into_iter()), Err(TextError::Control));
    }

    proptest! {
        #[test]
        fn no_piece_has_a_control_token_whatever_is_beside(
            texts in proptest::collection::vec("[<>|ims_a ]{0,8}", 1..4)
        ) {
            let guard = guard();
            let joined: String = texts.iter().map(|text| guard.apart(text, '#').unwrap()).collect();
            for piece in joined.split('#') {
                prop_assert!(guard.0.iter().all(|control| !piece.contains(control.as_str())), "{joined}");
            }
            prop_assert_eq!(joined.replace('#', ""), texts.concat());
        }
    }
}
