//! Watchlists (P-WATCH-1, P-LIM-8): a connection that signs in is told once who of its list is there, and later who
//! comes and goes. What changes in one turn reaches a connection as one frame.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::deliver::text_frame;
use super::mail::{Body, UserKey};
use super::users::Known;
use super::{Shard, ShardIndex};
use crate::app::AppSerial;
use crate::connection::outbox::FrameId;
use crate::limits;
use crate::protocol::server_event;

/// What came of a watchlist.
#[derive(Default)]
pub(super) struct Watched {
    /// Indices of the users that are watched now.
    pub(super) users: Vec<u32>,
    /// Of how many of them it is not known yet whether they are there.
    pub(super) unknown: u32,
    /// What the client is told of the others, with code 4302.
    pub(super) refused: Option<String>,
}

/// What the users that a shard knows, and who watches them, cost of its memory, in bytes.
#[derive(Debug, Default)]
pub(super) struct WatchCosts {
    total: usize,
    by_app: BTreeMap<AppSerial, usize>,
}

impl WatchCosts {
    pub(super) fn add(&mut self, app: AppSerial, bytes: usize) {
        self.total += bytes;
        *self.by_app.entry(app).or_default() += bytes;
    }

    pub(super) fn remove(&mut self, app: AppSerial, bytes: usize) {
        self.total -= bytes;
        let own = self.by_app.get_mut(&app).expect("what is removed was added");
        *own -= bytes;
        if *own == 0 {
            self.by_app.remove(&app);
        }
    }

    /// Whether watchlists of the app are cut: an app may use a multiple of what is free (P-STAT-9).
    fn is_full(&self, app: AppSerial) -> bool {
        let own = self.by_app.get(&app).copied().unwrap_or(0);
        own > limits::WATCH_BYTES_MAX.saturating_sub(self.total) * limits::APP_SHARE_OF_FREE
    }
}

impl Shard {
    /// Has a connection watch the users of a list, as far as the bounds allow.
    pub(super) fn watch(&mut self, slot: u32, app: AppSerial, watchlist: &[Cow<'_, str>]) -> Watched {
        let mut watched = Watched::default();
        let users_max = limits::WATCHLIST_USERS_MAX;
        if watchlist.len() > users_max {
            watched.refused = Some(format!("A watchlist has at most {users_max} users: only the first are watched"));
        }
        for id in watchlist.iter().take(users_max) {
            if self.users.costs.is_full(app) {
                watched.refused = Some("The server watches as many users as it can: the watchlist was cut".to_owned());
                break;
            }
            let key = self.user_key(app, id);
            let index = self.user_index(&key);
            let user = &mut self.users.local[index as usize];
            if user.watchers.insert(slot) {
                watched.unknown += u32::from(user.known.is_none());
                watched.users.push(index);
                self.users.watches += 1;
                self.users.costs.add(app, limits::WATCH_BYTES);
                self.report_user(index);
            }
        }
        watched
    }

    /// Ends all watches of a connection.
    pub(super) fn unwatch(&mut self, slot: u32, watched: &[u32]) {
        for &index in watched {
            let user = &mut self.users.local[index as usize];
            user.watchers.remove(slot);
            self.users.costs.remove(user.key.app, limits::WATCH_BYTES);
            self.users.watches -= 1;
            self.report_user(index);
        }
    }

    /// The owner's word on a user that is watched here; one that came when nobody watched any more is late.
    pub(super) fn handle_user_state(&mut self, from: ShardIndex, user: UserKey, online: bool) {
        if let Some(index) = self.find_user(&user)
            && self.users.local[index as usize].known.is_some()
        {
            self.learn_user(index, online);
        }
        self.send(from, Body::UserTold { user });
    }

    /// It is known whether a watched user is there: for the first time, or anew.
    pub(super) fn learn_user(&mut self, index: u32, online: bool) {
        let user = &mut self.users.local[index as usize];
        if let Some(known) = &mut user.known {
            known.online = online;
            if online != known.told && !std::mem::replace(&mut known.listed, true) {
                self.users.changed.push(index);
            }
            return;
        }
        user.known = Some(Known { online, told: online, listed: false });
        let mut watchers = Vec::new();
        user.watchers.for_each(|slot| watchers.push(slot));
        for slot in watchers {
            self.await_one_less(slot);
        }
    }

    /// With the last thing that it awaited, a connection is told who of its watchlist is there.
    pub(super) fn await_one_less(&mut self, slot: u32) {
        let Some(signed_in) = self.signed_in_mut(slot) else { return };
        signed_in.awaited -= 1;
        if signed_in.awaited > 0 || signed_in.watched.is_empty() {
            return;
        }
        let watched = signed_in.watched.clone();
        let frame = self.watchlist_frame(&watched);
        self.queue(slot, frame);
    }

    /// At the end of a turn: tells the watchers of those who came or went since they were told.
    pub(super) fn tell_watchers(&mut self) {
        let pairs = self.take_changes();
        let users: Vec<u32> = pairs.iter().map(|(_, user)| *user).collect();
        // Connections that watch the same of the changed users share a frame.
        let mut frames: BTreeMap<&[u32], FrameId> = BTreeMap::new();
        let mut at = 0;
        for changes in pairs.chunk_by(|one, next| one.0 == next.0) {
            let slot = changes[0].0;
            let changed = &users[at..at + changes.len()];
            at += changes.len();
            // To tell one watcher may close it, but whom the next ones watch stays known through them.
            let frame = match frames.get(changed) {
                Some(frame) => *frame,
                None => {
                    let frame = self.watchlist_frame(changed);
                    let frame = self.frames.hold(frame, self.hot[slot as usize].app);
                    frames.insert(changed, frame);
                    frame
                }
            };
            self.queue_shared(slot, frame);
        }
        for frame in frames.into_values() {
            self.frames.release(frame);
        }
    }

    /// Pairs of a watcher and a user that it is to be told of, ordered by watcher.
    fn take_changes(&mut self) -> Vec<(u32, u32)> {
        let mut pairs = Vec::new();
        let users = &mut self.users;
        for index in std::mem::take(&mut users.changed) {
            // An entry that went and came again at the same place is not listed.
            let Some(user) = users.local.get_mut(index as usize) else { continue };
            let Some(known) = user.known.as_mut().filter(|known| known.listed) else { continue };
            known.listed = false;
            if known.told == known.online {
                continue;
            }
            known.told = known.online;
            if self.directory.app(user.key.app).is_some_and(|app| app.settings.watchlist) {
                user.watchers.for_each(|slot| pairs.push((slot, index)));
            }
        }
        // Who awaits the whole list gets the change with it.
        pairs.retain(|(slot, _)| self.signed_in(*slot).is_some_and(|signed_in| signed_in.awaited == 0));
        pairs.sort_unstable();
        pairs
    }

    /// P-OUT-10 with what is known of these users.
    fn watchlist_frame(&mut self, users: &[u32]) -> Bytes {
        let local = &self.users.local;
        let side = |online: bool| {
            let users = users.iter().map(|&index| &local[index as usize]);
            let users = users.filter(move |user| user.known.is_some_and(|known| known.told == online));
            users.map(|user| &*user.key.id).collect::<Vec<&str>>()
        };
        let (online, offline) = (side(true), side(false));
        text_frame(&mut self.scratch, |out| {
            server_event::encode_watchlist_events(out, online.into_iter(), offline.into_iter());
        })
    }
}
