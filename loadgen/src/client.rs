//! One WebSocket client of the Pusher protocol: its state, and how it reads the upgrade and the protocol's events.
//!
//! ```text
//! Connecting --writable--> Upgrading --101--> Greeting --connection_established--> Subscribing --succeeded--> Ready
//! ```
//! A connection owns no buffer: bytes are read into one that all share, and only what a read cuts in half is kept.

use std::os::fd::OwnedFd;

use serde::Deserialize;

use crate::messages::Group;
use crate::worker::Shared;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Connecting,
    Upgrading,
    Greeting,
    Subscribing,
    Ready,
}

/// One client connection.
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) phase: Phase,
    pub(crate) group: Group,
    pub(crate) generation: u16,
    /// Number in the run, over all workers.
    pub(crate) number: u32,
    /// When it, or its present subscription, was to begin; once it pings, when the oldest ping without an answer was to be
    /// sent, 0 while there is none.
    pub(crate) due_ns: u64,
    /// Only while there is something to keep.
    pub(crate) kept: Option<Box<Kept>>,
}

/// What a connection rarely has.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The begin of a frame whose rest has not come.
    pub(crate) incoming: Vec<u8>,
    /// What the socket did not take.
    pub(crate) outgoing: Vec<u8>,
    /// Kept where the connection subscribes again.
    pub(crate) socket_id: String,
}

const _: () = assert!(size_of::<Connection>() == 32, "a connection costs the generator 32 bytes");

impl Connection {
    pub(crate) fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_default()
    }

    /// When it has failed unless it is subscribed by then.
    pub(crate) fn expires_ns(&self, shared: &Shared) -> u64 {
        self.due_ns.max(shared.judged_from_ns) + shared.plan.join_timeout_ns
    }

    /// Drops what is kept if it is nothing.
    pub(crate) fn tidy(&mut self) {
        let is_empty = |kept: &Kept| kept.incoming.is_empty() && kept.outgoing.is_empty() && kept.socket_id.is_empty();
        if self.kept.as_deref().is_some_and(is_empty) {
            self.kept = None;
        }
    }
}

/// What the head of the answer to an upgrade says.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Upgrade {
    Partial,
    /// Accepted; the head has this many bytes.
    Done(usize),
    Refused(String),
}

/// Reads the answer to an upgrade.
pub(crate) fn read_upgrade(bytes: &[u8]) -> Upgrade {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Upgrade::Refused("no HTTP".into()) } else { Upgrade::Partial };
    };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        return Upgrade::Done(end + 4);
    }
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Upgrade::Refused(String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned())
}

/// What an event of the protocol, as opposed to a published one, means to a client.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    Established {
        socket_id: String,
    },
    Subscribed,
    /// Someone else joined; the text is the whole `data`.
    MemberAdded(String),
    /// Someone else left.
    MemberRemoved(String),
    Error(String),
    Ping,
    Pong,
    /// Nothing to act on.
    Other,
}

#[derive(Deserialize)]
struct Event {
    event: String,
    #[serde(default)]
    data: serde_json::Value,
}

/// Reads an event of the protocol. `data` may be an object or a string that holds one.
pub(crate) fn read_event(message: &[u8]) -> Meaning {
    let Ok(event) = serde_json::from_slice::<Event>(message) else {
        return Meaning::Error("text that is not an event".into());
    };
    let data = match event.data.as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or(serde_json::Value::Null),
        None => event.data.clone(),
    };
    match event.event.as_str() {
        "pusher:connection_established" => match data["socket_id"].as_str() {
            Some(socket_id) => Meaning::Established { socket_id: socket_id.to_owned() },
            None => Meaning::Error("connection_established without socket_id".into()),
        },
        "pusher_internal:subscription_succeeded" => Meaning::Subscribed,
        "pusher_internal:member_added" => Meaning::MemberAdded(event.data.as_str().unwrap_or_default().to_owned()),
        "pusher_internal:member_removed" => Meaning::MemberRemoved(event.data.as_str().unwrap_or_default().to_owned()),
        "pusher:error" | "pusher:subscription_error" => Meaning::Error(error_text(&data)),
        "pusher:ping" => Meaning::Ping,
        "pusher:pong" => Meaning::Pong,
        _ => Meaning::Other,
    }
}

fn error_text(data: &serde_json::Value) -> String {
    let code = data["code"].as_u64().or_else(|| data["status"].as_u64());
    let message = data["message"].as_str().or_else(|| data["error"].as_str()).unwrap_or_default();
    // What differs in every connection would make every reason its own.
    let message: String = message.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(100).collect();
    match code {
        Some(code) => format!("pusher error {code}: {message}"),
        None => format!("pusher error: {message}"),
    }
}

const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_are_read() {
        assert_eq!(read_upgrade(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x81"), Upgrade::Done(42));
        assert_eq!(read_upgrade(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r"), Upgrade::Partial);
        assert_eq!(read_upgrade(b"HTTP/1.1 404 No\r\n\r\n"), Upgrade::Refused("HTTP/1.1 404 No".into()));
        assert!(matches!(read_upgrade(&[b'x'; HEAD_BYTES_MAX + 1]), Upgrade::Refused(_)));
    }

    /// Goal: both forms of `data` that servers use are read.
    #[test]
    fn events_are_read() {
        let established = Meaning::Established { socket_id: "1.2".into() };
        assert_eq!(
            read_event(br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}"#),
            established
        );
        assert_eq!(read_event(br#"{"event":"pusher:connection_established","data":{"socket_id":"1.2"}}"#), established);
        let error = Meaning::Error("pusher error 4001: no app # here".into());
        assert_eq!(read_event(br#"{"event":"pusher:error","data":{"code":4001,"message":"no app 7 here"}}"#), error);
        assert_eq!(
            read_event(br#"{"event":"pusher:error","data":"{\"code\":4001,\"message\":\"no app 7 here\"}"}"#),
            error
        );
        assert_eq!(read_event(br#"{"event":"pusher:ping"}"#), Meaning::Ping);
        assert!(matches!(read_event(b"[]"), Meaning::Error(_)));
    }
}
