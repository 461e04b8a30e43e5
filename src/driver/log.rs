//! Hands the lines about refusals to the log.

use crate::label::Label;
use crate::metrics::refusal_log::LogLine;
use crate::shard::ShardIndex;

/// Writes one line. What it says was made safe when it was made.
pub fn write(shard: ShardIndex, line: &LogLine) {
    let LogLine { what, reason, code, app, peer, socket_id, channel, key, scope, suppressed } = line;
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
        shard,
        "{}",
        what.label()
    );
}
