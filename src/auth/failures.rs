//! Brake on guessing credentials: failures per address and minute (threat T6).

use std::net::IpAddr;

use crate::moment::Moment;

/// Failures of recent addresses; bounded, the oldest forgotten first. IPv6 counts by /64.
#[derive(Debug, Default)]
pub struct AuthFailures {
    _todo: (),
}

impl AuthFailures {
    /// Counts one failure. True when the address is over the bound and gets 429 instead of 401.
    pub fn count(&mut self, _now: Moment, _address: IpAddr) -> bool {
        todo!()
    }
}
