//! Users: `pusher:signin` (P-USER rules), and a shard's entry of each user that is signed in on one of its connections
//! or watched by one.
//!
//! The user's owner, the shard of `hash(app, user id)`, records whether a user is online. Each shard reports to it how
//! many connections of the user it has and whether any watches the user; at most one such report per user is in flight,
//! and changes meanwhile are reported with the next one. A signin succeeds when the owner has recorded it: from then on
//! a request that ends the user's connections (P-USER-6) ends this one too.

mod owner;
mod watchlist;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::app::App;
use crate::auth::AuthFailure;
use crate::auth::subscription::{SIGNIN, refusal_message, verify_signin};
use crate::channel::subscribers::Subscribers;
use crate::channel::user::{UserData, decode_user_data};
use crate::connection::outbox::FrameKind;
use crate::connection::{ConnectionKey, SignedIn};
use crate::index::{OwnedIndex, ShardIndex, Slot, UserIndex};
use crate::limits;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::shard::connections::Connections;
use crate::shard::context::Context;
use crate::shard::keyed_slab::{Keyed, KeyedSlab};
use crate::shard::mail::{Report, UserKey, UserMessage};
use crate::shard::refusals::RefusedProof;
use owner::OwnedUser;
use watchlist::WatchCosts;

/// A signin message, as received.
pub(super) struct Signin<'a> {
    pub(super) auth: Option<&'a str>,
    pub(super) user_data: Option<&'a str>,
}

/// A shard's state of users.
#[derive(Default)]
pub(super) struct Users {
    /// Users signed in or watched here.
    local: KeyedSlab<UserIndex, LocalUser>,
    /// Users whose owner this shard is.
    owned: KeyedSlab<OwnedIndex, OwnedUser>,
    /// Watched users whose watchers are to be notified at the end of the turn.
    changed: Vec<UserIndex>,
    costs: WatchCosts,
}

/// A user with connections here, or watched from here.
struct LocalUser {
    key: UserKey,
    owner: ShardIndex,
    /// Connections signed in as the user, also those that the owner has not recorded yet.
    connections: Subscribers,
    /// Signins that the owner has not recorded yet, in their order.
    waiting: Vec<WaitingSignin>,
    /// Connections that watch the user.
    watchers: Subscribers,
    /// The last report to the owner.
    reported: Report,
    /// How many of `waiting` the report in flight covers; `None` when none is in flight.
    covered: Option<usize>,
    /// Whether the user is online, once the owner has recorded that it is watched here.
    state: Option<UserState>,
}

impl Keyed for LocalUser {
    fn hash(&self) -> u64 {
        self.key.hash
    }
}

/// Whether a watched user is online.
#[derive(Clone, Copy, Debug)]
struct UserState {
    /// The owner's last report.
    online: bool,
    /// The state in the last notification to the watchers.
    notified: bool,
    /// The user is on the list of those whose watchers are to be notified.
    listed: bool,
}

/// A signin that the owner has yet to record.
struct WaitingSignin {
    connection: ConnectionKey,
    /// The answer for the connection.
    answer: Bytes,
}

impl Users {
    /// Handles mail about users.
    pub(super) fn handle(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        from: ShardIndex,
        message: UserMessage,
    ) {
        match message {
            UserMessage::Report { user, report } => self.record_report(context, from, user, report),
            UserMessage::Recorded { user, online } => self.handle_recorded(context, connections, &user, online),
            UserMessage::State { user, online } => self.handle_state(context, connections, from, user, online),
            UserMessage::StateNoted { user } => self.handle_state_noted(context, from, &user),
        }
    }

    /// Users signed in or watched here, and users whose owner this shard is.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.local.len(), self.owned.len())
    }

    /// Handles `pusher:signin`; the client is sent the reason of a failure, and the connection stays open (P-USER-3).
    pub(super) fn sign_in(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        message: &Signin<'_>,
    ) {
        if let Err(reason) = self.try_sign_in(context, connections, slot, app, message) {
            connections.send_error(context, slot, Some(4009), &reason);
        }
    }

    fn try_sign_in(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        message: &Signin<'_>,
    ) -> Result<(), String> {
        let (Some(auth), Some(user_data)) = (message.auth, message.user_data) else {
            connections.note_signin_refused(context, slot, AuthFailure::Malformed, None);
            return Err("A signin needs auth and user_data, both strings".to_owned());
        };
        let socket_id = context.socket_id(connections.key(slot)).to_text();
        verify_signin(app, &socket_id, user_data, auth)
            .inspect_err(|refusal| {
                let (socket_id, failure) = (&*socket_id, refusal.failure());
                let proof = RefusedProof { app, socket_id, channel: None, data: Some(user_data), auth, failure };
                connections.note_signin_refused(context, slot, failure, Some(&proof));
            })
            .map_err(|refusal| refusal_message(&refusal, &socket_id, SIGNIN, Some(user_data), auth))?;
        let names = context.config.options.channel_names;
        let info_bytes_max = app.settings.max_channel_data_bytes as usize;
        let user = decode_user_data(user_data, names, info_bytes_max).map_err(|error| error.to_string())?;
        let key = context.user_key(app.serial, &user.id);
        let mut answer = context.text_frame(|out| server_event::encode_signin_success(out, &user.text));
        let index = match connections.signed_in(slot) {
            Some(signed_in) if *signed_in.id != *key.id => {
                connections.note_signin_refused(context, slot, AuthFailure::WrongUser, None);
                return Err("This connection is signed in as another user for its life".to_owned());
            }
            Some(signed_in) if signed_in.signins_waiting >= limits::SIGNINS_WAITING_MAX => {
                return Err("Too many signins are in flight on this connection".to_owned());
            }
            Some(signed_in) => signed_in.user,
            None => {
                let (index, refused) = self.start_signin(context, connections, slot, app, &key, &user);
                if let Some(message) = refused {
                    let error = context.text_frame(|out| {
                        server_event::encode_error(out, Some(4302), &message);
                    });
                    answer = [answer, error].concat().into();
                }
                index
            }
        };
        let connection = connections.key(slot);
        connections.signed_in_mut(slot).expect("it was signed in above").signins_waiting += 1;
        self.local[index].waiting.push(WaitingSignin { connection, answer });
        self.report_user(context, index);
        Ok(())
    }

    /// The first signin of a connection. Returns the user's entry, and a message about a truncated watchlist.
    fn start_signin(
        &mut self,
        context: &mut Context,
        connections: &mut Connections,
        slot: Slot,
        app: &App,
        key: &UserKey,
        user: &UserData<'_>,
    ) -> (UserIndex, Option<String>) {
        let index = self.find_or_insert(context, key);
        self.local[index].connections.insert(slot);
        let watched = if app.settings.watchlist {
            self.watch(context, slot, app.serial, &user.watchlist)
        } else {
            Default::default()
        };
        let signed_in = SignedIn {
            user: index,
            id: key.id.clone(),
            user_info: user.user_info.map(Into::into),
            watched: watched.users.into(),
            awaited: watched.unknown + 1,
            signins_waiting: 0,
            recorded: false,
        };
        connections.set_signed_in(slot, signed_in);
        (index, watched.refused)
    }

    /// The owner has recorded a report: the signins that it covers have succeeded.
    fn handle_recorded(&mut self, context: &mut Context, connections: &mut Connections, user: &UserKey, online: bool) {
        let index = self.find(user).expect("a user's entry stays while a report is in flight");
        let entry = &mut self.local[index];
        let covered = entry.covered.take().expect("one answer per report");
        let answers: Vec<WaitingSignin> = entry.waiting.drain(..covered).collect();
        let is_watched = entry.reported.watches;
        for WaitingSignin { connection, answer } in answers {
            self.finish_signin(context, connections, connection, answer);
        }
        if is_watched {
            self.learn_state(context, connections, index, online);
        }
        self.report_user(context, index);
    }

    fn finish_signin(
        &self,
        context: &mut Context,
        connections: &mut Connections,
        connection: ConnectionKey,
        answer: Bytes,
    ) {
        if !connections.is_live(connection) {
            return;
        }
        let slot = connection.slot();
        let Some(signed_in) = connections.signed_in_mut(slot) else { return };
        signed_in.signins_waiting -= 1;
        let is_first = !std::mem::replace(&mut signed_in.recorded, true);
        connections.send(context, slot, answer, FrameKind::Reply);
        if is_first {
            connections.authorize_connection(context, slot);
            self.await_one_less(context, connections, slot);
        }
    }

    /// Removes a closing connection from the user that is signed in on it, and from those that it watches.
    pub(super) fn sign_out(&mut self, context: &mut Context, connections: &mut Connections, slot: Slot) {
        let connection = connections.key(slot);
        let Some(signed_in) = connections.take_signed_in(slot) else { return };
        self.unwatch(context, slot, &signed_in.watched);
        let user = &mut self.local[signed_in.user];
        user.connections.remove(slot);
        let mut at = 0;
        while let Some(found) = user.waiting.iter().skip(at).position(|waiting| waiting.connection == connection) {
            at += found;
            user.waiting.remove(at);
            if let Some(covered) = &mut user.covered {
                *covered -= usize::from(at < *covered);
            }
        }
        self.report_user(context, signed_in.user);
    }

    /// Reports the current state to the owner of a user, unless the owner has it already or another report is in
    /// flight.
    fn report_user(&mut self, context: &mut Context, index: UserIndex) {
        let user = &mut self.local[index];
        if user.covered.is_some() {
            return;
        }
        let report = Report { connections: user.connections.count(), watches: !user.watchers.is_empty() };
        if report == user.reported && user.waiting.is_empty() {
            self.forget_if_unused(index);
            return;
        }
        // The owner sends no further reports of the user from here on.
        if !report.watches {
            user.state = None;
        }
        user.reported = report;
        user.covered = Some(user.waiting.len());
        let (owner, user) = (user.owner, user.key.clone());
        context.send(owner, UserMessage::Report { user, report });
    }

    /// Closes the user's connections here (P-USER-6).
    pub(super) fn end_user(&self, context: &mut Context, connections: &mut Connections, user: &UserKey) {
        let Some(index) = self.find(user) else { return };
        self.local[index].connections.for_each(|slot| {
            connections.close_websocket(context, slot, &CloseReason::Terminated);
        });
    }

    /// The shards with connections of the user.
    pub(super) fn shards_of(&self, user: &UserKey) -> SmallVec<[ShardIndex; 4]> {
        let index = self.find_owned(user);
        index.map_or_else(SmallVec::new, |index| self.owned[index].shards_with_connections())
    }

    fn find(&self, key: &UserKey) -> Option<UserIndex> {
        self.local.find(key.hash, |user| user.key.is(key))
    }

    /// The entry of a user, created if there is none.
    fn find_or_insert(&mut self, context: &Context, key: &UserKey) -> UserIndex {
        if let Some(index) = self.find(key) {
            return index;
        }
        self.costs.add(key.app, limits::USER_BYTES);
        self.local.insert(LocalUser {
            key: key.clone(),
            owner: context.owner_of_hash(key.hash),
            connections: Subscribers::default(),
            waiting: Vec::new(),
            watchers: Subscribers::default(),
            reported: Report::default(),
            covered: None,
            state: None,
        })
    }

    fn forget_if_unused(&mut self, index: UserIndex) {
        let user = &self.local[index];
        let is_used = user.covered.is_some() || user.reported != Report::default();
        if is_used || !user.connections.is_empty() || !user.watchers.is_empty() {
            return;
        }
        let user = self.local.remove(index);
        self.costs.remove(user.key.app, limits::USER_BYTES);
    }
}
