//! Subscription signatures (P-AUTH-1 to P-AUTH-6, threats T1 and T2).

use crate::app::App;

/// Why a signature was refused, with the message for the client (P-FAIL-1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SubscriptionRefusal {
    /// No `:` in it, or the part before the last `:` is no active key of this app: `Invalid key in subscription auth data: '<auth>'`.
    InvalidKey,
    /// `Invalid signature: Expected HMAC SHA256 hex digest of <socket_id>:<channel>[:<channel_data>], but got <sig>`.
    InvalidSignature,
}

/// Verifies `auth` over `socket_id:channel[:channel_data]`, the exact bytes received, in constant time.
pub fn verify_subscription(
    _app: &App,
    _socket_id: &str,
    _channel: &str,
    _channel_data: Option<&str>,
    _auth: &str,
) -> Result<(), SubscriptionRefusal> {
    todo!()
}

/// The text that the client reads (P-FAIL-1); what it quotes is cut to 200 bytes at a character boundary.
pub fn refusal_message(
    _refusal: &SubscriptionRefusal,
    _socket_id: &str,
    _channel: &str,
    _channel_data: Option<&str>,
    _auth: &str,
) -> String {
    todo!()
}
