//! Users: `pusher:signin` (P-USER rules), and a shard's entry of each user that is signed in on one of its connections
//! or watched by one.
//!
//! Whether a user is there is known to the user's owner, the shard of `hash(app, user id)`. Each shard tells it how many
//! connections of the user it has and whether any watches the user; at most one such report per user is under way, what
//! changes meanwhile is told with the next one. A signin succeeds when the owner has recorded it: from then on whoever
//! ends the user's connections (P-USER-6) ends this one too.

use bytes::Bytes;
use hashbrown::HashTable;
use slab::Slab;

use super::deliver::text_frame;
use super::mail::{Body, UserKey};
use super::user_owner::OwnedUser;
use super::watch::WatchCosts;
use super::{Shard, ShardIndex};
use crate::app::{App, AppSerial};
use crate::auth::AuthFailure;
use crate::auth::subscription::{SIGNIN, refusal_message, verify_signin};
use crate::channel::subscribers::Subscribers;
use crate::channel::user::{UserData, decode_user_data};
use crate::connection::{ConnectionKey, SignedIn};
use crate::limits;
use crate::protocol::server_event;

/// A signin message, as received.
pub(super) struct Signin<'a> {
    pub(super) auth: Option<&'a str>,
    pub(super) user_data: Option<&'a str>,
}

/// All that a shard knows of users.
#[derive(Default)]
pub(super) struct Users {
    /// Users signed in or watched here, and their index by id.
    pub(super) local: Slab<LocalUser>,
    local_by_id: HashTable<u32>,
    /// Users whose owner this shard is, and their index by id.
    pub(super) owned: Slab<OwnedUser>,
    pub(super) owned_by_id: HashTable<u32>,
    /// Watched users whose watchers are to be told at the end of the turn.
    pub(super) changed: Vec<u32>,
    /// Pairs of a connection here and a user that it watches.
    pub(super) watches: usize,
    pub(super) costs: WatchCosts,
}

/// A user with connections here, or watched from here.
pub(super) struct LocalUser {
    pub(super) key: UserKey,
    owner: ShardIndex,
    /// Connections signed in as the user, also those that the owner has not recorded yet.
    pub(super) connections: Subscribers,
    /// Signins that the owner has not recorded yet, in their order.
    waiting: Vec<WaitingSignin>,
    /// Connections that watch the user.
    pub(super) watchers: Subscribers,
    /// What was last told to the owner.
    reported: Report,
    /// How many of `waiting` the report under way covers; `None` when none is under way.
    covered: Option<usize>,
    /// What is known of the user, once the owner has recorded that it is watched here.
    pub(super) known: Option<Known>,
}

/// What a shard tells the owner of a user.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Report {
    /// Connections signed in as the user.
    pub(super) connections: u32,
    /// Somebody here watches the user.
    pub(super) watches: bool,
}

/// Whether a watched user is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// What the owner said last.
    pub(super) online: bool,
    /// What the watchers were told.
    pub(super) told: bool,
    /// The user stands on the list of those whose watchers are to be told.
    pub(super) listed: bool,
}

/// A signin that the owner has yet to record.
struct WaitingSignin {
    connection: ConnectionKey,
    /// What the connection is told then.
    answer: Bytes,
}

impl Shard {
    /// `pusher:signin`; a failure is told and the connection stays open (P-USER-3).
    pub(super) fn sign_in(&mut self, slot: u32, app: &App, message: &Signin<'_>) {
        if let Err(reason) = self.try_sign_in(slot, app, message) {
            self.send_error(slot, Some(4009), &reason);
        }
    }

    fn try_sign_in(&mut self, slot: u32, app: &App, message: &Signin<'_>) -> Result<(), String> {
        let (Some(auth), Some(user_data)) = (message.auth, message.user_data) else {
            self.note_signin_refused(slot, AuthFailure::Malformed);
            return Err("A signin needs auth and user_data, both strings".to_owned());
        };
        let socket_id = self.socket_id(self.key(slot)).to_text();
        verify_signin(app, &socket_id, user_data, auth)
            .inspect_err(|refusal| self.note_signin_refused(slot, refusal.failure()))
            .map_err(|refusal| refusal_message(&refusal, &socket_id, SIGNIN, Some(user_data), auth))?;
        let (names, info_bytes_max) = (self.config.options.channel_names, app.settings.max_channel_data_bytes as usize);
        let user = decode_user_data(user_data, names, info_bytes_max).map_err(|error| error.to_string())?;
        let key = self.user_key(app.serial, &user.id);
        let mut answer = text_frame(&mut self.scratch, |out| server_event::encode_signin_success(out, &user.text));
        let index = match self.signed_in(slot) {
            Some(signed_in) if !self.users.local[signed_in.user as usize].key.is(&key) => {
                self.note_signin_refused(slot, AuthFailure::WrongUser);
                return Err("This connection is signed in as another user for its life".to_owned());
            }
            Some(signed_in) if signed_in.signins_waiting >= limits::SIGNINS_WAITING_MAX => {
                return Err("Too many signins are under way on this connection".to_owned());
            }
            Some(signed_in) => signed_in.user,
            None => {
                let (index, refused) = self.start_signin(slot, app, &key, &user);
                if let Some(message) = refused {
                    let error = text_frame(&mut self.scratch, |out| {
                        server_event::encode_error(out, Some(4302), &message);
                    });
                    answer = [answer, error].concat().into();
                }
                index
            }
        };
        let connection = self.key(slot);
        self.signed_in_mut(slot).expect("it was signed in above").signins_waiting += 1;
        self.users.local[index as usize].waiting.push(WaitingSignin { connection, answer });
        self.report_user(index);
        Ok(())
    }

    /// The first signin of a connection. Gives the user's entry, and what is to be said of a watchlist that was cut.
    fn start_signin(&mut self, slot: u32, app: &App, key: &UserKey, user: &UserData<'_>) -> (u32, Option<String>) {
        let index = self.user_index(key);
        self.users.local[index as usize].connections.insert(slot);
        let watched =
            if app.settings.watchlist { self.watch(slot, app.serial, &user.watchlist) } else { Default::default() };
        let signed_in = SignedIn {
            user: index,
            user_info: user.user_info.map(Into::into),
            watched: watched.users.into(),
            awaited: watched.unknown + 1,
            signins_waiting: 0,
            recorded: false,
        };
        self.cold_mut(slot).signed_in = Some(Box::new(signed_in));
        (index, watched.refused)
    }

    /// The owner has recorded a report: the signins that it covers have succeeded.
    pub(super) fn handle_user_recorded(&mut self, user: &UserKey, online: bool) {
        let index = self.find_user(user).expect("a user's entry stays while a report is under way");
        let entry = &mut self.users.local[index as usize];
        let covered = entry.covered.take().expect("one answer per report");
        let answers: Vec<WaitingSignin> = entry.waiting.drain(..covered).collect();
        let is_watched = entry.reported.watches;
        for WaitingSignin { connection, answer } in answers {
            self.finish_signin(connection, answer);
        }
        // A queue at its bound may have ended the last connection or watch, and the entry with it.
        let is_here = |shard: &Self| shard.find_user(user) == Some(index);
        if is_watched && is_here(self) && self.users.local[index as usize].reported.watches {
            self.learn_user(index, online);
        }
        if is_here(self) {
            self.report_user(index);
        }
    }

    fn finish_signin(&mut self, connection: ConnectionKey, answer: Bytes) {
        if !self.is_live(connection) {
            return;
        }
        let slot = connection.slot;
        let Some(signed_in) = self.signed_in_mut(slot) else { return };
        signed_in.signins_waiting -= 1;
        let is_first = !std::mem::replace(&mut signed_in.recorded, true);
        self.queue(slot, answer);
        if is_first {
            self.authorize_connection(slot);
            self.await_one_less(slot);
        }
    }

    /// Takes an ending connection from the user that is signed in on it, and from those that it watches.
    pub(super) fn sign_out(&mut self, slot: u32) {
        let connection = self.key(slot);
        let Some(signed_in) = self.cold_of(slot).and_then(|cold| cold.signed_in.take()) else { return };
        self.drop_cold_if_empty(slot);
        self.unwatch(slot, &signed_in.watched);
        let user = &mut self.users.local[signed_in.user as usize];
        user.connections.remove(slot);
        let mut at = 0;
        while let Some(found) = user.waiting.iter().skip(at).position(|waiting| waiting.connection == connection) {
            at += found;
            user.waiting.remove(at);
            if let Some(covered) = &mut user.covered {
                *covered -= usize::from(at < *covered);
            }
        }
        self.report_user(signed_in.user);
    }

    /// Tells the owner of a user what changed, unless it knows or is being told.
    pub(super) fn report_user(&mut self, index: u32) {
        let user = &mut self.users.local[index as usize];
        if user.covered.is_some() {
            return;
        }
        let report = Report { connections: user.connections.count(), watches: !user.watchers.is_empty() };
        if report == user.reported && user.waiting.is_empty() {
            self.forget_user_if_unused(index);
            return;
        }
        // The owner tells no more of the user from here on.
        if !report.watches {
            user.known = None;
        }
        user.reported = report;
        user.covered = Some(user.waiting.len());
        let (owner, user) = (user.owner, user.key.clone());
        self.send(owner, Body::UserReport { user, report });
    }

    /// Closes the user's connections here (P-USER-6).
    pub(super) fn end_user(&mut self, user: &UserKey) {
        let Some(index) = self.find_user(user) else { return };
        let mut slots = Vec::new();
        self.users.local[index as usize].connections.for_each(|slot| slots.push(slot));
        for slot in slots {
            self.close_websocket(slot, &crate::protocol::close::CloseReason::Terminated);
        }
    }

    /// Who is signed in on a connection.
    pub(super) fn signed_in(&self, slot: u32) -> Option<&SignedIn> {
        self.cold(slot)?.signed_in.as_deref()
    }

    pub(super) fn signed_in_mut(&mut self, slot: u32) -> Option<&mut SignedIn> {
        self.cold_of(slot)?.signed_in.as_deref_mut()
    }

    /// The id of the user of a connection, and its `user_info` as raw JSON text.
    pub(super) fn user_of(&self, slot: u32) -> Option<(&str, Option<&str>)> {
        let signed_in = self.signed_in(slot)?;
        let user = &self.users.local[signed_in.user as usize];
        Some((&*user.key.id, signed_in.user_info.as_deref()))
    }

    /// The key of a user: its hash is keyed by the process's secret (threat T12) and the same on all shards.
    pub(super) fn user_key(&self, app: AppSerial, id: &str) -> UserKey {
        UserKey { app, id: id.into(), hash: self.channel_hash(app, id) }
    }

    pub(super) fn find_user(&self, key: &UserKey) -> Option<u32> {
        self.users.local_by_id.find(key.hash, |&at| self.users.local[at as usize].key.is(key)).copied()
    }

    /// The entry of a user, made when there is none.
    pub(super) fn user_index(&mut self, key: &UserKey) -> u32 {
        if let Some(index) = self.find_user(key) {
            return index;
        }
        self.users.costs.add(key.app, limits::USER_BYTES);
        let index = self.users.local.insert(LocalUser {
            key: key.clone(),
            owner: self.owner_of_hash(key.hash),
            connections: Subscribers::default(),
            waiting: Vec::new(),
            watchers: Subscribers::default(),
            reported: Report::default(),
            covered: None,
            known: None,
        }) as u32;
        let local = &self.users.local;
        self.users.local_by_id.insert_unique(key.hash, index, |&at| local[at as usize].key.hash);
        index
    }

    fn forget_user_if_unused(&mut self, index: u32) {
        let user = &self.users.local[index as usize];
        let is_used = user.covered.is_some() || user.reported != Report::default();
        if is_used || !user.connections.is_empty() || !user.watchers.is_empty() {
            return;
        }
        let entry = self.users.local_by_id.find_entry(user.key.hash, |&at| at == index);
        entry.expect("every user is found by its id").remove();
        let user = self.users.local.remove(index as usize);
        self.users.costs.remove(user.key.app, limits::USER_BYTES);
    }
}

impl UserKey {
    /// True when both name the same user.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.hash == other.hash && self.app == other.app && self.id == other.id
    }
}
