//! The rate limit of an app at its counter (R-LIM-3, R-LIM-4), and leases of its permits. Time is an argument.
//!
//! Invariant: permits that the counter granted in one window, spent or leased, are never more than the limit.

use std::collections::VecDeque;

use crate::index::ShardIndex;
use crate::limits;
use crate::moment::Moment;
use crate::shard::mail::PendingId;
use crate::shard::permits::{METERS, Meter, NONE, Permits, Window, day_of};

/// Permits that a shard may spend without asking.
#[derive(Debug, Default)]
pub(super) struct Lease {
    pub(super) window: Window,
    pub(super) permits: Permits,
}

impl Lease {
    /// Spends leased permits; returns those that are missing, each meter completely or not at all.
    pub(super) fn spend(&mut self, now: Moment, costs: Permits) -> Permits {
        let mut missing = costs;
        for meter in Meter::ALL {
            let at = meter as usize;
            if costs[at] > 0 && self.permits[at] >= costs[at] && !self.window.is_over(meter, now) {
                self.permits[at] -= costs[at];
                missing[at] = 0;
            }
        }
        missing
    }

    /// Adds permits of a window; the rest of an older window is void.
    pub(super) fn add(&mut self, window: Window, permits: Permits) {
        for meter in Meter::ALL {
            let at = meter as usize;
            if self.window.agrees(window, meter) {
                self.permits[at] = self.permits[at].saturating_add(permits[at]);
            } else {
                self.permits[at] = permits[at];
            }
        }
        self.window = window;
    }

    /// Returns unused permits to the lease, if their window is still the lease's.
    pub(super) fn put_back(&mut self, window: Window, permits: Permits) {
        for meter in Meter::ALL {
            if self.window.agrees(window, meter) {
                self.permits[meter as usize] += permits[meter as usize];
            }
        }
    }
}

/// A request that waits for its permits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) from: ShardIndex,
    pub(super) request: PendingId,
    pub(super) costs: Permits,
}

/// The permits granted under an app's limits, at the app's counter.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    pub(super) window: Window,
    granted: Permits,
    /// Messages of other days, in case the wall clock steps back to one of them, oldest first.
    other_days: Vec<(u64, u32)>,
    /// Shards that may hold unspent permits.
    pub(super) leased_to: Vec<ShardIndex>,
    /// Shards whose unspent permits were recalled and that have not answered.
    pub(super) recalls: usize,
    /// Requests that wait for these answers; at most one per connection.
    pub(super) waiting: VecDeque<Asked>,
}

impl RateLimit {
    /// Starts with the messages of a day that were counted before the process started.
    pub(super) fn resumed(day: u64, messages: u32) -> Self {
        let mut rate_limit = Self { window: Window { minute_ends_ms: 0, day }, ..Self::default() };
        rate_limit.granted[Meter::Messages as usize] = messages;
        rate_limit
    }

    /// Takes a request's permits, and a lease of some more for the shard that asked: the lease is smaller the less is
    /// left, so that in the end exactly the limit is granted.
    ///
    /// # Errors
    /// The meter that has too few; nothing is taken then.
    pub(super) fn take(
        &mut self,
        now: Moment,
        costs: Permits,
        limits: Permits,
        shards: ShardIndex,
    ) -> Result<Permits, Meter> {
        self.roll(now);
        let rest = |granted: u32, at: usize| limits[at].saturating_sub(granted);
        for meter in Meter::ALL {
            let at = meter as usize;
            if limits[at] > 0 && costs[at] > rest(self.granted[at], at) {
                return Err(meter);
            }
        }
        let mut lease = NONE;
        for at in 0..METERS {
            self.granted[at] = self.granted[at].saturating_add(costs[at]);
            if limits[at] > 0 && costs[at] > 0 {
                let part = rest(self.granted[at], at) / (4 * u32::from(shards));
                lease[at] = part.min(limits::LEASED_PERMITS_MAX);
                self.granted[at] += lease[at];
            }
        }
        Ok(lease)
    }

    /// Takes unspent permits back.
    pub(super) fn give_back(&mut self, now: Moment, window: Window, permits: Permits) {
        self.roll(now);
        for meter in Meter::ALL {
            let at = meter as usize;
            if self.window.agrees(window, meter) {
                self.granted[at] = self.granted[at].saturating_sub(permits[at]);
            }
        }
    }

    /// Messages of the day so far, including leased ones.
    pub(super) fn messages(&self) -> (u64, u32) {
        (self.window.day, self.granted[Meter::Messages as usize])
    }

    fn roll(&mut self, now: Moment) {
        for meter in Meter::ALL {
            if self.window.is_over(meter, now) {
                self.granted[meter as usize] = if meter == Meter::Messages { self.change_day(day_of(now)) } else { 0 };
            }
        }
        if self.window.is_over(Meter::Requests, now) {
            self.window.minute_ends_ms = now.monotonic_ms + MINUTE_MS;
        }
        self.window.day = day_of(now);
    }

    /// Saves the messages of the day that ends, and returns those of the one that begins: none, unless the wall clock
    /// stepped to a day that was counted before. A day later than tomorrow never was, so it is forgotten with the step
    /// back.
    fn change_day(&mut self, today: u64) -> u32 {
        if self.other_days.len() == DAYS_REMEMBERED_MAX {
            self.other_days.remove(0);
        }
        self.other_days.push((self.window.day, self.granted[Meter::Messages as usize]));
        let messages = self.other_days.iter().find(|(day, _)| *day == today).map_or(0, |(_, messages)| *messages);
        self.other_days.retain(|(day, _)| *day != today && *day <= today + 1);
        messages
    }
}

/// Days whose messages are remembered in addition to the current one.
const DAYS_REMEMBERED_MAX: usize = 4;
const MINUTE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::permits::DAY_MS;

    const REQUESTS: Permits = [1, 0, 0, 0, 0];
    const MESSAGES: Permits = [0, 0, 0, 0, 1];

    fn at(monotonic_ms: u64, unix_ms: u64) -> Moment {
        Moment { monotonic_ms, unix_ms }
    }

    /// R-LIM-4: a minute begins with a request; at the limit nothing more is granted until it ends.
    #[test]
    fn a_minute_begins_with_a_request() {
        let mut rate_limit = RateLimit::default();
        let limits = [3, 0, 0, 0, 0];
        for _ in 0..3 {
            assert_eq!(rate_limit.take(at(5_000, 0), REQUESTS, limits, 1), Ok(NONE));
        }
        assert_eq!(rate_limit.take(at(64_999, 0), REQUESTS, limits, 1), Err(Meter::Requests));
        assert_eq!(rate_limit.window.seconds_left(Meter::Requests, at(63_500, 0)), 2);
        assert_eq!(rate_limit.take(at(65_000, 0), REQUESTS, limits, 1), Ok(NONE));
    }

    /// R-LIM-3: a day ends at midnight of UTC, and a clock that steps back to a day continues its count.
    #[test]
    fn a_day_ends_at_midnight() {
        let limits = [0, 0, 0, 0, 2];
        let mut rate_limit = RateLimit::resumed(10, 1);
        let (late, next) = (at(0, 11 * DAY_MS - 1), at(0, 11 * DAY_MS));
        assert_eq!(rate_limit.take(late, MESSAGES, limits, 1), Ok(NONE));
        assert_eq!(rate_limit.take(late, MESSAGES, limits, 1), Err(Meter::Messages));
        assert_eq!(rate_limit.window.seconds_left(Meter::Messages, late), 1);
        assert_eq!(
            rate_limit.take(next, [0, 0, 0, 0, 3], limits, 1),
            Err(Meter::Messages),
            "more than the limit at once"
        );
        assert_eq!(rate_limit.take(next, [0, 0, 0, 0, 2], limits, 1), Ok(NONE));
        assert_eq!(rate_limit.take(late, MESSAGES, limits, 1), Err(Meter::Messages));
        assert_eq!(rate_limit.messages(), (10, 2));
        assert_eq!(rate_limit.take(next, MESSAGES, limits, 1), Err(Meter::Messages), "midnight comes once");
    }

    /// R-LIM-3: a wall clock that is briefly ahead, however often and far, uses up nothing of the current day, and
    /// nothing of it comes back; days that never were are forgotten.
    #[test]
    fn a_clock_that_was_ahead_takes_no_messages() {
        let limits = [0, 0, 0, 0, 10];
        let mut rate_limit = RateLimit::default();
        let day = |number: u64| at(0, number * DAY_MS + 5);
        assert_eq!(rate_limit.take(day(100), [0, 0, 0, 0, 4], limits, 1).map(|lease| lease[4]), Ok(1));
        for ahead in [103, 3_750, 101, 103] {
            assert!(rate_limit.take(day(ahead), [0, 0, 0, 0, 10], limits, 1).is_ok());
            assert_eq!(rate_limit.take(day(ahead), MESSAGES, limits, 1), Err(Meter::Messages));
            rate_limit.roll(day(100));
            assert_eq!(rate_limit.messages(), (100, 5));
        }
        assert_eq!(
            rate_limit.take(day(101), MESSAGES, limits, 1),
            Err(Meter::Messages),
            "tomorrow may be a step at midnight"
        );
        assert!(rate_limit.take(day(103), [0, 0, 0, 0, 10], limits, 1).is_ok());
        for past in 0..100 {
            rate_limit.roll(day(past));
        }
        assert!(rate_limit.other_days.len() <= DAYS_REMEMBERED_MAX);
        let mut lease = Lease { window: Window { minute_ends_ms: 0, day: 103 }, permits: [0, 0, 0, 0, 5] };
        assert_eq!(lease.spend(day(100), MESSAGES), MESSAGES, "a lease of another day is void");
    }

    /// R-LIM-3, R-LIM-4: with leases, and permits that are returned, exactly the limit is spent, for every limit and
    /// number of shards. Random shards spend until none gets any.
    #[test]
    fn leases_spend_exactly_the_limit() {
        for shards in [1, 2, 5] {
            for limit in [1, 2, 7, 100, 5_000] {
                let (now, limits) = (at(1, 1), [limit, 0, 0, 0, limit]);
                let mut rate_limit = RateLimit::default();
                let mut leases: Vec<Lease> = (0..shards).map(|_| Lease::default()).collect();
                let costs = [1, 0, 0, 0, 1];
                let (mut spent, mut seed) = (0, 17_u32);
                loop {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let lease = &mut leases[(seed >> 16) as usize % shards as usize];
                    let missing = lease.spend(now, costs);
                    if missing == NONE {
                        spent += 1;
                        continue;
                    }
                    lease.put_back(lease.window, std::array::from_fn(|at| costs[at] - missing[at]));
                    match rate_limit.take(now, costs, limits, shards) {
                        Ok(more) => {
                            lease.add(rate_limit.window, more);
                            spent += 1;
                        }
                        Err(_) if leases.iter().all(|lease| lease.permits == NONE) => break,
                        Err(_) => leases.iter_mut().for_each(|lease| {
                            rate_limit.give_back(now, lease.window, std::mem::take(&mut lease.permits));
                        }),
                    }
                }
                assert_eq!(spent, limit, "{shards} shards");
            }
        }
    }

    /// R-LIM-4: a lease ends with its minute, and late returns from an older one release nothing.
    #[test]
    fn leases_end_with_their_window() {
        let limits = [1_000, 0, 0, 0, 0];
        let (mut rate_limit, mut lease) = (RateLimit::default(), Lease::default());
        let more = rate_limit.take(at(0, 0), REQUESTS, limits, 1).expect("room");
        assert_eq!(more[0], 999 / 4);
        lease.add(rate_limit.window, more);
        assert_eq!(lease.spend(at(59_999, 0), REQUESTS), NONE);
        assert_eq!(lease.spend(at(60_000, 0), REQUESTS), REQUESTS);
        let old = lease.window;
        assert!(rate_limit.take(at(60_000, 0), [1_000, 0, 0, 0, 0], limits, 1).is_ok());
        rate_limit.give_back(at(60_001, 0), old, lease.permits);
        assert_eq!(rate_limit.take(at(60_001, 0), REQUESTS, limits, 1), Err(Meter::Requests));
    }
}
