//! An endpoint in the simulation of delivery: its behaviour, the events that it wants, and those that it read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::app::Secret;
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{Batching, CountName, WebhookEndpoint, WebhookFormat, WebhookKind, WebhookKinds};

/// An endpoint that always answers quickly receives every event within this, in ms, whatever the others do: less than
/// one of them may hang.
const SOON_MS: u64 = 3_000;

/// A reproducible random number generator: splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Behaviour {
    /// Every request is answered quickly, with 200.
    Good,
    /// One of three requests is refused.
    Flaky,
    /// Every request is refused at once until this time; from then on it behaves as a good one.
    RefusesUntil(u64),
    /// No request is answered.
    Hangs,
}

/// An endpoint in the test, and the events that it read.
pub(super) struct Receiver {
    pub(super) app: u32,
    pub(super) endpoint: WebhookEndpoint,
    pub(super) behaviour: Behaviour,
    /// Numbers of the events that it must receive, by channel.
    pub(super) wanted: BTreeMap<String, Vec<u64>>,
    /// Events read with a 200, by channel, each with the time.
    read: BTreeMap<String, Vec<(u64, u64)>>,
    /// Events that may be missing: given up, or dropped when the endpoint was turned off.
    excused: BTreeSet<u64>,
    /// Events whose request was in flight when the process ended: they may arrive twice.
    pub(super) doubled: BTreeSet<u64>,
}

impl Receiver {
    /// A receiver that was sent nothing yet.
    pub(super) fn new(app: u32, endpoint: WebhookEndpoint, behaviour: Behaviour) -> Self {
        Self {
            app,
            endpoint,
            behaviour,
            wanted: BTreeMap::new(),
            read: BTreeMap::new(),
            excused: BTreeSet::new(),
            doubled: BTreeSet::new(),
        }
    }

    /// How long a delivery may wait, as the rules define it (P-HOOK-7, R-HOOK-4).
    pub(super) fn window_ms(&self) -> u64 {
        match self.endpoint.format {
            WebhookFormat::Pusher => 300_000,
            WebhookFormat::Relay => 420_000,
        }
    }

    /// The delay after this many failures, as the rules define it (P-HOOK-7, R-HOOK-4).
    pub(super) fn rest_ms(&self, failures: usize) -> Option<u64> {
        match self.endpoint.format {
            WebhookFormat::Pusher => Some([1, 2, 4, 8, 16, 32, 60].get(failures - 1).copied().unwrap_or(60) * 1_000),
            WebhookFormat::Relay => [10_000, 60_000, 300_000].get(failures - 1).copied(),
        }
    }

    /// The events of a delivery with this body may be missing.
    pub(super) fn excuse(&mut self, body: &[u8]) {
        let events = decode(self.endpoint.format, body);
        self.excused.extend(events.into_iter().map(|(_, number)| number));
    }

    /// A body was read and answered with 200.
    pub(super) fn receive(&mut self, body: &[u8], now_ms: u64) {
        for (channel, number) in decode(self.endpoint.format, body) {
            self.read.entry(channel).or_default().push((number, now_ms));
        }
    }

    /// At the end: it received every event that it wanted, once, in order and in time.
    pub(super) fn check(&self, id: &str, events_ms: &[u64], soon_from_ms: u64) {
        for (channel, wanted) in &self.wanted {
            let read = self.read.get(channel).map(Vec::as_slice).unwrap_or_default();
            let mut told = Vec::new();
            for (number, at_ms) in read {
                if told.contains(number) {
                    assert!(self.doubled.contains(number), "{id} was told {number} twice");
                    continue;
                }
                told.push(*number);
                let event_ms = events_ms[*number as usize];
                let took_ms = at_ms - event_ms;
                let soon = self.behaviour != Behaviour::Good || event_ms < soon_from_ms || took_ms <= SOON_MS;
                assert!(soon, "{id} answers soon and was told {number} after {took_ms} ms");
            }
            let (got, missed): (Vec<u64>, Vec<u64>) = wanted.iter().partition(|number| told.contains(number));
            assert_eq!(told, got, "{id} was told of {channel} out of order, or what it does not want (P-HOOK-6)");
            let lost: Vec<&u64> = missed.iter().filter(|number| !self.excused.contains(number)).collect();
            assert!(lost.is_empty(), "{id} was never told {lost:?} of {channel}");
        }
        let unwanted = self.read.keys().find(|channel| !self.wanted.contains_key(*channel));
        assert_eq!(unwanted, None, "{id} is told of what it does not want");
    }
}

/// The events in a body: channel and number.
pub(super) fn decode(format: WebhookFormat, body: &[u8]) -> Vec<(String, u64)> {
    let body: Value = serde_json::from_slice(body).expect("a body is JSON");
    let event = |members: &Value| {
        let count = members["subscription_count"].as_u64();
        let number = count.or_else(|| members["user_id"].as_str().and_then(|text| text.parse().ok()));
        (members["channel"].as_str().expect("a channel").to_owned(), number.expect("a number"))
    };
    match format {
        WebhookFormat::Pusher => body["events"].as_array().expect("events").iter().map(event).collect(),
        WebhookFormat::Relay => vec![event(&body["data"])],
    }
}

/// A random endpoint: of either format, with or without batches, for all kinds or for one.
pub(super) fn endpoint(id: &str, random: &mut Random) -> WebhookEndpoint {
    let counts = WebhookKinds::empty().with(WebhookKind::SubscriptionCount);
    WebhookEndpoint {
        id: id.into(),
        url: "https://example.com/".into(),
        secret: Secret::new("s"),
        kinds: if random.one_in(3) { counts } else { WebhookKinds::all() },
        format: if random.one_in(3) { WebhookFormat::Relay } else { WebhookFormat::Pusher },
        batching: if random.one_in(2) { Batching::Batched } else { Batching::Single },
        reach: Reach::Public,
        count_name: CountName::Pusher,
        enabled: true,
    }
}
