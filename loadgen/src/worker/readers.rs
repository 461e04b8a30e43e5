//! The connections of a worker that continue after their last event (`resume`): what each of them remembers while it is
//! away, which of them is reset next, and when those that are away return.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::checker::{Checked, Checker, Progress};
use crate::clock::MILLISECOND_NS;
use crate::messages::{Plan, ResetOrder, ResumePlan};
use crate::schedule::Schedule;

/// All readers of a worker.
pub(crate) struct Readers {
    plan: ResumePlan,
    /// Index of each channel by name.
    channels: HashMap<String, u32>,
    checker: Checker,
    /// By the number of the connection.
    readers: Vec<Option<Box<Reader>>>,
    /// The numbers of this worker's readers.
    numbers: Vec<u32>,
    resets: Schedule,
    /// Readers that are away: when each returns, and its number.
    returning: BinaryHeap<Reverse<(u64, u32)>>,
    random: Random,
}

/// What a client keeps in memory.
struct Reader {
    /// The slot of its connection; `None` while it is away.
    slot: Option<u32>,
    /// When its current connection was subscribed; `u64::MAX` before.
    ready_ns: u64,
    /// Whether it was subscribed before.
    has_joined: bool,
    /// The last id of a stream or poll; empty before the first.
    cursor: String,
    channels: Box<[ReaderChannel]>,
}

/// One channel of a reader.
struct ReaderChannel {
    index: u32,
    /// Its last event on a WebSocket, or its position; empty before the first.
    last_event_id: String,
    is_subscribed: bool,
    progress: Progress,
}

/// How the subscription of a channel changed its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subscribed {
    /// Others are still to be confirmed.
    Part,
    All,
}

impl Readers {
    pub(crate) fn new(plan: &Plan, resume: ResumePlan) -> Self {
        let names = plan.channels.iter().cloned();
        Self {
            plan: resume,
            channels: names.zip(0..).collect(),
            checker: Checker::new(plan.run, plan.payload_bytes, plan.channels.len()),
            readers: Vec::new(),
            numbers: Vec::new(),
            resets: Schedule::default(),
            returning: BinaryHeap::new(),
            random: Random(u64::from(plan.run) << 32 | u64::from(plan.worker)),
        }
    }

    fn reader(&mut self, number: u32) -> Option<&mut Reader> {
        self.readers.get_mut(number as usize)?.as_deref_mut()
    }

    /// A connection of the reader with this number begins.
    pub(crate) fn begin(&mut self, number: u32, slot: u32) {
        let at = number as usize;
        if at >= self.readers.len() {
            self.readers.resize_with(at + 1, || None);
        }
        let count = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
        let (plan, numbers) = (self.plan, &mut self.numbers);
        let reader = self.readers[at].get_or_insert_with(|| {
            numbers.push(number);
            let channel = |index| ReaderChannel {
                index,
                last_event_id: String::new(),
                is_subscribed: false,
                progress: Progress::new(),
            };
            let channels = plan.channels_of(number, count).map(channel).collect();
            Box::new(Reader { slot: None, ready_ns: u64::MAX, has_joined: false, cursor: String::new(), channels })
        });
        (reader.slot, reader.ready_ns) = (Some(slot), u64::MAX);
        for channel in &mut reader.channels {
            channel.is_subscribed = false;
        }
    }

    /// The channels of a reader with the last event of each, and the cursor of all.
    pub(crate) fn last_events(&self, number: u32) -> (impl Iterator<Item = (u32, &str)>, &str) {
        let reader = self.readers.get(number as usize).and_then(Option::as_deref);
        let channels = reader.map_or(&[][..], |reader| &reader.channels);
        let last_events = channels.iter().map(|channel| (channel.index, &*channel.last_event_id));
        (last_events, reader.map_or("", |reader| &reader.cursor))
    }

    /// Whether the reader continues after an earlier connection.
    pub(crate) fn continues(&self, number: u32) -> bool {
        self.readers.get(number as usize).and_then(Option::as_deref).is_some_and(|reader| reader.has_joined)
    }

    /// The reader's connection is subscribed.
    pub(crate) fn join(&mut self, number: u32, now: u64) {
        let Some(reader) = self.reader(number) else { return };
        (reader.ready_ns, reader.has_joined) = (now, true);
    }

    /// Sets the id that a stream or poll continues after.
    pub(crate) fn set_cursor(&mut self, number: u32, cursor: &str) {
        let Some(reader) = self.reader(number) else { return };
        reader.cursor.clear();
        reader.cursor.push_str(cursor);
    }

    fn channel(&mut self, number: u32, name: &str) -> Option<(&mut Checker, &mut ReaderChannel, u64)> {
        let index = *self.channels.get(name)?;
        let reader = self.readers.get_mut(number as usize)?.as_deref_mut()?;
        let channel = reader.channels.iter_mut().find(|channel| channel.index == index)?;
        Some((&mut self.checker, channel, reader.ready_ns))
    }

    /// A WebSocket is subscribed to a channel at this position. `None` if it did not subscribe to it.
    pub(crate) fn subscribe(&mut self, number: u32, name: &str, position: &str) -> Option<Subscribed> {
        let (_, channel, _) = self.channel(number, name).filter(|(_, channel, _)| !channel.is_subscribed)?;
        channel.is_subscribed = true;
        // Missed events up to the position are still to come.
        if channel.last_event_id.is_empty() {
            channel.last_event_id.push_str(position);
        }
        let reader = self.reader(number)?;
        Some(if reader.channels.iter().all(|channel| channel.is_subscribed) {
            Subscribed::All
        } else {
            Subscribed::Part
        })
    }

    /// The server reported a gap. Returns how many events it leaves out, if that is known yet; `None` for a channel that the
    /// reader did not subscribe to.
    pub(crate) fn take_gap(&mut self, number: u32, name: &str, resumes_at: Option<&str>) -> Option<u32> {
        let (checker, channel, _) = self.channel(number, name)?;
        resumes_at.unwrap_or_default().clone_into(&mut channel.last_event_id);
        Some(checker.take_gap(&mut channel.progress, channel.index, resumes_at))
    }

    /// Checks an event. Returns also when the connection was subscribed, and the sequence that was due.
    pub(crate) fn take_event(&mut self, number: u32, name: &str, id: Option<&str>, data: &str) -> (Checked, u64, u32) {
        let Some((checker, channel, ready_ns)) = self.channel(number, name) else {
            return (Checked::WrongChannel, u64::MAX, 0);
        };
        let due = channel.progress.next();
        let checked = checker.check(&mut channel.progress, channel.index, id, data.as_bytes());
        if let (Checked::Next(..) | Checked::Damaged(_), Some(id)) = (checked, id) {
            channel.last_event_id.clear();
            channel.last_event_id.push_str(id);
        }
        (checked, ready_ns, due)
    }

    /// The run has ended, and so many events of each channel were published: how many of them the last gaps left out.
    pub(crate) fn conclude(&self, events: &[u32]) -> u64 {
        let channels = self.readers.iter().flatten().flat_map(|reader| &reader.channels);
        let left_out = |channel: &ReaderChannel| {
            u64::from(channel.progress.conclude(events.get(channel.index as usize).copied().unwrap_or(0)))
        };
        channels.map(left_out).sum()
    }
}

impl Readers {
    /// Starts a schedule of resets.
    pub(crate) fn begin_resets(&mut self, order: &ResetOrder) {
        self.resets = Schedule::new(order.start_ns, order.interval_ns, order.count);
    }

    /// Ends the schedule; readers that are away still return.
    pub(crate) fn halt(&mut self) {
        self.resets.end();
    }

    /// Whether a connection is still to be reset or to return.
    pub(crate) fn is_running(&self) -> bool {
        self.resets.next_ns().is_some() || !self.returning.is_empty()
    }

    /// When there is something to do without an event. `joining` is the number of handshakes in flight.
    pub(crate) fn next_ns(&self, joining: u64) -> Option<u64> {
        let returns = self.returning.peek().filter(|_| joining < self.plan.in_flight_max);
        [self.resets.next_ns(), returns.map(|Reverse((at_ns, _))| *at_ns)].into_iter().flatten().min()
    }

    /// The next reset that is due, if there is one.
    pub(crate) fn take_reset(&mut self, now: u64) -> Option<u64> {
        let due_ns = self.resets.next_ns().filter(|due_ns| *due_ns <= now)?;
        self.resets.advance();
        Some(due_ns)
    }

    /// A connection at random: its number and slot. `None` if all readers are away.
    pub(crate) fn choose(&mut self) -> Option<(u32, u32)> {
        let count = self.numbers.len();
        let first = usize::try_from(self.random.below(count as u64)).unwrap_or(0);
        let mut numbers = (0..count).map(|at| self.numbers[(first + at) % count]);
        numbers.find_map(|number| Some((number, self.readers[number as usize].as_ref()?.slot?)))
    }

    /// The connection of a reader was reset, and it stays away for a random time.
    pub(crate) fn leave(&mut self, number: u32, now: u64) {
        let away_ns = self.random.below(self.plan.away_ns_max + 1);
        self.return_after(number, now + away_ns);
    }

    /// The connection of a reader ended or could not be opened. It returns if it was subscribed before.
    pub(crate) fn end(&mut self, number: u32, now: u64) {
        if self.continues(number) {
            self.return_after(number, now + RETURN_NS);
        } else if let Some(reader) = self.reader(number) {
            reader.slot = None;
        }
    }

    fn return_after(&mut self, number: u32, at_ns: u64) {
        let Some(reader) = self.reader(number) else { return };
        reader.slot = None;
        self.returning.push(Reverse((at_ns, number)));
    }

    /// The next reader that returns now: when it was due, and its number.
    pub(crate) fn take_return(&mut self, now: u64, joining: u64) -> Option<(u64, u32)> {
        let Reverse((at_ns, _)) = self.returning.peek()?;
        if *at_ns > now || joining >= self.plan.in_flight_max {
            return None;
        }
        self.returning.pop().map(|Reverse(next)| next)
    }
}

/// Splitmix64, which needs to be no better than different from run to run.
struct Random(u64);

impl Random {
    /// A number below `bound`; 0 if that is 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

/// How soon a client returns whose connection the server ended.
const RETURN_NS: u64 = 500 * MILLISECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Requests;
    use crate::wire::target::Target;
    use crate::wire::transport::Transport;

    fn readers() -> Readers {
        let resume = ResumePlan { channels_each: 2, away_ns_max: 1_000, in_flight_max: 1 };
        let plan = Plan {
            target: Target::new("ws://127.0.0.1:1", "1", "key", "secret").expect("an address"),
            run: 7,
            worker: 0,
            channels: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            publishers: 1,
            pipeline: 1,
            events_in_flight_max: 0,
            payload_bytes: 128,
            watchers: 0,
            join_timeout_ns: 0,
            requests: Requests::Events,
            connections: 2,
            transports: vec![Transport::Ws],
            resume: Some(resume),
        };
        Readers::new(&plan, resume)
    }

    fn last_events(readers: &Readers, number: u32) -> Vec<(u32, String)> {
        readers.last_events(number).0.map(|(channel, id)| (channel, id.to_owned())).collect()
    }

    /// Goal: a reader that is away is not reset again, and returns within its time, when there is room for a handshake.
    #[test]
    fn readers_leave_and_return() {
        let mut readers = readers();
        for (number, slot) in [(0, 5), (1, 6)] {
            readers.begin(number, slot);
            readers.join(number, 1);
        }
        let (first, _) = readers.choose().expect("both are there");
        readers.leave(first, 100);
        let (second, slot) = readers.choose().expect("one is there");
        assert_eq!((second, slot), (1 - first, 6 - first));
        readers.leave(second, 100);
        assert_eq!(readers.choose(), None);
        assert!(readers.is_running() && readers.next_ns(1).is_none(), "no room");
        assert!(readers.next_ns(0).is_some_and(|at_ns| (100..=1_100).contains(&at_ns)));
        assert_eq!((readers.take_return(99, 0), readers.take_return(1_100, 1)), (None, None));
        let mut returned =
            [readers.take_return(1_100, 0), readers.take_return(1_100, 0)].map(|next| next.expect("both").1);
        returned.sort_unstable();
        assert_eq!(returned, [0, 1]);
        assert!(!readers.is_running());
    }

    /// Goal: a connection that was never subscribed does not return by itself, and its slot is not reset.
    #[test]
    fn a_connection_that_failed_is_forgotten() {
        let mut readers = readers();
        readers.begin(0, 5);
        readers.end(0, 100);
        assert_eq!((readers.choose(), readers.is_running()), (None, false));
        readers.begin(0, 5);
        readers.join(0, 1);
        readers.end(0, 100);
        assert!(readers.is_running(), "one that was subscribed does");
    }

    /// R-HIST-6, R-HIST-8: a channel continues after its last event; before the first one after its position; and after a gap
    /// where that ends. The position of a resume is not the last event: the missed ones are still to come.
    #[test]
    fn the_last_event_of_each_channel_is_kept() {
        let mut readers = readers();
        readers.begin(0, 5);
        assert_eq!(readers.subscribe(0, "a", "evt_1"), Some(Subscribed::Part));
        assert_eq!(readers.subscribe(0, "a", "evt_1"), None, "it is subscribed");
        assert_eq!(readers.subscribe(0, "b", "evt_1"), None, "another channel");
        assert_eq!(readers.subscribe(0, "c", "evt_2"), Some(Subscribed::All));
        readers.begin(0, 6);
        assert_eq!(readers.subscribe(0, "a", "evt_9"), Some(Subscribed::Part));
        assert_eq!(last_events(&readers, 0), [(0, "evt_1".to_owned()), (2, "evt_2".to_owned())]);
        readers.take_gap(0, "a", Some("evt_8"));
        readers.take_gap(0, "c", None);
        assert_eq!(last_events(&readers, 0), [(0, "evt_8".to_owned()), (2, String::new())]);
        assert_eq!(readers.take_gap(0, "b", None), None);
    }
}
