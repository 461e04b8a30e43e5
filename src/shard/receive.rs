//! Bytes in: each phase of a connection reads them with its own decoder, and each whole request or message is handled
//! where it lies.

use super::Shard;
use super::input::Judged;
use super::request::After;
use super::sweep::Deadline;
use crate::app::AppSerial;
use crate::connection::{ConnectionKey, Flags, Http, Phase, Proxy};
use crate::limits;
use crate::wire::http::{DecodedRequest, Progress, RequestDecoder, RequestLimits};
use crate::wire::proxy::{ProxyHeader, begins_proxy_header, decode_proxy_header};
use crate::wire::websocket::{self, Decoded, Message, Opcode};

const REQUEST_LIMITS: RequestLimits = RequestLimits {
    head_bytes_max: limits::HTTP_HEAD_BYTES_MAX,
    headers_max: limits::HTTP_HEADERS_MAX,
    query_bytes_max: limits::HTTP_QUERY_BYTES_MAX,
    body_bytes_max: limits::HTTP_BODY_BYTES_SETTING_MAX,
};

impl Shard {
    pub(super) fn handle_received(&mut self, connection: ConnectionKey, bytes: &mut [u8]) {
        if !self.is_live(connection) {
            return;
        }
        let slot = connection.slot;
        self.heard[slot as usize] = self.tenths();
        self.figures.counted.received_bytes += bytes.len() as u64;
        let line = &mut self.hot[slot as usize];
        line.flags.remove(Flags::AWAITING_PONG);
        match line.phase {
            Phase::Http => self.receive_http(slot, bytes),
            Phase::Admitting => self.cold_mut(slot).held_back.extend_from_slice(bytes),
            Phase::Open => self.receive_websocket(slot, bytes),
            Phase::Closing => {
                self.receive_held_back(slot);
                self.receive_websocket(slot, bytes);
            }
            Phase::Free | Phase::Lingering | Phase::Ended => {}
        }
        if self.is_live(connection) {
            self.account_input(slot);
            self.settle(slot);
        }
    }

    fn receive_http(&mut self, slot: u32, bytes: &[u8]) {
        if self.hot[slot as usize].flags.contains(Flags::LAST_ANSWER) {
            return;
        }
        // A read that was under way when reading paused: it comes after what is held back.
        let held_back = &mut self.http(slot).held_back;
        if !held_back.is_empty() {
            held_back.extend_from_slice(bytes);
            return;
        }
        let mut after_header = Vec::new();
        let Some(mut rest) = self.take_proxy_header(slot, bytes, &mut after_header) else { return };
        let mut decoder = std::mem::take(&mut self.http(slot).decoder);
        let mut began = false;
        while !rest.is_empty() && !self.hot[slot as usize].flags.contains(Flags::LAST_ANSWER) {
            if decoder.is_idle() && self.holds_requests_back(slot) {
                self.http(slot).held_back.extend_from_slice(rest);
                self.pause(slot);
                break;
            }
            let DecodedRequest { consumed, progress } = match decoder.decode(rest, &REQUEST_LIMITS) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.note_untrusted_header(slot, bytes);
                    return self.answer_framing_error(slot, error);
                }
            };
            self.http(slot).request_bytes += consumed;
            match progress {
                Progress::Partial | Progress::ExpectsContinue => {
                    let expects_continue = matches!(progress, Progress::ExpectsContinue);
                    if self.judge_head(slot, &mut decoder, &REQUEST_LIMITS, expects_continue) == Judged::Answered {
                        return;
                    }
                    if expects_continue {
                        self.answer_continue(slot);
                    }
                }
                Progress::Request(request) => match self.handle_request(slot, &request) {
                    After::Next => {
                        began = true;
                        self.handle_own_mail();
                    }
                    After::Upgraded => {
                        let held_back = rest[consumed..].to_vec();
                        self.start_websocket(slot, held_back);
                        return;
                    }
                    After::Waits => {
                        let mut held_back = request.encode_head();
                        held_back.extend_from_slice(&rest[consumed..]);
                        let http = self.http(slot);
                        (http.held_back, http.upgrade_waits, http.request_bytes) = (held_back, true, 0);
                        self.pause(slot);
                        return self.set_request_deadline(slot, false, true);
                    }
                },
            }
            rest = &rest[consumed..];
            if self.hot[slot as usize].phase != Phase::Http {
                return;
            }
        }
        let partial = !decoder.is_idle();
        self.http(slot).decoder = if partial { decoder } else { RequestDecoder::default() };
        self.set_request_deadline(slot, partial, began);
    }

    /// Whether the next request has to wait: for one before it that waits itself, or whose answer may be large, for answers
    /// that are owed, or for answers to be read (P-CLOSE-5).
    pub(super) fn holds_requests_back(&mut self, slot: u32) -> bool {
        let unsent_bytes = self.hot[slot as usize].outbox.unsent_bytes();
        let http = self.http(slot);
        http.parked
            || http.large_answer.is_some()
            || http.answers.len() >= limits::HTTP_PIPELINE_MAX
            || unsent_bytes > limits::HTTP_OUTBOX_BYTES_SOFT
            || (http.upgrade_waits && !(http.is_answered() && unsent_bytes == 0))
    }

    /// A request must be whole within a total deadline, from its first byte (threat T14): from accept for the first
    /// one. `began` says that the part of a request that is there now began with the bytes just read.
    fn set_request_deadline(&mut self, slot: u32, partial: bool, began: bool) {
        let http = self.http(slot);
        let awaits_header = matches!(&http.proxy, Proxy::Awaited(bytes) if !bytes.is_empty());
        if !partial && !awaits_header {
            http.deadline_ms = 0;
        } else if began || http.deadline_ms == 0 {
            self.renew_request_deadline(slot);
        }
    }

    /// Logs a PROXY protocol header of a proxy that is not trusted: it was read as a request, and is none.
    fn note_untrusted_header(&mut self, slot: u32, bytes: &[u8]) {
        if begins_proxy_header(bytes) && matches!(self.http(slot).proxy, Proxy::Direct) {
            self.note_proxy_header_refused(slot, "untrusted");
        }
    }

    /// Reads what a trusted proxy may put before the first request; gives the bytes after it.
    fn take_proxy_header<'a>(&mut self, slot: u32, bytes: &'a [u8], whole: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let http = self.http(slot);
        let Proxy::Awaited(held) = &mut http.proxy else { return Some(bytes) };
        held.extend_from_slice(bytes);
        match decode_proxy_header(held) {
            Ok(ProxyHeader::Partial) => None,
            Ok(ProxyHeader::Absent) => {
                *whole = std::mem::take(held);
                http.proxy = Proxy::Trusted;
                Some(whole)
            }
            Ok(ProxyHeader::Present { consumed, source }) => {
                *whole = held.split_off(consumed);
                http.proxy = Proxy::Trusted;
                if let Some(source) = source {
                    http.client = source.ip().to_canonical();
                }
                Some(whole)
            }
            Err(_) => {
                self.note_proxy_header_refused(slot, "malformed");
                self.end(slot, false);
                None
            }
        }
    }

    /// Reads messages until the connection is paused, which a reply that it does not read may do: what follows is held
    /// back, at most one read, until the connection is resumed (P-CLOSE-5).
    pub(super) fn receive_websocket(&mut self, slot: u32, bytes: &mut [u8]) {
        self.count_socket_received(slot, bytes.len());
        if self.holds_back(slot) {
            // A read that was in flight when reading paused: it comes after what is held back.
            self.cold_mut(slot).held_back.extend_from_slice(bytes);
            return;
        }
        self.read_messages(slot, bytes);
    }

    fn read_messages(&mut self, slot: u32, bytes: &mut [u8]) {
        let mut decoder = self.cold_of(slot).map(|cold| std::mem::take(&mut cold.decoder)).unwrap_or_default();
        let message_bytes_max = self.message_bytes_max(slot);
        let (mut at, mut began) = (0, false);
        while at < bytes.len() {
            if !self.reads_messages(slot) {
                return;
            }
            if self.holds_back(slot) {
                self.cold_mut(slot).held_back.extend_from_slice(&bytes[at..]);
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
                Err(error) => return self.fail_websocket(slot, error.close_code(), error.reason()),
            }
        }
        if decoder.is_idle() {
            if let Some(cold) = self.cold_of(slot) {
                cold.message_deadline_ms = 0;
                self.drop_cold_if_empty(slot);
            }
            return;
        }
        let cold = self.cold_mut(slot);
        cold.decoder = decoder;
        if began || cold.message_deadline_ms == 0 {
            self.renew_message_deadline(slot);
        }
    }

    fn holds_back(&self, slot: u32) -> bool {
        let line = &self.hot[slot as usize];
        line.phase == Phase::Open && line.flags.contains(Flags::PAUSED)
    }

    /// Reads what was held back, now that the connection is not paused any more.
    pub(super) fn receive_held_back(&mut self, slot: u32) {
        let mut held_back = self.cold_of(slot).map(|cold| std::mem::take(&mut cold.held_back)).unwrap_or_default();
        if !held_back.is_empty() {
            self.read_messages(slot, &mut held_back);
            self.account_input(slot);
        }
    }

    /// Reads what was held back although the connection reads no replies: the peer sends nothing more.
    pub(super) fn receive_all_held_back(&mut self, slot: u32) {
        while self.cold(slot).is_some_and(|cold| !cold.held_back.is_empty()) && self.reads_messages(slot) {
            self.hot[slot as usize].flags.remove(Flags::PAUSED);
            self.receive_held_back(slot);
        }
    }

    /// An open connection is read; a closing one only for the peer's Close, unless it broke the protocol.
    fn reads_messages(&self, slot: u32) -> bool {
        let line = &self.hot[slot as usize];
        match line.phase {
            Phase::Open => true,
            Phase::Closing => !line.flags.contains(Flags::LAST_ANSWER),
            Phase::Free | Phase::Http | Phase::Admitting | Phase::Lingering | Phase::Ended => false,
        }
    }

    fn handle_message(&mut self, slot: u32, message: Message<'_>) {
        let open = self.hot[slot as usize].phase == Phase::Open;
        let echo = self.hot[slot as usize].flags.contains(Flags::ECHO);
        match message {
            Message::Close(code, _) => self.handle_close(slot, code),
            _ if !open => {}
            Message::Ping(payload) => self.send_frame(slot, Opcode::Pong, payload),
            Message::Pong(_) => {}
            Message::Text(text) if echo => self.send_frame(slot, Opcode::Text, text.as_bytes()),
            Message::Binary(payload) if echo => self.send_frame(slot, Opcode::Binary, payload),
            Message::Text(text) => {
                self.count_message_received(slot);
                self.handle_text(slot, text);
                self.handle_own_mail();
            }
            Message::Binary(_) => self.fail_websocket(slot, 1003, "Binary messages are not supported"),
        }
    }

    /// The peer's Close: answered with the same code unless it answers ours.
    fn handle_close(&mut self, slot: u32, code: Option<u16>) {
        let line = &mut self.hot[slot as usize];
        line.flags.insert(Flags::PEER_CLOSED);
        if line.phase == Phase::Open {
            self.retire(slot);
            self.hot[slot as usize].phase = Phase::Closing;
            let payload = code.map(u16::to_be_bytes);
            self.send_frame(slot, Opcode::Close, payload.as_ref().map_or(&[], |code| code.as_slice()));
            self.hot[slot as usize].flags.insert(Flags::CLOSE_QUEUED);
            self.await_deadline(Deadline::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
        }
    }

    fn send_frame(&mut self, slot: u32, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        websocket::encode_frame(&mut frame, opcode, payload);
        self.queue(slot, frame.into());
    }

    /// P-IN-5: the app's longest data, escaped, and 4 KiB.
    fn message_bytes_max(&self, slot: u32) -> usize {
        let line = &self.hot[slot as usize];
        if line.flags.contains(Flags::ECHO) {
            return limits::ECHO_MESSAGE_BYTES_MAX;
        }
        let app = self.directory.app(AppSerial(line.app));
        app.map_or(limits::MESSAGE_BYTES_MAX, |app| app.settings.message_bytes_max())
    }

    /// The HTTP part of a connection that speaks HTTP.
    pub(super) fn http(&mut self, slot: u32) -> &mut Http {
        let cold = self.cold_of(slot).expect("an HTTP connection has a cold part");
        cold.http.as_mut().expect("an HTTP connection has its HTTP part")
    }
}
