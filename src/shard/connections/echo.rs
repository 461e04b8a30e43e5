//! The echo endpoint of the feature `conformance`: messages are sent back unchanged, with a higher length limit.
//! Compiled only with the feature.

use super::Connections;
use crate::connection::Phase;
use crate::connection::outbox::FrameKind;
use crate::index::Slot;
use crate::shard::context::Context;
use crate::wire::websocket::{Message, Opcode, encode_frame};

/// Path of the endpoint.
pub(super) const PATH: &str = "/conformance/echo";
/// Longest message.
pub(in crate::shard) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Connections {
    /// The connection belongs to the endpoint from now on.
    pub(super) fn open_echo(&mut self, context: &mut Context, slot: Slot) {
        self.table.hot[slot].phase = Phase::Open;
        context.metrics.stats.websockets += 1;
    }

    /// True for a connection of the endpoint: no other WebSocket is without an app.
    pub(in crate::shard) fn is_echo(&self, slot: Slot) -> bool {
        matches!(self.phase(slot), Phase::Open | Phase::Closing) && self.app_serial(slot).is_none()
    }

    /// Sends a message back, or returns it if the connection is not one of the endpoint.
    pub(in crate::shard) fn echo<'a>(
        &mut self,
        context: &mut Context,
        slot: Slot,
        message: Message<'a>,
    ) -> Option<Message<'a>> {
        if !self.is_echo(slot) || self.phase(slot) != Phase::Open {
            return Some(message);
        }
        let mut frame = Vec::new();
        match message {
            Message::Text(text) => encode_frame(&mut frame, Opcode::Text, text.as_bytes()),
            Message::Binary(payload) => encode_frame(&mut frame, Opcode::Binary, payload),
            other @ (Message::Close(..) | Message::Ping(_) | Message::Pong(_)) => return Some(other),
        }
        self.send(context, slot, frame.into(), FrameKind::Reply);
        None
    }
}
