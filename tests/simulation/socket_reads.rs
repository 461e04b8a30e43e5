//! How WebSocket clients check the frames they read: every frame is compared with its client's requests.

use serde_json::Value;

use crate::authorization::NOT_AUTHORIZED;
use crate::client::frames::{CLOSE, PING, PONG, TEXT};
use crate::client::positions::decode_id;
use crate::client::responses::Response;
use crate::client::socket::{Complaint, Operation, Phase, StepKind, decode_roster};
use crate::coverage::Happening;
use crate::network::End;
use crate::reference::{Outcome, Received, Session};
use crate::world::World;

impl World {
    /// A WebSocket client reads up to `bytes_max` bytes. False when there was nothing to read.
    pub(crate) fn read_socket(&mut self, number: usize, bytes_max: usize) -> bool {
        let client = &mut self.sockets[number];
        if client.phase == Phase::Gone || client.stalled || client.vanished {
            return false;
        }
        let wire = &mut self.wires[client.wire];
        let end = wire.client_sees();
        let bytes = wire.client_read(bytes_max);
        if bytes.is_empty() {
            if end == End::Open {
                return false;
            }
            self.end_socket(number, end);
            return true;
        }
        self.system.trace.mix_bytes(&bytes);
        self.system.trace.note(|| format!("client {number} reads {}", bytes.escape_ascii()));
        if client.phase == Phase::Upgrading {
            client.responses.push(&bytes);
            let Some(response) = client.responses.next(false) else { return true };
            self.finish_upgrade(number, &response);
        } else {
            client.frames.push(&bytes);
        }
        while self.sockets[number].phase != Phase::Gone {
            let Some(frame) = self.sockets[number].frames.next() else { break };
            self.handle_frame(number, frame.opcode, &frame.payload);
        }
        true
    }

    /// The answer to the upgrade: refusals too complete it (P-CONN-8).
    fn finish_upgrade(&mut self, number: usize, response: &Response) {
        let client = &mut self.sockets[number];
        assert_eq!(response.status, 101, "the upgrade of client {number}: {response:?}");
        // The answer to the nonce that every client sends, by RFC 6455 section 1.3.
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(response.header("sec-websocket-accept"), Some(accept), "RFC 6455 section 4.2.2");
        client.phase = Phase::Greeting;
        let rest = client.responses.take_rest();
        client.frames.push(&rest);
    }

    fn handle_frame(&mut self, number: usize, opcode: u8, payload: &[u8]) {
        let client = &mut self.sockets[number];
        assert!(client.close_read.is_none(), "a frame after Close (RFC 6455 section 5.5.1) for client {number}");
        match opcode {
            TEXT => {
                let text = std::str::from_utf8(payload).expect("text frames are UTF-8");
                self.handle_text(number, text);
            }
            PING => {
                let pong = client.frame(PONG, payload);
                self.wires[self.sockets[number].wire].client_write(&pong);
            }
            PONG => {
                let owed = client.pings.pop_front();
                assert_eq!(owed.as_deref(), Some(payload), "the pong of client {number} (RFC 6455 section 5.5.3)");
            }
            CLOSE => self.handle_close(number, payload),
            other => unreachable!("the reader lets no opcode {other} pass"),
        }
    }

    fn handle_close(&mut self, number: usize, payload: &[u8]) {
        // A burst of large events may exceed the limit of events in flight between shards.
        let events_were_lost = self.may_overload() && self.system.stats().iter().any(|stats| stats.gap_closed > 0);
        let client = &mut self.sockets[number];
        let code = match payload {
            [] => 1005,
            [high, low, reason @ ..] => {
                assert!(std::str::from_utf8(reason).is_ok(), "a close reason is UTF-8");
                u16::from_be_bytes([*high, *low])
            }
            [_] => panic!("half a close code for client {number}"),
        };
        assert!(
            client.may_close.contains(&code) || (code == 4200 && events_were_lost),
            "client {number} was closed with {code}, only {:?} was due",
            client.may_close
        );
        if (4_000..4_300).contains(&code) {
            assert_eq!(
                client.last_error,
                Some(u64::from(code)),
                "Close {code} without its pusher:error before (P-SDK-13)"
            );
        }
        assert!(code < 4_300, "close code {code} (P-SDK-14)");
        client.close_read = Some(code);
        self.system.coverage.note(Happening::Closed(code));
        if client.close_sent.is_none() && !client.broken {
            client.send_close(&mut self.wires[client.wire], code);
        }
        self.leave_sessions(number);
    }

    /// The stream of a WebSocket client ended.
    fn end_socket(&mut self, number: usize, end: End) {
        let client = &mut self.sockets[number];
        // A connection that was not established may have had to make way for another (P-CLOSE-2).
        let made_room = client.socket_id.is_none() && self.system.was_full(self.wires[client.wire].shard);
        let excused = client.may_vanish
            || made_room
            || client.close_read.is_some()
            || (end == End::Reset && client.close_sent.is_some());
        assert!(excused, "client {number} was cut off ({end:?}) without a Close frame");
        assert!(client.may_vanish || client.frames.pending() == 0, "client {number} was cut off within a frame");
        self.system.trace.note(|| format!("client {number} sees {end:?}"));
        self.wires[self.sockets[number].wire].client_finish();
        self.forget_socket(number);
    }

    /// A WebSocket client is gone: its pending answers are no longer expected.
    pub(crate) fn forget_socket(&mut self, number: usize) {
        self.leave_sessions(number);
        let client = &mut self.sockets[number];
        client.phase = Phase::Gone;
        let unanswered: Vec<usize> = client.operations[client.pongs as usize..]
            .iter()
            .filter_map(|operation| match operation {
                Operation::ClientEvent { group, .. } => Some(*group),
                Operation::Ping | Operation::Subscribe | Operation::Unsubscribe | Operation::Refused(_) => None,
            })
            .collect();
        for group in unanswered {
            if self.model.publishes[group].outcome == Outcome::Open {
                self.model.answer(&[group], Outcome::Unknown);
            }
        }
    }

    /// The subscriptions of a client end.
    pub(crate) fn leave_sessions(&mut self, number: usize) {
        self.sockets[number].user.live = false;
        for session in self.sockets[number].sessions() {
            self.model.end_session(session, self.system.served_ms());
        }
    }

    fn handle_text(&mut self, number: usize, text: &str) {
        let frame: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("client {number} got {text:?}: {error}"));
        let event = frame["event"].as_str().unwrap_or_else(|| panic!("a frame without event: {text}"));
        let client = &mut self.sockets[number];
        client.last_error = None;
        if client.phase == Phase::Greeting {
            return self.handle_greeting(number, event, &frame);
        }
        match event {
            "pusher:pong" => self.handle_pong(number),
            "pusher:error" => {
                let data = &frame["data"];
                assert!(
                    data.is_object() && data.get("code").is_some(),
                    "an error has code and message (P-SDK-4): {text}"
                );
                client.last_error = data["code"].as_u64();
                let message = data["message"].as_str().expect("an error has a message").to_owned();
                let not_authorized = message == NOT_AUTHORIZED;
                client.complaints.push(Complaint::Error(data["code"].as_u64(), message));
                if not_authorized {
                    self.handle_not_authorized(number);
                }
                self.drop_closing_complaint(number);
            }
            "pusher:subscription_error" => self.handle_subscription_error(number, &frame),
            "auth_required" => {
                let channel = frame["channel"].as_str().expect("auth_required names its channel").to_owned();
                client.complaints.push(Complaint::AuthRequired(channel));
            }
            "pusher:signin_success" => self.handle_signin_success(number, &frame),
            "pusher_internal:watchlist_events" => self.handle_watchlist(number, &frame),
            "pusher_internal:subscription_succeeded" => self.handle_succeeded(number, &frame),
            _ => self.handle_channel_event(number, event, &frame),
        }
    }

    /// An error before a Close that may come (P-SDK-13) is not the refusal of a message.
    fn drop_closing_complaint(&mut self, number: usize) {
        let client = &mut self.sockets[number];
        // Refusals have 4009 too; only the termination of a user and of unauthorized connections has these messages.
        if let Some(Complaint::Error(Some(code), message)) = client.complaints.last()
            && client.may_close.contains(&(*code as u16))
            && (*code != 4009 || message == "You got disconnected by the app" || message == NOT_AUTHORIZED)
        {
            client.complaints.pop();
        }
    }

    /// P-SDK-1: the first message is established or an error.
    fn handle_greeting(&mut self, number: usize, event: &str, frame: &Value) {
        let client = &mut self.sockets[number];
        match event {
            "pusher:connection_established" => {
                let data = frame["data"].as_str().expect("data is a string (P-SDK-3)");
                let data: Value = serde_json::from_str(data).expect("data holds JSON");
                assert_eq!(data["activity_timeout"].as_u64(), Some(40), "P-SDK-2");
                let socket_id = data["socket_id"].as_str().expect("a socket id").to_owned();
                client.socket_id = Some(socket_id.clone());
                client.phase = Phase::Open;
                let (high, low) = socket_id.split_once('.').expect("two numbers (P-SDK-23)");
                assert!(
                    high.parse::<u64>().is_ok_and(|high| high >= 1) && low.parse::<u64>().is_ok(),
                    "P-CONN-10: {socket_id}"
                );
                let twins = self.sockets.iter().filter(|other| other.socket_id.as_ref() == Some(&socket_id)).count();
                assert_eq!(twins, 1, "socket id {socket_id} was given twice (P-CONN-10)");
                self.note_established(number);
            }
            "pusher:error" => {
                let code = frame["data"]["code"].as_u64().expect("a numeric code before established (P-SDK-5)");
                client.last_error = Some(code);
            }
            other => panic!("the first message of client {number} is {other} (P-SDK-1)"),
        }
    }

    fn handle_pong(&mut self, number: usize) {
        let now = self.system.now.monotonic_ms;
        let client = &mut self.sockets[number];
        let passed = client.settle_operation();
        let operation = client.operations[client.pongs as usize].clone();
        client.pongs += 1;
        if let Operation::ClientEvent { group, .. } = operation {
            let (_, sent) = client.event_sent.remove(0);
            client.event_times.push((sent, now, passed));
            self.system.coverage.note(if passed {
                Happening::ClientEventPassed
            } else {
                Happening::ClientEventRefused
            });
            let outcome = if passed { Outcome::Accepted(self.tick) } else { Outcome::Refused };
            check_rate(&client.event_times);
            self.model.answer(&[group], outcome);
        }
    }

    fn handle_subscription_error(&mut self, number: usize, frame: &Value) {
        let app = &self.apps[self.sockets[number].app];
        let client = &mut self.sockets[number];
        let channel = frame["channel"].as_str().expect("it names its channel (P-FAIL-2)").to_owned();
        let data = &frame["data"];
        let kind = data["type"].as_str().expect("it has a type (P-FAIL-2)").to_owned();
        let status = data["status"].as_u64().expect("it has a status (P-FAIL-2)");
        if (kind.as_str(), status) == ("LimitReached", 4_100) && channel.starts_with("presence-") {
            assert!(app.members_max < 100, "{channel} cannot be full");
            let error = client.complaints.pop();
            assert!(
                matches!(error, Some(Complaint::Error(None, _))),
                "pusher:error goes before (P-FAIL-4), not {error:?}"
            );
            let step =
                client.joining_step(&channel).unwrap_or_else(|| panic!("client {number} did not ask for {channel}"));
            step.kind = StepKind::Refused;
            self.system.coverage.note(Happening::ChannelFull);
            return;
        }
        client.complaints.push(Complaint::SubscriptionError(channel, kind, status));
    }

    fn handle_succeeded(&mut self, number: usize, frame: &Value) {
        let client = &mut self.sockets[number];
        let channel = frame["channel"].as_str().expect("succeeded names its channel (P-OUT-1)").to_owned();
        let data = frame["data"].as_str().expect("data is a string (P-SDK-6)");
        let (session, now_ms) = (self.model.sessions.len(), self.system.served_ms());
        self.system.coverage.note(Happening::Joined);
        let step = client.joining_step(&channel).unwrap_or_else(|| panic!("client {number} did not ask for {channel}"));
        let asked_with = step.operation;
        let StepKind::Joining { user, resumed } = std::mem::replace(&mut step.kind, StepKind::Joined(session)) else {
            unreachable!("only a joining step is found");
        };
        let roster = if user.is_some() {
            decode_roster(data)
        } else {
            assert!(data == "{}" || client.wants_ids, "P-SDK-6");
            std::collections::BTreeMap::new()
        };
        if let Some(user) = &user {
            assert!(roster.contains_key(user), "the joiner {user} is in its own roster (P-OUT-2)");
        }
        let live = client.is_subscribed(&channel) && client.close_read.is_none();
        let left = client.channels[&channel].iter().find(|step| step.operation > asked_with && step.is_left());
        let left_with = left.map(|step| step.operation);
        let app = client.app;
        if channel.starts_with("private-") || channel.starts_with("presence-") {
            self.note_authorized(number);
        }
        self.model.sessions.push(Session {
            client: number,
            app,
            channel,
            from: self.tick,
            from_ms: now_ms,
            live,
            ended_ms: (!live).then_some(now_ms),
            left_with,
            count: None,
            received: Vec::new(),
            user,
            roster: roster.clone(),
            changed: std::collections::BTreeSet::new(),
            history: *resumed,
        });
        self.handle_position(session, data);
        for (user, info) in &roster {
            self.model.check_offer(session, user, info);
        }
    }

    fn handle_channel_event(&mut self, number: usize, event: &str, frame: &Value) {
        let channel = frame["channel"].as_str().unwrap_or_else(|| panic!("client {number} got {frame}"));
        let session = self.sockets[number]
            .session_of(channel)
            .unwrap_or_else(|| panic!("client {number} is not subscribed to {channel} and got {frame}"));
        let data = frame["data"].as_str().unwrap_or_else(|| panic!("data is a string (P-SDK-8): {frame}"));
        match event {
            "pusher_internal:member_added" => {
                let member: Value = serde_json::from_str(data).expect("a member is JSON");
                let user = member["user_id"].as_str().expect("user_id is a string (P-SDK-9)");
                self.model.member_added(session, user, &member["user_info"]);
            }
            "pusher_internal:member_removed" => {
                let member: Value = serde_json::from_str(data).expect("a member is JSON");
                let user = member["user_id"].as_str().expect("user_id is a string (P-SDK-9)");
                self.model.member_removed(session, user);
            }
            "pusher_internal:subscription_count" => {
                let count: Value = serde_json::from_str(data).expect("a count is JSON");
                assert!(self.apps[self.sockets[number].app].subscription_count, "counts are off (P-COUNT-1): {frame}");
                self.model.sessions[session].count = count["subscription_count"].as_u64();
                self.system.coverage.note(Happening::CountTold);
            }
            "pusher:history_gap" => self.handle_gap(session, data),
            name => {
                assert!(!name.starts_with("pusher"), "client {number} got {frame}");
                self.system.coverage.note(Happening::Delivered);
                let sequence = frame["id"].as_str().map(|id| decode_id(id).2);
                let received = Received { name, data, user_id: frame["user_id"].as_str(), sequence };
                let group = self.model.receive(session, &received);
                self.handle_id(session, frame, group);
            }
        }
    }
}

/// P-LIM-9: in no span of time did more events pass than ten plus ten per second.
fn check_rate(times: &[(u64, u64, bool)]) {
    let Some((_, end, _)) = times.last() else { return };
    let mut passed = 0;
    for (sent, _, accepted) in times.iter().rev() {
        passed += u64::from(*accepted);
        let span_ms = end - sent;
        assert!(passed <= 10 + span_ms / 100 + 1, "{passed} client events passed within {span_ms} ms (P-LIM-9)");
    }
}
