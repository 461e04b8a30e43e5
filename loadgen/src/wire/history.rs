//! Events with ids, and what the server says about positions and gaps: on WebSockets (`event_ids=true`), in streams of
//! server-sent events, and in answers to polls.

use serde::Deserialize;
use std::borrow::Cow;

use super::target::Target;

/// A message with everything that one of the transports may put into it.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    pub(crate) event: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) channel: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) data: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) id: Option<Cow<'a, str>>,
}

/// `data` is a string in every message that is used here; other values are left out.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Text<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Other(serde::de::IgnoredAny),
}

impl Message<'_> {
    /// `data`, if it is a string.
    pub(crate) fn text(&self) -> &str {
        match &self.data {
            Some(Text::Text(text)) => text,
            Some(Text::Other(_)) | None => "",
        }
    }
}

/// The data of `subscription_succeeded`.
#[derive(Debug, Deserialize)]
pub(crate) struct Succeeded {
    /// The last event of the channel; absent without history.
    #[serde(default)]
    pub(crate) position: Option<String>,
}

/// Events that may be missing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Gap {
    /// Absent on WebSockets, where the message names it.
    #[serde(default)]
    pub(crate) channel: String,
    /// The last event that may be missing.
    pub(crate) resumes_at: Option<String>,
    pub(crate) reason: String,
}

/// The data of `event: gap` of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Gaps {
    pub(crate) channels: Vec<Gap>,
}

/// The answer to a poll.
#[derive(Debug, Deserialize)]
pub(crate) struct Polled<'a> {
    #[serde(borrow)]
    pub(crate) events: Vec<Message<'a>>,
    pub(crate) last_event_id: Option<String>,
    pub(crate) gaps: Vec<Gap>,
}

/// A request that reads channels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    /// `GET /sse`.
    Stream,
    /// `GET /poll`, answered after this time at the latest.
    Poll { seconds: u32 },
}

impl Reading {
    /// Appends the request for channels, after the last event that the client has.
    pub(crate) fn append(self, target: &Target, channels: &[&str], last_event_id: Option<&str>, out: &mut Vec<u8>) {
        let (name, mut query) = match self {
            Self::Stream => ("sse", String::new()),
            Self::Poll { seconds } => ("poll", format!("timeout={seconds}&")),
        };
        query.push_str("channels=");
        for (at, channel) in channels.iter().enumerate() {
            query.push_str(if at > 0 { "," } else { "" });
            append_encoded(channel, &mut query);
        }
        let is_public = |channel: &&str| !channel.starts_with("private-") && !channel.starts_with("presence-");
        let mut headers = String::new();
        if channels.iter().all(is_public) {
            query.push_str("&key=");
            append_encoded(&target.key, &mut query);
        } else {
            headers = format!("X-Relay-Key: {}\r\nX-Relay-Secret: {}\r\n", target.key, target.secret);
        }
        match (self, last_event_id) {
            (_, None) => {}
            (Self::Stream, Some(id)) => headers.push_str(&format!("Last-Event-ID: {id}\r\n")),
            (Self::Poll { .. }, Some(id)) => {
                query.push_str("&last_event_id=");
                append_encoded(id, &mut query);
            }
        }
        let Target { prefix, app_id, host, .. } = target;
        let request = format!("GET {prefix}/apps/{app_id}/{name}?{query} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        out.extend_from_slice(request.as_bytes());
    }
}

/// Percent-encoding for a value of a query.
fn append_encoded(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-HIST-6, R-HIST-10, R-SSE-8, R-POLL-1: messages of every transport, as the specification has them.
    #[test]
    fn messages_are_read() {
        let text = r#"{"event":"load","channel":"a","data":"x\"y","id":"evt_1"}"#;
        let message: Message<'_> = serde_json::from_str(text).expect("an event");
        assert_eq!((&*message.event, &*message.channel, message.text()), ("load", "a", "x\"y"));
        assert_eq!(message.id.as_deref(), Some("evt_1"));
        let message: Message<'_> = serde_json::from_str(r#"{"event":"pusher:error","data":{"code":1}}"#).expect("one");
        assert_eq!((message.text(), message.id.as_deref()), ("", None));
        let gap: Gap = serde_json::from_str(r#"{"after":null,"resumes_at":"evt_2","reason":"epoch"}"#).expect("a gap");
        assert_eq!((gap.resumes_at.as_deref(), &*gap.reason), (Some("evt_2"), "epoch"));
        let text = r#"{"events":[{"id":"evt_1","channel":"a","event":"load","data":"x"}],"last_event_id":"cur_1",
            "gaps":[{"channel":"a","after":"evt_0","resumes_at":null,"reason":"expired"}]}"#;
        let polled: Polled<'_> = serde_json::from_str(text).expect("an answer");
        assert_eq!((polled.events.len(), polled.last_event_id.as_deref()), (1, Some("cur_1")));
        assert_eq!((&*polled.gaps[0].channel, polled.gaps[0].resumes_at.as_ref()), ("a", None));
    }

    /// R-SSE-1, R-SSE-2, R-POLL-1: requests with the credential that their channels need, and the last event where each
    /// transport has it.
    #[test]
    fn requests_are_written() {
        let target = Target::new("ws://127.0.0.1:1/p", "7", "k&", "s").expect("an address");
        let request = |reading: Reading, channels: &[&str], last| {
            let mut out = Vec::new();
            reading.append(&target, channels, last, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            request(Reading::Stream, &["a", "b=c"], Some("cur_1")),
            "GET /p/apps/7/sse?channels=a,b%3Dc&key=k%26 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nLast-Event-ID: cur_1\r\n\r\n"
        );
        assert_eq!(
            request(Reading::Poll { seconds: 25 }, &["a", "private-b"], Some("cur_1")),
            "GET /p/apps/7/poll?timeout=25&channels=a,private-b&last_event_id=cur_1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\
             X-Relay-Key: k&\r\nX-Relay-Secret: s\r\n\r\n"
        );
        assert_eq!(
            request(Reading::Poll { seconds: 25 }, &["a"], None),
            "GET /p/apps/7/poll?timeout=25&channels=a&key=k%26 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"
        );
    }
}
