//! Clients with `event_ids=true`: ids of events, positions, resumes and gaps (R-HIST rules), checked against everything
//! that any client has read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::client::positions::{decode_id, far_ahead, of_other_epoch};
use crate::coverage::Happening;
use crate::reference::{Group, Model, Origin, Publish, Session};
use crate::world::World;

/// Events that a channel keeps, and for how long in ms, by app.
pub(crate) const HISTORIES: [(u32, u32); 2] = [(100, 30), (4, 2)];

/// What clients know about the history of a channel.
#[derive(Debug, Default)]
pub(crate) struct ChannelHistory {
    /// Positions that some client read: the text, the sequence, and a time before which it was not given out.
    pub(crate) positions: Vec<(String, u64, u64)>,
    /// Events by sequence, as far as some client read them.
    pub(crate) events: BTreeMap<u64, Group>,
    /// Their ids.
    pub(crate) ids: BTreeMap<u64, String>,
}

impl ChannelHistory {
    /// Whether the event with this sequence is known to be this one.
    pub(crate) fn has(&self, sequence: u64, group: Group) -> bool {
        self.events.get(&sequence) == Some(&group)
    }
}

/// The view of one session with ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoryView {
    /// When it was asked for, in ms.
    asked_ms: u64,
    /// It named a position: the sequence, if that was a good one, and a time before which it was not given out.
    resumed: Option<Option<(u64, u64)>>,
    /// All events after this sequence must arrive; unknown without history.
    start: Option<u64>,
    /// Sequences that arrived.
    sequences: BTreeSet<u64>,
    /// A gap was reported.
    gaps: u32,
}

impl HistoryView {
    /// That of a stream, which has all events after `start`; `after_gap` if one was reported.
    pub(crate) fn of_stream(resumed: Option<Option<(u64, u64)>>, start: u64, after_gap: bool) -> Self {
        Self { resumed, start: Some(start), gaps: u32::from(after_gap), ..Self::default() }
    }

    /// A gap was reported: events are complete after this sequence.
    pub(crate) fn note_gap(&mut self, resumes_at: u64) {
        let newest = self.sequences.last().copied();
        assert!(newest.is_none_or(|newest| newest <= resumes_at), "R-HIST-4: a gap comes before anything newer");
        self.gaps += 1;
        self.start = Some(resumes_at);
        // What came before the gap was complete then.
        self.sequences.clear();
    }

    /// An event with this sequence arrived.
    pub(crate) fn note_event(&mut self, client: usize, sequence: u64) {
        let last = self.sequences.last().copied().or(self.start);
        assert!(last.is_none_or(|last| last < sequence), "R-HIST-12: client {client} got {sequence} after {last:?}");
        self.sequences.insert(sequence);
    }

    /// True when the session began with past events.
    pub(crate) fn has_past(&self) -> bool {
        self.resumed.is_some()
    }
}

impl World {
    /// Adds the members of a subscribe that resumes, for some of the clients with ids.
    pub(crate) fn resume_members(&mut self, number: usize, channel: &str, data: &mut Value) -> HistoryView {
        let client = &self.sockets[number];
        let (app, wants_ids) = (client.app, client.wants_ids);
        let known = self.model.histories.get(&(app, channel.to_owned())).map_or(0, |history| history.positions.len());
        let plain = HistoryView { asked_ms: self.system.now.monotonic_ms, ..HistoryView::default() };
        if known == 0 || !self.random.one_in(2) {
            return plain;
        }
        // Mostly a recent one.
        let back = if self.random.one_in(3) { known } else { known.min(4) };
        let at = known - 1 - self.random.below(back);
        let (id, sequence, given_ms) = self.model.histories[&(app, channel.to_owned())].positions[at].clone();
        let bad = self.random.one_in(8);
        let id = if !bad {
            id
        } else {
            self.system.coverage.note(Happening::BadPosition);
            match self.random.below(4) {
                0 => id[..id.len() - 2].to_owned(),
                1 => "17".to_owned(),
                2 => of_other_epoch(&id),
                _ => far_ahead(&id),
            }
        };
        data["last_event_id"] = json!(id);
        // Clients without ids are not asked for anything, whatever they send.
        if wants_ids { HistoryView { resumed: Some((!bad).then_some((sequence, given_ms))), ..plain } } else { plain }
    }

    /// The position of a `subscription_succeeded`.
    pub(crate) fn handle_position(&mut self, session: usize, data: &str) {
        let state = &self.model.sessions[session];
        let (app, channel, client) = (state.app, state.channel.clone(), state.client);
        let data: Value = serde_json::from_str(data).expect("data of succeeded is JSON");
        if !self.sockets[client].wants_ids {
            assert_eq!(data.get("position"), None, "R-HIST-6: client {client} did not ask for ids");
            return;
        }
        let Some(id) = data["position"].as_str().map(str::to_owned) else {
            assert!(self.apps[app].deleted, "R-HIST-8: no position in {data}");
            return;
        };
        let (_, _, sequence) = decode_id(&id);
        let history = self.model.histories.entry((app, channel)).or_default();
        let view = &mut self.model.sessions[session].history;
        history.positions.push((id, sequence, view.asked_ms));
        view.start = match view.resumed {
            None => Some(sequence),
            Some(Some((after, _))) => Some(after),
            Some(None) => None,
        };
    }

    /// `pusher:history_gap`.
    pub(crate) fn handle_gap(&mut self, session: usize, data: &str) {
        self.system.coverage.note(Happening::HistoryGap);
        let state = &self.model.sessions[session];
        let (app, client, channel) = (state.app, state.client, state.channel.clone());
        let data: Value = serde_json::from_str(data).expect("data of a gap is JSON");
        let Some(resumes_at) = data["resumes_at"].as_str().map(|id| decode_id(id).2) else {
            assert!(self.apps[app].deleted, "R-HIST-10: {data} resumes nowhere");
            return;
        };
        let view = &self.model.sessions[session].history;
        let resumed =
            view.resumed.unwrap_or_else(|| panic!("client {client} has a gap on {channel} and named nothing"));
        match resumed {
            None => {
                let reason = data["reason"].as_str().expect("a reason");
                assert!(["unreadable", "epoch", "ahead", "expired"].contains(&reason), "{data}");
            }
            Some((after, given_ms)) => {
                assert_eq!(data["reason"], "expired", "R-HIST-4");
                let is_excused = self.may_have_dropped(app, &channel, given_ms);
                assert!(is_excused, "client {client} has a gap on {channel} for no reason (R-HIST-11): {data}");
                assert!(after < resumes_at, "R-HIST-10: {data}");
            }
        }
        self.model.sessions[session].history.note_gap(resumes_at);
    }

    /// Whether a channel may lack events after a position that was not given out before this time.
    pub(crate) fn may_have_dropped(&self, app: usize, channel: &str, given_ms: u64) -> bool {
        let (events, seconds) = HISTORIES[app];
        let is_on = |publish: &&Publish| publish.app == app && publish.channels.iter().any(|known| known == channel);
        let is_full = self.model.publishes.iter().filter(is_on).count() as u32 > events;
        let is_old = given_ms + u64::from(seconds) * 1_000 <= self.system.now.monotonic_ms;
        is_full || is_old || self.scenario.store_changes || self.may_overload()
    }

    /// An event of a channel, with or without an id.
    pub(crate) fn handle_id(&mut self, session: usize, frame: &Value, group: Group) {
        let state = &self.model.sessions[session];
        let (app, client, channel) = (state.app, state.client, state.channel.clone());
        let is_stored = matches!(self.model.publishes[group].origin, Origin::Caller(_));
        if !self.sockets[client].wants_ids || !is_stored {
            assert_eq!(frame.get("id"), None, "R-HIST-6, R-HIST-9: client {client} got {frame}");
            return;
        }
        let id = frame["id"].as_str().unwrap_or_else(|| panic!("R-HIST-6: no id in {frame}")).to_owned();
        let sequence = self.model.note_stored(app, &channel, id, group);
        let view = &mut self.model.sessions[session].history;
        view.note_event(client, sequence);
        if view.has_past() {
            self.system.coverage.note(Happening::ResumedDelivery);
        }
    }
}

impl Model {
    /// Somebody read a stored event with its id; returns its sequence.
    pub(crate) fn note_stored(&mut self, app: usize, channel: &str, id: String, group: Group) -> u64 {
        let (_, _, sequence) = decode_id(&id);
        let started_ms = self.publishes[group].started_ms;
        let history = self.histories.entry((app, channel.to_owned())).or_default();
        let known = *history.events.entry(sequence).or_insert(group);
        assert_eq!(known, group, "R-HIST-2: {id} is another event for another client");
        history.ids.insert(sequence, id.clone());
        history.positions.push((id, sequence, started_ms));
        sequence
    }

    /// R-HIST-4, R-HIST-7, R-HIST-12: from its start on a session has all stored events, without a hole; one that is
    /// still present has the newest, too.
    pub(crate) fn check_histories(&self, reading: impl Fn(usize) -> bool) {
        for session in &self.sessions {
            let Some(start) = session.history.start else { continue };
            let Some(history) = self.histories.get(&(session.app, session.channel.clone())) else { continue };
            let is_complete = session.live && reading(session.client);
            let end = if is_complete { Some(u64::MAX) } else { session.history.sequences.last().copied() };
            let Some(end) = end.filter(|end| *end > start) else { continue };
            for (sequence, group) in history.events.range(start + 1..=end) {
                let excluded = self.publishes[*group].excluded == Some(session.client);
                assert!(
                    excluded || session.history.sequences.contains(sequence),
                    "client {} has a hole on {}: {sequence}, group {group}, of {:?} (R-HIST-7)",
                    session.client,
                    session.channel,
                    session.history
                );
            }
        }
    }

    /// True for an event that a session may lack because a gap was reported to it.
    pub(crate) fn is_in_gap(&self, session: &Session, group: Group) -> bool {
        let HistoryView { start: Some(start), gaps: 1.., .. } = session.history else { return false };
        let history = self.histories.get(&(session.app, session.channel.clone()));
        let known = history.and_then(|history| history.events.iter().find(|(_, known)| **known == group));
        known.is_none_or(|(sequence, _)| *sequence <= start)
    }

    /// The events of a session that all subscribers see in the same order: for one with past events, the stored ones.
    pub(crate) fn ordered<'a>(&'a self, session: &'a Session, with_past: bool) -> impl Iterator<Item = &'a Group> {
        session
            .received
            .iter()
            .filter(move |group| !with_past || matches!(self.publishes[**group].origin, Origin::Caller(_)))
    }
}
