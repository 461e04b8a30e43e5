//! The naive model: the published events, the subscribers at each time, and the events that each of them got, kept as
//! plain lists. It is independent of shards, owners and mail; `assertions` compares the lists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::{ChannelHistory, HistoryView};

/// Number of a step of the run; a total order of everything that clients did and saw.
pub(crate) type Tick = u64;

/// Names one event, on one or several channels.
pub(crate) type Group = usize;

/// The outcome of a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// No answer yet.
    Open,
    /// Accepted; the answer was read at this tick.
    Accepted(Tick),
    /// Refused, or never sent completely: no subscriber may get it.
    Refused,
    /// The answer was lost with its connection: either outcome is right, but it must be the same for all.
    Unknown,
}

/// The origin of an event.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Origin {
    /// Over HTTP, by the caller with this number.
    Caller(usize),
    /// A client event of the WebSocket with this number.
    Client(usize),
}

/// One event in flight to one or several channels.
#[derive(Debug)]
pub(crate) struct Publish {
    /// The app.
    pub(crate) app: usize,
    /// Its channels.
    pub(crate) channels: Vec<String>,
    /// Event name.
    pub(crate) name: String,
    /// `data` as every subscriber must read it.
    pub(crate) data: String,
    /// Top-level `user_id` (P-OUT-6).
    pub(crate) user_id: Option<String>,
    /// The WebSocket that must not get it.
    pub(crate) excluded: Option<usize>,
    /// Its origin.
    pub(crate) origin: Origin,
    /// When its first byte was sent.
    pub(crate) started: Tick,
    /// The same, in ms of the monotonic clock.
    pub(crate) started_ms: u64,
    /// Its outcome.
    pub(crate) outcome: Outcome,
}

/// One subscription of one WebSocket, from `subscription_succeeded` on.
#[derive(Debug)]
pub(crate) struct Session {
    /// The WebSocket.
    pub(crate) client: usize,
    /// Its app.
    pub(crate) app: usize,
    /// The channel.
    pub(crate) channel: String,
    /// When the client read succeeded.
    pub(crate) from: Tick,
    /// The same, in ms of the monotonic clock.
    pub(crate) from_ms: u64,
    /// False once the client unsubscribed, closed or was closed.
    pub(crate) live: bool,
    /// Since when it is not live, in ms of the monotonic clock.
    pub(crate) ended_ms: Option<u64>,
    /// Number of the operation with which its client unsubscribed.
    pub(crate) left_with: Option<u64>,
    /// Subscribers of the channel, as last received (P-COUNT-1).
    pub(crate) count: Option<u64>,
    /// Events in the order read.
    pub(crate) received: Vec<Group>,
    /// The user on presence channels.
    pub(crate) user: Option<String>,
    /// The members as this subscriber sees them, with their `user_info`.
    pub(crate) roster: BTreeMap<String, Value>,
    /// Users that came or went since the last rest.
    pub(crate) changed: BTreeSet<String>,
    /// Its view of the history.
    pub(crate) history: HistoryView,
}

/// The recorded facts of a run.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Events, by group.
    pub(crate) publishes: Vec<Publish>,
    /// Subscriptions, in the order of their succeeded.
    pub(crate) sessions: Vec<Session>,
    /// `user_info` that connections gave for a user of a channel.
    pub(crate) offers: BTreeMap<(usize, String, String), Vec<Value>>,
    /// Users of presence channels that had a live connection at the last rest: app, channel, user, sessions.
    pub(crate) pinned: BTreeMap<(usize, String, String), Vec<usize>>,
    /// Histories by app and channel.
    pub(crate) histories: BTreeMap<(usize, String), ChannelHistory>,
    /// Replays: the event whose data they have, and the channel that they are published to.
    pub(crate) replays: BTreeMap<(Group, String), Group>,
    /// The hash that cursors have of a channel of an app.
    pub(crate) cursor_hashes: BTreeMap<(usize, String), u32>,
}

/// Streams have client numbers from this one on: that of the reader plus this.
pub(crate) const READERS: usize = 1 << 20;

/// A channel event that a subscriber read.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    /// Event name.
    pub(crate) name: &'a str,
    /// `data`.
    pub(crate) data: &'a str,
    /// Top-level `user_id`.
    pub(crate) user_id: Option<&'a str>,
    /// The sequence of its id, if it has one.
    pub(crate) sequence: Option<u64>,
}

impl Publish {
    /// True when the history of its channels has it (R-HIST-9).
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.origin, Origin::Caller(_))
    }
}

impl Session {
    /// That of a stream on a channel, from now on.
    pub(crate) fn of_stream(client: usize, (app, channel): (usize, String), from: Tick, from_ms: u64) -> Self {
        Self {
            client,
            app,
            channel,
            from,
            from_ms,
            live: true,
            ended_ms: None,
            left_with: None,
            count: None,
            received: Vec::new(),
            user: None,
            roster: BTreeMap::new(),
            changed: BTreeSet::new(),
            history: HistoryView::default(),
        }
    }
}

impl Model {
    /// The group of the next publish, which its `data` must name.
    pub(crate) fn next_group(&self) -> Group {
        self.publishes.len()
    }

    /// Text of `data` for a group, padded to at least this many bytes.
    pub(crate) fn data_of(group: Group, bytes_min: usize) -> String {
        let mut data = format!("group {group} ");
        let missing = bytes_min.saturating_sub(data.len());
        data.push_str(&"abcdefghijklmnopqrstuvwxyz".repeat(missing.div_ceil(26))[..missing]);
        data
    }

    /// The event with this data on a channel. One that was replayed there has the same data as the original: only readers
    /// with ids subscribe to channels where both may be, and whoever replays has read the original.
    pub(crate) fn group_on(&self, app: usize, channel: &str, data: &str, sequence: Option<u64>) -> Option<Group> {
        let original = Self::group_of(data)?;
        let Some(replay) = self.replays.get(&(original, channel.to_owned())) else { return Some(original) };
        let history = self.histories.get(&(app, channel.to_owned()));
        let is_original = sequence.is_some_and(|sequence| history.is_some_and(|known| known.has(sequence, original)));
        Some(if is_original { original } else { *replay })
    }

    /// The group that `data` names.
    pub(crate) fn group_of(data: &str) -> Option<Group> {
        data.strip_prefix("group ")?.split(' ').next()?.parse().ok()
    }

    /// Records the outcome of publishes that had no answer yet.
    pub(crate) fn answer(&mut self, groups: &[Group], outcome: Outcome) {
        for group in groups {
            let publish = &mut self.publishes[*group];
            assert_eq!(publish.outcome, Outcome::Open, "group {group} is answered twice");
            publish.outcome = outcome;
        }
    }

    /// The event that somebody read on a channel; it must be as it was published.
    pub(crate) fn match_event(&self, reader: &str, (app, channel): (usize, &str), event: &Received<'_>) -> Group {
        let group = self
            .group_on(app, channel, event.data, event.sequence)
            .unwrap_or_else(|| panic!("{reader} got an event that nobody published: {event:?}"));
        let publish = self.publishes.get(group).expect("only what was published has a group");
        assert_eq!(publish.app, app, "group {group} crossed apps to {reader}");
        assert!(publish.channels.iter().any(|known| known == channel), "group {group} came on {channel} to {reader}");
        assert_eq!(event.name, publish.name, "name of group {group} (P-OUT-5)");
        assert_eq!(event.data, publish.data, "data of group {group} (P-OUT-5)");
        assert_eq!(event.user_id, publish.user_id.as_deref(), "user_id of group {group} (P-OUT-6)");
        assert_ne!(
            publish.outcome,
            Outcome::Refused,
            "group {group} was refused and still delivered to {reader} (P-STAT-8)"
        );
        group
    }

    /// A subscriber read an event.
    pub(crate) fn receive(&mut self, session: usize, event: &Received<'_>) -> Group {
        let state = &self.sessions[session];
        let group = self.match_event(&format!("client {}", state.client), (state.app, &state.channel), event);
        let publish = &self.publishes[group];
        let state = &mut self.sessions[session];
        let (client, channel) = (state.client, &state.channel);
        // A past event is complete for everyone (R-HIST-7).
        assert!(
            publish.excluded != Some(client) || state.history.has_past(),
            "group {group} came to the excluded client {client} (P-HTTP-13, P-CEV-2)"
        );
        assert!(!state.received.contains(&group), "group {group} came twice on {channel} to client {client}");
        state.received.push(group);
        group
    }

    /// A subscription ends as its client sees it.
    pub(crate) fn end_session(&mut self, session: usize, now_ms: u64) {
        let state = &mut self.sessions[session];
        state.live = false;
        state.ended_ms.get_or_insert(now_ms);
    }

    /// A subscriber read `member_added`.
    pub(crate) fn member_added(&mut self, session: usize, user: &str, info: &Value) {
        let state = &mut self.sessions[session];
        let before = state.roster.insert(user.to_owned(), info.clone());
        assert!(
            before.is_none(),
            "client {} is told twice that {user} joined {} (P-PRES-2)",
            state.client,
            state.channel
        );
        state.changed.insert(user.to_owned());
        self.check_offer(session, user, info);
    }

    /// A subscriber read `member_removed`.
    pub(crate) fn member_removed(&mut self, session: usize, user: &str) {
        let state = &mut self.sessions[session];
        let before = state.roster.remove(user);
        assert!(
            before.is_some(),
            "client {} is told that {user} left {} where it was not (P-PRES-2)",
            state.client,
            state.channel
        );
        state.changed.insert(user.to_owned());
    }

    /// A `user_info` that is shown must come from some connection of that user.
    pub(crate) fn check_offer(&self, session: usize, user: &str, info: &Value) {
        let state = &self.sessions[session];
        let offers = self.offers.get(&(state.app, state.channel.clone(), user.to_owned()));
        assert!(
            offers.is_some_and(|offers| offers.contains(info)),
            "client {} sees {user} in {} with {info}, which nobody gave",
            state.client,
            state.channel
        );
    }
}
