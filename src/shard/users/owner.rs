//! A user's owner: it records on which shards the user is signed in, and notifies those that watch the user when the
//! first connection signs in and when the last one ends (P-WATCH-1).
//!
//! At most one state of a user is in flight to a shard; changes before it has answered are sent after the answer, and
//! changes that were reverted are not sent at all. So this mail is bounded by the number of watched users.

use smallvec::SmallVec;

use super::Users;
use crate::index::{OwnedIndex, ShardIndex};
use crate::shard::context::Context;
use crate::shard::keyed_slab::Keyed;
use crate::shard::mail::{Report, UserKey, UserMessage};

/// State of a user at its owner; exists while the user is signed in or watched anywhere.
pub(super) struct OwnedUser {
    key: UserKey,
    interests: SmallVec<[UserInterest; 2]>,
}

/// A shard where the user is signed in or watched.
struct UserInterest {
    shard: ShardIndex,
    report: Report,
    /// The last state sent to the shard, if it watches the user.
    notified: bool,
    /// It has not answered yet.
    awaited: bool,
}

impl Keyed for OwnedUser {
    fn hash(&self) -> u64 {
        self.key.hash
    }
}

impl Users {
    /// A shard has a different number of connections of the user than before, or has started or stopped watching the
    /// user.
    pub(super) fn record_report(&mut self, context: &mut Context, from: ShardIndex, user: UserKey, report: Report) {
        let index = self
            .find_owned(&user)
            .unwrap_or_else(|| self.owned.insert(OwnedUser { key: user.clone(), interests: SmallVec::new() }));
        let owned = &mut self.owned[index];
        owned.interest(from).report = report;
        let online = owned.is_online();
        owned.interest(from).notified = online;
        context.send(from, UserMessage::Recorded { user, online });
        self.notify_watching_shards(context, index);
        self.forget_owned_if_unused(index);
    }

    /// A shard has handled the state of the user.
    pub(super) fn handle_state_noted(&mut self, context: &mut Context, from: ShardIndex, user: &UserKey) {
        let index = self.find_owned(user).expect("a user stays while a state is in flight");
        self.owned[index].interest(from).awaited = false;
        self.notify_watching_shards(context, index);
        self.forget_owned_if_unused(index);
    }

    fn notify_watching_shards(&mut self, context: &mut Context, index: OwnedIndex) {
        let owned = &mut self.owned[index];
        let online = owned.is_online();
        for interest in &mut owned.interests {
            if interest.report.watches && !interest.awaited && interest.notified != online {
                (interest.notified, interest.awaited) = (online, true);
                context.send(interest.shard, UserMessage::State { user: owned.key.clone(), online });
            }
        }
    }

    pub(super) fn find_owned(&self, user: &UserKey) -> Option<OwnedIndex> {
        self.owned.find(user.hash, |owned| owned.key.is(user))
    }

    fn forget_owned_if_unused(&mut self, index: OwnedIndex) {
        let owned = &mut self.owned[index];
        owned.interests.retain(|interest| interest.awaited || interest.report != Report::default());
        if owned.interests.is_empty() {
            self.owned.remove(index);
        }
    }
}

impl OwnedUser {
    /// Online: at least one signed-in connection anywhere (P-WATCH-1).
    fn is_online(&self) -> bool {
        self.interests.iter().any(|interest| interest.report.connections > 0)
    }

    /// The shards with connections of the user.
    pub(super) fn shards_with_connections(&self) -> SmallVec<[ShardIndex; 4]> {
        let online = self.interests.iter().filter(|interest| interest.report.connections > 0);
        online.map(|interest| interest.shard).collect()
    }

    fn interest(&mut self, shard: ShardIndex) -> &mut UserInterest {
        let at = self.interests.iter().position(|interest| interest.shard == shard).unwrap_or_else(|| {
            self.interests.push(UserInterest { shard, report: Report::default(), notified: false, awaited: false });
            self.interests.len() - 1
        });
        &mut self.interests[at]
    }
}
