//! A WebSocket through all hops: the upgrade, the first frame, a ping of the protocol.

use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::hop::relay_says;
use super::http::{Answer, AskError};
use super::lines::Fault;
use super::websocket::{Arrived, OpenError, Socket};
use super::{Examination, Finding, State, describe};

/// Time for the first frame, and for an answer to a message.
pub(super) const FRAME_TIME: Duration = Duration::from_secs(10);
const COST: &str = "no client connects";

/// An established connection of the Pusher protocol.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) socket_id: String,
    /// Seconds of silence after which clients ping.
    pub(super) activity_timeout_s: u64,
}

impl Examination {
    /// A connection as a browser opens it. `None` if it could not be established.
    pub(super) fn check_websocket(&mut self) -> Option<Client> {
        let check = "websocket";
        let started = Instant::now();
        let mut socket = match self.open_socket() {
            Ok(socket) => socket,
            Err(error) => {
                self.report_upgrade(&error);
                return None;
            }
        };
        self.hops.note(&socket.answer.clone());
        match socket.next_message(Instant::now() + FRAME_TIME) {
            Arrived::Json(frame) if frame["event"] == "pusher:connection_established" => {
                let ms = started.elapsed().as_millis();
                let data: Value =
                    frame["data"].as_str().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
                let socket_id = data["socket_id"].as_str().unwrap_or_default().to_owned();
                let activity_timeout_s = data["activity_timeout"].as_u64().unwrap_or(120);
                let scheme = if self.target.tls { "wss" } else { "ws" };
                self.ok(check, format!("{scheme} is established in {ms} ms, activity_timeout {activity_timeout_s}"));
                let mut client = Client { socket, socket_id, activity_timeout_s };
                self.check_ping(&mut client).then_some(client)
            }
            Arrived::Json(frame) if frame["event"] == "pusher:error" => {
                self.report_error(&frame["data"], self.access.key.is_some());
                None
            }
            Arrived::Nothing => {
                let time_s = FRAME_TIME.as_secs();
                let found =
                    format!("101, and then no frame within {time_s} s: a hop holds the connection's bytes back");
                self.fault(State::Problem, check, Fault::Silent, found, COST);
                None
            }
            arrived @ (Arrived::Json(_) | Arrived::Control | Arrived::Close(..) | Arrived::Ended(_)) => {
                let found = format!("101, and then the connection ends: {}", how(&arrived));
                self.fault(State::Problem, check, Fault::Upgrade, found, COST);
                None
            }
        }
    }

    /// Opens a WebSocket at the path of the app, and reads nothing.
    pub(super) fn open_socket(&self) -> Result<Socket, OpenError> {
        let key = self.access.key.as_deref().unwrap_or("relay-doctor");
        let path = self.target.path(&format!("/app/{}", utf8_percent_encode(key, NON_ALPHANUMERIC)));
        let path = format!("{path}?protocol=7&client=relay-doctor&version={}", env!("CARGO_PKG_VERSION"));
        Socket::open(&self.connector, &self.target, &path, self.origin.as_deref())
    }

    /// An upgrade that was not answered with 101.
    fn report_upgrade(&mut self, error: &OpenError) {
        let check = "websocket";
        let answer = match error {
            OpenError::Ask(AskError::Connect(_) | AskError::NotHttp(_) | AskError::TimedOut) | OpenError::Broken(_) => {
                let found = match error {
                    OpenError::Ask(error) => format!("the upgrade fails: {}", describe(error)),
                    OpenError::Broken(what) => format!("a hop answers 101 itself: {what}"),
                    OpenError::Refused(_) => unreachable!("it has an answer"),
                };
                return self.fault(State::Problem, check, Fault::Upgrade, found, COST);
            }
            OpenError::Ask(error @ AskError::Closed(_)) => {
                let found = format!("the upgrade fails: {}", describe(error));
                return self.fault(State::Problem, check, Fault::Upgrade, found, COST);
            }
            OpenError::Refused(answer) => answer,
        };
        self.hops.note(answer);
        match relay_says(answer) {
            Some(text) => self.report_lost_header(answer, text.trim_end()),
            None => self.refused_by_hop(check, "the upgrade", answer, COST),
        }
    }

    /// Relay's refusal shows which part of the handshake a hop changed.
    fn report_lost_header(&mut self, answer: &Answer, text: &str) {
        let (fault, lost) = match text {
            _ if text.contains("HTTP/1.1") => (Fault::Http10, "a hop speaks HTTP/1.0 to Relay"),
            "This path is for WebSockets" => (Fault::Upgrade, "a hop drops the header Upgrade"),
            _ if text.starts_with("Connection") => (Fault::Upgrade, "a hop drops the header Connection: Upgrade"),
            _ if text.starts_with("Sec-WebSocket") => (Fault::Headers, "a hop changes the headers Sec-WebSocket-*"),
            _ => (Fault::Upgrade, "the upgrade arrives changed"),
        };
        let found = format!("{lost}: Relay answers {} {text:?}", answer.status);
        self.fault(State::Problem, "websocket", fault, found, COST);
    }

    /// The upgrade worked, and Relay refuses the client.
    fn report_error(&mut self, data: &Value, key_was_given: bool) {
        let check = "websocket";
        let (code, message) = (data["code"].as_u64().unwrap_or_default(), data["message"].as_str().unwrap_or_default());
        let found = format!("the upgrade works, and Relay refuses with {code}: {message}");
        let problem =
            |fix: &str| Finding { hop: Some("relay"), ..Finding::of(State::Problem, check, found.clone(), COST, fix) };
        match code {
            4000 => self.fault(State::Problem, check, Fault::ForwardedProto, found, COST),
            4001 if !key_was_given => {
                self.ok(check, "the upgrade works; give --app ID or --key KEY to connect as a client");
            }
            4001 => self.add(problem("compare the key with `relay app list` on this deployment's host")),
            4003 => self.add(problem("relay app enable ID")),
            4004 | 4100 => self.add(problem("raise max_connections of the app or of the server")),
            4009 => {
                self.add(problem("relay app set ID allowed_origins=... with the host of --origin, or empty for all"))
            }
            _ => self.add(problem("docs/troubleshooting.md has the codes")),
        }
    }

    /// Both directions carry messages.
    fn check_ping(&mut self, client: &mut Client) -> bool {
        let started = Instant::now();
        client.socket.send(&json!({"event": "pusher:ping", "data": {}}));
        match client.socket.next_message(started + FRAME_TIME) {
            Arrived::Json(frame) if frame["event"] == "pusher:pong" => {
                self.ok("ping", format!("answered in {} ms", started.elapsed().as_millis()));
                true
            }
            arrived @ (Arrived::Json(_)
            | Arrived::Control
            | Arrived::Close(..)
            | Arrived::Ended(_)
            | Arrived::Nothing) => {
                let found = format!("a ping is not answered: {}", how(&arrived));
                self.fault(State::Problem, "ping", Fault::Silent, found, "clients reconnect again and again");
                false
            }
        }
    }
}

/// What arrived instead, as a phrase.
pub(super) fn how(arrived: &Arrived) -> String {
    match arrived {
        Arrived::Json(frame) => format!("{} arrived", frame["event"].as_str().unwrap_or("a message")),
        Arrived::Close(code, reason) => format!("Close {code} {reason}"),
        Arrived::Ended(reason) => reason.clone(),
        Arrived::Control | Arrived::Nothing => "nothing arrived in time".to_owned(),
    }
}
