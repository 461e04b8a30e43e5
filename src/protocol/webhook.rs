//! Content of webhooks: events of channels as JSON, in Pusher's format (section 9 of the Pusher protocol) and in
//! Relay's (R-HOOK-2, R-HOOK-5).

use std::sync::Arc;

use super::server_event::encode_json_string;
use crate::app::AppSerial;
use crate::app::webhook::{COUNT_CHANGED, CountName, WebhookKind};
use crate::label::Label;

/// An event on a channel that an endpoint of its app wants to receive.
#[derive(Clone, Debug)]
pub struct WebhookEvent {
    /// The app of the channel.
    pub app: AppSerial,
    /// The name of the channel.
    pub channel: Arc<str>,
    /// When it happened, in ms since 1970.
    pub unix_ms: u64,
    /// What happened.
    pub what: Happened,
}

/// The kinds of events, with their contents.
#[derive(Clone, Debug)]
pub enum Happened {
    /// P-HOOK-1.
    ChannelOccupied {
        /// How many there are now; only Relay's format includes it.
        subscription_count: u32,
    },
    /// P-HOOK-1.
    ChannelVacated,
    /// P-HOOK-2.
    MemberAdded {
        /// The user.
        user_id: Arc<str>,
    },
    /// P-HOOK-2.
    MemberRemoved {
        /// The user.
        user_id: Arc<str>,
    },
    /// P-HOOK-3.
    ClientEvent(Box<SentEvent>),
    /// P-HOOK-4.
    CacheMiss,
    /// P-HOOK-5.
    SubscriptionCount(u32),
}

/// A client event, as its other subscribers get it.
#[derive(Debug, Clone)]
pub struct SentEvent {
    /// Its name.
    pub event: Box<str>,
    /// Its data as a JSON string literal, quotes included.
    pub data_literal: Box<str>,
    /// The socket that sent it.
    pub socket_id: Box<str>,
    /// The user that sent it, on presence channels.
    pub user_id: Option<Arc<str>>,
}

impl WebhookEvent {
    /// Its kind, which filters name.
    pub fn kind(&self) -> WebhookKind {
        match self.what {
            Happened::ChannelOccupied { .. } => WebhookKind::ChannelOccupied,
            Happened::ChannelVacated => WebhookKind::ChannelVacated,
            Happened::MemberAdded { .. } => WebhookKind::MemberAdded,
            Happened::MemberRemoved { .. } => WebhookKind::MemberRemoved,
            Happened::ClientEvent(_) => WebhookKind::ClientEvent,
            Happened::CacheMiss => WebhookKind::CacheMiss,
            Happened::SubscriptionCount(_) => WebhookKind::SubscriptionCount,
        }
    }

    /// Its size in bytes, for limits.
    pub fn bytes(&self) -> usize {
        let more = match &self.what {
            Happened::MemberAdded { user_id } | Happened::MemberRemoved { user_id } => user_id.len(),
            Happened::ClientEvent(sent) => sent.bytes(),
            Happened::ChannelOccupied { .. }
            | Happened::ChannelVacated
            | Happened::CacheMiss
            | Happened::SubscriptionCount(_) => 0,
        };
        size_of::<Self>() + self.channel.len() + more
    }
}

impl SentEvent {
    /// Its size in bytes, for limits.
    pub fn bytes(&self) -> usize {
        let user_id = self.user_id.as_ref().map_or(0, |user_id| user_id.len());
        size_of::<Self>() + self.event.len() + self.data_literal.len() + self.socket_id.len() + user_id
    }
}

/// Appends one entry of `events` in Pusher's format.
pub fn encode_pusher_event(out: &mut Vec<u8>, event: &WebhookEvent, count_name: CountName) {
    let name = match (event.kind(), count_name) {
        (WebhookKind::SubscriptionCount, CountName::Changed) => COUNT_CHANGED,
        (kind, _) => kind.label(),
    };
    out.extend_from_slice(br#"{"name":""#);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(br#"","#);
    encode_members(out, event);
    if let Happened::SubscriptionCount(count) = event.what {
        encode_count(out, count);
    }
    out.push(b'}');
}

/// Appends a complete body in Pusher's format around entries of `events`, joined by commas.
pub fn encode_pusher_body(out: &mut Vec<u8>, time_ms: u64, events: &[u8]) {
    out.extend_from_slice(br#"{"time_ms":"#);
    encode_number(out, time_ms);
    out.extend_from_slice(br#","events":["#);
    out.extend_from_slice(events);
    out.extend_from_slice(b"]}");
}

/// Appends a complete body in Relay's format (R-HOOK-2); `timestamp` is in seconds.
pub fn encode_relay_body(out: &mut Vec<u8>, event: &WebhookEvent) {
    out.extend_from_slice(br#"{"event":""#);
    out.extend_from_slice(event.kind().relay_name().as_bytes());
    out.extend_from_slice(br#"","data":{"#);
    encode_members(out, event);
    if let Happened::ChannelOccupied { subscription_count } | Happened::SubscriptionCount(subscription_count) =
        event.what
    {
        encode_count(out, subscription_count);
    }
    out.extend_from_slice(br#"},"timestamp":"#);
    encode_number(out, event.unix_ms / 1_000);
    out.push(b'}');
}

/// The members that both formats have, from `channel` on.
fn encode_members(out: &mut Vec<u8>, event: &WebhookEvent) {
    encode_member(out, b"\"channel\":", &event.channel);
    match &event.what {
        Happened::MemberAdded { user_id } | Happened::MemberRemoved { user_id } => {
            encode_member(out, b",\"user_id\":", user_id);
        }
        Happened::ClientEvent(sent) => {
            encode_member(out, b",\"event\":", &sent.event);
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(sent.data_literal.as_bytes());
            encode_member(out, b",\"socket_id\":", &sent.socket_id);
            if let Some(user_id) = &sent.user_id {
                encode_member(out, b",\"user_id\":", user_id);
            }
        }
        Happened::ChannelOccupied { .. }
        | Happened::ChannelVacated
        | Happened::CacheMiss
        | Happened::SubscriptionCount(_) => {}
    }
}

fn encode_member(out: &mut Vec<u8>, before: &[u8], text: &str) {
    out.extend_from_slice(before);
    encode_json_string(out, text);
}

fn encode_count(out: &mut Vec<u8>, count: u32) {
    out.extend_from_slice(br#","subscription_count":"#);
    encode_number(out, u64::from(count));
}

fn encode_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(channel: &str, what: Happened) -> WebhookEvent {
        WebhookEvent { app: AppSerial(1), channel: channel.into(), unix_ms: 1_712_300_000_123, what }
    }

    fn sent(data_literal: &str, user_id: Option<&str>) -> Happened {
        Happened::ClientEvent(Box::new(SentEvent {
            event: "client-\"a".into(),
            data_literal: data_literal.into(),
            socket_id: "12.34".into(),
            user_id: user_id.map(Into::into),
        }))
    }

    fn pusher(event: &WebhookEvent) -> Value {
        let (mut entry, mut body) = (Vec::new(), Vec::new());
        encode_pusher_event(&mut entry, event, CountName::Pusher);
        encode_pusher_body(&mut body, event.unix_ms, &entry);
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["time_ms"], 1_712_300_000_123_u64, "an integer in ms (P-SDK-24)");
        body["events"][0].clone()
    }

    fn relay(event: &WebhookEvent) -> Value {
        let mut body = Vec::new();
        encode_relay_body(&mut body, event);
        serde_json::from_slice(&body).expect("JSON")
    }

    /// P-HOOK-1 to P-HOOK-5, P-SDK-24, R-HOOK-5: every kind with exactly its members in both formats; ids and `data`
    /// are strings, counts are numbers, and text that a peer chose is escaped.
    #[test]
    fn every_kind_has_its_members() {
        let user = || Arc::from("us\"er");
        let data = r#""{\"nonce\":\"n\",\"ciphertext\":\"c\"}""#;
        let text = r#"{"nonce":"n","ciphertext":"c"}"#;
        let rows = [
            (Happened::ChannelOccupied { subscription_count: 2 }, json!({"name": "channel_occupied"})),
            (Happened::ChannelVacated, json!({"name": "channel_vacated"})),
            (Happened::MemberAdded { user_id: user() }, json!({"name": "member_added", "user_id": "us\"er"})),
            (Happened::MemberRemoved { user_id: user() }, json!({"name": "member_removed", "user_id": "us\"er"})),
            (
                sent(data, None),
                json!({"name": "client_event", "event": "client-\"a", "data": text, "socket_id": "12.34"}),
            ),
            (
                sent(data, Some("7")),
                json!({"name": "client_event", "event": "client-\"a", "data": text, "socket_id": "12.34", "user_id": "7"}),
            ),
            (Happened::CacheMiss, json!({"name": "cache_miss"})),
            (Happened::SubscriptionCount(9), json!({"name": "subscription_count", "subscription_count": 9})),
        ];
        for (what, mut expected) in rows {
            let event = event("ch\"annel", what);
            expected["channel"] = json!("ch\"annel");
            assert_eq!(pusher(&event), expected);
            let members = expected.as_object_mut().expect("an object");
            members.remove("name");
            if event.kind() == WebhookKind::ChannelOccupied {
                members.insert("subscription_count".to_owned(), json!(2));
            }
            let name = event.kind().relay_name();
            assert_eq!(relay(&event), json!({"event": name, "data": expected, "timestamp": 1_712_300_000}));
        }
    }

    /// R-HOOK-2: the body of the specification, byte for byte.
    #[test]
    fn relay_body_is_that_of_the_specification() {
        let mut event = event("chat-room-42", Happened::ChannelOccupied { subscription_count: 1 });
        event.unix_ms = 1_712_300_000_999;
        let mut body = Vec::new();
        encode_relay_body(&mut body, &event);
        let expected = r#"{"event":"channel.occupied","data":{"channel":"chat-room-42","subscription_count":1},"timestamp":1712300000}"#;
        assert_eq!(String::from_utf8(body).expect("UTF-8"), expected);
    }

    /// R-HOOK-6: the other spelling is for Pusher's format of endpoints that want it.
    #[test]
    fn the_other_spelling_of_the_count() {
        let mut out = Vec::new();
        encode_pusher_event(&mut out, &event("c", Happened::SubscriptionCount(1)), CountName::Changed);
        let expected = r#"{"name":"subscription_count_changed","channel":"c","subscription_count":1}"#;
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
