//! A set of random 64-bit numbers that are never taken out: open addressing, eight bytes an entry and little room between.

/// Grows by half when four fifths are taken: 10 to 15 bytes an entry.
#[derive(Default)]
pub(super) struct Set {
    /// 0 is an empty one.
    slots: Vec<u64>,
    len: usize,
}

impl Set {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has(&self, number: u64) -> bool {
        let number = number.max(1);
        let (wrapped, first) = self.probe(number);
        first.iter().chain(wrapped).take_while(|slot| **slot != 0).any(|slot| *slot == number)
    }

    /// Adds `number`, which must not be in the set.
    pub(super) fn insert(&mut self, number: u64) {
        if self.len >= (self.slots.len() / 5).saturating_mul(4) {
            let larger = self.slots.len().saturating_add(self.slots.len() / 2).max(SMALLEST);
            for number in std::mem::replace(&mut self.slots, vec![0; larger]) {
                if number != 0 {
                    self.place(number);
                }
            }
        }
        self.place(number.max(1));
        self.len = self.len.saturating_add(1);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>()
    }

    fn place(&mut self, number: u64) {
        let at = self.position(number);
        let (wrapped, first) = self.slots.split_at_mut(at);
        if let Some(slot) = first.iter_mut().chain(wrapped).find(|slot| **slot == 0) {
            *slot = number;
        }
    }

    /// The slots before and from the one where `number` would best be.
    fn probe(&self, number: u64) -> (&[u64], &[u64]) {
        self.slots.split_at(self.position(number))
    }

    /// The number's share of all numbers, of the slots.
    fn position(&self, number: u64) -> usize {
        (u128::from(number).saturating_mul(self.slots.len() as u128) >> u64::BITS) as usize
    }
}

/// A multiple of five.
const SMALLEST: usize = 20;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_has_what_was_put_in(
            numbers: HashSet<u64>,
            near in proptest::collection::hash_set(u64::MAX - 300.., 0..200),
            others: Vec<u64>,
        ) {
            // 0 stands for 1, which random numbers rarely meet.
            let numbers: HashSet<_> = numbers.union(&near).copied().filter(|number| *number > 1).collect();
            let mut set = Set::default();
            for number in &numbers {
                prop_assert!(!set.has(*number));
                set.insert(*number);
                prop_assert!(set.has(*number));
            }
            prop_assert_eq!(set.len(), numbers.len());
            prop_assert!(numbers.iter().all(|number| set.has(*number)));
            prop_assert!(others.iter().all(|other| set.has(*other) == numbers.contains(other)));
        }
    }

    #[test]
    fn zero_is_a_number_too() {
        let mut set = Set::default();
        assert!(!set.has(0));
        set.insert(0);
        assert!(set.has(0));
    }
}
