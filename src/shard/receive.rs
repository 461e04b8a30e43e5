//! Received bytes: each phase of a connection reads them with its own decoder, and each complete request or message is
//! handled in place.

use super::Shard;
use super::connections::{After, Due};
use super::deadlines::DeadlineKind;
use super::http::Judged;
use crate::app::AppSerial;
use crate::connection::outbox::FrameKind;
use crate::connection::{ConnectionKey, Flags, Phase};
use crate::index::Slot;
use crate::limits;
use crate::wire::http::{DecodedRequest, Progress, RequestDecoder, RequestLimits};
use crate::wire::websocket::{self, Decoded, Message, Opcode};

const REQUEST_LIMITS: RequestLimits = RequestLimits {
    head_bytes_max: limits::HTTP_HEAD_BYTES_MAX,
    headers_max: limits::HTTP_HEADERS_MAX,
    query_bytes_max: limits::HTTP_QUERY_BYTES_MAX,
    body_bytes_max: limits::HTTP_BODY_BYTES_SETTING_MAX,
};

impl Shard {
    pub(super) fn handle_received(&mut self, connection: ConnectionKey, bytes: &mut [u8]) {
        if !self.connections.is_live(connection) {
            return;
        }
        let slot = connection.slot();
        self.context.metrics.counted.received_bytes += bytes.len() as u64;
        match self.connections.note_activity(&self.context, slot) {
            Phase::Http => self.receive_http(slot, bytes),
            Phase::Admitting => self.connections.hold_back(slot, bytes),
            // What a client sends on a stream has no meaning.
            Phase::Open if self.connections.is_stream(slot) => {}
            Phase::Open => self.receive_websocket(slot, bytes),
            Phase::Closing => {
                self.receive_held_back(slot);
                self.receive_websocket(slot, bytes);
            }
            Phase::Free | Phase::Lingering | Phase::Ended => {}
        }
        if self.connections.is_live(connection) {
            self.connections.account_input(&mut self.context, slot);
            self.connections.settle(&mut self.context, slot);
        }
    }

    /// The peer has ended its direction. A WebSocket is read to its end, including input that was held back because the
    /// client reads no replies.
    pub(super) fn handle_read_ended(&mut self, connection: ConnectionKey) {
        if !self.connections.is_live(connection) {
            return;
        }
        let slot = connection.slot();
        self.connections.set(slot, Flags::READ_ENDED);
        if self.connections.phase(slot) == Phase::Open {
            while self.connections.cold(slot).is_some_and(|cold| !cold.held_back.is_empty())
                && self.connections.reads_messages(slot)
            {
                self.connections.clear(slot, Flags::PAUSED);
                self.receive_held_back(slot);
            }
        }
        if self.connections.is_live(connection) {
            self.connections.handle_read_ended(&mut self.context, slot);
        }
    }

    /// A send or an answer has freed space: reads the held-back input, then takes the next step of a closing
    /// connection.
    pub(super) fn settle(&mut self, connection: ConnectionKey) {
        if !self.connections.is_live(connection) {
            return;
        }
        let slot = connection.slot();
        self.connections.resume_if_due(&mut self.context, slot);
        if !self.connections.has(slot, Flags::PAUSED) {
            match self.connections.phase(slot) {
                Phase::Http => {
                    let held_back = std::mem::take(&mut self.connections.http(slot).held_back);
                    if !held_back.is_empty() {
                        let mut held_back = held_back;
                        self.handle_received(connection, &mut held_back);
                    }
                }
                Phase::Open | Phase::Closing => self.receive_held_back(slot),
                Phase::Free | Phase::Admitting | Phase::Lingering | Phase::Ended => {}
            }
        }
        if self.connections.is_live(connection) {
            if self.connections.has(slot, Flags::CATCHING_UP) {
                self.channels.catch_up(&mut self.context, &self.connections, slot);
            }
            self.connections.settle(&mut self.context, slot);
        }
    }

    fn receive_http(&mut self, slot: Slot, bytes: &[u8]) {
        if self.connections.has(slot, Flags::LAST_ANSWER) {
            return;
        }
        // A read that was in flight when reading paused: it follows the held-back input.
        let held_back = &mut self.connections.http(slot).held_back;
        if !held_back.is_empty() {
            held_back.extend_from_slice(bytes);
            return;
        }
        let mut after_header = Vec::new();
        let rest = self.connections.take_proxy_header(&mut self.context, slot, bytes, &mut after_header);
        let Some(mut rest) = rest else { return };
        let mut decoder = std::mem::take(&mut self.connections.http(slot).decoder);
        let mut began = false;
        while !rest.is_empty() && !self.connections.has(slot, Flags::LAST_ANSWER) {
            if decoder.is_idle() && self.connections.holds_requests_back(slot) {
                self.connections.http(slot).held_back.extend_from_slice(rest);
                self.connections.pause(&mut self.context, slot);
                break;
            }
            let DecodedRequest { consumed, progress } = match decoder.decode(rest, &REQUEST_LIMITS) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.connections.note_untrusted_header(&mut self.context, slot, bytes);
                    return self.connections.answer_framing_error(&mut self.context, slot, error);
                }
            };
            self.connections.http(slot).request_bytes += consumed;
            match progress {
                Progress::Partial | Progress::ExpectsContinue => {
                    let expects_continue = matches!(progress, Progress::ExpectsContinue);
                    if self.judge_head(slot, &mut decoder, expects_continue) == Judged::Answered {
                        return;
                    }
                    if expects_continue {
                        self.connections.answer_continue(&mut self.context, slot);
                    }
                }
                Progress::Request(request) => {
                    let (requests, mut parts) = self.requests();
                    match requests.handle_request(&mut parts, slot, &request) {
                        After::Next => {
                            began = true;
                            self.handle_own_mail();
                        }
                        After::Upgraded => return self.start_websocket(slot, rest[consumed..].to_vec()),
                        After::Waits => {
                            let mut held_back = request.encode_head();
                            held_back.extend_from_slice(&rest[consumed..]);
                            return self.connections.hold_upgrade_back(&mut self.context, slot, held_back);
                        }
                    }
                }
            }
            rest = &rest[consumed..];
            if self.connections.phase(slot) != Phase::Http {
                return;
            }
        }
        let partial = !decoder.is_idle();
        self.connections.http(slot).decoder = if partial { decoder } else { RequestDecoder::default() };
        self.connections.set_request_deadline(&mut self.context, slot, partial, began);
    }

    fn judge_head(&mut self, slot: Slot, decoder: &mut RequestDecoder, expects_continue: bool) -> Judged {
        let (requests, mut parts) = self.requests();
        requests.judge_head(&mut parts, slot, decoder, &REQUEST_LIMITS, expects_continue)
    }

    /// The connection is a WebSocket now; `held_back` came with the request. While it is being admitted it is not read.
    fn start_websocket(&mut self, slot: Slot, mut held_back: Vec<u8>) {
        self.connections.end_http(slot);
        match self.connections.phase(slot) {
            Phase::Admitting => {
                self.connections.hold_back(slot, &held_back);
                self.handle_own_mail();
                if self.connections.phase(slot) == Phase::Admitting {
                    self.connections.pause(&mut self.context, slot);
                    return;
                }
            }
            Phase::Open | Phase::Closing => self.receive_websocket(slot, &mut held_back),
            Phase::Free | Phase::Http | Phase::Lingering | Phase::Ended => {}
        }
        if self.connections.phase(slot) != Phase::Free {
            self.connections.forget_client(slot);
        }
    }

    /// Reads messages until the connection is paused, which a reply that the client does not read may cause: later
    /// input is held back, at most one read, until the connection is resumed (P-CLOSE-5).
    fn receive_websocket(&mut self, slot: Slot, bytes: &mut [u8]) {
        self.connections.count_socket_received(&mut self.context, slot, bytes.len());
        if self.connections.holds_messages_back(slot) {
            // A read that was in flight when reading paused: it follows the held-back input.
            self.connections.hold_back(slot, bytes);
            return;
        }
        self.read_messages(slot, bytes);
    }

    fn read_messages(&mut self, slot: Slot, bytes: &mut [u8]) {
        let decoder = self.connections.cold_mut(slot).map(|cold| std::mem::take(&mut cold.decoder));
        let mut decoder = decoder.unwrap_or_default();
        let message_bytes_max = self.message_bytes_max(slot);
        let (mut at, mut began) = (0, false);
        while at < bytes.len() {
            if !self.connections.reads_messages(slot) {
                return;
            }
            if self.connections.holds_messages_back(slot) {
                self.connections.hold_back(slot, &bytes[at..]);
                break;
            }
            match decoder.decode(&mut bytes[at..], message_bytes_max) {
                Ok(Decoded { consumed, message }) => {
                    at += consumed;
                    if let Some(message) = message {
                        self.handle_message(slot, message);
                    }
                    // A control frame between two fragments leaves the message unfinished, and its deadline as it is.
                    began |= decoder.is_idle();
                }
                Err(error) => {
                    let (code, reason) = (error.close_code(), error.reason());
                    return self.connections.fail_websocket(&mut self.context, slot, code, reason);
                }
            }
        }
        if decoder.is_idle() {
            if let Some(cold) = self.connections.cold_mut(slot) {
                cold.message_deadline_ms = 0;
                self.connections.drop_cold_if_empty(slot);
            }
            return;
        }
        let cold = self.connections.cold_or_default(slot);
        cold.decoder = decoder;
        if began || cold.message_deadline_ms == 0 {
            self.connections.renew_message_deadline(&mut self.context, slot);
        }
    }

    /// Reads the held-back input of a connection that is no longer paused.
    fn receive_held_back(&mut self, slot: Slot) {
        let held_back = self.connections.cold_mut(slot).map(|cold| std::mem::take(&mut cold.held_back));
        let mut held_back = held_back.unwrap_or_default();
        if !held_back.is_empty() {
            self.read_messages(slot, &mut held_back);
            self.connections.account_input(&mut self.context, slot);
        }
    }

    fn handle_message(&mut self, slot: Slot, message: Message<'_>) {
        let open = self.connections.phase(slot) == Phase::Open;
        #[cfg(feature = "conformance")]
        let Some(message) = self.connections.echo(&mut self.context, slot, message) else { return };
        match message {
            Message::Close(code, _) => self.connections.handle_close(&mut self.context, slot, code),
            _ if !open => {}
            Message::Ping(payload) => self.send_pong(slot, payload),
            Message::Pong(_) => {}
            Message::Text(text) => {
                self.connections.count_message_received(&mut self.context, slot);
                self.handle_text(slot, text);
                self.handle_own_mail();
            }
            Message::Binary(_) => {
                let reason = "Binary messages are not supported";
                self.connections.fail_websocket(&mut self.context, slot, 1003, reason);
            }
        }
    }

    fn send_pong(&mut self, slot: Slot, payload: &[u8]) {
        let mut frame = Vec::new();
        websocket::encode_frame(&mut frame, Opcode::Pong, payload);
        self.connections.send(&mut self.context, slot, frame.into(), FrameKind::Control);
    }

    /// P-IN-5: the maximum length of the app's data, escaped, and 4 KiB.
    fn message_bytes_max(&self, slot: Slot) -> usize {
        #[cfg(feature = "conformance")]
        if self.connections.is_echo(slot) {
            return super::connections::echo::MESSAGE_BYTES_MAX;
        }
        let app = self.context.directory.app(AppSerial(self.connections.app(slot)));
        app.map_or(limits::MESSAGE_BYTES_MAX, |app| app.settings.message_bytes_max())
    }

    /// Whether the client has done its part of authorizing itself, and the connection waits for shards that have yet to
    /// record it (P-AUTHZ-1).
    pub(super) fn is_being_authorized(&self, due: &Due) -> bool {
        let signs_in = || self.connections.signed_in(due.slot).is_some_and(|signed_in| !signed_in.recorded);
        due.kind == DeadlineKind::Authorization
            && (signs_in() || self.channels.is_joining_protected(&self.connections, due.slot))
    }
}
