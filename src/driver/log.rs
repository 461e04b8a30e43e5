//! Writes the log lines about refusals, and limits those about paused accepting.

use std::fmt::Display;

use crate::auth::explain::RefusalId;
use crate::label::Label;
use crate::limits::{ACCEPT_REST_LOG_MS, ACCEPT_REST_MS};
use crate::metrics::refusal_log::LogLine;
use crate::moment::Moment;
use crate::shard::ShardIndex;

/// Writes one line, with the id by which its refusal can be explained. Its contents were sanitized when it was created.
pub fn write(shard: ShardIndex, line: &LogLine, id: Option<RefusalId>) {
    let LogLine { what, reason, code, app, peer, socket_id, channel, key, scope, suppressed, .. } = line;
    tracing::info!(
        target: "relay::refused",
        reason,
        code,
        app,
        peer = peer.map(tracing::field::display),
        socket_id,
        channel,
        key,
        scope,
        suppressed = (*suppressed > 0).then_some(*suppressed),
        refusal_id = id.map(tracing::field::display),
        shard,
        "{}",
        what.label()
    );
}

/// Log lines of one shard about paused accepting. At the descriptor limit, accepting pauses ten times a second for as
/// long as that lasts, so one line is written at once and then one every [`ACCEPT_REST_LOG_MS`] (threat T15).
#[derive(Debug, Default)]
pub struct RestLog {
    next_ms: u64,
    suppressed: u64,
}

impl RestLog {
    /// Writes a line unless one was written recently.
    pub fn note(&mut self, now: Moment, doing: &str, error: &dyn Display) {
        if let Some(suppressed) = self.take_due(now.monotonic_ms) {
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::warn!(%error, suppressed, "{doing} failed; accepting pauses for {ACCEPT_REST_MS} ms");
        }
    }

    /// How many lines were suppressed since the last one, if a line is due.
    fn take_due(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.next_ms {
            self.suppressed += 1;
            return None;
        }
        self.next_ms = now_ms + ACCEPT_REST_LOG_MS;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T15: an hour at the descriptor limit is a line every ten seconds, and each line reports how many were
    /// suppressed.
    #[test]
    fn lines_about_rests_are_bounded() {
        let mut log = RestLog::default();
        let written: Vec<u64> = (0..36_000).filter_map(|rest| log.take_due(5 + rest * ACCEPT_REST_MS)).collect();
        assert_eq!(written.len(), 360);
        assert_eq!(written[0], 0);
        assert!(written[1..].iter().all(|suppressed| *suppressed == ACCEPT_REST_LOG_MS / ACCEPT_REST_MS - 1));
    }
}
