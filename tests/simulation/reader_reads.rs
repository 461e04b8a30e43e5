//! How readers check the answers to streams and polls: every event once, in order, with the position that continues
//! after it; gaps where something may be missing and nowhere else (R-SSE-6 to R-SSE-9, R-POLL-1, R-POLL-2, R-HIST-4).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::caller_reads::check_error;
use crate::client::event_stream::{Block, Item};
use crate::client::positions::{decode_cursor, decode_id};
use crate::client::reader::{Asked, Chain, Named, Place, ReaderPhase};
use crate::client::responses::Response;
use crate::coverage::Happening;
use crate::history::HistoryView;
use crate::network::End;
use crate::reference::{Group, Origin, READERS, Received, Session};
use crate::world::World;

/// A gap that was reported, by channel: the sequence at which reading resumes.
type Gaps = BTreeMap<String, u64>;

/// The events of one channel in the answer to a poll.
#[derive(Clone, Copy, Debug)]
struct Polled {
    first: u64,
    last: u64,
    /// When the last one was published.
    given_ms: u64,
}

impl World {
    /// A reader reads up to `bytes_max` bytes. False when there was nothing to read.
    pub(crate) fn read_reader(&mut self, number: usize, bytes_max: usize) -> bool {
        let reader = &mut self.readers[number];
        let Some(wire) = reader.wire.filter(|_| !reader.stalled) else { return false };
        let end = self.wires[wire].client_sees();
        let bytes = self.wires[wire].client_read(bytes_max);
        if bytes.is_empty() {
            if end == End::Open {
                return false;
            }
            self.end_reader(number, end);
            return true;
        }
        self.system.trace.mix_bytes(&bytes);
        self.system.trace.note(|| format!("reader {number} reads {}", bytes.escape_ascii()));
        reader.answers.push(&bytes);
        while self.readers[number].wire.is_some()
            && let Some(item) = self.readers[number].answers.next()
        {
            self.handle_item(number, item);
        }
        true
    }

    /// The server ended the connection.
    fn end_reader(&mut self, number: usize, end: End) {
        let reader = &self.readers[number];
        let wire = reader.wire.expect("it was read");
        let made_room = self.system.was_full(self.wires[wire].shard);
        let is_troubled =
            self.draining || self.scenario.store_changes || self.may_overload() || self.scenario.few_slots;
        let excused = match reader.phase {
            ReaderPhase::Idle => true,
            ReaderPhase::Asked(_) | ReaderPhase::Opening(_) | ReaderPhase::Open => {
                reader.may_end || made_room || is_troubled
            }
        };
        assert!(excused, "reader {number} was cut off ({end:?}) as {:?}", reader.phase);
        let is_whole = reader.answers.may_end();
        assert!(is_whole || reader.may_end || made_room, "reader {number} was cut off within an answer");
        self.wires[wire].client_finish();
        self.forget_connection(number);
    }

    fn handle_item(&mut self, number: usize, item: Item) {
        let phase = std::mem::replace(&mut self.readers[number].phase, ReaderPhase::Idle);
        match (phase, item) {
            (ReaderPhase::Asked(asked), Item::Opened(head)) => {
                assert!(!self.readers[number].polls, "reader {number} got a stream for a poll");
                self.check_status(number, &asked, &head);
                for (name, value) in [
                    ("cache-control", "no-store"),
                    ("x-accel-buffering", "no"),
                    ("referrer-policy", "no-referrer"),
                    ("x-content-type-options", "nosniff"),
                ] {
                    assert_eq!(head.header(name), Some(value), "R-SSE-6: {head:?}");
                }
                self.readers[number].phase = ReaderPhase::Opening(asked);
            }
            (ReaderPhase::Asked(asked), Item::Refused(response)) => self.handle_answer(number, &asked, &response),
            (ReaderPhase::Opening(asked), Item::Block(block)) => self.handle_opening(number, asked, &block),
            (ReaderPhase::Open, Item::Block(block)) => {
                self.readers[number].phase = ReaderPhase::Open;
                self.handle_block(number, &block);
            }
            (phase, item) => panic!("reader {number} got {item:?} as {phase:?}"),
        }
    }

    /// The status is that of the rules.
    fn check_status(&mut self, number: usize, asked: &Asked, response: &Response) {
        self.system.coverage.note(Happening::Answered(response.status));
        let owed = &asked.owed;
        let is_stable = self.store_is_stable_since(owed.started);
        let is_right = owed.statuses.contains(&response.status)
            || (!is_stable && owed.statuses_in_flux.contains(&response.status));
        // The server refuses a stream with 503 if its credential ends while it is opened.
        let is_late = self.draining || self.may_overload() || self.scenario.few_slots || !is_stable;
        let excused = match response.status {
            429 => self.scenario.quota && owed.app == 0,
            503 => is_late,
            _ => false,
        };
        assert!(
            is_right || excused,
            "reader {number} got {} {}, owed was {owed:?}, store stable: {is_stable}",
            response.status,
            response.body.escape_ascii()
        );
    }

    /// A poll is answered, or a stream or poll is refused.
    fn handle_answer(&mut self, number: usize, asked: &Asked, response: &Response) {
        self.check_status(number, asked, response);
        let ends = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let polls = self.readers[number].polls;
        if response.status == 200 {
            assert!(polls, "reader {number} got no stream: {response:?}");
            self.handle_polled(number, asked, response);
        } else {
            check_error(&asked.owed, response);
        }
        if ends || !polls {
            self.finish_reader(number);
        }
        // A client polls again at once, mostly.
        if response.status == 200 && !self.random.one_in(4) {
            self.ask_to_read(number);
        }
    }

    /// What an id or cursor stands for: the sequence of each channel of a reader. `None` if some of them have no history any
    /// more, because their app was deleted.
    fn decode_places(&mut self, number: usize, id: &str) -> Option<Vec<u64>> {
        let reader = &self.readers[number];
        if reader.channels.len() == 1 {
            return Some(vec![decode_id(id).2]);
        }
        let entries = decode_cursor(id);
        if self.apps[reader.app].deleted && entries.len() < reader.channels.len() {
            return None;
        }
        assert_eq!(entries.len(), reader.channels.len(), "R-HIST-3: {id} of {:?}", reader.channels);
        for (channel, (hash, _)) in reader.channels.iter().zip(&entries) {
            let known = *self.model.cursor_hashes.entry((reader.app, channel.clone())).or_insert(*hash);
            assert_eq!(known, *hash, "R-HIST-3: {channel} has two hashes");
        }
        Some(entries.into_iter().map(|(_, sequence)| sequence).collect())
    }

    /// The first events of a stream: `connected`, perhaps a gap (R-SSE-7).
    fn handle_opening(&mut self, number: usize, asked: Box<Asked>, block: &Block) {
        let Some(data) = &block.data else {
            assert_eq!(block, &Block::default(), "R-SSE-7");
            self.readers[number].phase = ReaderPhase::Opening(asked);
            return;
        };
        let data: Value = serde_json::from_str(data).expect("data of a stream is JSON");
        let named = !matches!(asked.named, Named::Nothing);
        let (id, gaps) = match block.event.as_deref() {
            Some("connected") => {
                assert!(data["socket_id"].is_string(), "R-SSE-7: {data}");
                assert_eq!(data["channels"], serde_json::json!(self.readers[number].channels), "R-SSE-7");
                let is_complete = named && block.id.is_some();
                assert_eq!(data["resumed"], serde_json::json!(is_complete), "R-SSE-7: {block:?} after {asked:?}");
                let Some(id) = &block.id else {
                    self.readers[number].phase = ReaderPhase::Opening(asked);
                    return;
                };
                (id, Gaps::new())
            }
            Some("gap") => {
                let gaps = self.check_gaps(number, &data["channels"], Some(&asked));
                assert!(!gaps.is_empty(), "R-SSE-9: {data}");
                self.system.coverage.note(Happening::StreamGap);
                (block.id.as_ref().expect("R-SSE-9: a gap has an id"), gaps)
            }
            other => panic!("reader {number}: a stream begins with {other:?} (R-SSE-7)"),
        };
        self.check_bad(number, &asked, &gaps);
        let Some(sequences) = self.decode_places(number, id) else {
            // It is about to end.
            self.readers[number].phase = ReaderPhase::Opening(asked);
            return;
        };
        self.system.coverage.note(match (named, gaps.is_empty()) {
            (true, true) => Happening::StreamResumed,
            (true, false) | (false, _) => Happening::StreamOpened,
        });
        self.begin(number, &asked, (id, sequences), &gaps, &BTreeMap::new());
        for channel in self.readers[number].channels.clone() {
            let reader = &self.readers[number];
            let start = reader.places[&channel];
            let resumed = Some((!gaps.contains_key(&channel) && named).then_some((start.sequence, start.given_ms)));
            let history = HistoryView::of_stream(resumed, start.sequence, gaps.contains_key(&channel));
            let session =
                Session::of_stream(READERS + number, (reader.app, channel), self.tick, self.system.served_ms());
            self.readers[number].sessions.push(self.model.sessions.len());
            self.model.sessions.push(Session { history, ..session });
        }
        self.readers[number].phase = ReaderPhase::Open;
    }

    /// Every gap has a reason: the position was bad, or is no longer kept (R-HIST-4, R-HIST-10). Without `asked` it is one
    /// of an open stream.
    fn check_gaps(&self, number: usize, gaps: &Value, asked: Option<&Asked>) -> Gaps {
        let mut found = Gaps::new();
        for gap in gaps.as_array().expect("a list of gaps (R-SSE-9)") {
            let reader = &self.readers[number];
            let channel = gap["channel"].as_str().expect("R-SSE-9: it names its channel").to_owned();
            assert!(reader.channels.contains(&channel), "R-SSE-9: {gap}");
            let Some(resumes_at) = gap["resumes_at"].as_str().map(|id| decode_id(id).2) else {
                assert!(self.apps[reader.app].deleted, "R-HIST-10: {gap} resumes nowhere");
                continue;
            };
            let reason = gap["reason"].as_str().expect("R-HIST-10");
            let after = gap["after"].as_str();
            let place = match asked.map(|asked| &asked.named) {
                None => Some(reader.places[&channel]),
                Some(Named::Given(places)) => Some(places[&channel]),
                Some(Named::Nothing) => panic!("reader {number} has a gap and named nothing: {gap}"),
                Some(Named::Bad { .. }) => None,
            };
            if let Some(Place { sequence, given_ms }) = place {
                assert_eq!(reason, "expired", "R-HIST-4: {gap}");
                assert_eq!(after.map(|id| decode_id(id).2), Some(sequence), "R-HIST-10: {gap}");
                assert!(sequence < resumes_at, "R-HIST-10: {gap}");
                let is_excused = self.may_have_dropped(reader.app, &channel, given_ms);
                assert!(is_excused, "reader {number} has a gap for no reason (R-HIST-11): {gap}");
            }
            let is_several = reader.channels.len() > 1;
            assert!(
                after.is_none() || reason != "unreadable" && (reason != "epoch" || !is_several),
                "R-HIST-10: {gap}"
            );
            assert!(found.insert(channel, resumes_at).is_none(), "R-SSE-9: two gaps of one channel: {gaps}");
        }
        if let Some(Asked { named: Named::Bad { reason, everywhere: true }, .. }) = asked {
            let reasons: Vec<&Value> = gaps.as_array().into_iter().flatten().map(|gap| &gap["reason"]).collect();
            assert!(reasons.iter().all(|known| *known == reason), "R-HIST-4: {reason} is reported as {reasons:?}");
        }
        found
    }

    /// A position that nobody was given is a gap (R-HIST-4).
    fn check_bad(&self, number: usize, asked: &Asked, gaps: &Gaps) {
        let Named::Bad { everywhere, reason } = &asked.named else { return };
        let expected = if *everywhere { self.readers[number].channels.len() } else { 1 };
        assert!(
            gaps.len() >= expected,
            "reader {number} named a position that is {reason}: gaps are {gaps:?} (R-HIST-4)"
        );
    }

    /// An answer begins here: after the positions that the request named, or later where there was a gap.
    fn begin(
        &mut self,
        number: usize,
        asked: &Asked,
        (id, sequences): (&str, Vec<u64>),
        gaps: &Gaps,
        polled: &BTreeMap<String, Polled>,
    ) {
        let tick = self.tick;
        let reader = &mut self.readers[number];
        for (channel, sequence) in reader.channels.clone().into_iter().zip(sequences) {
            let named = if let Named::Given(places) = &asked.named { Some(places[&channel]) } else { None };
            let (gap, polled) = (gaps.get(&channel).copied(), polled.get(&channel));
            let given_ms = match (polled, gap, &asked.named) {
                (Some(polled), ..) => polled.given_ms,
                // Events after it may be as old as events can be.
                (None, Some(_), _) => 0,
                (None, None, Named::Given(places)) => places[&channel].given_ms,
                (None, None, Named::Nothing) => asked.ms,
                (None, None, Named::Bad { .. }) => 0,
            };
            let expected = polled.map(|polled| polled.last).or(gap).or(named.map(|named| named.sequence));
            assert!(
                expected.is_none_or(|expected| expected == sequence),
                "reader {number} is at {expected:?} on {channel}, and {id} says {sequence} (R-HIST-3)"
            );
            reader.places.insert(channel.clone(), Place { sequence, given_ms });
            let start = gap.or(named.map(|named| named.sequence));
            match reader.chains.get_mut(&channel).filter(|_| asked.continues) {
                Some(chain) => {
                    if let Some(gap) = gap {
                        chain.note_gap(gap);
                    }
                }
                None => {
                    let start = start.unwrap_or(polled.map_or(sequence, |polled| polled.first - 1));
                    reader.chains.insert(channel, Chain::new(tick, start));
                }
            }
        }
        let is_only_channel = reader.channels.len() == 1;
        reader.note_id(id.to_owned());
        if let (true, Some((channel, place))) = (is_only_channel, reader.places.first_key_value()) {
            let history = self.model.histories.entry((reader.app, channel.clone())).or_default();
            history.positions.push((id.to_owned(), place.sequence, place.given_ms));
        }
    }

    /// Lines of an open stream: an event, a gap, or a comment.
    fn handle_block(&mut self, number: usize, block: &Block) {
        let Some(data) = &block.data else {
            assert_eq!(block, &Block::default(), "R-SSE-10");
            self.system.coverage.note(Happening::StreamComment);
            return;
        };
        let data: Value = serde_json::from_str(data).expect("data of a stream is JSON");
        let Some(channel) = data["channel"].as_str() else {
            assert_eq!(block.event.as_deref(), Some("gap"), "R-SSE-9: {block:?}");
            self.system.coverage.note(Happening::StreamGap);
            return self.handle_later_gap(number, block.id.as_deref(), &data);
        };
        let name = data["event"].as_str().expect("R-SSE-8");
        assert_eq!(block.event.as_deref(), Some(name), "R-SSE-8: {block:?}");
        let group = self.handle_stream_event(number, channel, name, &data);
        let is_stored = matches!(self.model.publishes[group].origin, Origin::Caller(_));
        let Some(id) = data.get("id").filter(|_| is_stored) else {
            assert_eq!((data.get("id"), &block.id), (None, &None), "R-HIST-9: {block:?}");
            return;
        };
        let id = id.as_str().expect("R-SSE-8").to_owned();
        let app = self.readers[number].app;
        let sequence = self.model.note_stored(app, channel, id.clone(), group);
        let session = self.session_of_reader(number, channel);
        self.model.sessions[session].history.note_event(READERS + number, sequence);
        self.note_read(number, channel, sequence, group);
        let cursor = block.id.as_deref().expect("R-SSE-8: an event has an id");
        let is_only_channel = self.readers[number].channels.len() == 1;
        assert!(!is_only_channel || cursor == id, "R-SSE-8: {block:?}");
        self.check_places(number, cursor);
        self.system.coverage.note(Happening::StreamDelivered);
    }

    /// A reader has read an event: that is where it is.
    fn note_read(&mut self, number: usize, channel: &str, sequence: u64, group: Group) {
        let given_ms = self.model.publishes[group].started_ms;
        let reader = &mut self.readers[number];
        reader.places.insert(channel.to_owned(), Place { sequence, given_ms });
        reader.chains.get_mut(channel).expect("it began").note_event(sequence, group);
    }

    /// The id of an open stream stands for where its reader is (R-HIST-3).
    fn check_places(&mut self, number: usize, id: &str) {
        let Some(sequences) = self.decode_places(number, id) else { return };
        let reader = &mut self.readers[number];
        let expected: Vec<u64> = reader.channels.iter().map(|channel| reader.places[channel].sequence).collect();
        assert_eq!(sequences, expected, "R-HIST-3: {id} of reader {number} on {:?}", reader.channels);
        reader.note_id(id.to_owned());
    }

    fn session_of_reader(&self, number: usize, channel: &str) -> usize {
        let reader = &self.readers[number];
        let at = reader.channels.iter().position(|known| known == channel);
        reader.sessions[at.unwrap_or_else(|| panic!("reader {number} got an event of {channel}"))]
    }

    fn handle_stream_event(&mut self, number: usize, channel: &str, name: &str, data: &Value) -> Group {
        let session = self.session_of_reader(number, channel);
        let sequence = data["id"].as_str().map(|id| decode_id(id).2);
        let text = data["data"].as_str().expect("R-SSE-8: data is a string");
        assert!(!name.starts_with("pusher"), "R-SSE-4: reader {number} got {data}");
        self.model.receive(session, &Received { name, data: text, user_id: data["user_id"].as_str(), sequence })
    }

    /// A gap of an open stream.
    fn handle_later_gap(&mut self, number: usize, id: Option<&str>, data: &Value) {
        let gaps = self.check_gaps(number, &data["channels"], None);
        for (channel, resumes_at) in gaps {
            let session = self.session_of_reader(number, &channel);
            self.model.sessions[session].history.note_gap(resumes_at);
            let reader = &mut self.readers[number];
            reader.chains.get_mut(&channel).expect("it began").note_gap(resumes_at);
            reader.places.insert(channel, Place { sequence: resumes_at, given_ms: 0 });
        }
        self.check_places(number, id.expect("R-SSE-9: a gap has an id"));
    }

    /// The answer to a poll (R-POLL-1, R-POLL-2).
    fn handle_polled(&mut self, number: usize, asked: &Asked, response: &Response) {
        for (name, value) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
            assert_eq!(response.header(name), Some(value), "R-POLL-1: {response:?}");
        }
        let body: Value = serde_json::from_slice(&response.body).expect("R-POLL-1: an answer is JSON");
        let Some(id) = body["last_event_id"].as_str().map(str::to_owned) else {
            assert!(self.apps[asked.owed.app].deleted, "R-POLL-1: {body} does not say where to continue");
            return;
        };
        let gaps = self.check_gaps(number, &body["gaps"], Some(asked));
        self.check_bad(number, asked, &gaps);
        let app = self.readers[number].app;
        let mut events = Vec::new();
        let mut polled = BTreeMap::new();
        for event in body["events"].as_array().expect("R-POLL-1: events") {
            let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("R-POLL-1: {event}"));
            let (channel, sequence) = (text("channel"), decode_id(text("id")).2);
            assert!(self.readers[number].channels.iter().any(|known| known == channel), "R-POLL-1: {event}");
            let received = Received {
                name: text("event"),
                data: text("data"),
                user_id: event["user_id"].as_str(),
                sequence: Some(sequence),
            };
            let group = self.model.match_event(&format!("reader {number}"), (app, channel), &received);
            self.model.note_stored(app, channel, text("id").to_owned(), group);
            let given_ms = self.model.publishes[group].started_ms;
            let first = polled.get(channel).map_or(sequence, |polled: &Polled| polled.first);
            polled.insert(channel.to_owned(), Polled { first, last: sequence, given_ms });
            events.push((channel.to_owned(), sequence, group));
        }
        assert!(events.len() <= 100, "R-POLL-2: {} events", events.len());
        let is_over = asked.ms + asked.timeout_ms <= self.system.now.monotonic_ms;
        let is_early = events.is_empty() && gaps.is_empty() && !is_over;
        assert!(!is_early || self.draining || self.scenario.store_changes, "R-POLL-2: an empty answer before its time");
        self.system.coverage.note(match (events.is_empty(), gaps.is_empty()) {
            (_, false) => Happening::PollGap,
            (false, true) => Happening::PolledEvents,
            (true, true) => Happening::PollTimeout,
        });
        let Some(sequences) = self.decode_places(number, &id) else { return };
        self.begin(number, asked, (&id, sequences), &gaps, &polled);
        for (channel, sequence, group) in events {
            let chain = self.readers[number].chains.get_mut(&channel).expect("it began");
            chain.note_event(sequence, group);
        }
    }
}
