//! The history of the channels that a shard owns: their last events, and the numbers that order them (R-HIST rules).
//!
//! The channels of an app are divided into groups, each with its own sequence. A stored event is a reference to its
//! frame. It is in two lists: that of its channel, for reading, and that of its app, for dropping the oldest first. All
//! changes take constant time, whichever event is dropped.
//!
//! A channel has a *record* while it has events or subscribers that know a position, and for some time after both. The
//! record has the channel's floor, the highest sequence that was dropped. Without a record the *trail* of the group
//! decides: a few pairs of time and sequence. Records are kept for a quarter of the window longer than events, so that
//! the steps of the trail are never seen: a channel without a record has had no event since the position of the trail
//! from before the window (R-HIST-11).
//!
//! Budgets are bytes per app and per shard. A full shard drops events of the app that uses most of it, unless the app
//! that publishes has more than an equal part itself (threats T28, T63).

mod index;
mod lists;
mod trail;

use std::collections::HashMap;
use std::num::NonZeroU64;

use bytes::Bytes;
use foldhash::quality::FixedState;
use slab::Slab;

use crate::app::AppSerial;
use crate::index::OwnedIndex;
use crate::label::labels;
use crate::limits;
use lists::{Event, List, Record};
use trail::Group;

pub use lists::RecordIndex;

/// The histories of the channels of one shard.
#[derive(Debug)]
pub struct Histories {
    events: Slab<Event>,
    records: Slab<Record>,
    apps: Apps,
    /// The cost of all events and of the records of channels without subscribers.
    total: Total,
    bytes_max: usize,
    /// When to look for what has expired, on the monotonic clock.
    due_ms: Option<u64>,
    /// Channels that no longer have a record.
    forgotten: Vec<OwnedIndex>,
}

// Serials are assigned by the store, so the map needs no secret.
type Apps = HashMap<AppSerial, AppHistory, FixedState>;

/// The app of a record.
fn known(apps: &mut Apps, app: AppSerial) -> &mut AppHistory {
    apps.get_mut(&app).expect("a channel with a record belongs to a known app")
}

/// What all apps use.
#[derive(Debug, Default)]
struct Total {
    bytes: usize,
    /// Apps that use any.
    sharers: usize,
}

impl Total {
    fn add(&mut self, app: &mut AppHistory, bytes: usize) {
        self.sharers += usize::from(app.bytes == 0);
        app.bytes += bytes;
        self.bytes += bytes;
    }

    fn subtract(&mut self, app: &mut AppHistory, bytes: usize) {
        app.bytes -= bytes;
        self.bytes -= bytes;
        self.sharers -= usize::from(app.bytes == 0);
    }
}

/// The history of one app on this shard.
#[derive(Debug, Default)]
struct AppHistory {
    groups: HashMap<u8, Group, FixedState>,
    /// Groups without an entry begin with this sequence: it is not below any that the app had.
    base: u64,
    /// All events, the oldest first.
    by_age: List,
    /// Records without events and subscribers, about in the order in which they end.
    idle: List,
    bytes: usize,
    /// When a number was last given out or read, on the monotonic clock.
    used_ms: u64,
}

/// What an app may keep on this shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Events of one channel.
    pub events: u32,
    /// Their age.
    pub age_ms: u64,
    /// The cost of all channels.
    pub bytes: usize,
}

/// A channel in these histories.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its app.
    pub app: AppSerial,
    /// Its group.
    pub group: u8,
    /// Its entry in the owner's table.
    pub channel: OwnedIndex,
    /// Length of its name.
    pub name_bytes: usize,
    /// It has subscribers.
    pub is_occupied: bool,
}

impl Place {
    fn is_in(&self, app: AppSerial, group: u8) -> bool {
        (self.app, self.group) == (app, group)
    }
}

/// The number of a stored event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Order {
    /// Its sequence in the group.
    pub sequence: NonZeroU64,
    /// The sequence of the event before it on its channel, or one not below it; 0 if unknown (R-HIST-15).
    pub previous: u64,
}

labels! {
    /// Why events may be missing (R-HIST-4), with its name in the protocol (R-HIST-10).
    pub enum Gap {
        /// The position is older than what is kept.
        Expired => "expired",
        /// It is ahead of the last event.
        Ahead => "ahead",
        /// It is of another epoch or app.
        Epoch => "epoch",
        /// It is no position of the channel.
        Unreadable => "unreadable",
    }
}

/// Events after a position.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Sequences and frames, the oldest first.
    pub events: Vec<(u64, Bytes)>,
    /// There are no later ones.
    pub complete: bool,
}

/// The part of the window by which records outlast events.
const STEPS: u64 = 4;

impl Window {
    /// Time between two steps of a trail.
    fn step_ms(&self) -> u64 {
        self.age_ms / STEPS
    }

    /// How long a record is kept.
    fn record_ms(&self) -> u64 {
        self.age_ms + self.step_ms()
    }
}

impl Histories {
    /// Without any history; all of it may cost this much.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            events: Slab::new(),
            records: Slab::new(),
            apps: HashMap::default(),
            total: Total::default(),
            bytes_max,
            due_ms: None,
            forgotten: Vec::new(),
        }
    }

    /// Stores an event of a channel and drops what exceeds a limit, maybe this very event.
    pub fn push(
        &mut self,
        place: Place,
        record: Option<RecordIndex>,
        window: &Window,
        frame: Bytes,
        now_ms: u64,
    ) -> (RecordIndex, Order) {
        let at = record.unwrap_or_else(|| self.open(place, window, now_ms));
        let app = known(&mut self.apps, place.app);
        let number = self.events.vacant_key() as u32;
        let group = app.group(place.group);
        let sequence = group.next(now_ms, window);
        group.index.push(sequence, number);
        let record = &mut self.records[at.at()];
        let previous = std::mem::replace(&mut record.last, sequence);
        record.keep_until_ms = now_ms + window.record_ms();
        let cost = event_cost(&frame);
        let event = Event::new(sequence, frame, now_ms, at);
        app.wake(&mut self.records, at);
        let inserted = self.events.insert(event);
        debug_assert_eq!(inserted, number as usize, "a slab inserts at its vacant key");
        self.records[at.at()].events.push(&mut self.events, number);
        app.by_age.push(&mut self.events, number);
        app.used_ms = now_ms;
        self.total.add(app, cost);
        self.due_ms.get_or_insert(now_ms + window.age_ms.max(EXPIRE_INTERVAL_MS));
        // More than one if the limit was lowered.
        while self.records[at.at()].events.count > window.events {
            let oldest = self.records[at.at()].events.oldest;
            self.drop_event(oldest);
        }
        self.shrink(place.app, window);
        (at, Order { sequence: NonZeroU64::new(sequence).expect("numbers begin with 1"), previous })
    }

    /// Creates the record of a channel that has none.
    pub fn open(&mut self, place: Place, window: &Window, now_ms: u64) -> RecordIndex {
        let app = self.apps.entry(place.app).or_default();
        let group = app.group(place.group);
        let floor = group.floor(now_ms, window);
        app.used_ms = now_ms;
        if !place.is_occupied {
            self.total.add(app, record_cost(&place));
        }
        RecordIndex(self.records.insert(Record::new(place, floor)) as u32)
    }

    /// The channel has subscribers: its record stays and costs nothing.
    pub fn occupy(&mut self, at: RecordIndex) {
        let record = &mut self.records[at.at()];
        if std::mem::replace(&mut record.place.is_occupied, true) {
            return;
        }
        let place = record.place;
        let app = known(&mut self.apps, place.app);
        app.wake(&mut self.records, at);
        self.total.subtract(app, record_cost(&place));
    }

    /// The channel has no subscribers: its record stays for a while.
    pub fn vacate(&mut self, at: RecordIndex, window: &Window, now_ms: u64) {
        let record = &mut self.records[at.at()];
        if !std::mem::replace(&mut record.place.is_occupied, false) {
            return;
        }
        record.keep_until_ms = record.keep_until_ms.max(now_ms + window.record_ms());
        let place = record.place;
        let app = known(&mut self.apps, place.app);
        self.total.add(app, record_cost(&place));
        if record.events.count == 0 {
            self.rest(at);
        }
        self.due_ms.get_or_insert(now_ms + EXPIRE_INTERVAL_MS);
        self.shrink(place.app, window);
    }

    /// The position of a channel now: every later event of it has a higher sequence (R-HIST-8).
    pub fn position(&mut self, app: AppSerial, group: u8, now_ms: u64) -> u64 {
        let app = self.apps.entry(app).or_default();
        app.used_ms = now_ms;
        self.due_ms.get_or_insert(now_ms + EXPIRE_INTERVAL_MS);
        app.groups.get(&group).map_or(app.base, |group| group.sequence)
    }

    /// Judges the position from which a reader continues: the position from which events are complete, and the gap if
    /// that is a later one (R-HIST-11). What has expired is dropped first, so that the age is exact.
    pub fn resume(
        &mut self,
        place: (AppSerial, u8),
        record: Option<RecordIndex>,
        window: &Window,
        after: Result<u64, Gap>,
        now_ms: u64,
    ) -> (u64, Option<Gap>) {
        let (app, group) = place;
        self.expire_app(app, window, now_ms, usize::MAX);
        let top = self.position(app, group, now_ms);
        let app = &self.apps[&app];
        // A record may have ended just now.
        let record = record.and_then(|at| self.records.get(at.at())).filter(|record| record.place.group == group);
        let floor = match record {
            Some(record) => record.floor,
            None => app.groups.get(&group).map_or(app.base, |group| group.floor(now_ms, window)),
        };
        match after {
            Err(gap) => (floor, Some(gap)),
            Ok(after) if after > top => (floor, Some(Gap::Ahead)),
            Ok(after) if after < floor => (floor, Some(Gap::Expired)),
            Ok(after) => (after, None),
        }
    }

    /// The events of a channel after a position: at least one if there is any, as many as fit into these bytes and this
    /// number.
    pub fn read(&self, record: RecordIndex, after: u64, bytes_max: usize, events_max: usize) -> Part {
        let mut first = None;
        let mut at = self.records[record.at()].events.newest;
        while let Some(event) = self.events.get(at as usize).filter(|event| event.sequence > after) {
            first = Some(at);
            at = event.in_channel.older;
        }
        let mut part = Part { events: Vec::new(), complete: true };
        let (mut next, mut bytes) = (first, 0);
        while let Some(event) = next.and_then(|at| self.events.get(at as usize)) {
            bytes += event.frame.len();
            if part.events.len() == events_max || (bytes > bytes_max && !part.events.is_empty()) {
                part.complete = false;
                break;
            }
            part.events.push((event.sequence, event.frame.clone()));
            next = Some(event.in_channel.newer);
        }
        part
    }

    /// The kept event with this number in a group of an app: its channel and its frame.
    pub fn find(
        &self,
        (app, group): (AppSerial, u8),
        sequence: u64,
        window: &Window,
        now_ms: u64,
    ) -> Option<(OwnedIndex, &Bytes)> {
        let at = self.apps.get(&app)?.groups.get(&group)?.index.find(sequence)?;
        // The place may be that of another event by now.
        let event = self.events.get(at as usize).filter(|event| event.sequence == sequence)?;
        let place = &self.records[event.record.at()].place;
        let is_it = place.is_in(app, group) && event.at_ms + window.age_ms > now_ms;
        is_it.then_some((place.channel, &event.frame))
    }

    /// The sequence of the newest kept event of a channel.
    pub fn newest(&self, record: RecordIndex) -> Option<u64> {
        let newest = self.records[record.at()].events.newest;
        self.events.get(newest as usize).map(|event| event.sequence)
    }

    /// When [`Histories::expire`] is due, on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Drops what has expired, if it is time to look. `window` is that of each app, `None` without history.
    pub fn expire(&mut self, now_ms: u64, window: impl Fn(AppSerial) -> Option<Window>) {
        if self.due_ms.is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        let apps: Vec<AppSerial> = self.apps.keys().copied().collect();
        let (mut left, mut is_used) = (limits::HISTORY_EXPIRED_PER_TURN, false);
        for app in apps {
            if let Some(window) = window(app) {
                left -= self.expire_app(app, &window, now_ms, left).min(left);
                let history = self.apps.get_mut(&app).expect("it is in the list");
                let is_empty = history.by_age.count == 0 && history.idle.count == 0;
                if is_empty && history.used_ms + window.record_ms() < now_ms {
                    history.forget_groups();
                }
                is_used |= !history.groups.is_empty() || !is_empty;
            }
        }
        let pause_ms = if left == 0 { 1 } else { EXPIRE_INTERVAL_MS };
        self.due_ms = is_used.then_some(now_ms + pause_ms);
    }

    /// Ends the history of an app whose settings changed, or that has none any more: all its positions are gaps from
    /// now on.
    pub fn restart(&mut self, app: AppSerial) {
        while let Some(history) = self.apps.get(&app).filter(|history| history.by_age.count > 0) {
            self.drop_event(history.by_age.oldest);
        }
        let of_app: Vec<usize> =
            self.records.iter().filter(|(_, record)| record.place.app == app).map(|(at, _)| at).collect();
        for at in of_app {
            self.forget(RecordIndex(at as u32));
        }
        if let Some(history) = self.apps.get_mut(&app) {
            history.forget_groups();
            history.base += 1;
        }
    }

    /// Apps that have or had a history here.
    pub fn apps(&self) -> impl Iterator<Item = AppSerial> {
        self.apps.keys().copied()
    }

    /// Forgets an app that was deleted, after [`Histories::restart`].
    pub fn remove_app(&mut self, app: AppSerial) {
        self.apps.remove(&app);
    }

    /// A channel whose record ended, so that its entry may no longer be needed.
    pub fn take_forgotten(&mut self) -> Option<OwnedIndex> {
        self.forgotten.pop()
    }

    /// Number of events kept.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Their cost, and that of the records of channels without subscribers.
    pub fn bytes(&self) -> usize {
        self.total.bytes
    }

    /// Drops what has expired of an app, at most this many events and records; returns how many.
    fn expire_app(&mut self, app: AppSerial, window: &Window, now_ms: u64, most: usize) -> usize {
        let mut count = 0;
        while count < most
            && let Some(history) = self.apps.get(&app)
            && let Some(event) = self.events.get(history.by_age.oldest as usize)
            && event.at_ms + window.age_ms <= now_ms
        {
            let oldest = history.by_age.oldest;
            self.drop_event(oldest);
            count += 1;
        }
        while count < most
            && let Some(history) = self.apps.get(&app)
            && let Some(record) = self.records.get(history.idle.oldest as usize)
            && record.keep_until_ms <= now_ms
        {
            let oldest = history.idle.oldest;
            self.forget(RecordIndex(oldest));
            count += 1;
        }
        count
    }

    /// Drops the oldest of what exceeds the budgets.
    fn shrink(&mut self, app: AppSerial, window: &Window) {
        while self.apps.get(&app).is_some_and(|history| history.bytes > window.bytes) && self.drop_oldest(app) {}
        while self.total.bytes > self.bytes_max {
            let part = self.bytes_max / self.total.sharers.max(1);
            let own = self.apps.get(&app).map_or(0, |history| history.bytes);
            if own >= part {
                if !self.drop_oldest(app) {
                    return;
                }
                continue;
            }
            // The search is amortized: it frees a part of the budget.
            let Some(largest) = self.apps.iter().max_by_key(|(_, history)| history.bytes).map(|(app, _)| *app) else {
                return;
            };
            let until = self.bytes_max - self.bytes_max / FREED_PART;
            while self.total.bytes > until && self.apps[&largest].bytes > part {
                if !self.drop_oldest(largest) {
                    return;
                }
            }
        }
    }

    /// Drops the oldest event of an app, else its oldest record without events; false when it has neither.
    fn drop_oldest(&mut self, app: AppSerial) -> bool {
        let history = &self.apps[&app];
        if history.by_age.count > 0 {
            self.drop_event(history.by_age.oldest);
            return true;
        }
        if history.idle.count == 0 {
            return false;
        }
        let at = history.idle.oldest;
        let record = &self.records[at as usize];
        let (group, floor) = (record.place.group, record.floor);
        known(&mut self.apps, app).group(group).note_evicted(floor);
        self.forget(RecordIndex(at));
        true
    }

    /// Drops the oldest event of a channel.
    fn drop_event(&mut self, number: u32) {
        let at = self.events[number as usize].record;
        let record = &mut self.records[at.at()];
        debug_assert_eq!(record.events.oldest, number, "events are dropped in their order");
        let app = known(&mut self.apps, record.place.app);
        app.by_age.remove(&mut self.events, number);
        record.events.remove(&mut self.events, number);
        let event = self.events.remove(number as usize);
        record.floor = record.floor.max(event.sequence);
        let (place, is_empty) = (record.place, record.events.count == 0);
        let (events, records) = (&self.events, &self.records);
        app.group(place.group).index.note_dropped(|low, at| {
            let event = events.get(at as usize).filter(|event| event.sequence as u32 == low);
            event.is_some_and(|event| records[event.record.at()].place.is_in(place.app, place.group))
        });
        self.total.subtract(app, event_cost(&event.frame));
        if is_empty && !place.is_occupied {
            self.rest(at);
        }
    }

    /// A record without events and subscribers ends when its time is over.
    fn rest(&mut self, at: RecordIndex) {
        let record = &mut self.records[at.at()];
        record.is_idle = true;
        let app = known(&mut self.apps, record.place.app);
        app.idle.push(&mut self.records, at.0);
    }

    /// Removes a record without events.
    fn forget(&mut self, at: RecordIndex) {
        let record = &self.records[at.at()];
        debug_assert_eq!(record.events.count, 0, "a channel with events has a record");
        let place = record.place;
        let app = known(&mut self.apps, place.app);
        app.wake(&mut self.records, at);
        if !place.is_occupied {
            self.total.subtract(app, record_cost(&place));
        }
        self.records.remove(at.at());
        self.forgotten.push(place.channel);
    }
}

impl AppHistory {
    fn group(&mut self, group: u8) -> &mut Group {
        let base = self.base;
        self.groups.entry(group).or_insert_with(|| Group::new(base))
    }

    /// Takes a record from the list of idle ones, if it is there.
    fn wake(&mut self, records: &mut Slab<Record>, at: RecordIndex) {
        if std::mem::take(&mut records[at.at()].is_idle) {
            self.idle.remove(records, at.0);
        }
    }

    /// Drops the groups of an app that has no events: their positions from before are gaps.
    fn forget_groups(&mut self) {
        let last = self.groups.values().map(|group| group.sequence).max();
        self.base = self.base.max(last.unwrap_or(0));
        self.groups = HashMap::default();
    }
}

/// The cost of an event, in bytes.
fn event_cost(frame: &Bytes) -> usize {
    frame.len() + limits::HISTORY_EVENT_BYTES
}

/// The cost of the record of a channel without subscribers, in bytes.
fn record_cost(place: &Place) -> usize {
    place.name_bytes + limits::HISTORY_RECORD_BYTES
}

/// What has expired is dropped at most this often; until then it is not shown.
const EXPIRE_INTERVAL_MS: u64 = 1_000;

/// A full shard frees this part of its budget at once, if it is at the cost of another app.
const FREED_PART: usize = 64;

const _: () =
    assert!(size_of::<Event>() <= limits::HISTORY_EVENT_BYTES && size_of::<Record>() <= limits::HISTORY_RECORD_BYTES);

#[cfg(test)]
mod tests;
