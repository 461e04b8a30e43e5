//! How a client handles bytes from the server, on a WebSocket. See `event_stream` and `polled` for the other transports.

use rustix::event::epoll::EventFlags;

use super::connection::{Connection, Phase};
use super::poll::Token;
use super::readers::Subscribed;
use super::shared::Shared;
use super::socket::{Ended, Mask, send_frame, send_text_frames};
use super::verifier::Arrived;
use crate::messages::{Group, Measure};
use crate::wire::event::{EVENT, Meaning, read_event};
use crate::wire::frame::{self, Decoded};
use crate::wire::history::{Gap, Message, Succeeded};
use crate::wire::stamp::{MARKER, Stamp};
use crate::wire::transport::Transport;
use crate::wire::upgrade::{Upgrade, read_upgrade};

/// One connection, and the state that its frames may change.
pub(crate) struct Receiver<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) slot: u32,
    /// When the bytes were read.
    pub(crate) now: u64,
    pub(crate) mask: &'a mut Mask,
    pub(crate) shared: &'a mut Shared,
}

impl Receiver<'_> {
    /// Takes all that is complete in `bytes`: how many bytes that are, and whether the connection ended. The caller compares
    /// the phase before and after.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, Ended) {
        match self.shared.plan.transport_of(self.connection.number) {
            Transport::Ws => self.take_frames(bytes),
            Transport::Sse => self.take_blocks(bytes),
            Transport::Poll => self.take_answers(bytes),
        }
    }

    fn take_frames(&mut self, bytes: &[u8]) -> (usize, Ended) {
        let mut at = 0;
        if self.connection.phase == Phase::Upgrading {
            match read_upgrade(bytes) {
                Upgrade::Done(length) => {
                    self.connection.phase = Phase::Greeting;
                    at = length;
                }
                Upgrade::Partial => return (0, None),
                Upgrade::Refused(line) => return (0, Some(format!("upgrade refused: {line}"))),
            }
        }
        while at < bytes.len() {
            let ended = match frame::decode(&bytes[at..]) {
                Decoded::Partial => break,
                Decoded::Invalid(reason) => Some(reason.to_owned()),
                Decoded::Frame { opcode, payload, consumed } => {
                    at += consumed;
                    self.take_frame(opcode, payload)
                }
            };
            if ended.is_some() {
                return (at, ended);
            }
        }
        (at, None)
    }

    fn take_frame(&mut self, opcode: u8, payload: &[u8]) -> Ended {
        match opcode {
            frame::TEXT if self.shared.readers.is_some() && self.connection.phase != Phase::Greeting => {
                self.take_with_id(payload)
            }
            frame::TEXT if self.connection.phase == Phase::Ready => self.take_event(payload),
            frame::TEXT => {
                let ended = self.take_greeting(payload);
                if ended.is_none() && self.connection.phase == Phase::Ready {
                    return self.joined();
                }
                ended
            }
            frame::PING => send_frame(self.connection, frame::PONG, payload, self.mask),
            frame::CLOSE => {
                let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                Some(format!("closed by the server with {code}"))
            }
            frame::PONG => None,
            _ => Some("binary frame".into()),
        }
    }

    /// The connection has just been subscribed, for the first time or as another member, or it continues.
    pub(super) fn joined(&mut self) -> Ended {
        let (shared, connection) = (&mut *self.shared, &*self.connection);
        let continues = shared.readers.as_ref().is_some_and(|readers| readers.continues(connection.number));
        let measure = match connection.group {
            Group::Arrivals => Measure::Arrival,
            Group::Subscribers | Group::Stalled if continues => Measure::Resume,
            Group::Subscribers | Group::Stalled => Measure::Join,
        };
        shared.recorder.record(measure, connection.due_ns, self.now);
        if continues {
            shared.counters.resume.resumes += 1;
        } else if shared.is_change(connection.due_ns) {
            shared.counters.changes += 1;
        } else {
            shared.counters.joined += 1;
        }
        if let Some(readers) = &mut shared.readers {
            readers.join(connection.number, self.now);
        }
        shared.counters.subscribed[connection.group as usize] += 1;
        if connection.group != Group::Stalled {
            return None;
        }
        let token = Token::Connection(self.slot, connection.generation);
        let unread = EventFlags::RDHUP | EventFlags::ET;
        shared.poll.modify(&connection.socket, token, unread).err().map(|error| error.to_string())
    }

    /// An event before the connection is subscribed.
    fn take_greeting(&mut self, payload: &[u8]) -> Ended {
        let connection = &mut *self.connection;
        match (read_event(payload), connection.phase) {
            (Meaning::Established { socket_id }, Phase::Greeting) => {
                connection.phase = Phase::Subscribing;
                let number = connection.number;
                if self.shared.readers.is_some() {
                    let messages = self.shared.resume_messages(number, &socket_id);
                    return send_text_frames(connection, &messages, self.mask);
                }
                let message = self.shared.subscribe_message(number, 0, &socket_id, connection.due_ns);
                if self.shared.keeps_socket_id(number) {
                    connection.kept().socket_id = socket_id;
                }
                send_frame(connection, frame::TEXT, message.as_bytes(), self.mask)
            }
            (Meaning::Subscribed, Phase::Subscribing) => {
                connection.phase = Phase::Ready;
                None
            }
            // The echoed subscription.
            (Meaning::Other, Phase::Subscribing) if self.shared.subscriptions.expects_echoes() => {
                connection.phase = Phase::Ready;
                None
            }
            (Meaning::Error(text), _) => Some(text),
            (
                Meaning::Established { .. }
                | Meaning::Subscribed
                | Meaning::MemberAdded(_)
                | Meaning::MemberRemoved(_)
                | Meaning::Ping
                | Meaning::Pong
                | Meaning::Other,
                _,
            ) => None,
        }
    }

    /// An event after the connection is subscribed, usually a published one.
    fn take_event(&mut self, payload: &[u8]) -> Ended {
        let shared = &mut *self.shared;
        if shared.subscriptions.is_prepared() && shared.take_subscription_reply(self.slot, payload, self.now) {
            return None;
        }
        let channel = shared.channel_of(self.connection.number);
        match shared.verifier.check(self.slot as usize, channel, payload) {
            Arrived::Other => return self.take_other(payload),
            arrived @ (Arrived::InOrder(_)
            | Arrived::Late(_)
            | Arrived::Duplicate
            | Arrived::WrongChannel
            | Arrived::Foreign
            | Arrived::Damaged) => shared.count(arrived, self.now),
        }
        None
    }

    /// A message of a connection that requested ids. Events may come while other channels are still to be subscribed.
    fn take_with_id(&mut self, payload: &[u8]) -> Ended {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(payload) else {
            self.shared.take_unreadable("a message");
            return None;
        };
        let number = self.connection.number;
        match &*message.event {
            EVENT => self.shared.take_published(number, self.slot, &message, self.now),
            "pusher_internal:subscription_succeeded" => return self.take_succeeded(&message),
            "pusher:history_gap" => match serde_json::from_str::<Gap>(message.text()) {
                Ok(gap) => self.shared.take_gap(number, &message.channel, &gap),
                Err(_) => self.shared.take_unreadable("a gap"),
            },
            _ if self.connection.phase == Phase::Ready => return self.take_other(payload),
            _ => return self.take_greeting(payload),
        }
        None
    }

    fn take_succeeded(&mut self, message: &Message<'_>) -> Ended {
        let position = serde_json::from_str::<Succeeded>(message.text()).ok().and_then(|data| data.position);
        let Some(position) = position else { return Some("a subscription without a position: no history".into()) };
        let readers = self.shared.readers.as_mut()?;
        match readers.subscribe(self.connection.number, &message.channel, &position) {
            None => Some("a subscription that was not requested".into()),
            Some(Subscribed::Part) => None,
            Some(Subscribed::All) => {
                self.connection.phase = Phase::Ready;
                self.joined()
            }
        }
    }

    #[cold]
    fn take_other(&mut self, payload: &[u8]) -> Ended {
        let (shared, connection) = (&mut *self.shared, &mut *self.connection);
        let watches = connection.number < shared.plan.watchers;
        match read_event(payload) {
            Meaning::Error(text) => shared.reason(&text),
            Meaning::Ping => return send_frame(connection, frame::TEXT, PONG_EVENT, self.mask),
            Meaning::Pong => {
                shared.counters.pongs += 1;
                let due_ns = std::mem::take(&mut connection.due_ns);
                if due_ns > 0 {
                    shared.recorder.record(Measure::Pong, due_ns, self.now);
                }
            }
            Meaning::MemberAdded(data) if watches => {
                let channel = shared.channel_of(connection.number);
                if let Some(stamp) = stamp_of_member(&data) {
                    let arrived = shared.verifier.count(self.slot as usize, channel, stamp);
                    shared.count(arrived, self.now);
                }
            }
            Meaning::MemberRemoved(data) if watches => {
                let ours = stamp_of_member(&data).is_some_and(|stamp| stamp.run == shared.plan.run);
                shared.counters.removals += u64::from(ours);
            }
            Meaning::MemberAdded(_) | Meaning::MemberRemoved(_) => {}
            Meaning::Subscribed | Meaning::Established { .. } | Meaning::Other => {}
        }
        None
    }
}

/// The stamp in a presence member's id.
fn stamp_of_member(data: &str) -> Option<Stamp> {
    let bytes = data.as_bytes();
    let at = bytes.windows(MARKER.len()).position(|window| window == MARKER)?;
    Stamp::read(&bytes[at..])
}

const PONG_EVENT: &[u8] = br#"{"event":"pusher:pong","data":{}}"#;
