//! The destination of the answer to a request.

use crate::connection::ConnectionKey;
use crate::protocol::dialect::Dialect;

/// The connection of a request, and the place of its answer in the order of answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseSlot {
    pub(super) connection: ConnectionKey,
    /// Its place in the order of the connection's answers.
    pub(super) ticket: u32,
    pub(super) dialect: Dialect,
}
