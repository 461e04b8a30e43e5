//! The table of close codes (section 2.2 of the Pusher protocol).

/// Why the server ends a connection; each has one code and one message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// 4000, app takes TLS only.
    TlsOnly,
    /// 4001, with the key that was asked for (quoted, cut).
    UnknownApp(String),
    /// 4003.
    AppDisabled,
    /// 4004, per-app connection quota (P-CLOSE-2).
    OverQuota,
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
    /// 4009, too many malformed messages (P-IN-3).
    TooManyInvalidMessages,
    /// 4100, node at capacity (P-CLOSE-2), or a soft quota.
    OverCapacity,
    /// 4100, slow reader (P-CLOSE-5).
    TooSlow,
    /// 4200, server is going away (P-CLOSE-1).
    Draining,
    /// 4200, events of this connection were lost between shards and must be fetched again by reconnecting.
    EventsLost,
    /// 4201 (P-LIVE-4).
    PongTimeout,
}

impl CloseReason {
    /// The close code.
    pub fn code(&self) -> u16 {
        todo!()
    }
    /// The message of `pusher:error` and of the Close frame.
    pub fn message(&self) -> std::borrow::Cow<'static, str> {
        todo!()
    }
}
