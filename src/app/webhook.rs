//! Webhook endpoints of an app (P-HOOK-9, section 6 of the Relay protocol): where its events are told, and which.
//!
//! A shard looks at one set of bits, [`Webhooks::wanted`], before it makes anything: an app without endpoints costs
//! nothing, and what no endpoint wants is never built.

use std::fmt;

use super::Secret;

pub mod address;

/// What an endpoint may be told. The numbers are bits of [`WebhookKinds`] and are stored nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum WebhookKind {
    /// Somebody subscribed to a channel that nobody was on (P-HOOK-1).
    ChannelOccupied = 0,
    /// The last subscriber left (P-HOOK-1).
    ChannelVacated = 1,
    /// A user's first connection joined a presence channel (P-HOOK-2).
    MemberAdded = 2,
    /// A user's last connection left (P-HOOK-2).
    MemberRemoved = 3,
    /// A client event was sent (P-HOOK-3).
    ClientEvent = 4,
    /// Somebody subscribed to a cache channel without an event (P-HOOK-4).
    CacheMiss = 5,
    /// The number of subscribers changed (P-HOOK-5).
    SubscriptionCount = 6,
}

impl WebhookKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    /// Its name in Pusher's format and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }

    /// Its name in Relay's format (R-HOOK-5).
    pub fn relay_name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel.occupied",
            Self::ChannelVacated => "channel.vacated",
            Self::MemberAdded => "member.added",
            Self::MemberRemoved => "member.removed",
            Self::ClientEvent => "client.event",
            Self::CacheMiss => "cache.miss",
            Self::SubscriptionCount => "subscription.count",
        }
    }

    /// The kind of this name: that of either format, or `subscription_count_changed` (R-HOOK-6).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == COUNT_CHANGED {
            return Some(Self::SubscriptionCount);
        }
        Self::ALL.into_iter().find(|kind| kind.name() == name || kind.relay_name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How other servers spell `subscription_count` in Pusher's format (R-HOOK-6).
pub const COUNT_CHANGED: &str = "subscription_count_changed";

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WebhookKinds(u8);

impl WebhookKinds {
    /// No kind.
    pub const NONE: Self = Self(0);

    /// Every kind.
    pub fn all() -> Self {
        WebhookKind::ALL.into_iter().fold(Self::NONE, Self::with)
    }

    /// These and one more.
    #[must_use]
    pub fn with(self, kind: WebhookKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// The kinds of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when the kind is among them.
    pub fn contains(self, kind: WebhookKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// True when there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = WebhookKind> {
        WebhookKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

/// Names separated by `,`.
impl fmt::Display for WebhookKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, kind) in self.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            f.write_str(kind.name())?;
        }
        Ok(())
    }
}

/// How a body is written and signed (R-HOOK-1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WebhookFormat {
    /// Pusher's, signed with the app's secret.
    #[default]
    Pusher,
    /// Relay's, signed with the endpoint's secret.
    Relay,
}

impl WebhookFormat {
    /// Its name, as operators write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pusher => "pusher",
            Self::Relay => "relay",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pusher, Self::Relay].into_iter().find(|format| format.name() == name)
    }
}

/// How many events one POST has (P-HOOK-6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Batching {
    /// One.
    #[default]
    Single,
    /// What comes within 50 ms, at most 100.
    Batched,
}

/// Where an endpoint may be (threat T19).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// At public addresses over https, and where the operator allows all endpoints to be.
    #[default]
    Public,
    /// Anywhere, also over http.
    Anywhere,
}

/// How `subscription_count` is spelled in Pusher's format (R-HOOK-6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CountName {
    /// `subscription_count`.
    #[default]
    Pusher,
    /// [`COUNT_CHANGED`].
    Changed,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct WebhookEndpoint {
    /// Its public id, `wh_...`.
    pub id: Box<str>,
    /// http or https.
    pub url: Box<str>,
    /// Signs bodies in Relay's format.
    pub secret: Secret,
    /// What it is told.
    pub kinds: WebhookKinds,
    /// How.
    pub format: WebhookFormat,
    /// In how many requests.
    pub batching: Batching,
    /// Where it may be.
    pub reach: Reach,
    /// How one kind is spelled.
    pub count_name: CountName,
    /// False while the operator has turned it off: it is told nothing, and what waits for it is dropped.
    pub enabled: bool,
}

/// An endpoint to be made; the store checks it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewWebhook {
    /// Where it is.
    pub url: String,
    /// What it is told, by name; none is everything.
    pub events: Vec<String>,
    /// How bodies are written and signed.
    pub format: WebhookFormat,
    /// How many events a request has.
    pub batching: Batching,
    /// Where it may be.
    pub reach: Reach,
    /// How one kind is spelled.
    pub count_name: CountName,
}

/// All endpoints of an app.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    endpoints: Vec<WebhookEndpoint>,
    wanted: WebhookKinds,
}

impl Webhooks {
    /// Notes what the enabled ones want.
    pub fn new(endpoints: Vec<WebhookEndpoint>) -> Self {
        let enabled = endpoints.iter().filter(|endpoint| endpoint.enabled);
        let wanted = enabled.fold(WebhookKinds::NONE, |wanted, endpoint| wanted.union(endpoint.kinds));
        Self { endpoints, wanted }
    }

    /// What at least one enabled endpoint wants.
    pub fn wanted(&self) -> WebhookKinds {
        self.wanted
    }

    /// The endpoints in the order in which they were made.
    pub fn endpoints(&self) -> &[WebhookEndpoint] {
        &self.endpoints
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: &str) -> Option<&WebhookEndpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.id == id)
    }
}

const _: () = assert!(WebhookKind::ALL.len() <= u8::BITS as usize, "a kind is a bit of WebhookKinds");

#[cfg(test)]
mod tests {
    use super::*;

    /// P-HOOK-1 to P-HOOK-5, R-HOOK-5, R-HOOK-6: each kind has a bit of its own and is found by the names of both
    /// formats; the other spelling of one of them is known too.
    #[test]
    fn kinds_by_name() {
        for kind in WebhookKind::ALL {
            assert_eq!(WebhookKind::from_name(kind.name()), Some(kind));
            assert_eq!(WebhookKind::from_name(kind.relay_name()), Some(kind));
            let one = WebhookKinds::NONE.with(kind);
            assert!(WebhookKind::ALL.into_iter().all(|other| one.contains(other) == (other == kind)));
        }
        assert_eq!(WebhookKind::from_name("subscription_count_changed"), Some(WebhookKind::SubscriptionCount));
        for unknown in ["", "channel_occupied ", "Channel_Occupied", "channel"] {
            assert_eq!(WebhookKind::from_name(unknown), None);
        }
        let names = "channel_occupied,channel_vacated,member_added,member_removed,client_event,cache_miss,\
                     subscription_count";
        assert_eq!(WebhookKinds::all().to_string(), names);
    }

    /// P-HOOK-6: what an app wants is what its enabled endpoints want together.
    #[test]
    fn wanted_is_the_union_of_the_enabled() {
        let endpoint = |kind, enabled| WebhookEndpoint {
            id: "wh_1".into(),
            url: "https://example.com/".into(),
            secret: Secret::new("s"),
            kinds: WebhookKinds::NONE.with(kind),
            format: WebhookFormat::Pusher,
            batching: Batching::Single,
            reach: Reach::Public,
            count_name: CountName::Pusher,
            enabled,
        };
        assert!(Webhooks::default().wanted().is_empty());
        let webhooks = Webhooks::new(vec![
            endpoint(WebhookKind::CacheMiss, true),
            endpoint(WebhookKind::MemberAdded, true),
            endpoint(WebhookKind::ClientEvent, false),
        ]);
        assert_eq!(webhooks.wanted().to_string(), "member_added,cache_miss");
    }
}
