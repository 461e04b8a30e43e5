//! Webhook endpoints of an app (P-HOOK-9, section 6 of the Relay protocol): where its events are sent, and which ones.
//!
//! A shard checks one set of bits, [`Webhooks::wanted`], before it builds an event: an app without endpoints costs
//! nothing, and an event that no endpoint wants is never built.

use std::fmt;

use bitflags::bitflags;

use super::Secret;
use super::outgoing_url::Reach;
use crate::label::{Label, labels};

labels! {
    /// A kind of event of an endpoint, with its name in Pusher's format and in filters.
    pub enum WebhookKind {
        /// A client subscribed to a channel without subscribers (P-HOOK-1).
        ChannelOccupied => "channel_occupied",
        /// The last subscriber left (P-HOOK-1).
        ChannelVacated => "channel_vacated",
        /// A user's first connection joined a presence channel (P-HOOK-2).
        MemberAdded => "member_added",
        /// A user's last connection left (P-HOOK-2).
        MemberRemoved => "member_removed",
        /// A client event was sent (P-HOOK-3).
        ClientEvent => "client_event",
        /// A client subscribed to a cache channel without an event (P-HOOK-4).
        CacheMiss => "cache_miss",
        /// The number of subscribers changed (P-HOOK-5).
        SubscriptionCount => "subscription_count",
    }
}

impl WebhookKind {
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

    /// The kind with this name: that of either format, or `subscription_count_changed` (R-HOOK-6).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == COUNT_CHANGED {
            return Some(Self::SubscriptionCount);
        }
        Self::ALL.iter().copied().find(|kind| kind.label() == name || kind.relay_name() == name)
    }
}

/// How other servers spell `subscription_count` in Pusher's format (R-HOOK-6).
pub const COUNT_CHANGED: &str = "subscription_count_changed";

bitflags! {
    /// A set of kinds, one bit for each. The bits are not stored anywhere.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct WebhookKinds: u8 {
        /// Every kind.
        const EVERY = (1 << WebhookKind::ALL.len()) - 1;
    }
}

impl From<WebhookKind> for WebhookKinds {
    fn from(kind: WebhookKind) -> Self {
        Self::from_bits_retain(1 << kind.index())
    }
}

impl WebhookKinds {
    /// This set with one more kind.
    #[must_use]
    pub fn with(self, kind: WebhookKind) -> Self {
        self | kind.into()
    }

    /// True when the kind is in the set.
    pub fn has(self, kind: WebhookKind) -> bool {
        self.contains(kind.into())
    }

    /// The kinds, in the order of their numbers.
    pub fn kinds(self) -> impl Iterator<Item = WebhookKind> {
        WebhookKind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }
}

/// Names separated by `,`.
impl fmt::Display for WebhookKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, kind) in self.kinds().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            f.write_str(kind.label())?;
        }
        Ok(())
    }
}

labels! {
    /// How a body is written and signed (R-HOOK-1).
    #[derive(Default)]
    pub enum WebhookFormat {
        /// Pusher's, signed with the app's secret.
        #[default]
        Pusher => "pusher",
        /// Relay's, signed with the endpoint's secret.
        Relay => "relay",
    }
}

/// How many events one POST contains (P-HOOK-6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Batching {
    /// One.
    #[default]
    Single,
    /// Events that occur within 50 ms, at most 100.
    Batched,
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
    /// The kinds of events that it receives.
    pub kinds: WebhookKinds,
    /// How bodies are written and signed.
    pub format: WebhookFormat,
    /// How many events one request contains.
    pub batching: Batching,
    /// The addresses that it may have.
    pub reach: Reach,
    /// How `subscription_count` is spelled.
    pub count_name: CountName,
    /// False while the operator has disabled it: it receives nothing, and its waiting deliveries are dropped.
    pub enabled: bool,
}

/// An endpoint to be created; the store checks it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewWebhook {
    /// Its URL.
    pub url: String,
    /// The events that it receives, by name; an empty list means all.
    pub events: Vec<String>,
    /// How bodies are written and signed.
    pub format: WebhookFormat,
    /// How many events one request contains.
    pub batching: Batching,
    /// The addresses that it may have.
    pub reach: Reach,
    /// How `subscription_count` is spelled.
    pub count_name: CountName,
}

/// All endpoints of an app.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    endpoints: Vec<WebhookEndpoint>,
    wanted: WebhookKinds,
}

impl Webhooks {
    /// Collects the kinds that the enabled endpoints want.
    pub fn new(endpoints: Vec<WebhookEndpoint>) -> Self {
        let enabled = endpoints.iter().filter(|endpoint| endpoint.enabled);
        let wanted = enabled.fold(WebhookKinds::empty(), |wanted, endpoint| wanted.union(endpoint.kinds));
        Self { endpoints, wanted }
    }

    /// Kinds that at least one enabled endpoint wants.
    pub fn wanted(&self) -> WebhookKinds {
        self.wanted
    }

    /// The endpoints in the order of their creation.
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
    /// formats; the alternative spelling of one of them is also recognized.
    #[test]
    fn kinds_by_name() {
        for kind in WebhookKind::ALL.iter().copied() {
            assert_eq!(WebhookKind::from_name(kind.label()), Some(kind));
            assert_eq!(WebhookKind::from_name(kind.relay_name()), Some(kind));
            let one = WebhookKinds::empty().with(kind);
            assert!(WebhookKind::ALL.iter().copied().all(|other| one.has(other) == (other == kind)));
        }
        assert_eq!(WebhookKind::from_name("subscription_count_changed"), Some(WebhookKind::SubscriptionCount));
        for unknown in ["", "channel_occupied ", "Channel_Occupied", "channel"] {
            assert_eq!(WebhookKind::from_name(unknown), None);
        }
        let names = "channel_occupied,channel_vacated,member_added,member_removed,client_event,cache_miss,\
                     subscription_count";
        assert_eq!(WebhookKinds::all().to_string(), names);
    }

    /// P-HOOK-6: an app wants the kinds that any of its enabled endpoints wants.
    #[test]
    fn wanted_is_the_union_of_the_enabled() {
        let endpoint = |kind, enabled| WebhookEndpoint {
            id: "wh_1".into(),
            url: "https://example.com/".into(),
            secret: Secret::new("s"),
            kinds: WebhookKinds::empty().with(kind),
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
