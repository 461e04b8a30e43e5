//! What an operator may change per app, with the defaults of the protocol.
//!
//! It is also what the store keeps of it: a JSON object with these names in this order. A name never changes meaning
//! and a new field has a default, so that records of other versions read.

use serde::{Deserialize, Serialize};

use crate::limits::{
    BATCH_EVENTS_MAX, CACHE_BYTES_MAX, CHANNEL_DATA_BYTES_MAX, CHANNELS_PER_CONNECTION_MAX, CHANNELS_PER_EVENT_MAX,
    CLIENT_EVENTS_PER_SECOND, EVENT_DATA_BYTES_MAX, INVALID_MESSAGES_MAX, PRESENCE_MEMBERS_MAX, body_bytes_max,
    message_bytes_max, outbox_bytes_max,
};

/// What an operator may change per app. In a record, a missing field has its default.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct AppSettings {
    /// Client events are accepted (P-CEV-1).
    pub client_events: bool,
    /// Plain sockets are refused with 4000 (P-CLOSE-4).
    pub tls_only: bool,
    /// WebSocket connections at once; 0 is no quota (P-CLOSE-2).
    pub max_connections: u32,
    /// Over quota is 4100 instead of 4004 (P-CLOSE-2).
    pub connection_limit_soft: bool,
    /// Longest decoded event data in bytes (P-LIM-3).
    pub max_event_data_bytes: u32,
    /// Users in one presence channel (P-LIM-7).
    pub max_presence_members: u32,
    /// Subscribers of public and private channels are told how many they are (P-COUNT-1).
    pub subscription_count: bool,
    /// What its cached events may cost together, in bytes; 0 caches nothing (P-CACHE-1, threat T28).
    pub max_cache_bytes: u32,
    /// Client events per second of one connection, also at once; 0 is no limit (P-LIM-9).
    pub max_client_events_per_second: u32,
    /// Longest `channel_data` of a presence subscribe in bytes (P-LIM-7).
    pub max_channel_data_bytes: u32,
    /// `activity_timeout` told to its clients, in s; 0 is the server's (P-LIVE-3).
    pub activity_timeout: u32,
    /// Malformed or unknown messages after which a connection is closed with 4009 (P-IN-3).
    pub max_invalid_messages: u8,
    /// Channels that one connection may subscribe (P-LIM-12).
    pub max_channels_per_connection: u32,
    /// Channels of one `/events` request (P-LIM-4).
    pub max_channels_per_event: u32,
    /// Events of one `/batch_events` request (P-LIM-5).
    pub max_batch_events: u32,
    /// Occupied channels at once; 0 is no limit (R-LIM-5).
    pub channels_max: u32,
    /// Messages published over HTTP in one day of UTC, one per event and channel; 0 is no limit (R-LIM-3).
    pub messages_per_day: u32,
    /// Requests to the HTTP API per minute, however they authenticate; 0 is no limit (R-LIM-4).
    pub requests_per_minute: u32,
    /// Of these, with a signature; 0 is no limit (R-LIM-4).
    pub signed_requests_per_minute: u32,
    /// Of these, with key and secret in headers; 0 is no limit (R-LIM-4).
    pub key_requests_per_minute: u32,
    /// Of these, with a Bearer token; 0 is no limit (R-LIM-4).
    pub token_requests_per_minute: u32,
    /// Signed-in users are told who of their watchlist is there (P-WATCH-1).
    pub watchlist: bool,
    /// A connection must sign in or join a protected channel within a time (P-AUTHZ-1).
    pub authorized_connections: bool,
    /// Hosts whose pages may connect; empty allows all (P-CONN-8, threat T21).
    pub allowed_origins: Vec<Box<str>>,
}

impl AppSettings {
    /// Longest inbound WebSocket message (P-IN-5).
    pub fn message_bytes_max(&self) -> usize {
        message_bytes_max(self.max_event_data_bytes, self.max_channel_data_bytes)
    }

    /// Unsent bytes beyond which a connection is closed (P-CLOSE-5).
    pub fn outbox_bytes_max(&self) -> usize {
        outbox_bytes_max(self.max_event_data_bytes, self.max_channels_per_event, self.max_batch_events)
    }

    /// Longest body of a request (P-LIM-11).
    pub fn body_bytes_max(&self) -> usize {
        body_bytes_max(self.max_event_data_bytes, self.max_channels_per_event, self.max_batch_events)
    }
}

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            client_events: false,
            tls_only: false,
            max_connections: 0,
            connection_limit_soft: false,
            max_event_data_bytes: EVENT_DATA_BYTES_MAX as u32,
            max_presence_members: PRESENCE_MEMBERS_MAX as u32,
            subscription_count: false,
            max_cache_bytes: CACHE_BYTES_MAX as u32,
            max_client_events_per_second: CLIENT_EVENTS_PER_SECOND,
            max_channel_data_bytes: CHANNEL_DATA_BYTES_MAX as u32,
            activity_timeout: 0,
            max_invalid_messages: INVALID_MESSAGES_MAX,
            max_channels_per_connection: CHANNELS_PER_CONNECTION_MAX as u32,
            max_channels_per_event: CHANNELS_PER_EVENT_MAX as u32,
            max_batch_events: BATCH_EVENTS_MAX as u32,
            channels_max: 0,
            messages_per_day: 0,
            requests_per_minute: 0,
            signed_requests_per_minute: 0,
            key_requests_per_minute: 0,
            token_requests_per_minute: 0,
            watchlist: false,
            authorized_connections: false,
            allowed_origins: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-CEV-1, P-LIM-3, P-LIM-4, P-LIM-5, P-LIM-7, P-LIM-9, P-LIM-12, P-CLOSE-2, P-WATCH-1, P-AUTHZ-1, R-LIM-3 to R-LIM-6: the settings of an app that nobody configured.
    #[test]
    fn default_settings_are_those_of_the_protocol() {
        let settings = AppSettings::default();
        assert!(!settings.client_events && !settings.tls_only && !settings.connection_limit_soft);
        assert!(!settings.watchlist && !settings.authorized_connections);
        assert_eq!(settings.max_connections, 0);
        assert_eq!(settings.max_event_data_bytes, 10_240);
        assert_eq!(settings.max_presence_members, 100);
        assert_eq!(settings.max_channel_data_bytes, 10_240);
        assert_eq!(settings.max_client_events_per_second, 10);
        assert_eq!(settings.max_channels_per_connection, 1_000);
        assert_eq!((settings.max_channels_per_event, settings.max_batch_events), (100, 10));
        assert_eq!((settings.channels_max, settings.messages_per_day, settings.requests_per_minute), (0, 0, 0));
        assert!(settings.allowed_origins.is_empty());
    }
}
