//! The destination of the answer to a request.

use super::Parts;
use crate::api::refusal::Refusal;
use crate::connection::ConnectionKey;
use crate::protocol::dialect::Dialect;
use crate::shard::connections::Response;
use crate::shard::io::Output;

/// The connection of a request, and the place of its answer in the order of answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseSlot {
    pub(super) connection: ConnectionKey,
    /// Its place in the order of the connection's answers.
    pub(super) ticket: u32,
    pub(super) dialect: Dialect,
}

/// The destination of the answer to a request that publishes.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReplyTo {
    /// A connection.
    Connection(ResponseSlot),
    /// The call of the admin API with this number.
    Admin(u64),
}

impl ReplyTo {
    /// The format of errors.
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Self::Connection(slot) => slot.dialect,
            Self::Admin(_) => Dialect::Relay,
        }
    }

    /// The connection, of a request that the admin API does not make.
    pub(super) fn slot(self) -> ResponseSlot {
        match self {
            Self::Connection(slot) => slot,
            Self::Admin(_) => unreachable!("the admin API only asks for replays"),
        }
    }

    /// Whether the request can still be answered.
    pub(super) fn is_awaited(self, parts: &Parts<'_>) -> bool {
        match self {
            Self::Connection(slot) => parts.connections.is_awaiting_answers(slot.connection),
            Self::Admin(_) => true,
        }
    }

    /// Answers.
    pub(super) fn answer(self, parts: &mut Parts<'_>, response: &Response<'_>) {
        match self {
            Self::Connection(slot) => {
                parts.connections.finish_request(parts.context, slot.connection, slot.ticket, response);
            }
            Self::Admin(call) => {
                let outcome = Ok(response.body.into());
                parts.context.outputs.push_back(Output::Replayed { call, outcome });
            }
        }
    }

    /// Refuses a request that already has its place.
    pub(super) fn refuse(self, parts: &mut Parts<'_>, refusal: &Refusal) {
        match self {
            Self::Connection(slot) => {
                let (content_type, body) = slot.dialect.error_body(refusal.status, &refusal.message);
                let extra = refusal.header_lines();
                let response = Response { status: refusal.status, content_type, extra: &extra, body: &body };
                parts.connections.finish_request(parts.context, slot.connection, slot.ticket, &response);
            }
            Self::Admin(call) => {
                let outcome = Err(Box::new(refusal.clone()));
                parts.context.outputs.push_back(Output::Replayed { call, outcome });
            }
        }
    }

    /// Requests behind this one on its connection wait.
    pub(super) fn hold(self, parts: &mut Parts<'_>) {
        if let Self::Connection(slot) = self {
            parts.connections.http(slot.connection.slot()).parked = true;
        }
    }

    /// Continues with the requests behind one that waited.
    pub(super) fn resume(self, parts: &mut Parts<'_>) {
        let Self::Connection(slot) = self else { return };
        if parts.connections.is_awaiting_answers(slot.connection) {
            parts.connections.http(slot.connection.slot()).parked = false;
            parts.connections.follow_up(slot.connection);
        }
    }
}
