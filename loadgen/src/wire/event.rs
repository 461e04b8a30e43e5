//! Events of the Pusher protocol as a client reads them.

use serde::Deserialize;

/// An event of the protocol, as opposed to a published one.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    Established {
        socket_id: String,
    },
    Subscribed,
    /// Another member joined; the text is the whole `data`.
    MemberAdded(String),
    /// Another member left.
    MemberRemoved(String),
    Error(String),
    Ping,
    Pong,
    /// Anything else, which is ignored.
    Other,
}

#[derive(Deserialize)]
struct Event {
    event: String,
    #[serde(default)]
    data: serde_json::Value,
}

/// Parses an event of the protocol. `data` may be an object or a string that contains one.
pub(crate) fn read_event(message: &[u8]) -> Meaning {
    let Ok(event) = serde_json::from_slice::<Event>(message) else {
        return Meaning::Error("text that is not an event".into());
    };
    let data = match event.data.as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or(serde_json::Value::Null),
        None => event.data.clone(),
    };
    match event.event.as_str() {
        "pusher:connection_established" => match data["socket_id"].as_str() {
            Some(socket_id) => Meaning::Established { socket_id: socket_id.to_owned() },
            None => Meaning::Error("connection_established without socket_id".into()),
        },
        "pusher_internal:subscription_succeeded" => Meaning::Subscribed,
        "pusher_internal:member_added" => Meaning::MemberAdded(event.data.as_str().unwrap_or_default().to_owned()),
        "pusher_internal:member_removed" => Meaning::MemberRemoved(event.data.as_str().unwrap_or_default().to_owned()),
        "pusher:error" | "pusher:subscription_error" => Meaning::Error(error_text(&data)),
        "pusher:ping" => Meaning::Ping,
        "pusher:pong" => Meaning::Pong,
        _ => Meaning::Other,
    }
}

fn error_text(data: &serde_json::Value) -> String {
    let code = data["code"].as_u64().or_else(|| data["status"].as_u64());
    let message = data["message"].as_str().or_else(|| data["error"].as_str()).unwrap_or_default();
    // Numbers differ between connections, and each would otherwise be a reason of its own.
    let message: String = message.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(100).collect();
    match code {
        Some(code) => format!("pusher error {code}: {message}"),
        None => format!("pusher error: {message}"),
    }
}

/// Name of every published event.
pub(crate) const EVENT: &str = "load";
/// Name of every client event.
pub(crate) const CLIENT_EVENT: &str = "client-load";

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both forms of `data` that servers use are read.
    #[test]
    fn events_are_read() {
        let established = Meaning::Established { socket_id: "1.2".into() };
        assert_eq!(
            read_event(br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}"#),
            established
        );
        assert_eq!(read_event(br#"{"event":"pusher:connection_established","data":{"socket_id":"1.2"}}"#), established);
        let error = Meaning::Error("pusher error 4001: no app # here".into());
        assert_eq!(read_event(br#"{"event":"pusher:error","data":{"code":4001,"message":"no app 7 here"}}"#), error);
        assert_eq!(
            read_event(br#"{"event":"pusher:error","data":"{\"code\":4001,\"message\":\"no app 7 here\"}"}"#),
            error
        );
        assert_eq!(read_event(br#"{"event":"pusher:ping"}"#), Meaning::Ping);
        assert!(matches!(read_event(b"[]"), Meaning::Error(_)));
    }
}
