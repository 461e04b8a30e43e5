//! Checks connections that continue after their last event: each must get every event of each of its channels, once and
//! in order, unless the server reported a gap.
//!
//! A connection has its own chain for each channel. What one worker knows of all its connections is only the id of each
//! recent event: all of them must see the same id, and a repeated event is recognized by it, as clients do.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::wire::link::Link;
use crate::wire::stamp::Stamp;

/// What a connection has of one channel. It outlives the socket.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    /// One more than the highest sequence so far.
    next: u32,
    /// Bit `i` says that `next - 1 - i` arrived.
    seen: u64,
    /// The hash up to the last event; `None` if a gap left that event out.
    chain: Option<u64>,
    /// The server reported a gap, and where it ends is not known.
    in_gap: bool,
}

/// The result of checking one event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Checked {
    /// A later event than all before, with the events between them that did not arrive.
    Next(Stamp, Skipped),
    /// For the first time, but after a later event.
    Late(Stamp),
    /// Again, with the same id.
    Repeated,
    /// Again, with another id.
    Doubled,
    WrongChannel,
    /// An event of another run.
    Foreign,
    /// It differs from the published event, or from what other connections got, and how.
    Damaged(&'static str),
}

/// Events that did not arrive before one that did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Skipped {
    pub(crate) lost: u32,
    /// A gap was reported.
    pub(crate) left_out: u32,
    /// Perhaps they were never published.
    pub(crate) uncertain: u32,
}

/// What this worker knows of the events of each channel.
pub(crate) struct Checker {
    run: u32,
    payload_bytes: usize,
    channels: Vec<Ids>,
}

/// The id of an event, compared with the one that other connections got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    /// The same one, or this is the first connection that gets the event.
    Same,
    Other,
    /// The event is older than all that are remembered.
    Unknown,
}

/// The ids of the last events of a channel, hashed.
#[derive(Default)]
struct Ids {
    /// The sequence of the first hash.
    first: u32,
    /// `None` for an event that no connection of this worker got.
    hashes: VecDeque<Option<u64>>,
}

impl Progress {
    /// Before the first event of the run.
    pub(crate) fn new() -> Self {
        Self { chain: Some(0), ..Self::default() }
    }

    /// One more than the highest sequence so far.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Moves behind a sequence that arrived or that a gap left out.
    fn move_to(&mut self, next: u32, arrived: bool) {
        self.seen = self.seen.checked_shl(next - self.next).unwrap_or(0) | u64::from(arrived);
        self.next = next;
    }

    /// The run has ended, and so many events of the channel were published: how many of them the last gap left out.
    pub(crate) fn conclude(&self, events: u32) -> u32 {
        if self.in_gap { events.saturating_sub(self.next) } else { 0 }
    }
}

impl Checker {
    pub(crate) fn new(run: u32, payload_bytes: usize, channels: usize) -> Self {
        Self { run, payload_bytes, channels: (0..channels).map(|_| Ids::default()).collect() }
    }

    /// Checks the data of an event that arrived on a connection with this progress.
    pub(crate) fn check(&mut self, progress: &mut Progress, channel: u32, id: Option<&str>, data: &[u8]) -> Checked {
        let Some(stamp) = Stamp::read(data) else { return Checked::Damaged("its data is not of a load generator") };
        if stamp.run != self.run {
            return Checked::Foreign;
        }
        if stamp.channel != channel {
            return Checked::WrongChannel;
        }
        let Some(link) = Link::read(data, self.payload_bytes) else { return Checked::Damaged("its data is changed") };
        let Some(id) = id else { return Checked::Damaged("it has no id") };
        let known = self.channels[channel as usize].compare(stamp.sequence, hash(id));
        if stamp.sequence < progress.next {
            return progress.take_earlier(stamp, known);
        }
        let follows = progress.chain.is_none_or(|before| Link::hash(before, &stamp) == link.chain);
        let is_next = stamp.sequence == progress.next;
        let skipped = progress.skip(&link);
        if known == Known::Other {
            return Checked::Damaged("other connections got it with another id");
        }
        if is_next && !follows {
            return Checked::Damaged("its hash does not follow from the event before it");
        }
        Checked::Next(stamp, skipped)
    }

    /// The server reported a gap up to an event or position. Returns how many events it leaves out, if that is known.
    pub(crate) fn take_gap(&self, progress: &mut Progress, channel: u32, resumes_at: Option<&str>) -> u32 {
        let resumes_at = resumes_at.and_then(|id| self.channels[channel as usize].sequence_of(hash(id)));
        let Some(next) = resumes_at.map(|sequence| sequence.saturating_add(1)) else {
            progress.in_gap = true;
            return 0;
        };
        if next <= progress.next {
            return 0;
        }
        let left_out = next - progress.next;
        progress.move_to(next, false);
        progress.chain = None;
        left_out
    }
}

impl Progress {
    /// An event behind the highest sequence. One that is older than the window counts as one that came before, so that it
    /// cannot hide a loss.
    fn take_earlier(&mut self, stamp: Stamp, known: Known) -> Checked {
        let bit = 1_u64.checked_shl(self.next - 1 - stamp.sequence).unwrap_or(0);
        if bit != 0 && self.seen & bit == 0 {
            self.seen |= bit;
            return Checked::Late(stamp);
        }
        match known {
            Known::Same => Checked::Repeated,
            Known::Other | Known::Unknown => Checked::Doubled,
        }
    }

    /// Moves to an event that is not behind.
    fn skip(&mut self, link: &Link) -> Skipped {
        let missing = link.stamp.sequence - self.next;
        let uncertain = missing.min(link.uncertain.into());
        let missing = missing - uncertain;
        let skipped = if self.in_gap {
            Skipped { left_out: missing, uncertain, lost: 0 }
        } else {
            Skipped { lost: missing, uncertain, left_out: 0 }
        };
        self.move_to(link.stamp.sequence.saturating_add(1), true);
        (self.chain, self.in_gap) = (Some(link.chain), false);
        skipped
    }
}

impl Ids {
    /// Compares the id of an event with the one that it had before, and remembers the first one.
    fn compare(&mut self, sequence: u32, hash: u64) -> Known {
        let Some(at) = sequence.checked_sub(self.first) else { return Known::Unknown };
        let at = at as usize;
        if at >= self.hashes.len() + IDS_MAX {
            // So far ahead that nothing of the window remains.
            self.hashes.clear();
            self.first = sequence;
            self.hashes.push_back(Some(hash));
            return Known::Same;
        }
        self.hashes.resize(self.hashes.len().max(at + 1), None);
        let known = if *self.hashes[at].get_or_insert(hash) == hash { Known::Same } else { Known::Other };
        while self.hashes.len() > IDS_MAX {
            self.hashes.pop_front();
            self.first += 1;
        }
        known
    }

    fn sequence_of(&self, hash: u64) -> Option<u32> {
        let at = self.hashes.iter().rposition(|known| *known == Some(hash))?;
        Some(self.first + u32::try_from(at).ok()?)
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// Recent events of a channel whose ids are remembered. An event that comes again later than this counts as doubled.
const IDS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 77;
    const CHANNEL: u32 = 2;

    /// The first events of a channel, as the publisher makes them: id and data.
    fn events(count: u32) -> Vec<(String, Vec<u8>)> {
        let mut before = 0;
        let event = |sequence| {
            let stamp = Stamp { run: RUN, publisher: 0, sequence, intended_ns: 5, channel: CHANNEL };
            before = Link::hash(before, &stamp);
            (format!("evt_{sequence}"), data(stamp, 0, before))
        };
        (0..count).map(event).collect()
    }

    fn data(stamp: Stamp, uncertain: u8, chain: u64) -> Vec<u8> {
        let mut data = Vec::new();
        Link { stamp, uncertain, chain }.write(128, &mut data);
        data
    }

    struct Client {
        checker: Checker,
        progress: Progress,
        events: Vec<(String, Vec<u8>)>,
    }

    impl Client {
        fn new(count: u32) -> Self {
            Self { checker: Checker::new(RUN, 128, 4), progress: Progress::new(), events: events(count) }
        }

        fn get(&mut self, at: usize) -> Checked {
            let (id, data) = &self.events[at];
            self.checker.check(&mut self.progress, CHANNEL, Some(id), data)
        }

        /// Another connection of the same worker gets events first.
        fn another_gets(&mut self, sequences: std::ops::Range<usize>) {
            let own = std::mem::replace(&mut self.progress, Progress::new());
            for at in sequences {
                self.get(at);
            }
            self.progress = own;
        }
    }

    fn next(sequence: u32, skipped: Skipped) -> Checked {
        Checked::Next(Stamp { run: RUN, publisher: 0, sequence, intended_ns: 5, channel: CHANNEL }, skipped)
    }

    fn lost(count: u32) -> Skipped {
        Skipped { lost: count, ..Skipped::default() }
    }

    fn left_out(count: u32) -> Skipped {
        Skipped { left_out: count, ..Skipped::default() }
    }

    /// R-LOAD-4: every event once and in order passes.
    #[test]
    fn all_events_in_order_pass() {
        let mut client = Client::new(5);
        for (at, sequence) in (0..5).enumerate() {
            assert_eq!(client.get(at), next(sequence, Skipped::default()));
        }
        assert_eq!((client.progress.next(), client.progress.conclude(5)), (5, 0));
    }

    /// R-LOAD-4: an event that was dropped is noticed at the next one, wherever it was, also the first; one that comes later
    /// is out of order.
    #[test]
    fn a_dropped_event_is_lost() {
        for dropped in 0..4 {
            let mut client = Client::new(5);
            for at in (0..5).filter(|at| *at != dropped) {
                let expected = if at == dropped + 1 { lost(1) } else { Skipped::default() };
                assert_eq!(client.get(at), next(at as u32, expected), "{dropped}");
            }
            assert!(matches!(client.get(dropped), Checked::Late(_)));
            assert_eq!(client.get(dropped), Checked::Repeated, "only once");
        }
    }

    /// R-LOAD-4: an event that comes again is a repetition with the same id and doubled with another one, also long after.
    #[test]
    fn a_doubled_event_is_noticed() {
        let mut client = Client::new(200);
        (0..200).for_each(|at| assert!(matches!(client.get(at), Checked::Next(..))));
        for at in [199, 198, 3, 0] {
            assert_eq!(client.get(at), Checked::Repeated, "{at}");
            client.events[at].0.push('x');
            assert_eq!(client.get(at), Checked::Doubled, "{at}");
        }
    }

    /// R-LOAD-4: two events in the wrong order.
    #[test]
    fn reordered_events_are_noticed() {
        let mut client = Client::new(3);
        assert_eq!(client.get(1), next(1, lost(1)));
        assert!(matches!(client.get(0), Checked::Late(_)));
        assert_eq!(client.get(2), next(2, Skipped::default()));
    }

    /// R-LOAD-4: the hash is the connection's own: an event with the right number that does not follow the one before it, one
    /// of another channel, one whose data or id differs, and one without an id are noticed.
    #[test]
    fn a_wrong_event_is_noticed() {
        let mut client = Client::new(3);
        client.get(0);
        let stamp = Stamp { run: RUN, publisher: 0, sequence: 1, intended_ns: 5, channel: CHANNEL };
        let mut check =
            |stamp, chain, id| client.checker.check(&mut client.progress.clone(), CHANNEL, id, &data(stamp, 0, chain));
        assert!(matches!(check(stamp, 1, Some("evt_1")), Checked::Damaged(_)), "the hash");
        let chain = Link::hash(Link::hash(0, &Stamp { sequence: 0, ..stamp }), &stamp);
        assert!(matches!(check(stamp, chain, None), Checked::Damaged(_)));
        assert!(matches!(check(stamp, chain, Some("evt_9")), Checked::Damaged(_)), "the id");
        assert_eq!(check(Stamp { channel: 1, ..stamp }, chain, Some("evt_1")), Checked::WrongChannel);
        assert_eq!(check(Stamp { run: 1, ..stamp }, chain, Some("evt_1")), Checked::Foreign);
        assert_eq!(check(stamp, chain, Some("evt_1")), next(1, Skipped::default()));
        client.events[1].1[127] ^= 1;
        assert!(matches!(client.get(1), Checked::Damaged(_)));
    }

    /// R-LOAD-4: a reported gap permits missing events once, up to where it ends if that is known, and no loss behind it.
    #[test]
    fn a_gap_permits_missing_events() {
        let mut client = Client::new(20);
        client.get(0);
        assert_eq!(client.checker.take_gap(&mut client.progress, CHANNEL, Some("evt_4")), 0, "nobody has seen it");
        assert_eq!(client.get(5), next(5, left_out(4)));
        assert_eq!(client.get(7), next(7, lost(1)), "the gap has ended");
        client.another_gets(0..12);
        assert_eq!(client.checker.take_gap(&mut client.progress, CHANNEL, Some("evt_9")), 2);
        assert_eq!(client.get(11), next(11, lost(1)), "the gap ended before 10");
        assert_eq!(client.checker.take_gap(&mut client.progress, CHANNEL, Some("evt_9")), 0, "it has that already");
        assert_eq!(client.get(13), next(13, lost(1)));
        assert_eq!(client.checker.take_gap(&mut client.progress, CHANNEL, None), 0);
        assert_eq!(client.progress.conclude(20), 6, "nothing came after the gap");
        assert_eq!(client.get(14), next(14, Skipped::default()));
        assert_eq!(client.progress.conclude(20), 0);
    }

    /// Goal: an event that the publisher does not know to be published may be missing, and no other one.
    #[test]
    fn an_unanswered_event_may_be_missing() {
        let stamp = |sequence| Stamp { run: RUN, publisher: 0, sequence, intended_ns: 5, channel: CHANNEL };
        let mut client = Client::new(1);
        client.events.push(("evt_3".into(), data(stamp(3), 1, 9)));
        client.get(0);
        assert_eq!(client.get(1), next(3, Skipped { lost: 1, left_out: 0, uncertain: 1 }));
    }

    /// Goal: memory is bounded, whatever the sequences are, and ids at the edges of the window are known.
    #[test]
    fn known_ids_are_bounded() {
        let mut ids = Ids::default();
        for sequence in (0..10_000).chain([50_000, u32::MAX]) {
            assert_eq!(ids.compare(sequence, sequence.into()), Known::Same);
            assert!(ids.hashes.len() <= IDS_MAX);
            assert_eq!(ids.sequence_of(sequence.into()), Some(sequence));
        }
        assert_eq!(ids.compare(9_999, 9_999), Known::Unknown);
    }
}
