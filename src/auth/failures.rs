//! Brake on guessing credentials: failures per address and minute (threat T6).
//!
//! It only ever slows down failures: whoever holds a valid credential is never asked here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::limits::{AUTH_FAILURE_ADDRESSES_MAX, AUTH_FAILURES_PER_MINUTE};
use crate::moment::Moment;

/// Failures of recent addresses; bounded, the oldest forgotten first. IPv6 counts by /64.
///
/// Trees instead of hash maps: peers choose the keys, and a tree has no collisions to aim at.
#[derive(Debug, Default)]
pub struct AuthFailures {
    addresses: BTreeMap<Source, Bucket>,
    /// Every source by the number of its last failure, the oldest first.
    by_age: BTreeMap<u64, Source>,
    /// Failures counted so far; numbers the failures.
    failures: u64,
}

/// Who is counted together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    V4(u32),
    /// The first 64 bits: what one subscriber is given.
    V6(u64),
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When the bucket will be empty again, on the monotonic clock. Each failure adds its share of a minute.
    empty_at_ms: u64,
    /// Number of the last failure.
    last_failure: u64,
}

impl AuthFailures {
    /// Counts one failure. True when the address is over the bound and gets 429 instead of 401.
    pub fn count(&mut self, now: Moment, address: IpAddr) -> bool {
        self.failures += 1;
        let source = Source::of(address);
        let before = self.addresses.get(&source).copied();
        if let Some(bucket) = before {
            self.by_age.remove(&bucket.last_failure);
        } else if self.addresses.len() == AUTH_FAILURE_ADDRESSES_MAX {
            self.forget_oldest();
        }
        let filled_until_ms = before.map_or(0, |bucket| bucket.empty_at_ms).max(now.monotonic_ms);
        let empty_at_ms = filled_until_ms.saturating_add(FAILURE_MS);
        let over = empty_at_ms - now.monotonic_ms > MINUTE_MS;
        // A failure beyond the bound adds nothing, so that the address is heard again as soon as a share is free.
        let empty_at_ms = if over { filled_until_ms } else { empty_at_ms };
        self.addresses.insert(source, Bucket { empty_at_ms, last_failure: self.failures });
        self.by_age.insert(self.failures, source);
        over
    }

    fn forget_oldest(&mut self) {
        if let Some((_, source)) = self.by_age.pop_first() {
            self.addresses.remove(&source);
        }
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

const MINUTE_MS: u64 = 60_000;
/// The share of a minute that one failure takes.
const FAILURE_MS: u64 = MINUTE_MS / AUTH_FAILURES_PER_MINUTE as u64;

const _: () =
    assert!(FAILURE_MS > 0 && FAILURE_MS * AUTH_FAILURES_PER_MINUTE as u64 == MINUTE_MS, "shares are whole ms");
const _: () = assert!(AUTH_FAILURE_ADDRESSES_MAX > 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ms: u64) -> Moment {
        Moment { monotonic_ms, unix_ms: 0 }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Threat T6: of 10,000 failures at once, 100 get 401 and the rest 429; the clock's start does not matter.
    #[test]
    fn bound_is_100_failures() {
        for start_ms in [0, 1, 1 << 40] {
            let mut failures = AuthFailures::default();
            let over = (0..10_000).filter(|_| failures.count(at(start_ms), address("192.0.2.1"))).count();
            assert_eq!(over, 9_900);
        }
    }

    /// Threat T6: one failure is forgiven every 600 ms, all of them after a minute, also while an attack goes on.
    #[test]
    fn failures_are_forgiven_with_time() {
        let mut failures = AuthFailures::default();
        let host = address("192.0.2.1");
        assert_eq!((0..500).filter(|_| !failures.count(at(0), host)).count(), 100);
        assert!(failures.count(at(599), host));
        assert!(!failures.count(at(600), host));
        assert!(failures.count(at(600), host));
        let answered = (601..=60_600).filter(|ms| !failures.count(at(*ms), host)).count();
        assert_eq!(answered, 100, "the same rate under a steady attack");
        assert_eq!((0..200).filter(|_| !failures.count(at(200_000), host)).count(), 100);
    }

    /// Threat T6: addresses do not share a bucket, but one IPv6 /64 does, and IPv4-mapped IPv6 counts as IPv4.
    #[test]
    fn addresses_are_told_apart_by_who_owns_them() {
        let mut failures = AuthFailures::default();
        for _ in 0..100 {
            assert!(!failures.count(at(0), address("192.0.2.1")));
            assert!(!failures.count(at(0), address("2001:db8:0:1::1")));
        }
        assert!(failures.count(at(0), address("::ffff:192.0.2.1")));
        assert!(failures.count(at(0), address("2001:db8:0:1:ffff:ffff:ffff:ffff")));
        assert!(!failures.count(at(0), address("192.0.2.2")));
        assert!(!failures.count(at(0), address("2001:db8:0:2::1")));
        assert!(!failures.count(at(0), address("::c000:201")), "not mapped: an address of its own");
    }

    /// Threat T6: the table is bounded; the address that failed longest ago is forgotten, a busy one is kept.
    #[test]
    fn table_is_bounded_and_forgets_the_oldest() {
        let mut failures = AuthFailures::default();
        let busy = address("192.0.2.1");
        let quiet = address("192.0.2.2");
        for _ in 0..100 {
            failures.count(at(0), quiet);
            failures.count(at(0), busy);
        }
        for number in 0..2 * AUTH_FAILURE_ADDRESSES_MAX as u32 {
            failures.count(at(0), IpAddr::V4((0x0a00_0000 + number).into()));
            if number % 1_000 == 0 {
                assert!(failures.count(at(0), busy));
            }
        }
        assert_eq!(failures.addresses.len(), AUTH_FAILURE_ADDRESSES_MAX);
        assert_eq!(failures.by_age.len(), AUTH_FAILURE_ADDRESSES_MAX);
        assert!(failures.count(at(0), busy));
        assert!(!failures.count(at(0), quiet), "forgotten, so it starts anew");
    }
}
