//! The table of close codes (section 2.2 of the Pusher protocol). None is 4300 or above (P-SDK-14).

use std::borrow::Cow;

use super::quote;
use crate::label::labels;

/// Why the server ends a connection; each has one code and one message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// 4000, app accepts TLS only.
    TlsOnly,
    /// 4001, with the requested key (quoted, cut).
    UnknownApp(String),
    /// 4003.
    AppDisabled,
    /// 4004, per-app connection quota, with its value (P-CLOSE-2).
    OverQuota(u32),
    /// 4100, the same quota of an app that sets `connection_limit_soft` (P-CLOSE-2).
    OverSoftQuota(u32),
    /// 4005, upgrade on a path that is not `/app/{key}`.
    PathNotFound,
    /// 4006.
    InvalidVersionString,
    /// 4007.
    UnsupportedProtocolVersion,
    /// 4008.
    NoProtocolVersion,
    /// 4009, origin that the app does not allow.
    OriginNotAllowed,
    /// 4009, the app ended all connections of the user (P-USER-6).
    Terminated,
    /// 4009, neither signed in nor on a protected channel in time (P-AUTHZ-1).
    NotAuthorized,
    /// 4009, this many malformed messages (P-IN-3).
    TooManyInvalidMessages(u8),
    /// 4100, node at capacity (P-CLOSE-2).
    OverCapacity,
    /// 4100, the app has its full share of the node's connections (P-CLOSE-2).
    OverShare,
    /// 4100, slow reader (P-CLOSE-5).
    TooSlow,
    /// 4200, server is going away (P-CLOSE-1).
    Draining,
    /// 4200, events of this connection were lost between shards and the client must fetch them again by reconnecting.
    EventsLost,
    /// 4201 (P-LIVE-4).
    PongTimeout,
}

labels! {
    /// A [`CloseReason`] without its values, as metrics and logs name it.
    pub enum CloseKind {
        /// 4000.
        TlsOnly => "tls_only",
        /// 4001.
        UnknownApp => "unknown_app",
        /// 4003.
        AppDisabled => "app_disabled",
        /// 4004.
        OverQuota => "over_quota",
        /// 4100.
        OverSoftQuota => "over_soft_quota",
        /// 4005.
        PathNotFound => "path_not_found",
        /// 4006.
        InvalidVersionString => "invalid_version_string",
        /// 4007.
        UnsupportedProtocolVersion => "unsupported_protocol_version",
        /// 4008.
        NoProtocolVersion => "no_protocol_version",
        /// 4009.
        OriginNotAllowed => "origin_not_allowed",
        /// 4009.
        Terminated => "terminated",
        /// 4009.
        NotAuthorized => "not_authorized",
        /// 4009.
        TooManyInvalidMessages => "too_many_invalid_messages",
        /// 4100.
        OverCapacity => "over_capacity",
        /// 4100.
        OverShare => "over_share",
        /// 4100.
        TooSlow => "too_slow",
        /// 4200.
        Draining => "draining",
        /// 4200.
        EventsLost => "events_lost",
        /// 4201.
        PongTimeout => "pong_timeout",
    }
}

impl CloseKind {
    /// The close code.
    pub fn code(self) -> u16 {
        match self {
            Self::TlsOnly => 4000,
            Self::UnknownApp => 4001,
            Self::AppDisabled => 4003,
            Self::OverQuota => 4004,
            Self::PathNotFound => 4005,
            Self::InvalidVersionString => 4006,
            Self::UnsupportedProtocolVersion => 4007,
            Self::NoProtocolVersion => 4008,
            Self::OriginNotAllowed | Self::Terminated | Self::NotAuthorized | Self::TooManyInvalidMessages => 4009,
            Self::OverSoftQuota | Self::OverCapacity | Self::OverShare | Self::TooSlow => 4100,
            Self::Draining | Self::EventsLost => 4200,
            Self::PongTimeout => 4201,
        }
    }
}

impl CloseReason {
    /// Its kind, from the closed set of reasons.
    pub fn kind(&self) -> CloseKind {
        match self {
            Self::TlsOnly => CloseKind::TlsOnly,
            Self::UnknownApp(_) => CloseKind::UnknownApp,
            Self::AppDisabled => CloseKind::AppDisabled,
            Self::OverQuota(_) => CloseKind::OverQuota,
            Self::OverSoftQuota(_) => CloseKind::OverSoftQuota,
            Self::PathNotFound => CloseKind::PathNotFound,
            Self::InvalidVersionString => CloseKind::InvalidVersionString,
            Self::UnsupportedProtocolVersion => CloseKind::UnsupportedProtocolVersion,
            Self::NoProtocolVersion => CloseKind::NoProtocolVersion,
            Self::OriginNotAllowed => CloseKind::OriginNotAllowed,
            Self::Terminated => CloseKind::Terminated,
            Self::NotAuthorized => CloseKind::NotAuthorized,
            Self::TooManyInvalidMessages(_) => CloseKind::TooManyInvalidMessages,
            Self::OverCapacity => CloseKind::OverCapacity,
            Self::OverShare => CloseKind::OverShare,
            Self::TooSlow => CloseKind::TooSlow,
            Self::Draining => CloseKind::Draining,
            Self::EventsLost => CloseKind::EventsLost,
            Self::PongTimeout => CloseKind::PongTimeout,
        }
    }

    /// The close code.
    pub fn code(&self) -> u16 {
        self.kind().code()
    }

    /// The message of `pusher:error` and of the Close frame.
    pub fn message(&self) -> Cow<'static, str> {
        let message = match self {
            Self::TlsOnly => "This app accepts TLS connections only (tls_only)",
            Self::UnknownApp(key) => return Cow::Owned(unknown_app(key)),
            Self::AppDisabled => "This app is disabled",
            Self::OverQuota(connections_max) | Self::OverSoftQuota(connections_max) => {
                let quota = format!("This app is at its quota of {connections_max} connections (max_connections)");
                return Cow::Owned(quota);
            }
            Self::PathNotFound => "Path not found: connect to /app/{key}",
            Self::InvalidVersionString => "Invalid version string format",
            Self::UnsupportedProtocolVersion => "Unsupported protocol version: 4 to 7 are supported",
            Self::NoProtocolVersion => "No protocol version supplied",
            Self::OriginNotAllowed => "Origin not allowed by this app (allowed_origins)",
            Self::TooManyInvalidMessages(most) => {
                return Cow::Owned(format!("Too many invalid messages: {most} in a minute (max_invalid_messages)"));
            }
            Self::OverCapacity => {
                "Over capacity: this server accepts no more connections (max_connections, descriptors, memory)"
            }
            Self::OverShare => {
                "Over capacity: this app uses its share of the server's connections (max_connections, descriptors, memory)"
            }
            Self::Terminated => "You got disconnected by the app",
            Self::NotAuthorized => "Connection not authorized within timeout",
            Self::TooSlow => "Connection reads too slowly",
            Self::Draining => "Server is going away, please reconnect",
            Self::EventsLost => "Events were lost, please reconnect",
            Self::PongTimeout => "Pong reply not received in time",
        };
        Cow::Borrowed(message)
    }
}

/// P-CONN-8.
fn unknown_app(key: &str) -> String {
    format!("App key {} not in this cluster. Did you forget to specify the cluster?", quote(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLOSE_REASON_BYTES_MAX;

    fn all() -> Vec<CloseReason> {
        vec![
            CloseReason::TlsOnly,
            CloseReason::UnknownApp("abc".into()),
            CloseReason::AppDisabled,
            CloseReason::OverQuota(u32::MAX),
            CloseReason::OverSoftQuota(u32::MAX),
            CloseReason::PathNotFound,
            CloseReason::InvalidVersionString,
            CloseReason::UnsupportedProtocolVersion,
            CloseReason::NoProtocolVersion,
            CloseReason::OriginNotAllowed,
            CloseReason::Terminated,
            CloseReason::NotAuthorized,
            CloseReason::TooManyInvalidMessages(u8::MAX),
            CloseReason::OverCapacity,
            CloseReason::OverShare,
            CloseReason::TooSlow,
            CloseReason::Draining,
            CloseReason::EventsLost,
            CloseReason::PongTimeout,
        ]
    }

    /// P-SDK-14: no close code reaches 4300, from which on pusher-js would not reconnect. P-CLOSE-3: every fixed
    /// message fits a Close frame uncut.
    #[test]
    fn codes_and_messages_fit_a_close_frame() {
        for reason in all() {
            assert!((4000..4300).contains(&reason.code()), "{reason:?}");
            assert!(!reason.message().is_empty() && reason.message().len() <= CLOSE_REASON_BYTES_MAX, "{reason:?}");
        }
    }

    /// P-CONN-8: the text that SDK users search for, with the key cut at a character boundary.
    #[test]
    fn unknown_app_quotes_the_key() {
        let message = CloseReason::UnknownApp("abc".into()).message();
        assert_eq!(message, "App key abc not in this cluster. Did you forget to specify the cluster?");
        let long = CloseReason::UnknownApp("é".repeat(101) + "x").message().into_owned();
        assert!(long.starts_with(&format!("App key {} not in", "é".repeat(100))));
    }
}
