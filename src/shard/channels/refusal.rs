//! Reasons for refusing a subscription (P-FAIL rules), with the texts and codes that the client is sent.

use std::borrow::Cow;

use crate::channel::presence::ChannelDataError;
use crate::limits;
use crate::shard::mail::JoinRefusal;

/// Why a subscription is refused.
pub(super) enum SubscriptionRefusal {
    /// The name is longer than this many bytes.
    NameTooLong(usize),
    /// The name is empty or has a character that is not allowed.
    InvalidName,
    /// The connection has its maximum number of channels (`max_channels_per_connection`).
    TooManyChannels(u32),
    /// The signature is missing or wrong, with the reason.
    Unauthorized(String),
    /// The channel or the app is full, or events may be missing.
    Join(JoinRefusal),
    /// `on_gap` is neither `tail` nor `fail`.
    OnGap,
    /// `channel_data` cannot be used; the number is `max_channel_data_bytes`.
    ChannelData(ChannelDataError, u32),
}

impl SubscriptionRefusal {
    /// Code of the `pusher:error`.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Unauthorized(_) | Self::ChannelData(ChannelDataError::NoObject | ChannelDataError::NoUserId, _) => {
                Some(4009)
            }
            Self::NameTooLong(_)
            | Self::InvalidName
            | Self::TooManyChannels(_)
            | Self::Join(_)
            | Self::OnGap
            | Self::ChannelData(
                ChannelDataError::TooLong | ChannelDataError::UserIdTooLong | ChannelDataError::UserIdCharacter(_),
                _,
            ) => None,
        }
    }

    /// `type` of the `pusher:subscription_error`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::InvalidName => "InvalidChannel",
            Self::Join(JoinRefusal::Gap) => "HistoryGap",
            Self::OnGap => "InvalidOption",
            _ if self.code().is_some() => "AuthError",
            Self::NameTooLong(_)
            | Self::TooManyChannels(_)
            | Self::Unauthorized(_)
            | Self::Join(_)
            | Self::ChannelData(..) => "LimitReached",
        }
    }

    /// `status` of the `pusher:subscription_error`.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::NameTooLong(_) => 4009,
            Self::InvalidName | Self::OnGap => 400,
            Self::Join(JoinRefusal::Gap) => 410,
            Self::TooManyChannels(_) | Self::Join(_) => 4100,
            Self::Unauthorized(_) | Self::ChannelData(ChannelDataError::NoObject | ChannelDataError::NoUserId, _) => {
                401
            }
            Self::ChannelData(
                ChannelDataError::TooLong | ChannelDataError::UserIdTooLong | ChannelDataError::UserIdCharacter(_),
                _,
            ) => 4301,
        }
    }

    /// The sentence for the client, with the limit and its setting.
    pub(super) fn reason(&self, channel: &str) -> Cow<'_, str> {
        let quoted = crate::protocol::quote(channel);
        Cow::Owned(match self {
            Self::Unauthorized(reason) => return Cow::Borrowed(reason),
            Self::NameTooLong(bytes_max) => format!("Channel name {quoted} is longer than {bytes_max} bytes"),
            Self::InvalidName => format!("Channel name {quoted} is empty or has a character that is not allowed"),
            Self::TooManyChannels(most) => {
                format!("A connection may subscribe to at most {most} channels (max_channels_per_connection)")
            }
            Self::Join(JoinRefusal::Members(most)) => {
                format!("Presence channel {channel} is full: limit of {most} members (max_presence_members)")
            }
            Self::Join(JoinRefusal::Roster) => {
                let bytes_max = limits::ROSTER_BYTES_MAX;
                format!("Presence channel {channel} is full: limit of {bytes_max} bytes for the list of its members")
            }
            Self::Join(JoinRefusal::Channels(most)) => {
                format!("This app is at its limit of {most} occupied channels (max_channels)")
            }
            Self::Join(JoinRefusal::Gap) => {
                format!("Events of the channel {quoted} after last_event_id may be missing, and on_gap is fail")
            }
            Self::OnGap => "on_gap must be tail or fail".to_owned(),
            Self::ChannelData(error, bytes_max) => match error {
                ChannelDataError::TooLong => {
                    format!("channel_data is longer than {bytes_max} bytes (max_channel_data_bytes)")
                }
                ChannelDataError::UserIdTooLong => {
                    let bytes_max = limits::USER_ID_BYTES_MAX;
                    format!("user_id must have 1 to {bytes_max} bytes and no control characters")
                }
                ChannelDataError::UserIdCharacter(character) => {
                    format!("user_id has the control character {character:?}, which is not allowed in ids")
                }
                ChannelDataError::NoObject => "channel_data must be a string that holds a JSON object".to_owned(),
                ChannelDataError::NoUserId => "channel_data must have a user_id: a string or a number".to_owned(),
            },
        })
    }
}
