//! Watchlists (P-WATCH-1, P-LIM-8): a connection that signs in is first sent which users of its list are online, and
//! later who goes online or offline. The changes of one turn reach a connection as one frame.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::{UserState, Users};
use crate::app::AppSerial;
use crate::connection::outbox::{FrameId, FrameKind};
use crate::index::{ShardIndex, Slot, UserIndex};
use crate::limits;
use crate::protocol::server_event;
use crate::shard::connections::Connections;
use crate::shard::context::Context;
use crate::shard::mail::{UserKey, UserMessage};

/// The result of processing a watchlist.
#[derive(Default)]
pub(super) struct Watched {
    /// The users that are watched now.
    pub(super) users: Vec<UserIndex>,
    /// How many of them have an unknown state.
    pub(super) unknown: u32,
    /// The message for the client about the other users, with code 4302.
    pub(super) refused: Option<String>,
}

/// Memory of a shard's users and of their watchers, in bytes.
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

    /// Whether watchlists of the app are truncated: an app may use a multiple of the free memory (P-STAT-9).
    fn is_full(&self, app: AppSerial) -> bool {
        let own = self.by_app.get(&app).copied().unwrap_or(0);
        own > limits::WATCH_BYTES_MAX.saturating_sub(self.total) * limits::APP_SHARE_OF_FREE
    }
}

impl Users {
    /// Lets a connection watch the users of a list, as far as the bounds allow.
    pub(super) fn watch(
        &mut self,
        context: &mut Context,
        slot: Slot,
        app: AppSerial,
        watchlist: &[Cow<'_, str>],
    ) -> Watched {
        let mut watched = Watched::default();
        let users_max = limits::WATCHLIST_USERS_MAX;
        if watchlist.len() > users_max {
            watched.refused = Some(format!("A watchlist has at most {users_max} users: only the first are watched"));
        }
        for id in watchlist.iter().take(users_max) {
            if self.costs.is_full(app) {
                watched.refused = Some("The server watches as many users as it can: the watchlist was cut".to_owned());
                break;
            }
            let key = context.user_key(app, id);
            let index = self.find_or_insert(context, &key);
            let user = &mut self.local[index];
            if user.watchers.insert(slot) {
                watched.unknown += u32::from(user.state.is_none());
                watched.users.push(index);
                self.costs.add(app, limits::WATCH_BYTES);
                self.report_user(context, index);
            }
        }
        watched
    }

    /// Ends all watches of a connection.
    pub(super) fn unwatch(&mut self, context: &mut Context, slot: Slot, watched: &[UserIndex]) {
        for &index in watched {
            let user = &mut self.local[index];
            user.watchers.remove(slot);
            self.costs.remove(user.key.app, limits::WATCH_BYTES);
            self.report_user(context, index);
        }
    }

    /// The owner reports the state of a user; a report that arrives when nobody watches the user any more is late.
    pub(super) fn handle_state(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        from: ShardIndex,
        user: UserKey,
        online: bool,
    ) {
        if let Some(index) = self.find(&user)
            && self.local[index].state.is_some()
        {
            self.learn_state(context, connections, index, online);
        }
        context.send(from, UserMessage::StateNoted { user });
    }

    /// The state of a watched user is known: for the first time, or again.
    pub(super) fn learn_state(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        index: UserIndex,
        online: bool,
    ) {
        let user = &mut self.local[index];
        if let Some(state) = &mut user.state {
            state.online = online;
            if online != state.notified && !std::mem::replace(&mut state.listed, true) {
                self.changed.push(index);
            }
            return;
        }
        user.state = Some(UserState { online, notified: online, listed: false });
        let mut watchers = Vec::new();
        user.watchers.for_each(|slot| watchers.push(slot));
        for slot in watchers {
            self.await_one_less(context, connections, slot);
        }
    }

    /// With the last answer that it waited for, a connection is sent which users of its watchlist are online.
    pub(super) fn await_one_less(&self, context: &mut Context, connections: &mut Connections, slot: Slot) {
        let Some(signed_in) = connections.signed_in_mut(slot) else { return };
        signed_in.awaited -= 1;
        if signed_in.awaited > 0 || signed_in.watched.is_empty() {
            return;
        }
        let frame = self.watchlist_frame(context, &signed_in.watched);
        connections.send(context, slot, frame, FrameKind::Reply);
    }

    /// Whether [`Users::notify_watchers`] has something to do.
    pub(in crate::shard) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// At the end of a turn: notifies the watchers of users that went online or offline.
    pub(in crate::shard) fn notify_watchers(&mut self, context: &mut Context, connections: &mut Connections) {
        let pairs = self.take_changes(context, connections);
        let users: Vec<UserIndex> = pairs.iter().map(|(_, user)| *user).collect();
        // Connections that watch the same of the changed users share a frame.
        let mut frames: BTreeMap<&[UserIndex], FrameId> = BTreeMap::new();
        let mut at = 0;
        for changes in pairs.chunk_by(|one, next| one.0 == next.0) {
            let slot = changes[0].0;
            let changed = &users[at..at + changes.len()];
            at += changes.len();
            let frame = match frames.get(changed) {
                Some(frame) => *frame,
                None => {
                    let frame = self.watchlist_frame(context, changed);
                    let frame = connections.hold(frame, connections.app(slot));
                    frames.insert(changed, frame);
                    frame
                }
            };
            connections.send_held(context, slot, frame);
        }
        for frame in frames.into_values() {
            connections.release(frame);
        }
    }

    /// Pairs of a watcher and a user whose change it is to be sent, ordered by watcher.
    fn take_changes(&mut self, context: &Context, connections: &Connections) -> Vec<(Slot, UserIndex)> {
        let mut pairs = Vec::new();
        for index in std::mem::take(&mut self.changed) {
            // An entry that was removed and created again at the same index is not listed.
            let Some(user) = self.local.get_mut(index) else { continue };
            let Some(state) = user.state.as_mut().filter(|state| state.listed) else { continue };
            state.listed = false;
            if state.notified == state.online {
                continue;
            }
            state.notified = state.online;
            if context.directory.app(user.key.app).is_some_and(|app| app.settings.watchlist) {
                user.watchers.for_each(|slot| pairs.push((slot, index)));
            }
        }
        // A connection that is still waiting for the complete list gets the change with it.
        pairs.retain(|(slot, _)| connections.signed_in(*slot).is_some_and(|signed_in| signed_in.awaited == 0));
        pairs.sort_unstable();
        pairs
    }

    /// P-OUT-10 with the known states of these users.
    fn watchlist_frame(&self, context: &mut Context, users: &[UserIndex]) -> Bytes {
        let side = |online: bool| {
            let users = users.iter().map(|&index| &self.local[index]);
            let users = users.filter(move |user| user.state.is_some_and(|state| state.notified == online));
            users.map(|user| &*user.key.id).collect::<Vec<&str>>()
        };
        let (online, offline) = (side(true), side(false));
        context.text_frame(|out| {
            server_event::encode_watchlist_events(out, online.into_iter(), offline.into_iter());
        })
    }
}
