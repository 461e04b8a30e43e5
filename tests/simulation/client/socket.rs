//! A WebSocket client. It sends `pusher:ping` after every message, so that the pongs show how many messages the server
//! has processed: immediate answers are between two pongs, and later ones are told apart by them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::frames::{CLOSE, FrameReader, PING, TEXT, encode};
use super::responses::ResponseReader;
use crate::authorization::AuthorizationView;
use crate::history::HistoryView;
use crate::network::Wire;
use crate::reference::Group;
use crate::users::UserView;

/// The state of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// The upgrade was sent.
    Upgrading,
    /// 101 was read, the first message was not.
    Greeting,
    /// `connection_established` was read.
    Open,
    /// The end of the stream was read, or the client tore the connection down.
    Gone,
}

/// A frame that reports a refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Complaint {
    /// `pusher:error` with its code and the beginning of its message.
    Error(Option<u64>, String),
    /// `pusher:subscription_error`: channel, type, status.
    SubscriptionError(String, String, u64),
    /// `auth_required` for a channel.
    AuthRequired(String),
}

impl Complaint {
    /// True when the frame read matches the expected one.
    pub(crate) fn matches(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Error(code, message), Self::Error(expected_code, beginning)) => {
                code == expected_code && message.starts_with(beginning.as_str())
            }
            (Self::Error(..) | Self::SubscriptionError(..) | Self::AuthRequired(..), _) => self == expected,
        }
    }
}

/// A message that was sent, before its ping.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Nothing but the ping.
    Ping,
    /// Expected to succeed eventually.
    Subscribe,
    /// Never answered.
    Unsubscribe,
    /// A client event that only the rate limit can refuse.
    ClientEvent {
        /// The event.
        group: Group,
        /// Fewer than the limit were sent in the last second, so it must pass.
        must_pass: bool,
    },
    /// Answered by exactly these frames.
    Refused(Vec<Complaint>),
}

/// A subscribe or unsubscribe of one channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelStep {
    /// Number of the operation.
    pub(crate) operation: u64,
    /// Its kind and state.
    pub(crate) kind: StepKind,
}

impl ChannelStep {
    /// True for an unsubscribe.
    pub(crate) fn is_left(&self) -> bool {
        matches!(self.kind, StepKind::Left)
    }
}

/// The kind and state of a step.
#[derive(Clone, Debug)]
pub(crate) enum StepKind {
    /// A subscribe without an answer.
    Joining {
        /// The user on presence channels.
        user: Option<String>,
        /// Where it resumes.
        resumed: Box<HistoryView>,
    },
    /// A subscribe that succeeded: its session.
    Joined(usize),
    /// A subscribe that was refused because of a limit.
    Refused,
    /// An unsubscribe.
    Left,
}

/// A WebSocket client.
#[derive(Debug)]
pub(crate) struct SocketClient {
    /// Its wire.
    pub(crate) wire: usize,
    /// Its app.
    pub(crate) app: usize,
    /// The connection's state.
    pub(crate) phase: Phase,
    /// It asked for ids of events.
    pub(crate) wants_ids: bool,
    /// As sent by the server.
    pub(crate) socket_id: Option<String>,
    /// Messages sent; operation `n` is the one before ping `n`, from 1.
    pub(crate) operations: Vec<Operation>,
    /// When each of them was sent, in ms.
    pub(crate) sent_ms: Vec<u64>,
    /// Pongs read.
    pub(crate) pongs: u64,
    /// Subscribes and unsubscribes by channel.
    pub(crate) channels: BTreeMap<String, Vec<ChannelStep>>,
    /// Refusals read since the last pong.
    pub(crate) complaints: Vec<Complaint>,
    /// Close codes that the server may give now.
    pub(crate) may_close: BTreeSet<u16>,
    /// The server must have closed with this code when the run rests.
    pub(crate) must_close: Option<u16>,
    /// The server may end the connection without a Close frame.
    pub(crate) may_vanish: bool,
    /// The code of the last `pusher:error` if no other text followed it.
    pub(crate) last_error: Option<u64>,
    /// The server's Close code.
    pub(crate) close_read: Option<u16>,
    /// This client sent Close with this code.
    pub(crate) close_sent: Option<u16>,
    /// Later bytes from the client are not messages.
    pub(crate) broken: bool,
    /// Payloads of pings that were sent and whose pongs are pending.
    pub(crate) pings: VecDeque<Vec<u8>>,
    /// The client currently does not read.
    pub(crate) stalled: bool,
    /// The client no longer reads or answers.
    pub(crate) vanished: bool,
    /// Answered client events of the last seconds: when they were sent, when the pong came, in ms.
    pub(crate) event_times: Vec<(u64, u64, bool)>,
    /// Send times of client events in flight, in ms.
    pub(crate) event_sent: Vec<(u64, u64)>,
    /// Its user, and its knowledge of other users.
    pub(crate) user: UserView,
    /// Whether it must authorize itself, and whether it did.
    pub(crate) authorization: AuthorizationView,
    /// Frames of the server.
    pub(crate) frames: FrameReader,
    /// The answer to the upgrade.
    pub(crate) responses: ResponseReader,
    mask: u32,
}

impl SocketClient {
    /// A client whose upgrade was sent.
    pub(crate) fn new(wire: usize, app: usize, mask: u32) -> Self {
        Self {
            wire,
            app,
            phase: Phase::Upgrading,
            wants_ids: false,
            socket_id: None,
            operations: Vec::new(),
            sent_ms: Vec::new(),
            pongs: 0,
            channels: BTreeMap::new(),
            complaints: Vec::new(),
            may_close: BTreeSet::new(),
            must_close: None,
            may_vanish: false,
            last_error: None,
            close_read: None,
            close_sent: None,
            broken: false,
            pings: VecDeque::new(),
            stalled: false,
            vanished: false,
            event_times: Vec::new(),
            event_sent: Vec::new(),
            user: UserView::default(),
            authorization: AuthorizationView::default(),
            frames: FrameReader::default(),
            responses: ResponseReader::default(),
            mask,
        }
    }

    /// The next mask; not random enough for production, random enough for a test.
    pub(crate) fn next_mask(&mut self) -> [u8; 4] {
        self.mask = self.mask.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.mask.to_be_bytes()
    }

    /// One frame.
    pub(crate) fn frame(&mut self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        encode(opcode, payload, self.next_mask())
    }

    /// A ping whose pong is pending.
    pub(crate) fn ping(&mut self, payload: &[u8]) -> Vec<u8> {
        self.pings.push_back(payload.to_vec());
        self.frame(PING, payload)
    }

    /// True while messages may be sent.
    pub(crate) fn can_talk(&self) -> bool {
        self.phase == Phase::Open
            && self.close_sent.is_none()
            && self.close_read.is_none()
            && !self.broken
            && !self.vanished
    }

    /// Sends frames of one message and the ping that shows when it was handled. Returns the operation's number.
    pub(crate) fn send(&mut self, wire: &mut Wire, message: &[u8], operation: Operation) -> u64 {
        wire.client_write(message);
        let ping = self.frame(TEXT, br#"{"event":"pusher:ping","data":{}}"#);
        wire.client_write(&ping);
        self.operations.push(operation);
        self.operations.len() as u64
    }

    /// Sends Close.
    pub(crate) fn send_close(&mut self, wire: &mut Wire, code: u16) {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(b"bye");
        let frame = self.frame(CLOSE, &payload);
        wire.client_write(&frame);
        self.close_sent = Some(code);
        self.may_close.insert(code);
    }

    /// The current step when the server has surely handled `pongs` operations and maybe one more, which is counted if
    /// `one_more` and it is a step that `wanted` picks.
    fn step_at(&mut self, channel: &str, wanted: impl Fn(&StepKind) -> bool) -> Option<&mut ChannelStep> {
        let pongs = self.pongs;
        let steps = self.channels.get_mut(channel)?;
        let maybe = steps.iter().position(|step| step.operation == pongs + 1 && wanted(&step.kind));
        let sure = steps.iter().rposition(|step| step.operation <= pongs);
        let index = match (sure, maybe) {
            (Some(sure), _) if wanted(&steps[sure].kind) => sure,
            (_, Some(maybe)) => maybe,
            (Some(_) | None, None) => return None,
        };
        steps.get_mut(index)
    }

    /// The subscribe that a `subscription_succeeded` answers.
    pub(crate) fn joining_step(&mut self, channel: &str) -> Option<&mut ChannelStep> {
        self.step_at(channel, |kind| matches!(kind, StepKind::Joining { .. }))
    }

    /// The session that an event on a channel belongs to.
    pub(crate) fn session_of(&mut self, channel: &str) -> Option<usize> {
        match self.step_at(channel, |kind| matches!(kind, StepKind::Joined(_)))?.kind {
            StepKind::Joined(session) => Some(session),
            StepKind::Joining { .. } | StepKind::Refused | StepKind::Left => None,
        }
    }

    /// The client's last request for a channel.
    pub(crate) fn last_step(&self, channel: &str) -> Option<&StepKind> {
        self.channels.get(channel).and_then(|steps| steps.last()).map(|step| &step.kind)
    }

    /// True when the client has read succeeded and sent no request since.
    pub(crate) fn is_subscribed(&self, channel: &str) -> bool {
        matches!(self.last_step(channel), Some(StepKind::Joined(_)))
    }

    /// True when the client wants to be subscribed, answered or not.
    pub(crate) fn wants(&self, channel: &str) -> bool {
        matches!(self.last_step(channel), Some(StepKind::Joined(_) | StepKind::Joining { .. }))
    }

    /// Sessions that are still wanted.
    pub(crate) fn sessions(&self) -> Vec<usize> {
        self.channels
            .values()
            .filter_map(|steps| match steps.last().map(|step| &step.kind) {
                Some(StepKind::Joined(session)) => Some(*session),
                Some(StepKind::Joining { .. } | StepKind::Refused | StepKind::Left) | None => None,
            })
            .collect()
    }

    /// Checks the refusals between two pongs against the operation that the second one answers. Returns true for a
    /// client event that passed.
    pub(crate) fn settle_operation(&mut self) -> bool {
        let operation = self.operations.get(self.pongs as usize).expect("a pong answers a ping").clone();
        let mut read = std::mem::take(&mut self.complaints);
        let expected = match operation {
            Operation::Refused(expected) => expected,
            Operation::ClientEvent { must_pass, .. } => {
                if read.iter().any(|complaint| matches!(complaint, Complaint::Error(Some(4301), _))) {
                    assert!(!must_pass, "a client event below the rate was refused (P-LIM-9): {read:?}");
                    assert_eq!(read.len(), 1, "one refusal per client event: {read:?}");
                    return false;
                }
                Vec::new()
            }
            Operation::Ping | Operation::Subscribe | Operation::Unsubscribe => Vec::new(),
        };
        if let Some(at) = (0..read.len()).find(|at| matches(&read[*at..], &expected)) {
            read.drain(at..at + expected.len());
        } else {
            assert!(expected.is_empty(), "expected {expected:?}, read {read:?}");
        }
        assert!(read.is_empty(), "nothing called for {read:?} (P-OUT-12)");
        true
    }
}

fn matches(read: &[Complaint], expected: &[Complaint]) -> bool {
    read.len() >= expected.len() && read.iter().zip(expected).all(|(read, expected)| read.matches(expected))
}

/// Parts of `presence` in a presence channel's succeeded (P-OUT-2), checked for agreement with each other.
pub(crate) fn decode_roster(data: &str) -> BTreeMap<String, Value> {
    let data: Value = serde_json::from_str(data).expect("data of succeeded is JSON");
    let presence = &data["presence"];
    let ids: Vec<&str> = presence["ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(|id| id.as_str().expect("ids are strings (P-SDK-9)"))
        .collect();
    let hash = presence["hash"].as_object().expect("hash");
    assert_eq!(presence["count"].as_u64(), Some(ids.len() as u64), "count of the roster (P-PRES-5)");
    assert_eq!(hash.len(), ids.len(), "ids and hash agree (P-SDK-9)");
    ids.iter()
        .map(|id| {
            ((*id).to_owned(), hash.get(*id).unwrap_or_else(|| panic!("{id} is no key of hash (P-SDK-9)")).clone())
        })
        .collect()
}
