//! How often a socket may have channels judged by an authorizer (R-AUTHEP-8, threat T39): anyone with the public key of
//! an app can open sockets, so each may cause only so many requests to the backend.

use hashbrown::HashMap;

use crate::connection::ConnectionKey;
use crate::limits::{SOCKET_AUTH_BURST, SOCKET_AUTH_INTERVAL_MS};

/// When each socket that asked recently may ask at full rate again, in ms. Entries in the past mean the same as none.
#[derive(Default)]
pub(super) struct SocketRates {
    free_from_ms: HashMap<ConnectionKey, u64, foldhash::quality::FixedState>,
    /// Entries in the past are removed when the table has grown to this.
    sweep_at: usize,
}

/// The table is not swept below this size.
const SWEEP_AT_LEAST: usize = 1024;

impl SocketRates {
    /// Takes this many channels, all or none.
    ///
    /// # Errors
    /// The seconds until they can be taken.
    pub(super) fn take(&mut self, socket: ConnectionKey, channels: u64, now_ms: u64) -> Result<(), u32> {
        if channels == 0 {
            return Ok(());
        }
        if self.free_from_ms.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.free_from_ms.retain(|_, free_from_ms| *free_from_ms > now_ms);
            self.sweep_at = self.free_from_ms.len() * 2;
        }
        let begun_ms = self.free_from_ms.get(&socket).copied().unwrap_or(0).max(now_ms);
        let free_from_ms = begun_ms + channels * SOCKET_AUTH_INTERVAL_MS;
        let excess_ms = (free_from_ms - now_ms).saturating_sub(SOCKET_AUTH_BURST * SOCKET_AUTH_INTERVAL_MS);
        if excess_ms > 0 {
            return Err(u32::try_from(excess_ms.div_ceil(1_000)).unwrap_or(u32::MAX));
        }
        self.free_from_ms.insert(socket, free_from_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: 1 }
    }

    /// R-AUTHEP-8: 200 channels at once and not one more, then 10 a second; a refused request costs nothing.
    #[test]
    fn a_burst_then_a_rate() {
        let mut rates = SocketRates::default();
        let now_ms = 1_000_000;
        assert_eq!(rates.take(socket(1), 100, now_ms), Ok(()));
        assert_eq!(rates.take(socket(1), 100, now_ms), Ok(()));
        assert_eq!(rates.take(socket(1), 1, now_ms), Err(1));
        assert_eq!(rates.take(socket(1), 100, now_ms), Err(10));
        assert_eq!(rates.take(socket(2), 200, now_ms), Ok(()), "another socket");
        assert_eq!(rates.take(socket(1), 1, now_ms + 99), Err(1));
        assert_eq!(rates.take(socket(1), 1, now_ms + 100), Ok(()));
        assert_eq!(rates.take(socket(1), 10, now_ms + 1_100), Ok(()));
        assert_eq!(rates.take(socket(1), 200, now_ms + 30_000), Ok(()));
        assert_eq!(rates.take(socket(1), 201, now_ms + 90_000), Err(1), "more than fits at all");
    }

    /// Threat T39: sockets that no longer ask leave nothing behind.
    #[test]
    fn the_table_is_swept() {
        let mut rates = SocketRates::default();
        for slot in 0..100_000 {
            assert_eq!(rates.take(socket(slot), 1, u64::from(slot) * 10), Ok(()));
        }
        assert!(rates.free_from_ms.len() <= 2 * SWEEP_AT_LEAST, "{}", rates.free_from_ms.len());
    }
}
