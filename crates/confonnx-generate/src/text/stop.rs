//! Texts that end an answer, wherever the borders of tokens are.

use confonnx_tensor::Erased;

/// Looks for texts that end an answer. What could become one is held back.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: Erased<String>,
    found: bool,
}

impl StopStrings {
    /// Looks for `stops`; empty ones count for nothing.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: Erased::default(), found: false }
    }

    /// Takes the next text; what of it is surely part of the answer.
    pub fn push(&mut self, text: &str) -> Erased<String> {
        if self.found {
            return Erased::default();
        }
        self.held.append(text);
        // The one that is complete first, as if characters came one by one.
        let found = self.stops.iter().filter_map(|stop| {
            let at = self.held.find(stop.as_str())?;
            Some((at.saturating_add(stop.len()), at))
        });
        if let Some((_, at)) = found.min() {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| self.overlap(stop)).max().unwrap_or(0);
        let len = self.held.len().saturating_sub(keep);
        let rest = self.held.split_off(len).into();
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether one was found: nothing after it is part of the answer.
    pub fn found(&self) -> bool {
        self.found
    }

    /// The text that was held back, and became no stop.
    pub fn finish(&mut self) -> Erased<String> {
        std::mem::take(&mut self.held)
    }

    /// How long the end of the text is that is a beginning of `stop`.
    fn overlap(&self, stop: &str) -> usize {
        let lengths = stop.char_indices().map(|(at, _)| at).rev();
        lengths.into_iter().find(|len| self.held.ends_with(stop.get(..*len).unwrap_or_default())).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_to_appear_counts_and_nothing_after_it() {
        let mut stop = StopStrings::new(vec!["END".into(), "\n\n".into(), String::new()]);
        assert_eq!(*stop.push("one\n"), "one");
        assert_eq!(*stop.push("two E"), "\ntwo ");
        assert_eq!(*stop.push("N"), "");
        assert!(!stop.found());
        assert_eq!(*stop.push("D \n\n more"), "");
        assert!(stop.found());
        assert_eq!((stop.push("x"), stop.finish()), (Erased::default(), Erased::default()));
    }

    proptest! {
        #[test]
        fn borders_do_not_matter(text in "[abé]{0,20}", stops in proptest::collection::vec("[abé]{0,4}", 0..3), cut in 1_usize..5) {
            let ends = stops.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str()).map(|at| (at + s.len(), at)));
            let wanted = ends.min().map(|(_, at)| at);
            let mut stop = StopStrings::new(stops.clone());
            let mut out = String::new();
            let characters: Vec<char> = text.chars().collect();
            for piece in characters.chunks(cut) {
                out.push_str(&stop.push(&piece.iter().collect::<String>()));
                prop_assert!(wanted.is_none_or(|at| out.len() <= at), "{out}");
            }
            out.push_str(&stop.finish());
            prop_assert_eq!(out.as_str(), &text[..wanted.unwrap_or(text.len())]);
            prop_assert_eq!(stop.found(), wanted.is_some());
        }
    }
}
