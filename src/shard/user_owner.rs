//! What a user's owner does: it knows on which shards the user is signed in, and tells those that watch the user when the
//! first connection signs in and when the last one ends (P-WATCH-1).
//!
//! A shard is told at most one state of a user at a time; what changes before it has answered is told then, and what was
//! changed back is not told at all. So this mail is bounded by what is watched.

use smallvec::SmallVec;

use super::mail::{Body, UserKey};
use super::users::Report;
use super::{Shard, ShardIndex};

/// State of a user with its owner; exists while the user is signed in or watched anywhere.
pub(super) struct OwnedUser {
    key: UserKey,
    interests: SmallVec<[UserInterest; 2]>,
}

/// A shard where the user is signed in or watched.
struct UserInterest {
    shard: ShardIndex,
    report: Report,
    /// What the shard was told last, if it watches the user.
    told: bool,
    /// It has not answered yet.
    telling: bool,
}

impl Shard {
    /// A shard has other connections of the user than before, or watches the user or no longer.
    pub(super) fn own_user_report(&mut self, from: ShardIndex, user: UserKey, report: Report) {
        let index = self.owned_user_index(&user);
        let owned = &mut self.users.owned[index];
        owned.interest(from).report = report;
        let online = owned.is_online();
        owned.interest(from).told = online;
        self.send(from, Body::UserRecorded { user, online });
        self.tell_watching_shards(index);
        self.forget_owned_user_if_unused(index);
    }

    /// A shard has handled what it was told of the user.
    pub(super) fn own_user_told(&mut self, from: ShardIndex, user: &UserKey) {
        let index = self.find_owned_user(user).expect("a user stays while a shard is being told of it");
        self.users.owned[index].interest(from).telling = false;
        self.tell_watching_shards(index);
        self.forget_owned_user_if_unused(index);
    }

    /// The shards with connections of the user.
    pub(super) fn shards_of_user(&self, user: &UserKey) -> SmallVec<[ShardIndex; 4]> {
        let Some(index) = self.find_owned_user(user) else { return SmallVec::new() };
        let interests = &self.users.owned[index].interests;
        interests.iter().filter(|interest| interest.report.connections > 0).map(|interest| interest.shard).collect()
    }

    fn tell_watching_shards(&mut self, index: usize) {
        let online = self.users.owned[index].is_online();
        for at in 0..self.users.owned[index].interests.len() {
            let owned = &mut self.users.owned[index];
            let interest = &mut owned.interests[at];
            if !interest.report.watches || interest.telling || interest.told == online {
                continue;
            }
            (interest.told, interest.telling) = (online, true);
            let (to, user) = (interest.shard, owned.key.clone());
            self.send(to, Body::UserState { user, online });
        }
    }

    fn find_owned_user(&self, user: &UserKey) -> Option<usize> {
        let found = self.users.owned_by_id.find(user.hash, |&at| self.users.owned[at as usize].key.is(user));
        found.map(|&at| at as usize)
    }

    fn owned_user_index(&mut self, user: &UserKey) -> usize {
        if let Some(index) = self.find_owned_user(user) {
            return index;
        }
        let index = self.users.owned.insert(OwnedUser { key: user.clone(), interests: SmallVec::new() });
        let owned = &self.users.owned;
        self.users.owned_by_id.insert_unique(user.hash, index as u32, |&at| owned[at as usize].key.hash);
        index
    }

    fn forget_owned_user_if_unused(&mut self, index: usize) {
        let owned = &mut self.users.owned[index];
        owned.interests.retain(|interest| interest.telling || interest.report != Report::default());
        if owned.interests.is_empty() {
            let hash = owned.key.hash;
            let entry = self.users.owned_by_id.find_entry(hash, |&at| at as usize == index);
            entry.expect("every owned user is found by its id").remove();
            self.users.owned.remove(index);
        }
    }
}

impl OwnedUser {
    /// Online: at least one signed-in connection anywhere (P-WATCH-1).
    fn is_online(&self) -> bool {
        self.interests.iter().any(|interest| interest.report.connections > 0)
    }

    fn interest(&mut self, shard: ShardIndex) -> &mut UserInterest {
        let at = self.interests.iter().position(|interest| interest.shard == shard).unwrap_or_else(|| {
            self.interests.push(UserInterest { shard, report: Report::default(), told: false, telling: false });
            self.interests.len() - 1
        });
        &mut self.interests[at]
    }
}
