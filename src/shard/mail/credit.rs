//! Credit for event mail to one other shard, and how apps share it (P-STAT-9).
//!
//! While most of it is left no check is made. When less than half would be left, an app may have no more in flight than
//! a multiple of the rest: so an app alone gets three quarters, several get equal parts, and some is left for one that
//! has nothing in flight. Mail arrives and is handled in the order sent, so returned credit is that of the oldest mail.

use std::collections::{HashMap, VecDeque};

use foldhash::quality::FixedState;

use crate::limits;

/// Credit with one shard.
#[derive(Debug)]
pub(in crate::shard) struct Credit {
    left: usize,
    /// Mail in flight, the oldest first, by app; neighbours of one app are one entry.
    in_flight: VecDeque<(u32, usize)>,
    /// The same as sums, kept only while little is left. Serials are assigned by the store, so the map needs no secret.
    by_app: Option<HashMap<u32, usize, FixedState>>,
}

impl Credit {
    pub(super) fn new() -> Self {
        Self { left: limits::EVENT_MAIL_BYTES_MAX, in_flight: VecDeque::new(), by_app: None }
    }

    /// All of it is in use.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { left: 0, in_flight: VecDeque::new(), by_app: None }
    }

    /// Whether an app may send mail of this cost now.
    pub(super) fn covers(&self, app: u32, cost: usize) -> bool {
        let Some(left) = self.left.checked_sub(cost) else { return false };
        if left >= SHARED_BELOW {
            return true;
        }
        let own = self.in_flight_of(app);
        own == 0 || own + cost <= left * limits::APP_SHARE_OF_FREE
    }

    /// Takes credit if it covers the cost.
    pub(super) fn pay(&mut self, app: u32, cost: usize) -> bool {
        if !self.covers(app, cost) {
            return false;
        }
        self.left -= cost;
        match self.in_flight.back_mut() {
            Some((last, bytes)) if *last == app => *bytes += cost,
            _ => self.in_flight.push_back((app, cost)),
        }
        if let Some(by_app) = &mut self.by_app {
            *by_app.entry(app).or_default() += cost;
        } else if self.left < SHARED_BELOW {
            let mut by_app = HashMap::default();
            for (app, bytes) in &self.in_flight {
                *by_app.entry(*app).or_default() += bytes;
            }
            self.by_app = Some(by_app);
        }
        true
    }

    /// The receiver has handled mail of this cost.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.left += bytes;
        let mut bytes = bytes;
        while bytes > 0 {
            let (app, in_flight) = self.in_flight.front_mut().expect("only what was sent comes back");
            let part = bytes.min(*in_flight);
            bytes -= part;
            *in_flight -= part;
            if let Some(own) = self.by_app.as_mut().and_then(|by_app| by_app.get_mut(app)) {
                *own -= part;
            }
            if *in_flight == 0 {
                self.in_flight.pop_front();
            }
        }
        if self.left >= SHARED_BELOW {
            self.by_app = None;
        }
    }

    fn in_flight_of(&self, app: u32) -> usize {
        match &self.by_app {
            Some(by_app) => by_app.get(&app).copied().unwrap_or(0),
            None => self.in_flight.iter().filter(|(of, _)| *of == app).map(|(_, bytes)| bytes).sum(),
        }
    }
}

/// Below this it is shared.
const SHARED_BELOW: usize = limits::EVENT_MAIL_BYTES_MAX / 2;

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    /// P-STAT-9: an app alone may have three quarters in flight, and another one still sends.
    #[test]
    fn one_app_leaves_credit_to_others() {
        let mut credit = Credit::new();
        let sent = (0..).take_while(|_| credit.pay(1, KIB)).count();
        assert_eq!(sent * KIB, limits::EVENT_MAIL_BYTES_MAX / 4 * 3);
        let other = (0..).take_while(|_| credit.pay(2, KIB)).count();
        assert!(other * KIB >= limits::EVENT_MAIL_BYTES_MAX / 8, "{other} KiB");
        assert!(credit.pay(3, KIB) && !credit.pay(1, KIB));
    }

    /// P-STAT-9: returned credit is that of the oldest mail, also in parts of one mail; in the end nothing is left
    /// over.
    #[test]
    fn credit_comes_back_to_the_app_that_used_it() {
        let mut credit = Credit::new();
        while credit.pay(1, 3 * KIB) {}
        let in_flight = credit.in_flight_of(1);
        assert!(credit.pay(2, 100 * KIB));
        let mut returned = 0;
        while returned < in_flight {
            let part = (KIB * KIB).min(in_flight - returned);
            credit.give_back(part);
            returned += part;
            assert_eq!(credit.in_flight_of(2), 100 * KIB);
        }
        credit.give_back(limits::EVENT_MAIL_BYTES_MAX - credit.left);
        assert_eq!((credit.left, credit.in_flight.len()), (limits::EVENT_MAIL_BYTES_MAX, 0));
        assert!(credit.by_app.is_none());
    }

    /// The sums match the queue at any time. Method: apps in turn with costs of all sizes, against a plain sum.
    #[test]
    fn sums_are_right() {
        let mut credit = Credit::new();
        let mut number = 1_u32;
        for step in 0..20_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (app, cost) = (number >> 30, (number >> 8) as usize % (64 * KIB) + 1);
            if !number.is_multiple_of(3) || credit.left == limits::EVENT_MAIL_BYTES_MAX {
                credit.pay(app, cost);
            } else {
                credit.give_back(cost.min(limits::EVENT_MAIL_BYTES_MAX - credit.left));
            }
            let plain =
                |app| credit.in_flight.iter().filter(|(of, _)| *of == app).map(|(_, bytes)| bytes).sum::<usize>();
            assert!((0..4).all(|app| credit.in_flight_of(app) == plain(app)), "step {step}");
            assert_eq!(credit.left + (0..4).map(plain).sum::<usize>(), limits::EVENT_MAIL_BYTES_MAX);
        }
    }
}
