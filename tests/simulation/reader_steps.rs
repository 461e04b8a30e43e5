//! Actions of readers: open streams and polls from any position, break off, and connect again.

use crate::client::caller::Told;
use crate::client::event_stream::EventStreamReader;
use crate::client::positions::{far_ahead, of_other_epoch};
use crate::client::reader::{Asked, Named, Place, Places, Reader, ReaderPhase};
use crate::coverage::Happening;
use crate::network::End;
use crate::world::World;

impl World {
    /// A new reader.
    pub(crate) fn add_reader(&mut self) {
        let app = self.random.weighted(&[3, 1]);
        let mut channels: Vec<String> = self.apps[app].channels.clone();
        // The channels of users are for WebSockets (R-SSE-3).
        channels.retain(|channel| !channel.starts_with('#'));
        let count = *self.random.pick(&[1, 1, 2, 3, 4]);
        while channels.len() > count {
            channels.remove(self.random.below(channels.len()));
        }
        if self.random.one_in(2) {
            channels.reverse();
        }
        let polls = self.random.one_in(2);
        self.readers.push(Reader::new(app, channels, polls));
    }

    /// One step of a reader.
    pub(crate) fn step_reader(&mut self, number: usize) {
        match self.readers[number].phase {
            ReaderPhase::Idle => self.ask_to_read(number),
            ReaderPhase::Asked(_) | ReaderPhase::Opening(_) | ReaderPhase::Open => {
                match self.random.weighted(&[4, 3, 2, 1]) {
                    0 => {}
                    1 => self.cut_reader(number),
                    2 => self.finish_reader(number),
                    _ => {
                        let reader = &mut self.readers[number];
                        reader.stalled = !reader.stalled;
                        reader.may_end = true;
                    }
                }
            }
        }
    }

    /// Readers that do nothing continue from where they were.
    pub(crate) fn ask_for_idle_readers(&mut self) {
        for number in 0..self.readers.len() {
            if matches!(self.readers[number].phase, ReaderPhase::Idle) {
                self.ask_to_read(number);
            }
        }
    }

    /// The client resets its connection.
    pub(crate) fn cut_reader(&mut self, number: usize) {
        self.system.trace.note(|| format!("reader {number} is cut off"));
        self.system.coverage.note(Happening::ReaderCut);
        if let Some(wire) = self.readers[number].wire {
            let lose_unread = self.random.one_in(2);
            self.wires[wire].client_reset(lose_unread);
        }
        self.forget_connection(number);
    }

    /// The client ends its direction, and reads nothing more.
    pub(crate) fn finish_reader(&mut self, number: usize) {
        if let Some(wire) = self.readers[number].wire {
            self.system.trace.note(|| format!("reader {number} ends its direction"));
            self.wires[wire].client_finish();
            self.ignored.push(wire);
        }
        self.forget_connection(number);
    }

    /// Reads what is sent to clients that ignore it. False when there was nothing to read.
    pub(crate) fn read_ignored(&mut self) -> bool {
        let before = self.ignored.len();
        let (mut has_read, wires) = (false, &mut self.wires);
        self.ignored.retain(|wire| {
            has_read |= !wires[*wire].client_read(usize::MAX).is_empty();
            wires[*wire].client_sees() == End::Open
        });
        has_read || self.ignored.len() < before
    }

    /// The connection of a reader is gone.
    pub(crate) fn forget_connection(&mut self, number: usize) {
        let now_ms = self.system.served_ms();
        let reader = &mut self.readers[number];
        for session in std::mem::take(&mut reader.sessions) {
            self.model.end_session(session, now_ms);
        }
        reader.wire = None;
        reader.phase = ReaderPhase::Idle;
        reader.answers = EventStreamReader::default();
        reader.stalled = false;
        reader.may_end = false;
    }

    /// A position to name, as text, and whether it is where the reader was.
    fn choose_position(&mut self, number: usize) -> (Option<String>, Named, bool) {
        let reader = &self.readers[number];
        let Some((latest, places)) = reader.ids.last().cloned() else {
            return match self.position_of_others(number) {
                Some((id, places)) => (Some(id), Named::Given(places), false),
                None => (None, Named::Nothing, false),
            };
        };
        match self.random.weighted(&[14, 2, 1, 2]) {
            0 => (Some(latest), Named::Given(places), true),
            1 => {
                let (id, places) = self.random.pick(&self.readers[number].ids).clone();
                let is_latest = id == latest;
                (Some(id), Named::Given(places), is_latest)
            }
            2 => (None, Named::Nothing, false),
            _ => {
                self.system.coverage.note(Happening::BadPosition);
                let bad = |reason, everywhere| Named::Bad { reason, everywhere };
                let is_id = latest.starts_with("evt_");
                let (id, named) = match self.random.below(4) {
                    // What is left of a cursor may have some of its channels.
                    0 => (latest[..latest.len() - 2].to_owned(), bad("unreadable", is_id)),
                    1 => (of_other_epoch(&latest), bad("epoch", true)),
                    2 if is_id => (far_ahead(&latest), bad("ahead", true)),
                    _ => ("17".to_owned(), bad("unreadable", true)),
                };
                (Some(id), named, false)
            }
        }
    }

    /// An id or position of the only channel of a reader that another client was given.
    fn position_of_others(&mut self, number: usize) -> Option<(String, Places)> {
        let reader = &self.readers[number];
        let [channel] = &*reader.channels else { return None };
        let channel = channel.clone();
        let known = self.model.histories.get(&(reader.app, channel.clone()))?;
        if known.positions.is_empty() || !self.random.one_in(2) {
            return None;
        }
        let (id, sequence, given_ms) = self.random.pick(&known.positions).clone();
        Some((id, Places::from([(channel, Place { sequence, given_ms })])))
    }

    /// Opens a stream or a poll.
    pub(crate) fn ask_to_read(&mut self, number: usize) {
        let (app, polls) = (self.readers[number].app, self.readers[number].polls);
        let (position, named, continues) = self.choose_position(number);
        let mut draft = self.draft("GET", if polls { "/poll" } else { "/sse" }, app);
        draft.owed.told = Told::Text;
        draft.query = format!("channels={}", self.readers[number].channels.join(","));
        let is_in_header = self.random.one_in(2);
        if let Some(position) = &position {
            if is_in_header {
                draft.headers = format!("Last-Event-ID: {position}\r\n");
            } else {
                draft.query.push_str(&format!("&last_event_id={position}"));
            }
        }
        let timeout_s = *self.random.pick(&[1, 1, 2, 5, 55]);
        if polls {
            draft.query.push_str(&format!("&timeout={timeout_s}"));
        }
        let is_public = |channel: &String| !channel.starts_with("private-") && !channel.starts_with("presence-");
        let may_use_key =
            self.readers[number].channels.iter().all(is_public) && self.scenario.authorization != Some(app);
        if may_use_key && self.random.one_in(3) {
            let (key, _) = self.random.pick(&self.apps[app].keys).clone();
            draft.query.push_str(&format!("&key={key}"));
        } else {
            self.authenticate(&mut draft);
        }
        let bytes = self.encode(&draft);
        let wire = match self.readers[number].wire {
            Some(wire) => wire,
            None => self.connect(),
        };
        let asked = Asked {
            owed: draft.owed,
            named,
            continues,
            ms: self.system.now.monotonic_ms,
            read_ms: None,
            timeout_ms: timeout_s * 1_000,
        };
        self.system.trace.note(|| {
            let reader = &self.readers[number];
            format!("reader {number} asks for {:?} of app {app} after {position:?}, {asked:?}", reader.channels)
        });
        self.wires[wire].client_write(&bytes);
        let token = self.tokens.iter().position(|token| Some(&token.id) == asked.owed.token.as_ref());
        let reader = &mut self.readers[number];
        reader.token = token;
        reader.wire = Some(wire);
        reader.phase = ReaderPhase::Asked(Box::new(asked));
    }
}
