use std::collections::BTreeMap;

use super::*;

const WINDOW: Window = Window { events: 5, age_ms: 1_000, bytes: 1 << 20 };

fn place(channel: u32, group: u8) -> Place {
    Place { app: AppSerial(1), group, channel: OwnedIndex(channel), name_bytes: 4, is_occupied: true }
}

fn frame(number: u64) -> Bytes {
    Bytes::from(number.to_be_bytes().to_vec())
}

/// A generator of numbers that needs no crate.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Everything that ever happened on one channel.
#[derive(Default)]
struct Model {
    record: Option<RecordIndex>,
    occupied: bool,
    /// Sequence and time of all events.
    events: Vec<(u64, u64)>,
    /// Positions that clients know, and when they got them.
    positions: Vec<(u64, u64)>,
}

/// Histories next to the complete list of all events.
struct Pair {
    histories: Histories,
    window: Window,
    channels: BTreeMap<(u32, u32), Model>,
    now_ms: u64,
}

impl Pair {
    fn new(window: Window, bytes_max: usize) -> Self {
        Self { histories: Histories::new(bytes_max), window, channels: BTreeMap::new(), now_ms: 1 }
    }

    fn place(&self, (app, channel): (u32, u32)) -> Place {
        let is_occupied = self.channels.get(&(app, channel)).is_some_and(|model| model.occupied);
        let channel_index = OwnedIndex(app * 100 + channel);
        Place { app: AppSerial(app), group: (channel % 3) as u8, channel: channel_index, name_bytes: 4, is_occupied }
    }

    fn settle(&mut self) {
        while let Some(OwnedIndex(index)) = self.histories.take_forgotten() {
            let model = self.channels.get_mut(&(index / 100, index % 100)).expect("a known channel");
            assert!(model.record.take().is_some(), "a record ends once");
        }
    }

    fn publish(&mut self, key: (u32, u32)) -> Order {
        let place = self.place(key);
        let model = self.channels.entry(key).or_default();
        let count = model.events.len() as u64;
        let (record, order) = self.histories.push(place, model.record, &self.window, frame(count), self.now_ms);
        model.record = Some(record);
        let last = model.events.last().map_or(0, |(sequence, _)| *sequence);
        assert!(order.previous == last || order.previous == 0, "{order:?} after {last}");
        let sequence = order.sequence.get();
        assert!(sequence > last);
        model.events.push((sequence, self.now_ms));
        model.positions.push((sequence, self.now_ms));
        self.settle();
        order
    }

    fn subscribe(&mut self, key: (u32, u32)) {
        let mut place = self.place(key);
        place.is_occupied = true;
        let model = self.channels.entry(key).or_default();
        model.occupied = true;
        match model.record {
            Some(record) => self.histories.occupy(record),
            None => model.record = Some(self.histories.open(place, &self.window, self.now_ms)),
        }
        let position = self.histories.position(place.app, place.group, self.now_ms);
        model.positions.push((position, self.now_ms));
        self.settle();
    }

    fn leave(&mut self, key: (u32, u32)) {
        let model = self.channels.entry(key).or_default();
        model.occupied = false;
        if let Some(record) = model.record {
            self.histories.vacate(record, &self.window, self.now_ms);
        }
        self.settle();
    }

    fn expire(&mut self) {
        let window = self.window;
        self.histories.expire(self.now_ms, |_| Some(window));
        self.settle();
    }

    /// Resumes from a position; returns the gap and the events that follow.
    fn resume(&mut self, key: (u32, u32), after: u64) -> (Option<Gap>, u64, Vec<u64>) {
        let place = self.place(key);
        let record = self.channels.get(&key).and_then(|model| model.record);
        let at = (place.app, place.group);
        let (start, gap) = self.histories.resume(at, record, &self.window, Ok(after), self.now_ms);
        self.settle();
        let record = self.channels.get(&key).and_then(|model| model.record);
        let mut events = Vec::new();
        let mut from = start;
        // In parts of two.
        while let Some(record) = record {
            let part = self.histories.read(record, from, usize::MAX, 2);
            events.extend(part.events.iter().map(|(sequence, _)| *sequence));
            from = events.last().copied().unwrap_or(from);
            if part.complete {
                break;
            }
        }
        (gap, start, events)
    }

    /// R-HIST-11: nothing is lost without a gap, a gap names where completeness begins, and there is none without a
    /// reason.
    fn check(&mut self, key: (u32, u32), (after, known_ms): (u64, u64), budgets_are_large: bool) {
        let (gap, start, events) = self.resume(key, after);
        let model = &self.channels[&key];
        let later = |position: u64| -> Vec<u64> {
            model.events.iter().map(|(sequence, _)| *sequence).filter(|sequence| *sequence > position).collect()
        };
        assert_eq!(events, later(start), "complete from where it says, at {}", self.now_ms);
        match gap {
            None => assert_eq!(start, after),
            Some(Gap::Expired) => {
                assert!(start > after);
                let missed: Vec<_> =
                    model.events.iter().filter(|(sequence, _)| *sequence > after && *sequence <= start).collect();
                let is_old = known_ms + self.window.age_ms < self.now_ms;
                assert!(
                    !budgets_are_large || !missed.is_empty() || is_old,
                    "a gap without a reason at {}",
                    self.now_ms
                );
            }
            Some(other) => panic!("{other:?} for a position that was given out"),
        }
    }

    /// R-REPLAY-1: each event of a channel is found by its number if and only if it is kept. The index of a group has no
    /// more than two entries for each kept event.
    fn check_find(&mut self, key: (u32, u32)) {
        let (kept, place) = (self.resume(key, 0).2, self.place(key));
        let find = |app, group, sequence| {
            let found = self.histories.find((AppSerial(app), group), sequence, &self.window, self.now_ms);
            found.map(|(channel, frame)| (channel, frame.clone()))
        };
        for (number, (sequence, _)) in self.channels[&key].events.iter().enumerate() {
            let expected = kept.contains(sequence).then(|| (place.channel, frame(number as u64)));
            assert_eq!(find(key.0, place.group, *sequence), expected, "at {}", self.now_ms);
        }
        for (app, group, sequence) in [(3, place.group, 1), (key.0, 7, 1), (key.0, place.group, u64::MAX)] {
            assert_eq!(find(app, group, sequence), None);
        }
        let groups = self.histories.apps.values().flat_map(|app| app.groups.values());
        let entries: usize = groups.map(|group| group.index.len()).sum();
        assert!(entries <= 2 * self.histories.events(), "{entries} for {}", self.histories.events());
    }

    /// The bytes are the sum of the costs.
    fn check_bytes(&self) {
        let events: usize = self.histories.events.iter().map(|(_, event)| event_cost(&event.frame)).sum();
        let records = self.histories.records.iter().filter(|(_, record)| !record.place.is_occupied);
        let records: usize = records.map(|(_, record)| record_cost(&record.place)).sum();
        assert_eq!(self.histories.bytes(), events + records);
        let by_app: usize = self.histories.apps.values().map(|app| app.bytes).sum();
        assert_eq!(by_app, self.histories.bytes());
        let sharers = self.histories.apps.values().filter(|app| app.bytes > 0).count();
        assert_eq!(self.histories.total.sharers, sharers);
    }
}

/// R-HIST-1, R-HIST-4, R-HIST-11, R-HIST-15, R-REPLAY-1: at any moment every position that was ever given out is either
/// complete or a gap, and every kept event is found by its number. Method: random publishes, joins, leaves and pauses on channels that share groups, under four kinds of limits,
/// next to a list of all events.
#[test]
fn every_position_is_complete_or_a_gap() {
    let small = Window { events: 3, age_ms: 400, bytes: 1_600 };
    for (seed, window, bytes_max, large) in (0..200).flat_map(|seed| {
        [
            (seed, WINDOW, 1 << 20, true),
            (seed, Window { events: 100, ..WINDOW }, 1 << 20, true),
            (seed, small, 1 << 20, false),
            (seed, WINDOW, 2_500, false),
        ]
    }) {
        let (mut pair, mut numbers) = (Pair::new(window, bytes_max), Numbers(seed));
        for _ in 0..120 {
            let key = (numbers.below(2) as u32 + 1, numbers.below(5) as u32);
            match numbers.below(10) {
                0..4 => {
                    pair.publish(key);
                }
                4..6 => pair.subscribe(key),
                6 => pair.leave(key),
                7 => pair.now_ms += numbers.below(window.age_ms / 2),
                8 => {
                    pair.now_ms += numbers.below(window.age_ms * 2);
                    pair.expire();
                }
                _ => pair.expire(),
            }
            pair.check_bytes();
            let positions = pair.channels.get(&key).map_or(Vec::new(), |model| model.positions.clone());
            for known in positions.iter().rev().take(6).chain(positions.first()) {
                pair.check(key, *known, large);
            }
            if pair.channels.contains_key(&key) {
                pair.check_find(key);
            }
            assert!(pair.histories.bytes() <= bytes_max.max(window.bytes));
        }
    }
}

/// R-HIST-11, H3, H7: at the top nothing is missed, also with an empty history; ahead of it is a gap.
#[test]
fn the_top_and_ahead_of_it() {
    let mut pair = Pair::new(WINDOW, 1 << 20);
    let key = (1, 1);
    pair.subscribe(key);
    assert_eq!(pair.resume(key, 0), (None, 0, vec![]));
    assert_eq!(pair.resume(key, 1), (Some(Gap::Ahead), 0, vec![]));
    let first = pair.publish(key).sequence.get();
    assert_eq!(pair.resume(key, 0), (None, 0, vec![first]));
    assert_eq!(pair.resume(key, first), (None, first, vec![]));
    pair.now_ms += WINDOW.age_ms;
    assert_eq!(pair.resume(key, first), (None, first, vec![]), "empty, and nothing was missed");
    assert_eq!(pair.resume(key, 0), (Some(Gap::Expired), first, vec![]));
    assert_eq!(pair.resume(key, u64::MAX), (Some(Gap::Ahead), first, vec![]));
}

/// H3, R-HIST-11: a quiet channel resumes without a gap although its group goes on: while it has subscribers, and as
/// long as the window after they have left.
#[test]
fn a_quiet_channel_has_no_gap() {
    let mut pair = Pair::new(WINDOW, 1 << 20);
    let (quiet, busy) = ((1, 1), (1, 4));
    pair.publish(busy);
    pair.subscribe(quiet);
    let (position, _) = pair.channels[&quiet].positions[0];
    for _ in 0..100 {
        pair.now_ms += WINDOW.age_ms / 3;
        pair.publish(busy);
        pair.expire();
    }
    pair.leave(quiet);
    for _ in 0..3 {
        pair.now_ms += WINDOW.age_ms / 3;
        pair.publish(busy);
        pair.expire();
        assert_eq!(pair.resume(quiet, position).0, None);
    }
    pair.now_ms += WINDOW.age_ms;
    pair.expire();
    assert_eq!(pair.resume(quiet, position).0, Some(Gap::Expired));
    // A position that was read a moment ago is good, though nobody knows the channel.
    let unknown = pair.histories.position(AppSerial(1), 1, pair.now_ms);
    pair.now_ms += WINDOW.age_ms;
    pair.publish(busy);
    pair.expire();
    assert_eq!(pair.resume((1, 7), unknown), (None, unknown, vec![]));
}

/// T28, T63, R-HIST-1: an app that floods a full shard drops its own events; one within its part loses nothing.
#[test]
fn one_app_evicts_no_other() {
    let cost = event_cost(&frame(0));
    let window = Window { events: 1_000, age_ms: 60_000, bytes: usize::MAX };
    let mut pair = Pair::new(window, 100 * cost);
    for channel in [1, 2] {
        pair.subscribe((1, channel));
        pair.subscribe((2, channel));
    }
    for _ in 0..40 {
        pair.publish((1, 1));
    }
    for _ in 0..1_000 {
        pair.publish((2, 1));
        pair.publish((2, 2));
    }
    assert_eq!(pair.resume((1, 1), 0).2.len(), 40, "app 1 keeps all");
    assert!(pair.histories.bytes() <= 100 * cost && pair.histories.bytes() > 90 * cost);
    // It may still grow to its part, at the cost of the larger one.
    for _ in 0..1_000 {
        pair.publish((1, 2));
    }
    let kept = |pair: &Pair, app| pair.histories.apps[&AppSerial(app)].bytes / cost;
    assert!((48..=52).contains(&kept(&pair, 1)) && (46..=52).contains(&kept(&pair, 2)), "equal parts");
}

/// T59: the numbers of one app do not depend on what another app publishes.
#[test]
fn apps_have_numbers_of_their_own() {
    let sequences = |others: usize| {
        let mut pair = Pair::new(WINDOW, 1 << 20);
        (0..10)
            .map(|_| {
                for _ in 0..others {
                    pair.publish((2, 1));
                }
                pair.publish((1, 1)).sequence.get()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(sequences(0), sequences(1_000));
}

/// R-HIST-1: after history was off, or its time changed, every older position is a gap, also the last one; deleted apps
/// leave nothing.
#[test]
fn a_restart_makes_gaps() {
    let mut pair = Pair::new(WINDOW, 1 << 20);
    let key = (1, 1);
    pair.subscribe(key);
    let last = pair.publish(key).sequence.get();
    pair.histories.restart(AppSerial(1));
    pair.settle();
    assert_eq!(pair.resume(key, last).0, Some(Gap::Expired));
    let next = pair.publish(key).sequence.get();
    assert!(next > last);
    assert_eq!(pair.resume(key, next).0, None);
    pair.histories.restart(AppSerial(1));
    pair.histories.remove_app(AppSerial(1));
    pair.settle();
    assert_eq!((pair.histories.bytes(), pair.histories.events(), pair.histories.records.len()), (0, 0, 0));
}

/// R-HIST-1: a limit that was lowered holds from the next event of a channel on.
#[test]
fn a_lower_limit_holds() {
    let mut pair = Pair::new(WINDOW, 1 << 20);
    for _ in 0..WINDOW.events {
        pair.publish((1, 1));
    }
    pair.window.events = 2;
    let last = pair.publish((1, 1)).sequence.get();
    assert_eq!(pair.resume((1, 1), 0).2, [last - 1, last]);
}

/// R-HIST-1: an app that is not used leaves no state behind but a number.
#[test]
fn an_unused_app_costs_nothing() {
    let mut pair = Pair::new(WINDOW, 1 << 20);
    let last = pair.publish((1, 1)).sequence.get();
    for _ in 0..10 {
        pair.now_ms += WINDOW.age_ms;
        pair.expire();
    }
    assert_eq!((pair.histories.bytes(), pair.histories.records.len(), pair.histories.due_ms()), (0, 0, None));
    assert!(pair.histories.apps[&AppSerial(1)].groups.is_empty());
    assert!(pair.publish((1, 1)).sequence.get() > last, "numbers only increase");
}

/// R-HIST-12: a part has at least one event, and at most as many bytes and events as asked.
#[test]
fn parts_are_bounded() {
    let mut histories = Histories::new(1 << 20);
    let window = Window { events: 100, ..WINDOW };
    let mut record = None;
    for _ in 0..10 {
        let bytes = Bytes::from(vec![0; 100]);
        record = Some(histories.push(place(1, 1), record, &window, bytes, 1).0);
    }
    let record = record.expect("it was pushed");
    let read = |after, bytes, events| {
        let part = histories.read(record, after, bytes, events);
        (part.events.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), part.complete)
    };
    assert_eq!(read(0, 350, 100), (vec![1, 2, 3], false));
    assert_eq!(read(0, 1, 100), (vec![1], false));
    assert_eq!(read(7, 300, 100), (vec![8, 9, 10], true));
    assert_eq!(read(7, usize::MAX, 2), (vec![8, 9], false));
    assert_eq!(read(10, 300, 100), (vec![], true));
}

/// R-HIST-4, R-HIST-11: when a budget leaves no room for the record of a channel either, positions from before its last
/// event are gaps as long as a record would have been kept, whether the budget is that of the app or of the shard.
#[test]
fn evicted_records_leave_gaps() {
    let bytes = 10 * (limits::HISTORY_RECORD_BYTES + 4);
    for (of_app, of_shard) in [(bytes, 1 << 20), (1 << 20, bytes)] {
        let mut pair = Pair::new(Window { bytes: of_app, ..WINDOW }, of_shard);
        let sequences: Vec<u64> = (0..90).map(|channel| pair.publish((1, channel)).sequence.get()).collect();
        let evicted: Vec<u32> = (0..90).filter(|channel| pair.channels[&(1, *channel)].record.is_none()).collect();
        assert!(evicted.contains(&0) && evicted.len() >= 80, "{evicted:?}");
        for age_ms in [0, WINDOW.age_ms / 2, WINDOW.age_ms] {
            pair.now_ms = 1 + age_ms;
            for channel in &evicted {
                let sequence = sequences[*channel as usize];
                let (gap, start, events) = pair.resume((1, *channel), sequence - 1);
                assert_eq!((gap, events), (Some(Gap::Expired), Vec::new()), "channel {channel} after {age_ms} ms");
                assert!(start >= sequence, "{start} of {sequence}");
            }
        }
        // Nothing is missing after the top.
        let top = pair.histories.position(AppSerial(1), 0, pair.now_ms);
        assert_eq!(pair.resume((1, 0), top), (None, top, Vec::new()));
    }
}
