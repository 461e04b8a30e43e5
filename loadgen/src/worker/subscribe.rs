//! Sends the subscriptions that are due on the connections of a worker.

use super::connections::{Connections, SendOutcome};
use super::shared::Shared;
use crate::clock::now_ns;

/// Sends what is due, as far as the pipelines of the subscribers allow.
pub(crate) fn run_schedule(connections: &mut Connections, shared: &mut Shared) {
    let now = now_ns();
    shared.subscriptions.take_moments(now, &mut shared.recorder);
    while let Some((key, texts, begun)) = shared.subscriptions.next_messages(now, &shared.signer) {
        shared.counters.sent += begun;
        if connections.send_texts(key, &texts, shared) == SendOutcome::Gone {
            shared.lose_subscriptions(key.1);
        }
    }
    shared.subscriptions.end_without_room();
}
