//! The stored form of webhook endpoints.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::{Fault, StoreError};
use crate::app::Secret;
use crate::app::actor::Creator;
use crate::app::outgoing_url::Reach;
use crate::app::webhook::{
    Batching, CountName, NewWebhook, WebhookEndpoint, WebhookFormat, WebhookKind, WebhookKinds, Webhooks,
};
use crate::label::Label;
use crate::setting::nearest;

/// An endpoint in the store.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct WebhookRecord {
    /// Its public id, `wh_...`.
    pub id: String,
    /// http or https.
    pub url: String,
    /// Signs bodies in Relay's format; shown once, when it is created. `Debug` does not print it.
    pub secret: String,
    /// The events that it is sent, by name; an empty list means all.
    pub events: Vec<String>,
    /// `pusher` or `relay`.
    pub format: String,
    /// Up to 100 events in one request.
    pub batch: bool,
    /// It may have a private address, and be contacted over http (threat T19).
    pub allow_private: bool,
    /// `subscription_count` is spelled `subscription_count_changed` (R-HOOK-6).
    pub count_changed: bool,
    /// Nothing is sent to a disabled endpoint.
    pub enabled: bool,
    /// When it was created, unix ms.
    pub created_at_ms: u64,
    /// The credential that created it (R-ADMIN-5); unknown for an endpoint of an older Relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Creator>,
}

impl fmt::Debug for WebhookRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookRecord({}, {}, [secret])", self.id, self.url)
    }
}

impl WebhookRecord {
    /// True when its configuration matches `new`, as [`Store::upsert_webhook`](crate::store::Store::upsert_webhook)
    /// would leave it.
    pub fn does(&self, new: &NewWebhook) -> bool {
        let mut after = self.clone();
        after.take_over(new.clone());
        parse_kinds(&self.events).ok() == parse_kinds(&after.events).ok()
            && (self.batch, self.count_changed, self.allow_private)
                == (after.batch, after.count_changed, after.allow_private)
    }

    /// Applies this configuration. Relay's format has no batches and one spelling.
    pub(super) fn take_over(&mut self, new: NewWebhook) {
        self.events = new.events;
        if self.format == WebhookFormat::Pusher.label() {
            self.batch = new.batching == Batching::Batched;
            self.count_changed = new.count_name == CountName::Changed;
        }
        self.allow_private |= new.reach == Reach::Anywhere;
    }

    pub(super) fn to_endpoint(&self) -> Result<WebhookEndpoint, Fault> {
        let damaged = |what: &str| Fault::Record(format!("webhook {} has a bad {what}", self.id));
        Ok(WebhookEndpoint {
            id: self.id.as_str().into(),
            url: self.url.as_str().into(),
            secret: Secret::new(&self.secret),
            kinds: parse_kinds(&self.events).map_err(|_| damaged("event"))?,
            format: WebhookFormat::of_label(&self.format).ok_or_else(|| damaged("format"))?,
            batching: if self.batch { Batching::Batched } else { Batching::Single },
            reach: if self.allow_private { Reach::Anywhere } else { Reach::Public },
            count_name: if self.count_changed { CountName::Changed } else { CountName::Pusher },
            enabled: self.enabled,
        })
    }
}

/// Converts to the form that the shards use.
pub(super) fn to_webhooks(records: &[WebhookRecord]) -> Result<Webhooks, Fault> {
    Ok(Webhooks::new(records.iter().map(WebhookRecord::to_endpoint).collect::<Result<_, _>>()?))
}

/// The set of events with these names, all for an empty list; an unknown name is refused, and the error suggests the
/// nearest one.
pub(super) fn parse_kinds(names: &[String]) -> Result<WebhookKinds, StoreError> {
    if names.is_empty() {
        return Ok(WebhookKinds::all());
    }
    names.iter().try_fold(WebhookKinds::empty(), |kinds, name| {
        let kind = WebhookKind::from_name(name).ok_or_else(|| {
            let near = nearest(name, WebhookKind::LABELS.iter().copied());
            let known = WebhookKinds::all();
            StoreError::Invalid(format!("there is no webhook event {name:?}{near}; known are {known}"))
        })?;
        Ok(kinds.with(kind))
    })
}
