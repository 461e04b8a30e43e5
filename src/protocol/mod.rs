//! Text to typed messages and back: messages of clients, messages of the server, and how a connection ends.

pub mod client_message;
pub mod close;
pub mod cursor;
pub mod dialect;
pub mod event_id;
pub mod heartbeat;
pub mod server_event;
pub mod server_sent;
pub mod socket_id;
pub mod webhook;

use crate::limits;

/// Input of a peer, cut for quoting in an error message at a character boundary (P-FAIL-1).
pub fn quote(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::QUOTED_BYTES_MAX)]
}
