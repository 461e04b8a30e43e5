//! Asks a shard for replays, and passes its answers back to the calls that wait for them (R-REPLAY-1).

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::fault::Fault;
use crate::api::replay::Replay;
use crate::driver::mailbox::Mailbox;
use crate::limits::ADMIN_REPLAY_MS;
use crate::shard::{Mail, ReplayCall, ReplayOutcome, ShardIndex};

/// The way to the shards.
pub struct Replayer {
    mailboxes: Arc<[Mailbox<Mail>]>,
    calls: Mutex<Calls>,
}

/// The calls that wait. There are never more than requests in flight.
#[derive(Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, SyncSender<ReplayOutcome>>,
}

/// Any shard can publish to any channel.
const SHARD: ShardIndex = 0;

impl Replayer {
    /// With the mailboxes of all shards.
    pub fn new(mailboxes: Arc<[Mailbox<Mail>]>) -> Self {
        Self { mailboxes, calls: Mutex::default() }
    }

    /// Publishes kept events of an app again, and waits until they are accepted.
    ///
    /// # Errors
    /// The refusal of the shard; 503 if it has no room for the call, or has not answered in time.
    pub(super) fn replay(&self, app: &str, replay: Replay) -> Result<Value, Fault> {
        let (sender, answer) = sync_channel(1);
        let id = {
            let mut calls = self.calls();
            calls.last += 1;
            let id = calls.last;
            calls.waiting.insert(id, sender);
            id
        };
        let mailbox = &self.mailboxes[usize::from(SHARD)];
        if mailbox.push(SHARD, Mail::replay(ReplayCall { id, app: app.into(), replay })).is_err() {
            self.calls().waiting.remove(&id);
            return Err(Fault::unavailable("The server is overloaded, nothing was published: try again."));
        }
        mailbox.wake();
        match answer.recv_timeout(Duration::from_millis(ADMIN_REPLAY_MS)) {
            Ok(Ok(body)) => Ok(serde_json::from_slice(&body).expect("a shard answers with JSON")),
            Ok(Err(refusal)) => Err((*refusal).into()),
            Err(_) => {
                self.calls().waiting.remove(&id);
                Err(Fault::unavailable("The server did not answer in time; the events may have been published."))
            }
        }
    }

    /// A shard has answered a call.
    pub fn handle_answer(&self, id: u64, outcome: ReplayOutcome) {
        // A call that no longer waits was answered 503.
        if let Some(waiting) = self.calls().waiting.remove(&id) {
            let _ = waiting.try_send(outcome);
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
