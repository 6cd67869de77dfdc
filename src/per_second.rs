//! So many a second and no more: of what anybody can cause again and again.

use std::sync::LazyLock;
use std::time::Instant;

use parking_lot::Mutex;

/// What may happen a limited number of times in each second.
#[derive(Debug)]
pub struct PerSecond {
    max: u64,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    second: u64,
    count: u64,
    left_out: u64,
}

impl PerSecond {
    /// At most `max` in a second.
    pub const fn new(max: u64) -> Self {
        let present = Present {
            second: 0,
            count: 0,
            left_out: 0,
        };
        Self {
            max,
            present: Mutex::new(present),
        }
    }

    /// Whether one more may be now: how many could not be since the last one that could.
    pub fn take(&self) -> Option<u64> {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.take_in(BEGUN.elapsed().as_secs())
    }

    fn take_in(&self, second: u64) -> Option<u64> {
        let mut present = self.present.lock();
        if present.second != second {
            (present.second, present.count) = (second, 0);
        }
        present.count += 1;
        if present.count > self.max {
            present.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut present.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_in_a_second_is_counted_and_told_with_the_next_one() {
        let few = PerSecond::new(2);
        let taken: Vec<_> = (0..5).map(|_| few.take_in(7)).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None, None]);
        assert_eq!(few.take_in(8), Some(3));
        assert_eq!(few.take_in(8), Some(0));
        assert_eq!(few.take_in(8), None);
    }
}
