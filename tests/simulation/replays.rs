//! Replays (R-REPLAY rules): kept events that are published again as new ones, and what may be missing of them.
//!
//! A replayed event has the data of its original. So that subscribers without ids can tell them apart, an event is replayed
//! to a channel where it was not published, once; only to the channel of clients with ids it is replayed as it was.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::apps::{REPLAYS, WITH_IDS};
use crate::client::caller::{Owed, Told};
use crate::client::positions::{far_ahead, of_other_epoch};
use crate::coverage::Happening;
use crate::reference::{Group, Model, Origin, Outcome, Publish};
use crate::world::World;

/// An event that a replay names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wanted {
    /// Its id.
    pub(crate) id: String,
    /// The new event; `None` for an id that belongs to no event.
    group: Option<Group>,
    /// The channel of the event, and when it was published.
    channel: String,
    started_ms: u64,
    /// Publishing it to the target is refused, so that it can only be missing.
    is_refused: bool,
}

/// Channels whose events only their own subscribers can read begin with this.
const ENCRYPTED: &str = "private-encrypted-";

/// The status with which a replay of an event of a channel to a public one is refused (R-REPLAY-2, R-REPLAY-3).
fn refusal_of(channel: &str, may_declassify: bool) -> Option<u16> {
    let is_protected = ["private-", "presence-", "#"].iter().any(|prefix| channel.starts_with(prefix));
    if channel.starts_with(ENCRYPTED) {
        return Some(400);
    }
    (is_protected && !may_declassify).then_some(403)
}

impl World {
    /// `POST /replay` with events that some client has read.
    pub(crate) fn replay(&mut self, number: usize) {
        let app = self.random.weighted(&[3, 1]);
        let keeps_channels = self.random.one_in(3);
        let channels = self.apps[app].channels.clone();
        let prefix = if keeps_channels { WITH_IDS } else { REPLAYS };
        let target = channels.into_iter().find(|channel| channel.starts_with(prefix)).expect("there is one");
        let mut wanted = self.choose_events(app, &target, keeps_channels);
        if wanted.is_empty() {
            return;
        }
        let mut draft = self.draft("POST", "/replay", app);
        let declassify = self.random.one_in(2);
        let ids: Vec<&String> = wanted.iter().map(|wanted| &wanted.id).collect();
        let mut body = json!({ "event_ids": ids });
        if !keeps_channels {
            body["target_channel"] = json!(target);
        }
        if declassify {
            body["declassify"] = json!(true);
        }
        draft.body = body.to_string().into_bytes();
        self.authenticate(&mut draft);
        let may_declassify = declassify && draft.owed.token.is_none();
        let mut refusals = Vec::new();
        for wanted in &mut wanted {
            if !keeps_channels && let Some(status) = refusal_of(&wanted.channel, may_declassify) {
                wanted.is_refused = true;
                refusals.push(status);
            }
            let Some(original) = wanted.group else { continue };
            let group = self.publish_again(number, original, &target);
            wanted.group = Some(group);
            draft.owed.groups.push(group);
        }
        if draft.owed.statuses == [200] {
            draft.owed.statuses.extend(refusals);
        }
        draft.owed.told = Told::Replayed(wanted);
        self.send_request(number, draft);
    }

    /// A few events to replay, and ids that belong to none.
    fn choose_events(&mut self, app: usize, target: &str, keeps_channels: bool) -> Vec<Wanted> {
        let mut candidates = self.candidates(app, target, keeps_channels);
        let with_encrypted = self.random.one_in(8);
        candidates.retain(|(channel, ..)| with_encrypted || !channel.starts_with(ENCRYPTED));
        let (mut wanted, mut events) = (Vec::new(), BTreeSet::new());
        for _ in 0..self.random.between(1, 4) {
            if candidates.is_empty() {
                break;
            }
            let (channel, id, original) = candidates.swap_remove(self.random.below(candidates.len()));
            if !events.insert(original) {
                continue;
            }
            if self.random.one_in(8) {
                let bad = if self.random.one_in(2) { of_other_epoch(&id) } else { far_ahead(&id) };
                wanted.push(Wanted { id: bad, group: None, channel: String::new(), started_ms: 0, is_refused: false });
            }
            let started_ms = self.model.publishes[original].started_ms;
            wanted.push(Wanted { id, group: Some(original), channel, started_ms, is_refused: false });
        }
        wanted
    }

    /// Events that can be replayed to a channel: their channel, id, and group.
    fn candidates(&self, app: usize, target: &str, keeps_channels: bool) -> Vec<(String, String, Group)> {
        let mut candidates = Vec::new();
        let of_app = self.model.histories.iter().filter(|((known, _), _)| *known == app);
        for ((_, channel), history) in of_app.filter(|((_, channel), _)| !keeps_channels || channel == target) {
            for (sequence, group) in &history.events {
                let publish = &self.model.publishes[*group];
                let is_original = Model::group_of(&publish.data) == Some(*group);
                let is_new = keeps_channels || !publish.channels.iter().any(|known| known == target);
                let was_replayed = self.model.replays.contains_key(&(*group, target.to_owned()));
                if is_original && is_new && !was_replayed {
                    candidates.push((channel.clone(), history.ids[sequence].clone(), *group));
                }
            }
        }
        candidates
    }

    /// The event that a replay may publish.
    fn publish_again(&mut self, number: usize, original: Group, target: &str) -> Group {
        let group = self.model.next_group();
        let publish = &self.model.publishes[original];
        self.model.publishes.push(Publish {
            app: publish.app,
            channels: vec![target.to_owned()],
            name: publish.name.clone(),
            data: publish.data.clone(),
            user_id: None,
            excluded: None,
            origin: Origin::Caller(number),
            started: self.tick,
            started_ms: self.system.now.monotonic_ms,
            outcome: Outcome::Open,
        });
        self.model.replays.insert((original, target.to_owned()), group);
        group
    }

    /// A replay was answered 200: what is missing was not published (R-REPLAY-1).
    pub(crate) fn handle_replayed(&mut self, owed: &Owed, wanted: &[Wanted], body: &[u8]) {
        let body: Value = serde_json::from_slice(body).expect("a 200 is JSON (P-SDK-15)");
        let missing = body["missing"].as_array().expect("R-REPLAY-1").iter();
        let mut missing = missing.map(|id| id.as_str().expect("R-REPLAY-1")).peekable();
        let mut replayed = 0;
        for Wanted { id, group, channel, started_ms, is_refused } in wanted {
            let is_missing = missing.next_if(|next| next == id).is_some();
            let Some(group) = *group else {
                assert!(is_missing, "R-REPLAY-1: {id} belongs to no event and is not missing from {body}");
                continue;
            };
            let may_be_missing = self.may_have_dropped(owed.app, channel, *started_ms);
            assert!(!is_missing || may_be_missing, "R-REPLAY-1: {id} of {channel} is missing for no reason: {body}");
            assert!(is_missing || !is_refused, "R-REPLAY-2, R-REPLAY-3: {id} of {channel} was published: {body}");
            let outcome = if is_missing { Outcome::Refused } else { Outcome::Accepted(self.tick) };
            self.model.answer(&[group], outcome);
            replayed += u64::from(!is_missing);
            let happening = if is_missing { Happening::ReplayMissed } else { Happening::Replayed };
            self.system.coverage.note(happening);
        }
        assert_eq!(missing.next(), None, "R-REPLAY-1: missing are others, or in another order: {body}");
        assert_eq!(body["replayed"].as_u64(), Some(replayed), "R-REPLAY-1: {body}");
    }
}
