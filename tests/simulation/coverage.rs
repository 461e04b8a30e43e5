//! The happenings of a run, counted by kind, so that a change that stops one from happening at all is noticed.

use std::collections::BTreeMap;

/// Something that can happen in a run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Happening {
    /// A subscription succeeded.
    Joined,
    /// A presence channel was full (P-LIM-7).
    ChannelFull,
    /// An event was delivered.
    Delivered,
    /// An event was delivered to a session that had resumed, with its id.
    ResumedDelivery,
    /// A gap was reported.
    HistoryGap,
    /// A resume named a position that nobody had given out.
    BadPosition,
    /// A stream began from now, or after a gap.
    StreamOpened,
    /// A stream continued after a position without a gap.
    StreamResumed,
    /// A stream reported a gap.
    StreamGap,
    /// A stream was sent an event with an id.
    StreamDelivered,
    /// An idle stream was sent a comment.
    StreamComment,
    /// A poll returned events.
    PolledEvents,
    /// A poll returned a gap.
    PollGap,
    /// A poll returned nothing when its time was over.
    PollTimeout,
    /// A stream or poll was cut off by its client.
    ReaderCut,
    /// An event was published again.
    Replayed,
    /// An event that a replay named was not kept.
    ReplayMissed,
    /// A client event passed.
    ClientEventPassed,
    /// A client event was above the rate (P-LIM-9).
    ClientEventRefused,
    /// A signin succeeded (P-USER-1).
    SignedIn,
    /// A client was notified that a watched user came or went (P-WATCH-1).
    WatchedChange,
    /// The connections of a user were ended (P-USER-6).
    UserEnded,
    /// A connection did not authorize itself in time and was closed (P-AUTHZ-1).
    NotAuthorized,
    /// A connection authorized itself in time and was kept open.
    AuthorizedKept,
    /// A connection was kept that was open before the app demanded authorization.
    OlderKept,
    /// A connection was kept because the app no longer demanded authorization when its deadline passed.
    UnauthorizedReleased,
    /// A connection authorized itself when the app's quota was used up.
    AuthorizedOverQuota,
    /// The server closed a WebSocket with this code.
    Closed(u16),
    /// A slow reader was closed (P-CLOSE-5).
    SlowClosed,
    /// A connection was closed because events for it were lost between shards.
    GapClosed,
    /// The server reset a connection.
    Reset,
    /// An HTTP request was answered with this status.
    Answered(u16),
    /// The shard asked a driver to stop reading.
    Paused,
    /// Bytes arrived after that.
    ReadWhilePaused,
    /// The shard asked a driver to send FIN.
    ShutWrite,
    /// A send was short.
    ShortSend,
    /// A mail crossed shards.
    Mail,
    /// An event was sent to a webhook.
    WebhookTold,
    /// The vacated event of a channel was sent to a webhook, after the delay (P-HOOK-8).
    VacatedTold,
    /// A member's departure was sent to a webhook, after the delay (P-HOOK-8).
    MemberRemovedTold,
    /// A subscriber received the subscription count (P-COUNT-1).
    CountTold,
    /// No shard had a turn for longer than most limits (P-LIVE-6).
    Late,
    /// A run ended with a drain (P-CLOSE-1).
    Drained,
}

/// Counts of all happenings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<Happening, u64>);

impl Coverage {
    /// Counts one.
    pub(crate) fn note(&mut self, happening: Happening) {
        *self.0.entry(happening).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        for (happening, count) in &other.0 {
            *self.0.entry(*happening).or_default() += count;
        }
    }

    /// How often it happened.
    pub(crate) fn count(&self, happening: Happening) -> u64 {
        self.0.get(&happening).copied().unwrap_or_default()
    }
}
