//! Text that clients send to keep a connection warm, outside of the protocol (P-IN-7).

/// True for a short text that names itself a heartbeat: `ping`, `{"type":"ping"}`, `{"action":"keepAlive"}`.
///
/// Such a message is answered like any other that is unknown, and costs as much as a `pusher:ping`. It is not counted,
/// since the library that sends it never stops.
pub fn is_heartbeat(text: &str) -> bool {
    if text.len() > HEARTBEAT_BYTES_MAX {
        return false;
    }
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// Longest text that counts as a heartbeat: enough for a time and an id, and little more.
const HEARTBEAT_BYTES_MAX: usize = 128;
const WORDS: [&str; 6] = ["ping", "pong", "heartbeat", "keepalive", "keep-alive", "keep_alive"];

#[cfg(test)]
mod tests {
    use super::*;

    /// P-IN-7: the forms that bug reports mention, and messages that are none.
    #[test]
    fn heartbeats_name_themselves() {
        for text in [
            "ping",
            "PING",
            "\"pong\"",
            "__ping__",
            r#"{"type":"ping"}"#,
            r#"{"event":"ping"}"#,
            r#"{"event":"heartbeat","data":{}}"#,
            r#"{"action":"keepAlive","time":1700000000000}"#,
            r#"{"op":"keep_alive"}"#,
        ] {
            assert!(is_heartbeat(text), "{text}");
        }
        let long = format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(128));
        for text in ["", "{", "nonsense", r#"{"event":"hello"}"#, &long] {
            assert!(!is_heartbeat(text), "{text}");
        }
    }
}
