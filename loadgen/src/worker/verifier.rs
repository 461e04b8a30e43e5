//! Verifies every event that arrives: unchanged, in the right channel, once and in order.
//!
//! Events of a channel differ only in the digits of their [`Stamp`], so the first one is parsed as JSON, and later ones are
//! compared as bytes.

use serde::Deserialize;

use crate::wire::event::{CLIENT_EVENT, EVENT};
use crate::wire::stamp::{STAMP_BYTES, Stamp};

/// The result of verifying one text message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrived {
    /// In order, for the first time.
    InOrder(Stamp),
    /// For the first time, but after a later event.
    Late(Stamp),
    Duplicate,
    WrongChannel,
    /// An event of another run.
    Foreign,
    /// An event of this run that differs from the published one.
    Damaged,
    /// Another event of the protocol.
    Other,
}

/// The events that this worker's connections have received.
pub(crate) struct Verifier {
    run: u32,
    publishers: u32,
    payload_bytes: usize,
    channels: Vec<Channel>,
    /// Index is connection times publishers plus publisher.
    windows: Vec<Window>,
}

struct Channel {
    name: String,
    /// The bytes before and after the stamp, once learnt.
    learnt: Option<(Vec<u8>, Vec<u8>)>,
}

/// The latest events of one publisher that one connection has received.
#[derive(Clone, Copy, Default)]
struct Window {
    /// One more than the highest sequence so far.
    next: u32,
    /// Bit `i` says that `next - 1 - i` arrived.
    seen: u64,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<std::borrow::Cow<'a, str>>,
}

impl Verifier {
    pub(crate) fn new(run: u32, publishers: u32, payload_bytes: usize, channels: &[String]) -> Self {
        let channels = channels.iter().map(|name| Channel { name: name.clone(), learnt: None }).collect();
        Self { run, publishers, payload_bytes, channels, windows: Vec::new() }
    }

    /// Clears the slot for a new connection.
    pub(crate) fn forget(&mut self, connection: usize) {
        let publishers = self.publishers as usize;
        let begin = connection * publishers;
        if let Some(windows) = self.windows.get_mut(begin..begin + publishers) {
            windows.fill(Window::default());
        }
    }

    /// Verifies a text message that arrived on a connection subscribed to the channel.
    pub(crate) fn check(&mut self, connection: usize, channel: usize, message: &[u8]) -> Arrived {
        let Some(stamp) = self.learnt(channel, message) else {
            return self.learn(connection, channel, message);
        };
        self.count(connection, channel, stamp)
    }

    fn learnt(&self, channel: usize, message: &[u8]) -> Option<Stamp> {
        let (before, after) = self.channels[channel].learnt.as_ref()?;
        let rest = message.strip_prefix(before.as_slice())?;
        if rest.len() != STAMP_BYTES + after.len() || !rest.ends_with(after) {
            return None;
        }
        Stamp::read(rest)
    }

    #[cold]
    fn learn(&mut self, connection: usize, channel: usize, message: &[u8]) -> Arrived {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(message) else {
            return Arrived::Other;
        };
        if event.event != EVENT && event.event != CLIENT_EVENT {
            return Arrived::Other;
        }
        let Some(data) = event.data else { return Arrived::Damaged };
        let named = event.channel.as_deref().unwrap_or_default();
        let arrived = self.compare(connection, channel, &event.event, named, &data);
        let mark = data.as_bytes().get(..STAMP_BYTES).unwrap_or_default();
        let is_right = match arrived {
            Arrived::InOrder(_) | Arrived::Late(_) | Arrived::Duplicate => true,
            Arrived::WrongChannel | Arrived::Foreign | Arrived::Damaged | Arrived::Other => false,
        };
        if let Some(at) = message.windows(STAMP_BYTES).position(|window| window == mark).filter(|_| is_right) {
            self.channels[channel].learnt = Some((message[..at].to_vec(), message[at + STAMP_BYTES..].to_vec()));
        }
        arrived
    }

    /// Verifies an event by its members.
    pub(crate) fn compare(
        &mut self,
        connection: usize,
        channel: usize,
        event: &str,
        named: &str,
        data: &str,
    ) -> Arrived {
        if event != EVENT && event != CLIENT_EVENT {
            return Arrived::Other;
        }
        let Some(stamp) = Stamp::read(data.as_bytes()) else { return Arrived::Damaged };
        if stamp.run != self.run {
            return Arrived::Foreign;
        }
        let mut expected = Vec::new();
        stamp.write(self.payload_bytes, &mut expected);
        if data.as_bytes() != expected {
            return Arrived::Damaged;
        }
        if named != self.channels[channel].name {
            return Arrived::WrongChannel;
        }
        self.count(connection, channel, stamp)
    }

    /// Verifies a stamp that did not arrive as the data of an event.
    pub(crate) fn count(&mut self, connection: usize, channel: usize, stamp: Stamp) -> Arrived {
        if stamp.run != self.run {
            return Arrived::Foreign;
        }
        if stamp.channel as usize != channel {
            return Arrived::WrongChannel;
        }
        if stamp.publisher >= self.publishers {
            return Arrived::Damaged;
        }
        let at = connection * self.publishers as usize + stamp.publisher as usize;
        if at >= self.windows.len() {
            self.windows.resize((connection + 1) * self.publishers as usize, Window::default());
        }
        match self.windows[at].take(stamp.sequence) {
            Taken::InOrder => Arrived::InOrder(stamp),
            Taken::Late => Arrived::Late(stamp),
            Taken::Again => Arrived::Duplicate,
        }
    }
}

enum Taken {
    InOrder,
    Late,
    Again,
}

impl Window {
    fn take(&mut self, sequence: u32) -> Taken {
        if sequence >= self.next {
            let ahead = sequence - self.next + 1;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.next = sequence.saturating_add(1);
            return Taken::InOrder;
        }
        let behind = self.next - 1 - sequence;
        // An event older than the window counts as a duplicate, so that it cannot hide a loss.
        let Some(bit) = 1_u64.checked_shl(behind) else { return Taken::Again };
        if self.seen & bit != 0 {
            return Taken::Again;
        }
        self.seen |= bit;
        Taken::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 77;

    fn message(channel: &str, stamp: Stamp) -> Vec<u8> {
        let mut data = Vec::new();
        stamp.write(128, &mut data);
        let data = String::from_utf8(data).expect("it is ASCII");
        serde_json::to_vec(&serde_json::json!({"event": EVENT, "channel": channel, "data": data})).expect("an object")
    }

    fn stamp(publisher: u32, sequence: u32) -> Stamp {
        Stamp { run: RUN, publisher, sequence, intended_ns: 5, channel: 0 }
    }

    fn verifier() -> Verifier {
        Verifier::new(RUN, 2, 128, &["a".to_owned(), "b".to_owned()])
    }

    /// Goal: ordered, duplicate and late events are distinguished, per connection and publisher.
    #[test]
    fn sequences_are_verified() {
        let mut verifier = verifier();
        let mut verify =
            |connection, publisher, sequence| verifier.check(connection, 0, &message("a", stamp(publisher, sequence)));
        assert_eq!(verify(0, 0, 0), Arrived::InOrder(stamp(0, 0)));
        assert_eq!(verify(0, 0, 1), Arrived::InOrder(stamp(0, 1)));
        assert_eq!(verify(0, 0, 1), Arrived::Duplicate);
        assert_eq!(verify(0, 0, 4), Arrived::InOrder(stamp(0, 4)));
        assert_eq!(verify(0, 0, 3), Arrived::Late(stamp(0, 3)));
        assert_eq!(verify(0, 0, 3), Arrived::Duplicate);
        assert_eq!(verify(0, 1, 0), Arrived::InOrder(stamp(1, 0)));
        assert_eq!(verify(5, 0, 0), Arrived::InOrder(stamp(0, 0)));
        assert_eq!(verify(0, 0, 400), Arrived::InOrder(stamp(0, 400)));
        assert_eq!(verify(0, 0, 5), Arrived::Duplicate, "older than the window");
    }

    /// Goal: wrong events are detected, before and after the bytes around the stamp were learnt.
    #[test]
    fn wrong_events_are_detected() {
        for learnt in [false, true] {
            let mut verifier = verifier();
            if learnt {
                verifier.check(0, 0, &message("a", stamp(0, 0)));
            }
            assert_eq!(verifier.check(1, 0, &message("b", stamp(0, 1))), Arrived::WrongChannel);
            assert_eq!(verifier.check(1, 0, &message("a", Stamp { channel: 1, ..stamp(0, 1) })), Arrived::WrongChannel);
            assert_eq!(verifier.check(1, 0, &message("a", Stamp { run: 1, ..stamp(0, 1) })), Arrived::Foreign);
            assert_eq!(verifier.check(1, 0, &message("a", stamp(9, 1))), Arrived::Damaged);
            let mut damaged = message("a", stamp(0, 1));
            let filler = damaged.windows(5).position(|window| window == b"quick").expect("the filler");
            damaged[filler] = b'Q';
            assert_eq!(verifier.check(1, 0, &damaged), Arrived::Damaged);
            assert_eq!(verifier.check(1, 0, br#"{"event":"pusher:pong","data":"{}"}"#), Arrived::Other);
        }
    }

    /// Goal: a slot that is reused starts without history.
    #[test]
    fn a_slot_is_forgotten() {
        let mut verifier = verifier();
        verifier.check(3, 0, &message("a", stamp(0, 7)));
        verifier.forget(3);
        assert_eq!(verifier.check(3, 0, &message("a", stamp(0, 7))), Arrived::InOrder(stamp(0, 7)));
    }
}
