//! How much memory requests need of late, so that what one of them needed alone is given back.

/// Bytes of tensors that a session has seen.
#[derive(Debug, Default)]
pub(crate) struct WorkingSet {
    /// The most that was needed at once of late; fades.
    usual: u64,
    /// The most that was needed at once since memory was last given back.
    held: u64,
}

impl WorkingSet {
    /// Whether the session is to give memory back once it has run a request with `bytes` of inputs: because that one is much
    /// larger than others of late, or others were.
    pub(crate) fn begins(&mut self, bytes: u64) -> bool {
        let often = self.usual.saturating_mul(FACTOR).max(LITTLE);
        let gives_back = bytes > often || self.held > often;
        if gives_back {
            self.held = 0;
        }
        gives_back
    }

    /// Remembers a request whose inputs and outputs had `bytes`, and gave memory back or not.
    pub(crate) fn ended(&mut self, bytes: u64, gave_back: bool) {
        let faded = self.usual.saturating_sub(self.usual / 8);
        self.usual = bytes.max(faded);
        if !gave_back {
            self.held = self.held.max(bytes);
        }
    }
}

/// How much larger than usual is much larger.
const FACTOR: u64 = 2;

/// How many bytes nobody misses.
const LITTLE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the requests give memory back.
    fn giving(sizes: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let mut set = WorkingSet::default();
        let gives = |(index, bytes): (usize, u64)| {
            let gives_back = set.begins(bytes);
            set.ended(bytes, gives_back);
            gives_back.then_some(index)
        };
        sizes.into_iter().enumerate().filter_map(gives).collect()
    }

    #[test]
    fn what_one_request_needed_is_given_back_at_once() {
        let sizes = |large| (0..50).map(move |index| if index == 20 { large } else { 4 << 20 });
        assert_eq!(giving(sizes(100 << 20)), [0, 20]);
        assert_eq!(giving(sizes(8 << 20)), [0]);
        assert_eq!(giving((0..50).map(|_| 1 << 20)), [0; 0], "little is kept");
    }

    #[test]
    fn what_requests_need_no_more_is_given_back_once() {
        let giving = giving((0..200).map(|index| if index < 100 { 64 << 20 } else { 100 }));
        let [0, later] = giving[..] else { panic!("{giving:?}") };
        assert!((101..140).contains(&later), "{later}");
    }
}
