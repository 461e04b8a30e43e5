//! A client that reads channels over streams or polls (R-SSE, R-POLL rules), and connects again from where it was.

use std::collections::BTreeMap;

use super::caller::Owed;
use super::event_stream::EventStreamReader;
use crate::reference::{Group, Tick};

/// Where a channel was read up to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// The sequence.
    pub(crate) sequence: u64,
    /// A time before which it was not given out, in ms of the monotonic clock.
    pub(crate) given_ms: u64,
}

/// The places of the channels of a reader.
pub(crate) type Places = BTreeMap<String, Place>;

/// The position that a request named.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    /// None.
    Nothing,
    /// One that somebody was given.
    Given(Places),
    /// One that nobody was given: a gap for this reason, on every channel or on some.
    Bad { reason: &'static str, everywhere: bool },
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The expected answer.
    pub(crate) owed: Owed,
    /// The position that it named.
    pub(crate) named: Named,
    /// That is where the reader was.
    pub(crate) continues: bool,
    /// When it was sent, in ms of the monotonic clock.
    pub(crate) ms: u64,
    /// When the server had surely read it.
    pub(crate) read_ms: Option<u64>,
    /// How long a poll is held.
    pub(crate) timeout_ms: u64,
}

/// What a reader is doing.
#[derive(Clone, Debug)]
pub(crate) enum ReaderPhase {
    /// Nothing; it may have a connection.
    Idle,
    /// It waits for the answer to a poll, or for the head of a stream.
    Asked(Box<Asked>),
    /// It has read the head of a stream, but not its position.
    Opening(Box<Asked>),
    /// It reads a stream.
    Open,
}

/// Everything that a reader was sent of one channel since it last started anew, over all its connections.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// Everything that was published after this arrives.
    pub(crate) from: Tick,
    /// Everything after this sequence arrives.
    pub(crate) start: u64,
    /// It has arrived up to this sequence.
    pub(crate) last: u64,
    /// What arrived.
    pub(crate) received: BTreeMap<u64, Group>,
    /// A gap was reported: events up to this sequence may be missing.
    pub(crate) gap_until: Option<u64>,
}

impl Chain {
    /// One that begins here.
    pub(crate) fn new(from: Tick, start: u64) -> Self {
        Self { from, start, last: start, received: BTreeMap::new(), gap_until: None }
    }

    /// A gap was reported.
    pub(crate) fn note_gap(&mut self, resumes_at: u64) {
        assert!(self.last <= resumes_at, "R-HIST-10: a gap up to {resumes_at}, {} was read", self.last);
        self.gap_until = Some(resumes_at);
        self.last = resumes_at;
    }

    /// An event arrived.
    pub(crate) fn note_event(&mut self, sequence: u64, group: Group) {
        assert!(self.last < sequence, "{sequence}, group {group}, came after {} (R-HIST-12)", self.last);
        let twice = self.received.values().any(|known| *known == group);
        assert!(!twice, "group {group} came twice to a reader");
        self.received.insert(sequence, group);
        self.last = sequence;
    }

    /// Whether an event with this sequence, if it is known, may be missing.
    pub(crate) fn may_lack(&self, sequence: Option<u64>) -> bool {
        self.gap_until.is_some_and(|until| sequence.is_none_or(|sequence| sequence <= until))
    }
}

/// The client.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Its app.
    pub(crate) app: usize,
    /// Its channels, in the order of its requests.
    pub(crate) channels: Vec<String>,
    /// It polls.
    pub(crate) polls: bool,
    /// Its connection.
    pub(crate) wire: Option<usize>,
    /// What it is doing.
    pub(crate) phase: ReaderPhase,
    /// Answers.
    pub(crate) answers: EventStreamReader,
    /// Its sessions, in the order of the channels, while it reads a stream.
    pub(crate) sessions: Vec<usize>,
    /// The number of the token with which it last asked.
    pub(crate) token: Option<usize>,
    /// Where it is.
    pub(crate) places: Places,
    /// The ids and cursors that it was given, oldest first, each with what they stand for.
    pub(crate) ids: Vec<(String, Places)>,
    /// What it was sent, by channel.
    pub(crate) chains: BTreeMap<String, Chain>,
    /// The client currently does not read.
    pub(crate) stalled: bool,
    /// The server may end the connection.
    pub(crate) may_end: bool,
}

impl Reader {
    /// One that has not asked for anything.
    pub(crate) fn new(app: usize, channels: Vec<String>, polls: bool) -> Self {
        Self {
            app,
            channels,
            polls,
            wire: None,
            phase: ReaderPhase::Idle,
            answers: EventStreamReader::default(),
            sessions: Vec::new(),
            token: None,
            places: Places::new(),
            ids: Vec::new(),
            chains: BTreeMap::new(),
            stalled: false,
            may_end: false,
        }
    }

    /// True while it reads a stream.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, ReaderPhase::Open)
    }

    /// True while the server may hold a request of it.
    pub(crate) fn is_asking(&self) -> bool {
        matches!(self.phase, ReaderPhase::Asked(_) | ReaderPhase::Opening(_))
    }

    /// It was given an id or a cursor for where it is.
    pub(crate) fn note_id(&mut self, id: String) {
        if self.ids.len() == IDS_MAX {
            self.ids.remove(0);
        }
        self.ids.push((id, self.places.clone()));
    }
}

/// A reader remembers this many ids.
const IDS_MAX: usize = 40;
