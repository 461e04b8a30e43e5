//! Users: clients' signins, the notifications they receive about others, and the checks of both at rest (P-USER,
//! P-WATCH).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use crate::client::sign::hmac_hex;
use crate::client::socket::{Complaint, Operation};
use crate::coverage::Happening;
use crate::reference::Tick;
use crate::world::World;

/// The users that clients may sign in as; the last never signs in.
const USERS: [&str; 4] = ["user-1", "user-2", "user-3", "nobody"];

/// A client's knowledge of users.
#[derive(Debug, Default)]
pub(crate) struct UserView {
    /// The user of its first good signin.
    pub(crate) id: Option<String>,
    /// Its `user_info`.
    pub(crate) info: Value,
    /// `user_data` of good signins without an answer, oldest first.
    owed: VecDeque<String>,
    /// When it read its first success.
    since: Option<Tick>,
    /// It is signed in, has not closed and was not closed.
    pub(crate) live: bool,
    /// Its connection must have ended when the run rests: its user was terminated.
    must_end: bool,
    /// The users it watches.
    watchlist: BTreeSet<String>,
    /// Their presence, as last received.
    told: Option<BTreeMap<String, bool>>,
    /// Users that came or went since the last rest.
    changed: BTreeSet<String>,
}

/// A user of an app.
type User = (usize, String);

/// Facts of users beyond one client.
#[derive(Debug, Default)]
pub(crate) struct UserFacts {
    /// Users whose termination was requested.
    ended: BTreeSet<User>,
    /// Users that were present at the last rest, with their clients.
    pinned: BTreeMap<User, Vec<usize>>,
}

impl World {
    /// A signin: good, of another user than before, or with a bad proof.
    pub(crate) fn sign_in(&mut self, number: usize) {
        let (app, socket_id) = (self.sockets[number].app, self.sockets[number].socket_id.clone());
        let socket_id = socket_id.expect("an open client has one");
        let (key, secret) = self.random.pick(&self.apps[app].keys).clone();
        let id = USERS[self.random.below(3)].to_owned();
        let info = if self.random.one_in(2) { json!({"name": format!("client {number}")}) } else { Value::Null };
        let watchlist: BTreeSet<String> =
            USERS.iter().filter(|_| self.random.one_in(2)).map(|user| (*user).to_owned()).collect();
        let mut user_data = json!({"id": id, "watchlist": watchlist, "number": self.tick});
        if !info.is_null() {
            user_data["user_info"] = info.clone();
        }
        let user_data = user_data.to_string();
        let signature = hmac_hex(&secret, &format!("{socket_id}::user::{user_data}"));
        let message = |signature: &str| {
            let data = json!({"auth": format!("{key}:{signature}"), "user_data": user_data});
            json!({"event": "pusher:signin", "data": data})
        };
        let refused = |beginning: &str| Operation::Refused(vec![Complaint::Error(Some(4009), beginning.to_owned())]);
        if self.random.one_in(10) {
            let message = message(&hmac_hex("another secret", "x"));
            self.send_message(number, &message, refused("Invalid signature: Expected HMAC SHA256 hex digest of "));
            return;
        }
        let user = &self.sockets[number].user;
        if user.id.as_ref().is_some_and(|own| *own != id) {
            self.send_message(number, &message(&signature), refused("This connection is signed in as another user"));
            return;
        }
        // Signins beyond eight that wait would be refused or not, depending on when their owner's answers arrive.
        if user.owed.len() >= 6 {
            return;
        }
        self.send_message(number, &message(&signature), Operation::Subscribe);
        let client = &mut self.sockets[number];
        if client.user.id.is_none() {
            client.user.info = info;
            client.user.watchlist = if self.apps[app].watchlist { watchlist } else { BTreeSet::new() };
            client.user.id = Some(id.clone());
        }
        client.user.owed.push_back(user_data);
        if self.users.ended.contains(&(app, id)) {
            client.may_close.insert(4009);
        }
    }

    /// A subscribe to a user's channel by another client: the error of P-FAIL-1 alone (P-USER-4).
    pub(crate) fn refusal_of_user_channel(&self, number: usize, channel: &str) -> Option<Operation> {
        let user = channel.strip_prefix("#server-to-user-")?;
        if self.sockets[number].user.id.as_deref() == Some(user) {
            return None;
        }
        let error = Complaint::Error(Some(4009), "Invalid key in subscription auth data: ''".to_owned());
        let failed = Complaint::SubscriptionError(channel.to_owned(), "AuthError".to_owned(), 401);
        Some(Operation::Refused(vec![error, failed]))
    }

    /// P-OUT-9: the echo of the oldest signin that has no answer.
    pub(crate) fn handle_signin_success(&mut self, number: usize, frame: &Value) {
        let tick = self.tick;
        let client = &mut self.sockets[number];
        assert!(frame.get("channel").is_none(), "P-SDK-10: {frame}");
        let user_data =
            client.user.owed.pop_front().unwrap_or_else(|| panic!("client {number} did not sign in: {frame}"));
        let data = frame["data"].as_str().expect("data is a string (P-OUT-9)");
        assert_eq!(data, json!({ "user_data": user_data }).to_string(), "the echo to client {number} (P-OUT-9)");
        if client.user.since.is_none() {
            client.user.since = Some(tick);
            client.user.live = client.can_talk();
            self.system.coverage.note(Happening::SignedIn);
        }
        self.note_authorized(number);
    }

    /// P-OUT-10: the split first, then changes and nothing else.
    pub(crate) fn handle_watchlist(&mut self, number: usize, frame: &Value) {
        assert!(frame.get("channel").is_none(), "P-SDK-10: {frame}");
        let user = &mut self.sockets[number].user;
        assert!(user.since.is_some(), "client {number} is told of others before its own success: {frame}");
        let data: Value = serde_json::from_str(frame["data"].as_str().expect("data is a string")).expect("JSON");
        let mut told = BTreeMap::new();
        for event in data["events"].as_array().expect("events") {
            let online = event["name"] == "online";
            assert!(online || event["name"] == "offline", "{frame}");
            let ids = event["user_ids"].as_array().expect("user_ids");
            assert!(!ids.is_empty(), "empty sides are omitted (P-WATCH-1): {frame}");
            for id in ids {
                let id = id.as_str().expect("ids are strings").to_owned();
                assert!(user.watchlist.contains(&id), "client {number} does not watch {id}: {frame}");
                assert!(told.insert(id, online).is_none(), "told twice: {frame}");
            }
        }
        assert!(!told.is_empty(), "a frame without news: {frame}");
        match &mut user.told {
            None => {
                assert_eq!(told.len(), user.watchlist.len(), "the first frame has the whole list (P-WATCH-1): {frame}");
                user.told = Some(told);
            }
            Some(known) => {
                for (id, online) in told {
                    assert_ne!(known.insert(id.clone(), online), Some(online), "client {number} knew of {id}: {frame}");
                    user.changed.insert(id);
                }
                self.system.coverage.note(Happening::WatchedChange);
            }
        }
    }

    /// The termination of a user is about to be requested: each of its connections may be closed from now on.
    pub(crate) fn expect_end_of_user(&mut self, app: usize, id: &str) {
        for client in self.sockets.iter_mut().filter(|client| client.app == app) {
            if client.user.id.as_deref() == Some(id) {
                client.may_close.insert(4009);
            }
        }
        self.users.ended.insert((app, id.to_owned()));
    }

    /// The answer was read: connections that had signed in before the request was sent must be gone at rest (P-USER-6).
    pub(crate) fn note_end_of_user(&mut self, app: usize, id: &str, started: Tick) {
        self.system.coverage.note(Happening::UserEnded);
        for client in self.sockets.iter_mut().filter(|client| client.app == app) {
            let user = &mut client.user;
            user.must_end |= user.id.as_deref() == Some(id) && user.since.is_some_and(|since| since < started);
        }
    }

    /// Some user to terminate.
    pub(crate) fn draw_user(&mut self) -> String {
        (*self.random.pick(&USERS)).to_owned()
    }

    /// All checks at rest: terminated users are gone, and every watcher knows which users are present.
    pub(crate) fn check_users(&mut self) {
        let mut present: BTreeMap<User, Vec<usize>> = BTreeMap::new();
        for (number, client) in self.sockets.iter().enumerate().filter(|(_, client)| client.user.live) {
            let id = client.user.id.clone().expect("who is signed in has an id");
            present.entry((client.app, id)).or_default().push(number);
        }
        for (number, client) in self.sockets.iter().enumerate().filter(|(_, client)| client.can_talk()) {
            let user = &client.user;
            assert!(!user.must_end, "the user of client {number} was terminated and it is still open (P-USER-6)");
            assert!(user.owed.is_empty(), "client {number} waits for {:?}", user.owed);
            if user.watchlist.is_empty() {
                continue;
            }
            let told = user.told.as_ref().unwrap_or_else(|| panic!("client {number} was never told of its watchlist"));
            for (id, online) in told {
                let here = present.contains_key(&(client.app, id.clone()));
                assert_eq!(*online, here, "what client {number} knows of {id} (P-WATCH-1)");
            }
            for id in &user.changed {
                let pinned = self.users.pinned.get(&(client.app, id.clone()));
                let stayed = pinned.is_some_and(|clients| clients.iter().any(|other| self.sockets[*other].user.live));
                assert!(!stayed, "client {number} was told that {id} came or went, who was there all the time");
            }
        }
        let watched = self
            .sockets
            .iter()
            .filter(|client| client.user.live)
            .flat_map(|client| client.user.watchlist.iter().map(|id| (client.app, id.clone())));
        let known: BTreeSet<User> = watched.chain(present.keys().cloned()).collect();
        let owned: u64 = self.system.stats().iter().map(|stats| stats.owned_users).sum();
        assert_eq!(owned, known.len() as u64, "users that shards own state for, of {known:?}");
        for client in &mut self.sockets {
            client.user.changed.clear();
        }
        self.users.pinned = present;
    }
}
