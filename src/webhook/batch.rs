//! Conversion of events into requests: bodies are built here, filtered and batched (P-HOOK-6). Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::app::webhook::{Batching, WebhookEndpoint, WebhookFormat};
use crate::app::{App, AppSerial};
use crate::limits;
use crate::moment::Moment;
use crate::protocol::webhook::{WebhookEvent, encode_pusher_body, encode_pusher_event, encode_relay_body};

/// A request to make.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Made {
    pub(super) app: AppSerial,
    pub(super) endpoint: Arc<str>,
    pub(super) queue: u64,
    pub(super) body: Vec<u8>,
    /// Events in it.
    pub(super) events: usize,
}

/// Batches that wait for further events, by endpoint.
#[derive(Debug, Default)]
pub(super) struct Batches {
    open: BTreeMap<Arc<str>, Batch>,
}

#[derive(Debug)]
struct Batch {
    app: AppSerial,
    /// Entries joined by commas.
    entries: Vec<u8>,
    events: usize,
    due_ms: u64,
}

impl Batches {
    /// Adds an event for all endpoints of its app that want it; returns the requests that it completes.
    pub(super) fn add(&mut self, app: &App, event: &WebhookEvent, now: Moment) -> Vec<Made> {
        let kind = event.kind();
        let endpoints = app.webhooks.endpoints().iter();
        let wanting = endpoints.filter(|endpoint| app.enabled && endpoint.enabled && endpoint.kinds.has(kind));
        wanting.flat_map(|endpoint| self.add_to(endpoint, event, now)).collect()
    }

    fn add_to(&mut self, endpoint: &WebhookEndpoint, event: &WebhookEvent, now: Moment) -> Vec<Made> {
        let (mut entry, mut body) = (Vec::new(), Vec::new());
        match (endpoint.format, endpoint.batching) {
            (WebhookFormat::Relay, Batching::Single | Batching::Batched) => encode_relay_body(&mut body, event),
            (WebhookFormat::Pusher, Batching::Single) => {
                encode_pusher_event(&mut entry, event, endpoint.count_name);
                encode_pusher_body(&mut body, event.unix_ms, &entry);
            }
            (WebhookFormat::Pusher, Batching::Batched) => {
                encode_pusher_event(&mut entry, event, endpoint.count_name);
                return self.add_entry(endpoint, event.app, &entry, now);
            }
        }
        let queue = queue_of(&event.channel);
        vec![Made { app: event.app, endpoint: (*endpoint.id).into(), queue, body, events: 1 }]
    }

    fn add_entry(&mut self, endpoint: &WebhookEndpoint, app: AppSerial, entry: &[u8], now: Moment) -> Vec<Made> {
        let id: Arc<str> = (*endpoint.id).into();
        let mut made = Vec::new();
        let is_full = |batch: &Batch| batch.entries.len() + entry.len() > limits::WEBHOOK_BATCH_BYTES_MAX;
        if self.open.get(&id).is_some_and(is_full) {
            made.extend(self.close(&id, now));
        }
        let due_ms = now.monotonic_ms + limits::WEBHOOK_BATCH_MS;
        let empty = || Batch { app, entries: Vec::new(), events: 0, due_ms };
        let batch = self.open.entry(id.clone()).or_insert_with(empty);
        if batch.events > 0 {
            batch.entries.push(b',');
        }
        batch.entries.extend_from_slice(entry);
        batch.events += 1;
        if batch.events == limits::WEBHOOK_BATCH_EVENTS_MAX {
            made.extend(self.close(&id, now));
        }
        made
    }

    /// When the first batch is to be closed, in ms of the monotonic clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.open.values().map(|batch| batch.due_ms).min()
    }

    /// Takes the batches that are due, or all.
    pub(super) fn take(&mut self, now: Moment, which: Which) -> Vec<Made> {
        let is_due = |batch: &Batch| which == Which::All || batch.due_ms <= now.monotonic_ms;
        let due: Vec<Arc<str>> =
            self.open.iter().filter(|(_, batch)| is_due(batch)).map(|(id, _)| id.clone()).collect();
        due.iter().filter_map(|id| self.close(id, now)).collect()
    }

    fn close(&mut self, id: &Arc<str>, now: Moment) -> Option<Made> {
        let Batch { app, entries, events, .. } = self.open.remove(id)?;
        let mut body = Vec::new();
        encode_pusher_body(&mut body, now.unix_ms, &entries);
        Some(Made { app, endpoint: id.clone(), queue: BATCH_QUEUE, body, events })
    }
}

/// Which batches to take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Which {
    /// Those that are due.
    Due,
    /// All: the process ends.
    All,
}

/// Batches contain events of many channels, so an endpoint's batches are sent one after the other.
const BATCH_QUEUE: u64 = 0;

/// The queue of a channel: the same in every run of the process, because deliveries outlive it. Two channels with the
/// same queue occasionally wait for each other, which is harmless.
fn queue_of(channel: &str) -> u64 {
    SipHasher13::new().hash(channel.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::app::Secret;
    use crate::app::outgoing_url::Reach;
    use crate::app::webhook::{CountName, WebhookKind, WebhookKinds, Webhooks};
    use crate::protocol::webhook::Happened;

    const START: Moment = Moment { monotonic_ms: 1_000, unix_ms: 1_700_000_000_000 };

    fn endpoint(id: &str, batching: Batching, kinds: WebhookKinds) -> WebhookEndpoint {
        WebhookEndpoint {
            id: id.into(),
            url: "https://example.com/".into(),
            secret: Secret::new("s"),
            kinds,
            format: WebhookFormat::Pusher,
            batching,
            reach: Reach::Public,
            count_name: CountName::Pusher,
            enabled: true,
        }
    }

    fn app(endpoints: Vec<WebhookEndpoint>) -> App {
        App {
            serial: AppSerial(1),
            id: "1".into(),
            name: "".into(),
            enabled: true,
            keys: Vec::new(),
            encryption_master_key: None,
            settings: Default::default(),
            webhooks: Webhooks::new(endpoints),
        }
    }

    fn event(channel: &str, what: Happened) -> WebhookEvent {
        WebhookEvent { app: AppSerial(1), channel: channel.into(), unix_ms: START.unix_ms, what }
    }

    fn after(ms: u64) -> Moment {
        Moment { monotonic_ms: START.monotonic_ms + ms, unix_ms: START.unix_ms + ms }
    }

    /// P-HOOK-6, P-HOOK-9: without batches every event becomes a request at once, only to the endpoints whose filter
    /// includes it; the queue is the channel's and never changes.
    #[test]
    fn one_event_per_request_and_filters() {
        let misses = WebhookKinds::empty().with(WebhookKind::CacheMiss);
        let off = WebhookEndpoint { enabled: false, ..endpoint("wh_off", Batching::Single, WebhookKinds::all()) };
        let app = app(vec![
            endpoint("wh_all", Batching::Single, WebhookKinds::all()),
            endpoint("wh_miss", Batching::Single, misses),
            off,
        ]);
        let mut batches = Batches::default();
        let ids = |made: &[Made]| made.iter().map(|made| made.endpoint.to_string()).collect::<Vec<_>>();
        let made = batches.add(&app, &event("a", Happened::ChannelVacated), START);
        assert_eq!(ids(&made), ["wh_all"]);
        let made = batches.add(&app, &event("a", Happened::CacheMiss), START);
        assert_eq!(ids(&made), ["wh_all", "wh_miss"]);
        assert_eq!(made[0].queue, made[1].queue);
        assert_eq!(made[0].queue, queue_of("a"));
        assert_ne!(made[0].queue, queue_of("b"));
        assert_eq!(batches.due_ms(), None);
        assert!(batches.add(&App { enabled: false, ..app }, &event("a", Happened::CacheMiss), START).is_empty());
    }

    /// P-HOOK-6: a batch is complete with its 100th event or 50 ms after its first; no event is lost or moved between
    /// batches.
    #[test]
    fn batches_by_number_and_by_time() {
        let app = app(vec![endpoint("wh_1", Batching::Batched, WebhookKinds::all())]);
        let mut batches = Batches::default();
        let mut made = Vec::new();
        for number in 0..250 {
            made.extend(batches.add(&app, &event(&number.to_string(), Happened::ChannelVacated), START));
        }
        assert_eq!(batches.due_ms(), Some(START.monotonic_ms + 50));
        assert!(batches.take(after(49), Which::Due).is_empty());
        made.extend(batches.take(after(50), Which::Due));
        assert_eq!(made.iter().map(|made| made.events).collect::<Vec<_>>(), [100, 100, 50]);
        let mut channels = Vec::new();
        for made in &made {
            assert_eq!(made.queue, BATCH_QUEUE);
            let body: Value = serde_json::from_slice(&made.body).expect("JSON");
            channels.extend(body["events"].as_array().expect("events").iter().map(|event| event["channel"].clone()));
        }
        let expected: Vec<Value> = (0..250).map(|number: i32| number.to_string().into()).collect();
        assert_eq!(channels, expected);
        assert!(batches.due_ms().is_none());
        batches.add(&app, &event("a", Happened::ChannelVacated), START);
        assert_eq!(batches.take(START, Which::All).len(), 1, "at the end of the process");
    }

    /// P-HOOK-6: a batch is bounded in bytes too; a single event that is larger is sent alone.
    #[test]
    fn batches_are_bounded_in_bytes() {
        let app = app(vec![endpoint("wh_1", Batching::Batched, WebhookKinds::all())]);
        let mut batches = Batches::default();
        let member = |bytes: usize| Happened::MemberAdded { user_id: "x".repeat(bytes).into() };
        assert!(batches.add(&app, &event("a", member(10)), START).is_empty());
        let made = batches.add(&app, &event("a", member(limits::WEBHOOK_BATCH_BYTES_MAX)), START);
        assert_eq!(made.iter().map(|made| made.events).collect::<Vec<_>>(), [1]);
        let made = batches.add(&app, &event("a", member(10)), START);
        assert_eq!(made.iter().map(|made| made.events).collect::<Vec<_>>(), [1]);
        assert_eq!(batches.take(after(50), Which::Due).len(), 1);
    }
}
