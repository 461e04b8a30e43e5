//! Rate limit for guessing credentials: failures per address and minute (threat T6).
//!
//! It only slows down failures: a request with a valid credential is never checked here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::limits::{AUTH_FAILURE_ADDRESSES_MAX, AUTH_FAILURES_PER_MINUTE_SETTING_MAX};
use crate::moment::Moment;

/// Failures of recent addresses; bounded, the oldest are dropped first. IPv6 counts by /64.
///
/// Trees instead of hash maps: peers choose the keys, and a tree has no collisions to exploit.
#[derive(Debug)]
pub struct AuthFailures {
    /// The share of a minute that one failure takes, in ns.
    share_ns: u64,
    addresses: BTreeMap<Source, Bucket>,
    /// Every source, keyed by the number of its last failure, the oldest first.
    by_age: BTreeMap<u64, Source>,
    /// Failures counted so far; numbers the failures.
    failures: u64,
}

/// Addresses that are counted together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Source {
    V4(u32),
    /// The first 64 bits: the prefix that one subscriber is assigned.
    V6(u64),
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When the bucket will be empty again, on the monotonic clock in ns. Each failure adds its share of a minute.
    empty_at_ns: u64,
    /// Number of the last failure.
    last_failure: u64,
}

impl AuthFailures {
    /// Allows this many failures per address and minute.
    pub fn new(per_minute: u32) -> Self {
        let share_ns = MINUTE_NS / u64::from(per_minute.max(1));
        Self { share_ns, addresses: BTreeMap::new(), by_age: BTreeMap::new(), failures: 0 }
    }

    /// Counts one failure. True when the address is over the limit and gets 429 instead of 401.
    pub fn count(&mut self, now: Moment, address: IpAddr) -> bool {
        self.failures += 1;
        let source = Source::of(address);
        let before = self.addresses.get(&source).copied();
        if let Some(bucket) = before {
            self.by_age.remove(&bucket.last_failure);
        } else if self.addresses.len() == AUTH_FAILURE_ADDRESSES_MAX {
            self.forget_oldest();
        }
        let now_ns = now.monotonic_ms * 1_000_000;
        let filled_until_ns = before.map_or(0, |bucket| bucket.empty_at_ns).max(now_ns);
        let empty_at_ns = filled_until_ns.saturating_add(self.share_ns);
        let over = empty_at_ns - now_ns > MINUTE_NS;
        // A failure beyond the limit adds nothing, so that the address gets 401 again as soon as a share is free.
        let empty_at_ns = if over { filled_until_ns } else { empty_at_ns };
        self.addresses.insert(source, Bucket { empty_at_ns, last_failure: self.failures });
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

/// Fine enough that every limit is exact: the shares fall short of a minute by less than one share.
const MINUTE_NS: u64 = 60_000_000_000;

const _: () =
    assert!(MINUTE_NS / AUTH_FAILURES_PER_MINUTE_SETTING_MAX as u64 > AUTH_FAILURES_PER_MINUTE_SETTING_MAX as u64);
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

    /// Threat T6: of 10,000 failures at once, 100 get 401 and the rest 429; the start of the clock does not matter.
    #[test]
    fn bound_is_100_failures() {
        for start_ms in [0, 1, 1 << 40] {
            let mut failures = AuthFailures::new(100);
            let over = (0..10_000).filter(|_| failures.count(at(start_ms), address("192.0.2.1"))).count();
            assert_eq!(over, 9_900);
        }
    }

    /// Threat T6: one failure is forgiven every 600 ms, all of them after a minute, also during an ongoing attack.
    #[test]
    fn failures_are_forgiven_with_time() {
        let mut failures = AuthFailures::new(100);
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
        let mut failures = AuthFailures::new(100);
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

    /// Threat T6: the table is bounded; the address that failed longest ago is dropped, a busy one is kept.
    #[test]
    fn table_is_bounded_and_forgets_the_oldest() {
        let mut failures = AuthFailures::new(100);
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

    /// Threat T6: every limit that an operator may set is exact.
    #[test]
    fn other_bounds_are_exact() {
        for per_minute in [1, 7, 99, 101, 9_999, AUTH_FAILURES_PER_MINUTE_SETTING_MAX] {
            let mut failures = AuthFailures::new(per_minute);
            let passed = (0..20_000).filter(|_| !failures.count(at(1 << 40), address("192.0.2.1"))).count();
            assert_eq!(passed, per_minute as usize);
        }
    }
}
