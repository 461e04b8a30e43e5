//! Unoccupied channels, known beyond their owner: publishes to them end at the shard that reads them.
//!
//! The owner of a channel that has neither a subscriber nor a cached event notifies the shard that publishes to it, and
//! remembers that shard. Before the owner records a first subscriber, it recalls that notice from each of these shards
//! and waits for their answers. So a client whose subscription succeeded (P-SUB-5) gets every event whose publish
//! begins later, whichever shard reads the request. Earlier events are ordered before the subscription (P-HTTP-17).
//!
//! ```text
//! publisher's shard                      owner                          a subscriber's shard
//!   Publish  ------------------------->  no subscriber, no cached event
//!   (unoccupied) <--------------Accepted
//!   ... further publishes are answered at once
//!                                        <------------------- Subscribers, Join
//!   <----------------------------Recall  the join is held
//!   RecallNoted  --------------------->  the join is handled -----> Recorded, Joined
//! ```

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::quality::FixedState;
use smallvec::SmallVec;

use super::Owner;
use crate::app::AppSerial;
use crate::index::ShardIndex;
use crate::limits::UNOCCUPIED_CHANNELS_MAX;
use crate::shard::context::Context;
use crate::shard::mail::{HttpMessage, OwnerMessage};
use crate::shard::quota::Quota;

/// Channels of this shard that other shards consider unoccupied.
///
/// Channels are identified by their hashes, which are keyed already. Two with the same hash are recalled together, and
/// a publish to one ends early only while both are unoccupied.
#[derive(Default)]
pub(super) struct Unoccupied {
    notified: HashMap<u64, Notified, FixedState>,
    /// The entries of `notified` and some that were removed from it, the oldest first.
    oldest: VecDeque<u64>,
    /// When the oldest was recalled for lack of space, on the monotonic clock.
    replaced_ms: u64,
}

/// The shards that consider a channel unoccupied.
struct Notified {
    shards: SmallVec<[ShardIndex; 4]>,
    recall: Recall,
}

/// Whether their notice is being recalled.
enum Recall {
    No,
    /// This many of the shards have yet to answer; these joins wait for them.
    Awaited(usize, Vec<(ShardIndex, OwnerMessage)>),
}

impl Owner {
    /// Whether to notify `to` that the channel with this hash, which has no state here, is unoccupied. If so, the shard
    /// is recorded.
    pub(super) fn may_notify(
        &mut self,
        context: &mut Context,
        quota: &Quota,
        to: ShardIndex,
        app: AppSerial,
        hash: u64,
    ) -> bool {
        let has_namesake = self.channels.find(hash, |owned| owned.key().hash == hash).is_some();
        let may_wait = || context.directory.app(app).is_none_or(|app| quota.may_wait(app));
        if to == context.config.index || has_namesake || may_wait() {
            return false;
        }
        let unoccupied = &mut self.unoccupied;
        let is_full = unoccupied.notified.len() >= UNOCCUPIED_CHANNELS_MAX;
        match unoccupied.notified.entry(hash) {
            Entry::Occupied(mut entry) => {
                let notified = entry.get_mut();
                if matches!(notified.recall, Recall::Awaited(..)) {
                    return false;
                }
                if !notified.shards.contains(&to) {
                    notified.shards.push(to);
                }
                true
            }
            Entry::Vacant(entry) if !is_full => {
                entry.insert(Notified { shards: SmallVec::from_slice(&[to]), recall: Recall::No });
                unoccupied.oldest.push_back(hash);
                self.forget_recalled();
                true
            }
            Entry::Vacant(_) => {
                self.recall_oldest(context);
                false
            }
        }
    }

    /// Keeps the list of the oldest at most twice as long as the number of its valid entries.
    fn forget_recalled(&mut self) {
        let Unoccupied { notified, oldest, .. } = &mut self.unoccupied;
        if oldest.len() > 2 * UNOCCUPIED_CHANNELS_MAX {
            let mut seen = HashSet::<u64, FixedState>::default();
            oldest.retain(|hash| notified.contains_key(hash) && seen.insert(*hash));
        }
    }

    /// Recalls the oldest, at most once in a millisecond: for a channel that is published to often, the notice is soon
    /// sent again.
    fn recall_oldest(&mut self, context: &mut Context) {
        if self.unoccupied.replaced_ms == context.now.monotonic_ms {
            return;
        }
        self.unoccupied.replaced_ms = context.now.monotonic_ms;
        while let Some(hash) = self.unoccupied.oldest.pop_front() {
            if self.unoccupied.notified.get(&hash).is_some_and(|notified| matches!(notified.recall, Recall::No)) {
                return self.recall(context, hash, Vec::new());
            }
        }
    }

    /// True when a join must wait until no shard considers the channel unoccupied.
    pub(super) fn must_recall(&self, hash: u64) -> bool {
        self.unoccupied.notified.contains_key(&hash)
    }

    /// Keeps a join until all shards that were notified have answered.
    pub(super) fn hold_until_recalled(
        &mut self,
        context: &mut Context,
        hash: u64,
        from: ShardIndex,
        join: OwnerMessage,
    ) {
        let notified = self.unoccupied.notified.get_mut(&hash).expect("only these are recalled");
        match &mut notified.recall {
            Recall::Awaited(_, held) => held.push((from, join)),
            Recall::No => self.recall(context, hash, vec![(from, join)]),
        }
    }

    fn recall(&mut self, context: &mut Context, hash: u64, held: Vec<(ShardIndex, OwnerMessage)>) {
        let notified = self.unoccupied.notified.get_mut(&hash).expect("only these are recalled");
        notified.recall = Recall::Awaited(notified.shards.len(), held);
        for to in notified.shards.clone() {
            context.send(to, HttpMessage::Recall { hash });
        }
    }

    /// A shard sends its publishes to the channel to its owner again. With the last shard the held joins are handled.
    pub(super) fn handle_recall_noted(&mut self, context: &mut Context, quota: &Quota, hash: u64) {
        let notified = self.unoccupied.notified.get_mut(&hash).expect("it stays until all have answered");
        let Recall::Awaited(awaited, _) = &mut notified.recall else { unreachable!("answers follow a question") };
        *awaited -= 1;
        if *awaited > 0 {
            return;
        }
        let notified = self.unoccupied.notified.remove(&hash).expect("just looked at");
        let Recall::Awaited(_, held) = notified.recall else { unreachable!("just looked at") };
        for (from, join) in held {
            self.handle(context, quota, from, join);
        }
    }

    /// Channels that other shards were notified of.
    #[cfg(test)]
    pub(in crate::shard) fn notified_count(&self) -> usize {
        self.unoccupied.notified.len()
    }
}
