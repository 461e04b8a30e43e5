//! The clocks, read once per turn.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::moment::Moment;

/// Both clocks of a process. All its shards share one value, so that their moments are comparable.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts the monotonic clock. Its zero is a little in the past, so that 0 ms can mean "never".
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Reads both clocks. A wall clock before 1970 reads as 0.
    pub fn read(self) -> Moment {
        self.moment(self.monotonic_us())
    }

    /// Like [`Clock::read`], when the monotonic clock was already read.
    pub fn moment(self, monotonic_us: u64) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Moment { monotonic_ms: monotonic_us / US_PER_MS, unix_ms }
    }

    /// Reads the monotonic clock, in µs from the zero of [`Moment::monotonic_ms`].
    pub fn monotonic_us(self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(US_PER_MS)
    }
}

const US_PER_MS: u64 = 1_000;
