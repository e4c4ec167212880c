//! Which counters of a resumption were accepted (the algorithm is RFC 6479's).

/// How far behind the newest counter one may be that is still accepted.
pub(crate) const WIDTH: u64 = 1024;

const BLOCK: u64 = 64;
/// How many blocks there are: one more than the width takes, since the newest block is only begun.
const BLOCKS: u64 = WIDTH / BLOCK + 1;

/// Accepts each counter once, in any order within its width.
#[derive(Default)]
pub(crate) struct Window {
    /// One more than the newest counter accepted.
    end: u64,
    /// A ring: a bit for each counter, blocks of 64.
    seen: [u64; BLOCKS as usize],
}

impl Window {
    /// Whether `counter` would be accepted.
    pub(crate) fn is_open(&self, counter: u64) -> bool {
        if counter >= self.end {
            return counter < u64::MAX;
        }
        let behind = self.end.saturating_sub(counter);
        let seen = self.seen.get(slot(counter)).copied().unwrap_or(u64::MAX);
        behind <= WIDTH && seen & bit(counter) == 0
    }

    /// Accepts `counter` unless it was, or is too far behind.
    pub(crate) fn accept(&mut self, counter: u64) -> bool {
        if !self.is_open(counter) {
            return false;
        }
        if counter >= self.end {
            let newest = self.end.saturating_sub(1) / BLOCK;
            let passed = (counter / BLOCK).saturating_sub(newest).min(BLOCKS);
            for step in 1..=passed {
                let block = newest.saturating_add(step).saturating_mul(BLOCK);
                if let Some(seen) = self.seen.get_mut(slot(block)) {
                    *seen = 0;
                }
            }
            self.end = counter.saturating_add(1);
        }
        if let Some(seen) = self.seen.get_mut(slot(counter)) {
            *seen |= bit(counter);
        }
        true
    }
}

fn slot(counter: u64) -> usize {
    (counter / BLOCK % BLOCKS) as usize
}

fn bit(counter: u64) -> u64 {
    1_u64.rotate_left((counter % BLOCK) as u32)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_is_accepted_once_within_the_width() {
        let mut window = Window::default();
        assert!(window.accept(5_000) && !window.accept(5_000));
        assert!(window.accept(5_001 - WIDTH) && !window.accept(5_001 - WIDTH));
        assert!(!window.accept(5_000 - WIDTH), "too far behind");
        assert!(window.accept(4_999) && window.accept(5_001));
        assert!(!window.accept(5_001 - WIDTH) && !window.accept(5_000), "still remembered");
    }

    #[test]
    fn a_leap_forgets_nothing_that_could_come_again() {
        let mut window = Window::default();
        for counter in 0..WIDTH {
            assert!(window.accept(counter));
        }
        assert!(window.accept(u64::MAX - 1));
        for counter in (0..WIDTH).chain([u64::MAX - 1, u64::MAX]) {
            assert!(!window.accept(counter), "{counter}");
        }
        assert!(window.accept(u64::MAX - 2));
    }

    proptest! {
        #[test]
        fn it_is_as_a_set_of_all_accepted_would_have_it(
            steps in proptest::collection::vec((0..3_000_u64, any::<bool>()), 1..400),
        ) {
            let (mut window, mut accepted, mut base) = (Window::default(), HashSet::new(), 0_u64);
            for (offset, advance) in steps {
                let counter = base + offset;
                let newest = accepted.iter().max().copied();
                let late = newest.is_some_and(|newest| counter + WIDTH <= newest);
                let expected = !late && !accepted.contains(&counter);
                prop_assert_eq!(window.is_open(counter), expected);
                prop_assert_eq!(window.accept(counter), expected);
                if expected {
                    accepted.insert(counter);
                }
                base += if advance { offset / 2 } else { 0 };
            }
        }
    }
}
