//! Text to typed messages and back: what a client says, what the server says, how a connection ends.

pub mod client_message;
pub mod close;
pub mod dialect;
pub mod heartbeat;
pub mod server_event;
pub mod socket_id;
pub mod webhook;

use crate::limits;

/// What a peer sent, cut for quoting in an error message at a character boundary (P-FAIL-1).
pub fn quote(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::QUOTED_BYTES_MAX)]
}
