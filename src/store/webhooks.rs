//! Webhook endpoints in the store: part of their app's record, so that an app and its endpoints change in one commit.

use ipnet::IpNet;

use super::audit::{AuditAction, Note};
use super::batch::Batch;
use super::error::{Fault, StoreError};
use super::lookup::app_by_id;
use super::record::AppRecord;
use super::webhook_record::{WebhookRecord, parse_kinds};
use super::{Store, Upserted, all_apps, random};
use crate::app::actor::Actor;
use crate::app::outgoing_url::{Reach, check_outgoing_url};
use crate::app::webhook::{Batching, CountName, NewWebhook, WebhookFormat};
use crate::label::Label;
use crate::limits;

impl Store {
    /// The endpoints of all apps or of one, each with the id of its app, oldest first.
    pub fn webhooks(&self, app: Option<&str>) -> Result<Vec<(String, WebhookRecord)>, StoreError> {
        self.environment().read(|transaction, tables| {
            let apps = match app {
                Some(id) => vec![app_by_id(transaction, tables, id)?],
                None => all_apps(transaction, tables)?,
            };
            let of_app = |app: AppRecord| app.webhooks.into_iter().map(move |webhook| (app.id.clone(), webhook));
            Ok(apps.into_iter().flat_map(of_app).collect())
        })
    }

    /// As [`Batch::add_webhook`].
    pub fn add_webhook(
        &self,
        actor: &Actor,
        app: &str,
        new: NewWebhook,
        allowed: &[IpNet],
    ) -> Result<WebhookRecord, StoreError> {
        self.change_all(actor, |batch| batch.add_webhook(app, new, allowed))
    }

    /// As [`Batch::upsert_webhook`].
    pub fn upsert_webhook(
        &self,
        actor: &Actor,
        app: &str,
        new: NewWebhook,
        allowed: &[IpNet],
    ) -> Result<Upserted, StoreError> {
        self.change_all(actor, |batch| batch.upsert_webhook(app, new, allowed))
    }

    /// As [`Batch::remove_webhook`].
    pub fn remove_webhook(
        &self,
        actor: &Actor,
        app: Option<&str>,
        id: &str,
    ) -> Result<(String, WebhookRecord), StoreError> {
        self.change_all(actor, |batch| batch.remove_webhook(app, id))
    }

    /// As [`Batch::switch_webhook`].
    pub fn switch_webhook(
        &self,
        actor: &Actor,
        app: Option<&str>,
        id: &str,
        enabled: bool,
    ) -> Result<(String, WebhookRecord), StoreError> {
        self.change_all(actor, |batch| batch.switch_webhook(app, id, enabled))
    }
}

impl Batch<'_, '_> {
    /// Creates an endpoint with its own secret. `allowed` are networks that every endpoint may be in, in addition to
    /// public addresses.
    pub fn add_webhook(&mut self, app: &str, new: NewWebhook, allowed: &[IpNet]) -> Result<WebhookRecord, StoreError> {
        check_webhook(&new, allowed)?;
        let mut app = self.app(app)?;
        let added = insert(self, &mut app, new);
        self.at(added)
    }

    /// Ensures that the app has an endpoint at this URL with this configuration. An existing one keeps its id, its
    /// secret, its format, its enabled state, and its permission to be at a private address once that was given.
    pub fn upsert_webhook(&mut self, app: &str, new: NewWebhook, allowed: &[IpNet]) -> Result<Upserted, StoreError> {
        check_webhook(&new, allowed)?;
        let done = upsert(self, app, new);
        self.at(done)
    }

    /// Removes an endpoint, of this app if one is named; returns the id of its app and the removed record.
    pub fn remove_webhook(&mut self, app: Option<&str>, id: &str) -> Result<(String, WebhookRecord), StoreError> {
        let (mut app, index) = self.find_webhook(app, id)?;
        let webhook = app.webhooks.remove(index);
        let done = self.put_app(&mut app);
        self.at(done)?;
        self.note(Note::new(AuditAction::WebhookRemove).app(&app.id).subject(id));
        Ok((app.id, webhook))
    }

    /// Turns an endpoint on or off, of this app if one is named; returns the id of its app and the new record.
    pub fn switch_webhook(
        &mut self,
        app: Option<&str>,
        id: &str,
        enabled: bool,
    ) -> Result<(String, WebhookRecord), StoreError> {
        let (mut app, index) = self.find_webhook(app, id)?;
        let before = std::mem::replace(&mut app.webhooks[index].enabled, enabled);
        if before != enabled {
            let done = self.put_app(&mut app);
            self.at(done)?;
            let (from, to) = (before.to_string(), enabled.to_string());
            let note = Note::new(AuditAction::WebhookChange).app(&app.id).subject(id);
            self.note(note.change("enabled", Some(&from), Some(&to)));
        }
        let webhook = app.webhooks[index].clone();
        Ok((app.id, webhook))
    }

    fn find_webhook(&self, app: Option<&str>, id: &str) -> Result<(AppRecord, usize), StoreError> {
        let apps = match app {
            Some(app) => vec![self.app(app)?],
            None => self.at(all_apps(self.transaction, self.tables))?,
        };
        let position = |app: &AppRecord| app.webhooks.iter().position(|webhook| webhook.id == id);
        let found = apps.into_iter().find_map(|app| position(&app).map(|index| (app, index)));
        found.ok_or_else(|| StoreError::UnknownWebhook(id.into()))
    }
}

/// Creates the endpoint or applies this configuration to the one at its URL.
fn upsert(batch: &mut Batch<'_, '_>, app: &str, new: NewWebhook) -> Result<Upserted, Fault> {
    let mut app = app_by_id(batch.transaction, batch.tables, app)?;
    match app.webhooks.iter_mut().find(|webhook| webhook.url == new.url) {
        Some(webhook) if webhook.does(&new) => return Ok(Upserted::Same),
        Some(webhook) => {
            let before = webhook.clone();
            webhook.take_over(new);
            let note = differences(&app.id, &before, webhook);
            batch.note(note);
        }
        None => {
            insert(batch, &mut app, new)?;
            return Ok(Upserted::Created);
        }
    }
    batch.put_app(&mut app)?;
    Ok(Upserted::Changed)
}

/// The entry about a change of an endpoint.
fn differences(app: &str, before: &WebhookRecord, after: &WebhookRecord) -> Note {
    let mut note = Note::new(AuditAction::WebhookChange).app(app).subject(&after.id);
    let (old, new) = (before.events.join(","), after.events.join(","));
    if old != new {
        note = note.change("events", Some(&old), Some(&new));
    }
    for (field, old, new) in [
        ("batch", before.batch, after.batch),
        ("count_changed", before.count_changed, after.count_changed),
        ("allow_private", before.allow_private, after.allow_private),
    ] {
        if old != new {
            note = note.change(field, Some(&old.to_string()), Some(&new.to_string()));
        }
    }
    note
}

/// Adds an endpoint with its own id and secret, up to the limit of an app.
fn insert(batch: &mut Batch<'_, '_>, app: &mut AppRecord, new: NewWebhook) -> Result<WebhookRecord, Fault> {
    if app.webhooks.len() >= limits::WEBHOOKS_PER_APP_MAX {
        return Err(StoreError::TooManyWebhooks(app.id.clone()).into());
    }
    let webhook = WebhookRecord {
        id: random::webhook_id(),
        url: new.url,
        secret: random::webhook_secret(),
        events: new.events,
        format: new.format.label().into(),
        batch: new.batching == Batching::Batched,
        allow_private: new.reach == Reach::Anywhere,
        count_changed: new.count_name == CountName::Changed,
        enabled: true,
        created_at_ms: batch.now_ms,
        created_by: Some(batch.creator()?),
    };
    app.webhooks.push(webhook.clone());
    batch.put_app(app)?;
    let private = if webhook.allow_private { "true" } else { "" };
    let note =
        Note::new(AuditAction::WebhookCreate).app(&app.id).subject(&webhook.id).with("url", origin(&webhook.url));
    batch.note(note.with("allow_private", private));
    Ok(webhook)
}

/// Scheme and host of a URL: the rest may be a secret of the receiver.
fn origin(url: &str) -> &str {
    let end = url.find("://").and_then(|at| url[at + 3..].find(['/', '?']).map(|length| at + 3 + length));
    &url[..end.unwrap_or(url.len())]
}

/// Refuses an endpoint that could not be created, independent of the store's content. `allowed` are networks that every
/// endpoint may be in, in addition to public addresses.
pub fn check_webhook(new: &NewWebhook, allowed: &[IpNet]) -> Result<(), StoreError> {
    check_outgoing_url("webhook", &new.url, new.reach, allowed).map_err(StoreError::Invalid)?;
    parse_kinds(&new.events)?;
    if new.batching == Batching::Batched && new.format == WebhookFormat::Relay {
        return Err(StoreError::Invalid(
            "batches are for the pusher format: the relay format has one event per request".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::webhook::WebhookKinds;
    use crate::store::{Missing, NewApp};

    fn new(url: &str) -> NewWebhook {
        NewWebhook { url: url.into(), ..NewWebhook::default() }
    }

    /// P-HOOK-9, R-HOOK-1: an app has several endpoints, each with a filter; they are bounded and removed with their
    /// app; debug output contains no secret.
    #[test]
    fn endpoints_live_with_their_app() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(&Actor::cli(0), NewApp::default()).expect("app").id;
        let first = store.add_webhook(&Actor::cli(0), &app, new("https://example.com/1"), &[]).expect("first");
        assert!(first.id.starts_with("wh_") && first.secret.starts_with("whs_"));
        assert!(!format!("{first:?}").contains(&first.secret));
        let filtered =
            NewWebhook { events: vec!["member_added".into(), "cache.miss".into()], ..new("https://example.com/2") };
        let second = store.add_webhook(&Actor::cli(0), &app, filtered, &[]).expect("second");
        assert_ne!((&first.id, &first.secret), (&second.id, &second.secret));
        let snapshot = store.directory().expect("directory");
        let webhooks = &snapshot.app_by_id(&app).expect("app").webhooks;
        assert_eq!(webhooks.wanted(), WebhookKinds::all());
        assert_eq!(
            webhooks.endpoint(&second.id).map(|found| found.kinds.to_string()).as_deref(),
            Some("member_added,cache_miss")
        );

        let (of, removed) = store.remove_webhook(&Actor::cli(0), None, &first.id).expect("removed");
        assert_eq!((of, removed), (app.clone(), first.clone()));
        assert!(matches!(store.remove_webhook(&Actor::cli(0), None, &first.id), Err(StoreError::UnknownWebhook(_))));
        let version = store.version().expect("version");
        let (_, off) = store.switch_webhook(&Actor::cli(0), None, &second.id, false).expect("off");
        assert!(!off.enabled && store.version().expect("version") > version);
        let snapshot = store.directory().expect("directory");
        assert!(snapshot.app_by_id(&app).expect("app").webhooks.wanted().is_empty());

        for _ in 1..limits::WEBHOOKS_PER_APP_MAX {
            store.add_webhook(&Actor::cli(0), &app, new("https://example.com/"), &[]).expect("below the bound");
        }
        let error =
            store.add_webhook(&Actor::cli(0), &app, new("https://example.com/"), &[]).expect_err("at the bound");
        assert!(matches!(error, StoreError::TooManyWebhooks(_)), "{error}");
        let other = store.create_app(&Actor::cli(0), NewApp::default()).expect("app").id;
        assert!(store.remove_webhook(&Actor::cli(0), Some(&other), &second.id).is_err(), "it belongs to another app");
        store.delete_app(&Actor::cli(0), &app).expect("deleted");
        assert!(store.webhooks(None).expect("list").is_empty());
    }

    /// P-HOOK-9: a second request for a URL creates no second endpoint, and the operator's changes to the first one
    /// stay.
    #[test]
    fn an_endpoint_is_there_once() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(&Actor::cli(0), NewApp::default()).expect("app").id;
        let only = || store.webhooks(Some(&app)).expect("list").pop().expect("one").1;
        let told = |events: &[&str]| NewWebhook {
            events: events.iter().map(|name| (*name).into()).collect(),
            ..new("https://example.com/")
        };
        let upsert = |new| store.upsert_webhook(&Actor::cli(0), &app, new, &[]).expect("upsert");
        assert_eq!(upsert(told(&["member_added", "cache_miss"])), Upserted::Created);
        let (first, version) = (only(), store.version().expect("version"));
        assert_eq!(upsert(told(&["cache.miss", "member_added"])), Upserted::Same);
        assert_eq!((only(), store.version().expect("version")), (first.clone(), version), "nothing was written");

        store.switch_webhook(&Actor::cli(0), None, &first.id, false).expect("off");
        let wish = NewWebhook { reach: Reach::Anywhere, batching: Batching::Batched, ..told(&["member_added"]) };
        assert_eq!(upsert(wish), Upserted::Changed);
        let changed = WebhookRecord {
            events: vec!["member_added".into()],
            batch: true,
            allow_private: true,
            enabled: false,
            ..first.clone()
        };
        assert_eq!(only(), changed);
        let public = NewWebhook { batching: Batching::Batched, ..told(&["member_added"]) };
        assert_eq!(upsert(public), Upserted::Same, "leave that was given is not taken back");

        store.remove_webhook(&Actor::cli(0), None, &first.id).expect("removed");
        let relay = NewWebhook { format: WebhookFormat::Relay, ..told(&["cache_miss"]) };
        store.add_webhook(&Actor::cli(0), &app, relay, &[]).expect("added");
        let wish = NewWebhook { batching: Batching::Batched, ..told(&["cache_miss"]) };
        assert_eq!(upsert(wish), Upserted::Same, "batches are for the other format");
        assert!(store.upsert_webhook(&Actor::cli(0), &app, new("http://127.0.0.1/"), &[]).is_err());
    }

    /// P-HOOK-9, R-HOOK-2: an unknown event is refused and the error suggests the nearest; batches are for Pusher's
    /// format only.
    #[test]
    fn mistakes_make_no_endpoint() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(&Actor::cli(0), NewApp::default()).expect("app").id;
        let slip = NewWebhook { events: vec!["channel_ocupied".into()], ..new("https://example.com/") };
        let error = store.add_webhook(&Actor::cli(0), &app, slip, &[]).expect_err("refused").to_string();
        assert!(error.contains("did you mean \"channel_occupied\"?"), "{error}");
        let batch =
            NewWebhook { batching: Batching::Batched, format: WebhookFormat::Relay, ..new("https://example.com/") };
        assert!(store.add_webhook(&Actor::cli(0), &app, batch, &[]).is_err());
        assert!(matches!(
            store.add_webhook(&Actor::cli(0), "nope", new("https://example.com/"), &[]),
            Err(StoreError::UnknownApp(_))
        ));
        assert!(store.webhooks(Some(&app)).expect("list").is_empty());
    }
}
