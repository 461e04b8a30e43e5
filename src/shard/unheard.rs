//! Channels that nobody hears, known beyond their owner: publishes to them end at the shard that reads them.
//!
//! The owner of a channel that has neither a subscriber nor a cached event notifies the shard that publishes to it, and
//! remembers that shard. Before the owner records a first subscriber, it calls that back from each of these shards and
//! waits for their answers. So a client whose subscription succeeded (P-SUB-5) gets every event whose publish begins
//! later, whichever shard reads it. Earlier events are ordered before the subscription (P-HTTP-17).
//!
//! ```text
//! publisher's shard                      owner                          a subscriber's shard
//!   Publish  ------------------------->  nobody is there
//!   (unheard) <-----------------Accepted
//!   ... further publishes are answered at once
//!                                        <------------------- Subscribers, Join
//!   <-----------------------------Heard  the join is held
//!   HeardNoted  ---------------------->  the join is handled -----> Recorded, Joined
//! ```

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::quality::FixedState;
use smallvec::SmallVec;

use super::mail::Body;
use super::{Shard, ShardIndex};
use crate::app::AppSerial;
use crate::limits::{UNHEARD_CHANNELS_MAX, UNHEARD_KNOWN_MAX};

/// What a shard knows of other shards' channels that nobody hears, and what others know of its own.
///
/// Channels are named by their hashes, which are keyed already. Two of one hash would be called back together, and a
/// publish to one would count as unheard only while the owner says so of both.
#[derive(Default)]
pub(super) struct Unheard {
    /// Channels of other shards, as their owners said and have not called back.
    known: HashSet<u64, FixedState>,
    /// As owner: channels that other shards know as unheard.
    notified: HashMap<u64, Notified, FixedState>,
    /// Those of `notified` and some that have left it, the oldest first.
    oldest: VecDeque<u64>,
    /// When the oldest was called back for want of room, on the monotonic clock.
    replaced_ms: u64,
}

/// The shards that know that nobody hears a channel.
struct Notified {
    shards: SmallVec<[ShardIndex; 4]>,
    recall: Recall,
}

/// Whether it is being called back.
enum Recall {
    No,
    /// So many of the shards have yet to answer; these joins wait for them.
    Awaited(usize, Vec<(ShardIndex, Body)>),
}

#[cfg(test)]
impl Unheard {
    /// Channels that other shards know of.
    pub(super) fn len(&self) -> usize {
        self.notified.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notified.is_empty() && self.known.is_empty()
    }
}

impl Shard {
    /// True when nobody hears the channel for certain: there is no subscriber and no cached event. For channels of other
    /// shards only their owner's notice counts.
    pub(super) fn is_unheard(&self, app: AppSerial, name: &str, hash: u64) -> bool {
        if self.owner_of_hash(hash) == self.config.index {
            self.owned_by_name.find(hash, |&at| self.owned[at as usize].key().names(app, name, hash)).is_none()
        } else {
            self.unheard.known.contains(&hash)
        }
    }

    /// As owner: whether to notify `to` that nobody hears a channel of this hash, which has no state here. If so, the shard
    /// is remembered.
    pub(super) fn may_notify(&mut self, to: ShardIndex, app: AppSerial, hash: u64) -> bool {
        let has_namesake = self.owned_by_name.find(hash, |&at| self.owned[at as usize].key().hash == hash).is_some();
        let may_wait = || self.directory.app(app).is_none_or(|app| self.may_wait(app));
        if to == self.config.index || has_namesake || may_wait() {
            return false;
        }
        let unheard = &mut self.unheard;
        let is_full = unheard.notified.len() >= UNHEARD_CHANNELS_MAX;
        match unheard.notified.entry(hash) {
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
                unheard.oldest.push_back(hash);
                self.forget_recalled();
                true
            }
            Entry::Vacant(_) => {
                self.recall_oldest();
                false
            }
        }
    }

    /// Keeps the list of the oldest at most twice as long as what it is about.
    fn forget_recalled(&mut self) {
        let Unheard { notified, oldest, .. } = &mut self.unheard;
        if oldest.len() > 2 * UNHEARD_CHANNELS_MAX {
            let mut seen = HashSet::<u64, FixedState>::default();
            oldest.retain(|hash| notified.contains_key(hash) && seen.insert(*hash));
        }
    }

    /// Calls the oldest back, once in a millisecond at most: a channel that is published to often is soon known again.
    fn recall_oldest(&mut self) {
        if self.unheard.replaced_ms == self.now.monotonic_ms {
            return;
        }
        self.unheard.replaced_ms = self.now.monotonic_ms;
        while let Some(hash) = self.unheard.oldest.pop_front() {
            if self.unheard.notified.get(&hash).is_some_and(|notified| matches!(notified.recall, Recall::No)) {
                return self.recall(hash, Vec::new());
            }
        }
    }

    /// As owner: true when a join must wait until no shard takes the channel for unheard.
    pub(super) fn must_recall(&self, hash: u64) -> bool {
        self.unheard.notified.contains_key(&hash)
    }

    /// As owner: keeps a join until all shards that were notified have answered.
    pub(super) fn hold_until_heard(&mut self, hash: u64, from: ShardIndex, join: Body) {
        let notified = self.unheard.notified.get_mut(&hash).expect("only these are called back");
        match &mut notified.recall {
            Recall::Awaited(_, held) => held.push((from, join)),
            Recall::No => self.recall(hash, vec![(from, join)]),
        }
    }

    fn recall(&mut self, hash: u64, held: Vec<(ShardIndex, Body)>) {
        let notified = self.unheard.notified.get_mut(&hash).expect("only these are called back");
        notified.recall = Recall::Awaited(notified.shards.len(), held);
        for to in notified.shards.clone() {
            self.send(to, Body::Heard { hash });
        }
    }

    /// A channel may be heard from now on: publishes to it go to its owner again.
    pub(super) fn handle_heard(&mut self, from: ShardIndex, hash: u64) {
        self.unheard.known.remove(&hash);
        self.send(from, Body::HeardNoted { hash });
    }

    /// As owner: a shard publishes to the channel by way of its owner again. With the last one the joins go on.
    pub(super) fn own_heard_noted(&mut self, hash: u64) {
        let notified = self.unheard.notified.get_mut(&hash).expect("it stays until all have answered");
        let Recall::Awaited(awaited, _) = &mut notified.recall else { unreachable!("answers follow a question") };
        *awaited -= 1;
        if *awaited > 0 {
            return;
        }
        let notified = self.unheard.notified.remove(&hash).expect("just looked at");
        let Recall::Awaited(_, held) = notified.recall else { unreachable!("just looked at") };
        for (from, join) in held {
            self.dispatch(from, join);
        }
    }

    /// Nobody hears these channels, as their owner says. What finds no room here costs mail with every publish.
    pub(super) fn note_unheard(&mut self, hashes: &[u64]) {
        for hash in hashes {
            if self.unheard.known.len() < UNHEARD_KNOWN_MAX {
                self.unheard.known.insert(*hash);
            }
        }
    }
}
