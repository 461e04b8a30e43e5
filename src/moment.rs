//! Time as an argument: the pure floors read no clock; callers pass the current time.

/// One instant on both clocks. The driver reads them once per turn.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    /// Milliseconds of a clock that never goes back; its zero is arbitrary.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z; may step.
    pub unix_ms: u64,
}

impl Moment {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1_000
    }
}
