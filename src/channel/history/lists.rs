//! Events and records, and the lists that they are in: doubly linked through the slabs that hold them, so that an entry
//! is removed in constant time and an empty list costs nothing.

use bytes::Bytes;
use slab::Slab;

use super::Place;

/// The record of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordIndex(pub(super) u32);

impl RecordIndex {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

const NONE: u32 = u32::MAX;

/// A stored event.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) sequence: u64,
    pub(super) frame: Bytes,
    pub(super) at_ms: u64,
    pub(super) record: RecordIndex,
    pub(super) in_channel: Links,
    in_app: Links,
}

/// What is known about the history of one channel.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) events: ChannelList,
    /// The highest sequence that was dropped, or may have been.
    pub(super) floor: u64,
    /// The sequence of the last event; 0 if there was none since the record exists.
    pub(super) last: u64,
    /// Without events and subscribers it ends at this time, on the monotonic clock.
    pub(super) keep_until_ms: u64,
    /// It is in the list of idle records of its app.
    pub(super) is_idle: bool,
    idle: Links,
}

/// Neighbours in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) older: u32,
    pub(super) newer: u32,
}

impl Links {
    const NONE: Self = Self { older: NONE, newer: NONE };
}

impl Event {
    pub(super) fn new(sequence: u64, frame: Bytes, at_ms: u64, record: RecordIndex) -> Self {
        Self { sequence, frame, at_ms, record, in_channel: Links::NONE, in_app: Links::NONE }
    }
}

impl Record {
    pub(super) fn new(place: Place, floor: u64) -> Self {
        Self {
            place,
            events: ChannelList::default(),
            floor,
            last: 0,
            keep_until_ms: 0,
            is_idle: false,
            idle: Links::NONE,
        }
    }
}

/// A list of entries, the oldest first.
#[derive(Debug)]
pub(super) struct List {
    pub(super) oldest: u32,
    pub(super) newest: u32,
    pub(super) count: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, count: 0 }
    }
}

/// The list of the events of one channel.
#[derive(Debug, Default)]
pub(super) struct ChannelList(List);

impl std::ops::Deref for ChannelList {
    type Target = List;

    fn deref(&self) -> &List {
        &self.0
    }
}

impl ChannelList {
    pub(super) fn push(&mut self, events: &mut Slab<Event>, at: u32) {
        self.0.push_by(events, at, |event| &mut event.in_channel);
    }

    pub(super) fn remove(&mut self, events: &mut Slab<Event>, at: u32) {
        self.0.remove_by(events, at, |event| &mut event.in_channel);
    }
}

/// An entry that can be in a list of its app.
pub(super) trait InApp {
    fn links(&mut self) -> &mut Links;
}

impl InApp for Event {
    fn links(&mut self) -> &mut Links {
        &mut self.in_app
    }
}

impl InApp for Record {
    fn links(&mut self) -> &mut Links {
        &mut self.idle
    }
}

impl List {
    /// Adds an entry as the newest.
    pub(super) fn push<T: InApp>(&mut self, entries: &mut Slab<T>, at: u32) {
        self.push_by(entries, at, T::links);
    }

    /// Removes an entry.
    pub(super) fn remove<T: InApp>(&mut self, entries: &mut Slab<T>, at: u32) {
        self.remove_by(entries, at, T::links);
    }

    fn push_by<T>(&mut self, entries: &mut Slab<T>, at: u32, links: impl Fn(&mut T) -> &mut Links) {
        *links(&mut entries[at as usize]) = Links { older: self.newest, newer: NONE };
        match entries.get_mut(self.newest as usize) {
            Some(newest) => links(newest).newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        self.count += 1;
    }

    fn remove_by<T>(&mut self, entries: &mut Slab<T>, at: u32, links: impl Fn(&mut T) -> &mut Links) {
        let Links { older, newer } = *links(&mut entries[at as usize]);
        match entries.get_mut(older as usize) {
            Some(older) => links(older).newer = newer,
            None => self.oldest = newer,
        }
        match entries.get_mut(newer as usize) {
            Some(newer) => links(newer).older = older,
            None => self.newest = older,
        }
        self.count -= 1;
    }
}
