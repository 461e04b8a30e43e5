//! What the server says (section 4 of the Pusher protocol), as JSON text appended to a buffer. Key order is
//! `event`, `channel`, `data`, `user_id`.

use super::socket_id::SocketId;

/// Appends a JSON string literal, quotes included.
pub fn encode_json_string(_out: &mut Vec<u8>, _text: &str) {
    todo!()
}
/// P-CONN-9.
pub fn encode_connection_established(
    _out: &mut Vec<u8>,
    _socket_id: SocketId,
    _activity_timeout_s: u32,
) {
    todo!()
}
/// P-LIVE-2.
pub fn encode_pong(_out: &mut Vec<u8>) {
    todo!()
}
/// P-OUT-11; `code: None` is null.
pub fn encode_error(_out: &mut Vec<u8>, _code: Option<u16>, _message: &str) {
    todo!()
}
/// P-OUT-1.
pub fn encode_subscription_succeeded(_out: &mut Vec<u8>, _channel: &str) {
    todo!()
}
/// P-OUT-2. Members in join order: user id and `user_info` as raw JSON text.
pub fn encode_presence_succeeded<'a>(
    _out: &mut Vec<u8>,
    _channel: &str,
    _members: impl ExactSizeIterator<Item = (&'a str, Option<&'a str>)> + Clone,
) {
    todo!()
}
/// P-OUT-3.
pub fn encode_member_added(
    _out: &mut Vec<u8>,
    _channel: &str,
    _user_id: &str,
    _user_info: Option<&str>,
) {
    todo!()
}
/// P-OUT-4.
pub fn encode_member_removed(_out: &mut Vec<u8>, _channel: &str, _user_id: &str) {
    todo!()
}
/// P-OUT-5 and P-OUT-6. `data_literal` is a JSON string literal, quotes included, copied as it is.
pub fn encode_channel_event(
    _out: &mut Vec<u8>,
    _event: &str,
    _channel: &str,
    _data_literal: &str,
    _user_id: Option<&str>,
) {
    todo!()
}
/// P-FAIL-2.
pub fn encode_subscription_error(
    _out: &mut Vec<u8>,
    _channel: &str,
    _kind: &str,
    _error: &str,
    _status: u16,
) {
    todo!()
}
/// R-AUTHREQ-1.
pub fn encode_auth_required(_out: &mut Vec<u8>, _channel: &str, _socket_id: SocketId) {
    todo!()
}
