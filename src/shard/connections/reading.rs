//! Waiting input of a connection: for a PROXY protocol header, for earlier answers, for its admission.

use super::Connections;
use crate::connection::http::Proxy;
use crate::connection::outbox::FrameKind;
use crate::connection::{Flags, Phase};
use crate::index::Slot;
use crate::limits;
use crate::shard::context::Context;
use crate::shard::deadlines::DeadlineKind;
use crate::wire::proxy::{ProxyHeader, begins_proxy_header, decode_proxy_header};
use crate::wire::websocket::{self, Opcode};

impl Connections {
    /// Records that bytes arrived and the connection is alive. Returns its phase.
    pub(in crate::shard) fn note_activity(&mut self, context: &Context, slot: Slot) -> Phase {
        self.table.last_activity[slot] = context.tenths();
        let line = &mut self.table.hot[slot];
        line.flags.remove(Flags::AWAITING_PONG);
        line.phase
    }

    /// Keeps input for later.
    pub(in crate::shard) fn hold_back(&mut self, slot: Slot, bytes: &[u8]) {
        self.cold_or_default(slot).held_back.extend_from_slice(bytes);
    }

    /// True while messages of a WebSocket wait until it has read its replies.
    pub(in crate::shard) fn holds_messages_back(&self, slot: Slot) -> bool {
        let line = &self.table.hot[slot];
        line.phase == Phase::Open && line.flags.contains(Flags::PAUSED)
    }

    /// An open connection is read; a closing one only for the peer's Close, unless it broke the protocol.
    pub(in crate::shard) fn reads_messages(&self, slot: Slot) -> bool {
        let line = &self.table.hot[slot];
        match line.phase {
            Phase::Open => true,
            Phase::Closing => !line.flags.contains(Flags::LAST_ANSWER),
            Phase::Free | Phase::Http | Phase::Admitting | Phase::Lingering | Phase::Ended => false,
        }
    }

    /// A request must be complete within a total deadline, from its first byte (threat T14): from accept for the first
    /// one. `began` means that the current partial request began with the bytes just read.
    pub(in crate::shard) fn set_request_deadline(
        &mut self,
        context: &mut Context,
        slot: Slot,
        partial: bool,
        began: bool,
    ) {
        let http = self.http(slot);
        let awaits_header = matches!(&http.proxy, Proxy::Awaited(bytes) if !bytes.is_empty());
        if !partial && !awaits_header {
            http.deadline_ms = 0;
        } else if began || http.deadline_ms == 0 {
            self.renew_request_deadline(context, slot);
        }
    }

    /// An upgrade waits until the answers before it are sent; `held_back` begins with its head.
    pub(in crate::shard) fn hold_upgrade_back(&mut self, context: &mut Context, slot: Slot, held_back: Vec<u8>) {
        let http = self.http(slot);
        (http.held_back, http.upgrade_waits, http.request_bytes) = (held_back, true, 0);
        self.pause(context, slot);
        self.set_request_deadline(context, slot, false, true);
    }

    /// Logs a PROXY protocol header of a proxy that is not trusted: it was read as a request, but is not one.
    pub(in crate::shard) fn note_untrusted_header(&mut self, context: &mut Context, slot: Slot, bytes: &[u8]) {
        if begins_proxy_header(bytes) && matches!(self.http(slot).proxy, Proxy::Direct) {
            self.note_proxy_header_refused(context, slot, "untrusted");
        }
    }

    /// Reads the header that a trusted proxy may put before the first request; returns the bytes after it.
    pub(in crate::shard) fn take_proxy_header<'a>(
        &mut self,
        context: &mut Context,
        slot: Slot,
        bytes: &'a [u8],
        whole: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
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
                self.note_proxy_header_refused(context, slot, "malformed");
                self.end(context, slot, false);
                None
            }
        }
    }

    /// Handles the peer's Close: answered with the same code unless it answers ours.
    pub(in crate::shard) fn handle_close(&mut self, context: &mut Context, slot: Slot, code: Option<u16>) {
        let line = &mut self.table.hot[slot];
        line.flags.insert(Flags::PEER_CLOSED);
        if line.phase == Phase::Open {
            self.retire(context, slot);
            self.table.hot[slot].phase = Phase::Closing;
            let payload = code.map(u16::to_be_bytes);
            let mut frame = Vec::new();
            let payload = payload.as_ref().map_or(&[][..], |code| code.as_slice());
            websocket::encode_frame(&mut frame, Opcode::Close, payload);
            self.send(context, slot, frame.into(), FrameKind::Control);
            self.table.hot[slot].flags.insert(Flags::CLOSE_QUEUED);
            self.await_deadline(context, DeadlineKind::CloseAnswer, slot, limits::CLOSE_WITHIN_MS);
        }
    }
}
