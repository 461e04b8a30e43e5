//! Text to typed messages and back: what a client says, what the server says, how a connection ends.

pub mod client_message;
pub mod close;
pub mod dialect;
pub mod server_event;
pub mod socket_id;
