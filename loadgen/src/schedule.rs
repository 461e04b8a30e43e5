//! An open-loop schedule: moments at fixed distances, independent of how long each action takes.

/// Moments at equal distances.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    done: u64,
    count: u64,
}

impl Schedule {
    /// `count` moments, the first at `start_ns`.
    pub(crate) fn new(start_ns: u64, interval_ns: f64, count: u64) -> Self {
        Self { start_ns, interval_ns, done: 0, count }
    }

    /// The moment of the next one, also when it is past; `None` at the end. Computed from the start each time, so that
    /// no rounding adds up.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        (self.done < self.count).then(|| self.start_ns + (self.done as f64 * self.interval_ns) as u64)
    }

    /// How many have been done.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Ends it now and returns how many moments were left.
    pub(crate) fn end(&mut self) -> u64 {
        let left = self.count - self.done;
        self.done = self.count;
        left
    }

    /// The next one has been done.
    pub(crate) fn advance(&mut self) {
        self.done += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: moments keep their distance over a long run, and end.
    #[test]
    fn moments_do_not_drift() {
        let mut schedule = Schedule::new(1_000, 333_333.333_333, 3_001);
        let mut last = 0;
        while let Some(moment) = schedule.next_ns() {
            assert!(moment > last || last == 0);
            last = moment;
            schedule.advance();
        }
        assert!(last.abs_diff(1_000_001_000) <= 1, "{last}");
    }
}
