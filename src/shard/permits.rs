//! Permits of an app for the current minute and day (R-LIM-3, R-LIM-4). Time is an argument.

use crate::app::AppSettings;
use crate::auth::request::Credential;
use crate::moment::Moment;

/// A quantity that is limited per minute or day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meter {
    /// Requests with any kind of authentication.
    Requests,
    /// Requests with a signature.
    Signed,
    /// Requests with key and secret in headers.
    Keyed,
    /// Requests with a token.
    Tokens,
    /// Messages: one per event and channel.
    Messages,
}

pub(super) const METERS: usize = 5;

/// One number per [`Meter`].
pub(super) type Permits = [u32; METERS];

/// No permit.
pub(super) const NONE: Permits = [0; METERS];

impl Meter {
    pub(super) const ALL: [Self; METERS] = [Self::Requests, Self::Signed, Self::Keyed, Self::Tokens, Self::Messages];

    /// The meter for the authentication of a request.
    fn of(credential: &Credential) -> Self {
        match credential {
            Credential::Signature(_) => Self::Signed,
            Credential::KeyAndSecret(_) => Self::Keyed,
            Credential::Token(..) => Self::Tokens,
            // It has no limit of its own kind.
            Credential::Authorizer | Credential::PublicKey(_) => Self::Requests,
        }
    }

    /// The app's limit; 0 means no limit.
    pub(super) fn limit(self, settings: &AppSettings) -> u32 {
        match self {
            Self::Requests => settings.requests_per_minute,
            Self::Signed => settings.signed_requests_per_minute,
            Self::Keyed => settings.key_requests_per_minute,
            Self::Tokens => settings.token_requests_per_minute,
            Self::Messages => settings.messages_per_day,
        }
    }

    /// The name of the setting for the limit.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Signed => "signed_requests_per_minute",
            Self::Keyed => "key_requests_per_minute",
            Self::Tokens => "token_requests_per_minute",
            Self::Messages => "messages_per_day",
        }
    }
}

/// The limits of an app.
pub(super) fn limits_of(settings: &AppSettings) -> Permits {
    Meter::ALL.map(|meter| meter.limit(settings))
}

/// The permits that a request takes, of the limited meters.
pub(super) fn costs(settings: &AppSettings, credential: &Credential, messages: u32) -> Permits {
    Meter::ALL.map(|meter| {
        let cost = match meter {
            Meter::Requests => 1,
            Meter::Messages => messages,
            Meter::Signed | Meter::Keyed | Meter::Tokens => u32::from(meter == Meter::of(credential)),
        };
        if meter.limit(settings) > 0 { cost } else { 0 }
    })
}

/// The permits for messages of a request that was counted before.
pub(super) fn message_costs(settings: &AppSettings, messages: u32) -> Permits {
    let is_limited = settings.messages_per_day > 0;
    Meter::ALL.map(|meter| if meter == Meter::Messages && is_limited { messages } else { 0 })
}

/// A minute, which begins with a request, and a day of UTC.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Window {
    /// When the minute ends, on the monotonic clock.
    pub(super) minute_ends_ms: u64,
    /// Number of the day since 1970.
    pub(super) day: u64,
}

impl Window {
    /// True when it is not the current minute or day of this meter. The wall clock may step either way.
    pub(super) fn is_over(self, meter: Meter, now: Moment) -> bool {
        match meter {
            Meter::Messages => day_of(now) != self.day,
            Meter::Requests | Meter::Signed | Meter::Keyed | Meter::Tokens => now.monotonic_ms >= self.minute_ends_ms,
        }
    }

    /// True when both are the same for this meter.
    pub(super) fn agrees(self, other: Self, meter: Meter) -> bool {
        match meter {
            Meter::Messages => self.day == other.day,
            Meter::Requests | Meter::Signed | Meter::Keyed | Meter::Tokens => {
                self.minute_ends_ms == other.minute_ends_ms
            }
        }
    }

    /// Seconds until the window of this meter ends, at least 1.
    pub(super) fn seconds_left(self, meter: Meter, now: Moment) -> u32 {
        let left_ms = match meter {
            Meter::Messages => ((self.day + 1) * DAY_MS).saturating_sub(now.unix_ms),
            Meter::Requests | Meter::Signed | Meter::Keyed | Meter::Tokens => {
                self.minute_ends_ms.saturating_sub(now.monotonic_ms)
            }
        };
        u32::try_from(left_ms.div_ceil(1_000).max(1)).unwrap_or(u32::MAX)
    }
}

/// Number of the day since 1970, in UTC.
pub(super) fn day_of(now: Moment) -> u64 {
    now.unix_ms / DAY_MS
}

pub(super) const DAY_MS: u64 = 24 * 3_600 * 1_000;
