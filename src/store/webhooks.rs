//! Webhook endpoints in the store: part of their app's record, so that an app and its endpoints change in one commit.

use std::net::IpAddr;

use heed::RwTxn;
use ipnet::IpNet;
use ureq::http::Uri;

use super::environment::Tables;
use super::error::{Fault, StoreError};
use super::lookup::app_by_id;
use super::record::AppRecord;
use super::webhook_record::{WebhookRecord, parse_kinds};
use super::{Store, Upserted, all_apps, raise_version, random, unix_ms};
use crate::app::webhook::address::is_public;
use crate::app::webhook::{Batching, CountName, NewWebhook, Reach, WebhookFormat};
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

    /// Creates an endpoint with its own secret. `allowed` are networks that every endpoint may be in, in addition to
    /// public addresses.
    pub fn add_webhook(&self, app: &str, new: NewWebhook, allowed: &[IpNet]) -> Result<WebhookRecord, StoreError> {
        check_webhook(&new, allowed)?;
        self.environment().write(|transaction, tables| {
            let mut app = app_by_id(transaction, tables, app)?;
            let webhook = insert(&mut app, new)?;
            super::apps::put(transaction, tables, &app)?;
            raise_version(transaction, tables)?;
            Ok(webhook)
        })
    }

    /// Ensures that the app has an endpoint at this URL with this configuration. An existing one keeps its id, its
    /// secret, its format, its enabled state, and its permission to be at a private address once that was given.
    pub fn upsert_webhook(&self, app: &str, new: NewWebhook, allowed: &[IpNet]) -> Result<Upserted, StoreError> {
        self.change_all(|batch| batch.upsert_webhook(app, new, allowed))
    }

    /// Removes an endpoint, of this app if one is named; returns the id of its app and the removed record.
    pub fn remove_webhook(&self, app: Option<&str>, id: &str) -> Result<(String, WebhookRecord), StoreError> {
        self.change_webhook(app, id, |webhooks, index| webhooks.remove(index))
    }

    /// Turns an endpoint on or off; returns the id of its app and the new record.
    pub fn switch_webhook(&self, id: &str, enabled: bool) -> Result<(String, WebhookRecord), StoreError> {
        self.change_webhook(None, id, |webhooks, index| {
            webhooks[index].enabled = enabled;
            webhooks[index].clone()
        })
    }

    fn change_webhook(
        &self,
        app: Option<&str>,
        id: &str,
        change: impl FnOnce(&mut Vec<WebhookRecord>, usize) -> WebhookRecord,
    ) -> Result<(String, WebhookRecord), StoreError> {
        self.environment().write(|transaction, tables| {
            let apps = match app {
                Some(app) => vec![app_by_id(transaction, tables, app)?],
                None => all_apps(transaction, tables)?,
            };
            let position = |app: &AppRecord| app.webhooks.iter().position(|webhook| webhook.id == id);
            let found = apps.into_iter().find_map(|app| position(&app).map(|index| (app, index)));
            let (mut app, index) = found.ok_or_else(|| StoreError::UnknownWebhook(id.into()))?;
            let webhook = change(&mut app.webhooks, index);
            super::apps::put(transaction, tables, &app)?;
            raise_version(transaction, tables)?;
            Ok((app.id, webhook))
        })
    }
}

/// Creates the endpoint or applies this configuration to the one at its URL.
pub(super) fn upsert(
    transaction: &mut RwTxn<'_>,
    tables: &Tables,
    app: &str,
    new: NewWebhook,
) -> Result<Upserted, Fault> {
    let mut app = app_by_id(transaction, tables, app)?;
    let done = match app.webhooks.iter_mut().find(|webhook| webhook.url == new.url) {
        Some(webhook) if webhook.does(&new) => return Ok(Upserted::Same),
        Some(webhook) => {
            webhook.take_over(new);
            Upserted::Changed
        }
        None => {
            insert(&mut app, new)?;
            Upserted::Created
        }
    };
    super::apps::put(transaction, tables, &app)?;
    Ok(done)
}

/// Adds an endpoint with its own id and secret, up to the limit of an app.
fn insert(app: &mut AppRecord, new: NewWebhook) -> Result<WebhookRecord, Fault> {
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
        created_at_ms: unix_ms(),
    };
    app.webhooks.push(webhook.clone());
    Ok(webhook)
}

/// Refuses an endpoint that could not be created, independent of the store's content. `allowed` are networks that every
/// endpoint may be in, in addition to public addresses.
pub fn check_webhook(new: &NewWebhook, allowed: &[IpNet]) -> Result<(), StoreError> {
    check_url(&new.url, new.reach, allowed)?;
    parse_kinds(&new.events)?;
    if new.batching == Batching::Batched && new.format == WebhookFormat::Relay {
        return Err(StoreError::Invalid(
            "batches are for the pusher format: the relay format has one event per request".into(),
        ));
    }
    Ok(())
}

/// http or https with a host; no user, no fragment, no character that is invalid in a log line or a header (P-HOOK-9).
///
/// The addresses of a name are checked at each request; only errors visible in the URL itself are refused here, so that
/// they are reported when the URL is entered.
fn check_url(url: &str, reach: Reach, allowed: &[IpNet]) -> Result<(), StoreError> {
    let max = limits::WEBHOOK_URL_BYTES_MAX;
    let invalid = |text: String| Err(StoreError::Invalid(text));
    if url.len() > max {
        return invalid(format!("the webhook URL is longer than {max} bytes"));
    }
    // The URL itself is not repeated: the invalid part may be a password.
    let malformed = || {
        StoreError::Invalid(
            "a webhook URL must have the form https://host[:port][/path], without user or fragment, in visible ASCII"
                .into(),
        )
    };
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().ok_or_else(malformed)?);
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#');
    let has_bad_authority =
        authority.host().is_empty() || authority.as_str().contains('@') || !has_good_port(authority.as_str());
    if !matches!(scheme, "http" | "https") || !is_plain || has_bad_authority {
        return Err(malformed());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let literal = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let is_allowed = |address: IpAddr| allowed.iter().any(|network| network.contains(&address));
    match literal {
        _ if reach == Reach::Anywhere => Ok(()),
        Some(address) if is_allowed(address) => Ok(()),
        Some(address) if !is_public(address) => {
            invalid(format!("{address} is not a public address: permit it with --allow-private or webhook_allow"))
        }
        Some(_) | None if scheme == "http" && (literal.is_some() || allowed.is_empty()) => invalid(
            "webhooks must use https; permit http with --allow-private, or for addresses in webhook_allow".into(),
        ),
        Some(_) | None => Ok(()),
    }
}

/// True if there is no port or the port is a number.
fn has_good_port(authority: &str) -> bool {
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after_host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::webhook::WebhookKinds;
    use crate::store::{Missing, NewApp};

    fn new(url: &str) -> NewWebhook {
        NewWebhook { url: url.into(), ..NewWebhook::default() }
    }

    /// P-HOOK-9, threats T19, T24: valid webhook URLs, and those that are refused by their text alone.
    #[test]
    fn urls() {
        for url in
            ["https://example.com", "https://example.com:8443/a?b=c", "https://[2606:4700::1]/x", "https://1.1.1.1/"]
        {
            assert!(check_url(url, Reach::Public, &[]).is_ok(), "{url}");
        }
        for url in [
            "",
            "/path",
            "example.com",
            "ftp://example.com/",
            "https://",
            "https:///path",
            "https://user@example.com/",
            "https://u:p@example.com/",
            "https://example.com/#part",
            "https://example.com/a b",
            "https://example.com/\r\nX: y",
            "https://exämple.com/",
            "https://example.com:/",
            "https://example.com:0/",
            "https://example.com:99999/",
            "file:///etc/passwd",
            "HTTP//x",
            "javascript:alert(1)",
        ] {
            let error = check_url(url, Reach::Anywhere, &[]).expect_err(url).to_string();
            assert!(error.contains("the form https://") && !error.contains("u:p"), "{error}");
        }
        for url in [
            "https://127.0.0.1/",
            "http://10.1.2.3:8080/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/",
        ] {
            let error = check_url(url, Reach::Public, &[]).expect_err(url).to_string();
            assert!(error.contains("--allow-private"), "{error}");
            assert!(check_url(url, Reach::Anywhere, &[]).is_ok(), "{url}");
        }
        let allowed: [IpNet; 1] = ["10.0.0.0/8".parse().expect("a network")];
        for (url, accepted) in [
            ("http://10.1.2.3:8080/", true),
            ("https://10.1.2.3/", true),
            ("http://[::ffff:10.1.2.3]/", true),
            ("http://name.example/", true),
            ("http://1.1.1.1/", false),
            ("https://192.168.0.1/", false),
        ] {
            assert_eq!(check_url(url, Reach::Public, &allowed).is_ok(), accepted, "{url}");
        }
        assert!(check_url("http://name.example/", Reach::Public, &[]).is_err(), "http needs leave");
        let long = format!("https://example.com/{}", "x".repeat(limits::WEBHOOK_URL_BYTES_MAX - 20));
        assert_eq!(long.len(), limits::WEBHOOK_URL_BYTES_MAX);
        assert!(check_url(&long, Reach::Public, &[]).is_ok());
        assert!(check_url(&(long + "x"), Reach::Public, &[]).is_err());
    }

    /// P-HOOK-9, R-HOOK-1: an app has several endpoints, each with a filter; they are bounded and removed with their
    /// app; debug output contains no secret.
    #[test]
    fn endpoints_live_with_their_app() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(NewApp::default()).expect("app").id;
        let first = store.add_webhook(&app, new("https://example.com/1"), &[]).expect("first");
        assert!(first.id.starts_with("wh_") && first.secret.starts_with("whs_"));
        assert!(!format!("{first:?}").contains(&first.secret));
        let filtered =
            NewWebhook { events: vec!["member_added".into(), "cache.miss".into()], ..new("https://example.com/2") };
        let second = store.add_webhook(&app, filtered, &[]).expect("second");
        assert_ne!((&first.id, &first.secret), (&second.id, &second.secret));
        let snapshot = store.directory().expect("directory");
        let webhooks = &snapshot.app_by_id(&app).expect("app").webhooks;
        assert_eq!(webhooks.wanted(), WebhookKinds::all());
        assert_eq!(
            webhooks.endpoint(&second.id).map(|found| found.kinds.to_string()).as_deref(),
            Some("member_added,cache_miss")
        );

        let (of, removed) = store.remove_webhook(None, &first.id).expect("removed");
        assert_eq!((of, removed), (app.clone(), first.clone()));
        assert!(matches!(store.remove_webhook(None, &first.id), Err(StoreError::UnknownWebhook(_))));
        let version = store.version().expect("version");
        let (_, off) = store.switch_webhook(&second.id, false).expect("off");
        assert!(!off.enabled && store.version().expect("version") > version);
        let snapshot = store.directory().expect("directory");
        assert!(snapshot.app_by_id(&app).expect("app").webhooks.wanted().is_empty());

        for _ in 1..limits::WEBHOOKS_PER_APP_MAX {
            store.add_webhook(&app, new("https://example.com/"), &[]).expect("below the bound");
        }
        let error = store.add_webhook(&app, new("https://example.com/"), &[]).expect_err("at the bound");
        assert!(matches!(error, StoreError::TooManyWebhooks(_)), "{error}");
        let other = store.create_app(NewApp::default()).expect("app").id;
        assert!(store.remove_webhook(Some(&other), &second.id).is_err(), "it belongs to another app");
        store.delete_app(&app).expect("deleted");
        assert!(store.webhooks(None).expect("list").is_empty());
    }

    /// P-HOOK-9: a second request for a URL creates no second endpoint, and the operator's changes to the first one
    /// stay.
    #[test]
    fn an_endpoint_is_there_once() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(NewApp::default()).expect("app").id;
        let only = || store.webhooks(Some(&app)).expect("list").pop().expect("one").1;
        let told = |events: &[&str]| NewWebhook {
            events: events.iter().map(|name| (*name).into()).collect(),
            ..new("https://example.com/")
        };
        let upsert = |new| store.upsert_webhook(&app, new, &[]).expect("upsert");
        assert_eq!(upsert(told(&["member_added", "cache_miss"])), Upserted::Created);
        let (first, version) = (only(), store.version().expect("version"));
        assert_eq!(upsert(told(&["cache.miss", "member_added"])), Upserted::Same);
        assert_eq!((only(), store.version().expect("version")), (first.clone(), version), "nothing was written");

        store.switch_webhook(&first.id, false).expect("off");
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

        store.remove_webhook(None, &first.id).expect("removed");
        let relay = NewWebhook { format: WebhookFormat::Relay, ..told(&["cache_miss"]) };
        store.add_webhook(&app, relay, &[]).expect("added");
        let wish = NewWebhook { batching: Batching::Batched, ..told(&["cache_miss"]) };
        assert_eq!(upsert(wish), Upserted::Same, "batches are for the other format");
        assert!(store.upsert_webhook(&app, new("http://127.0.0.1/"), &[]).is_err());
    }

    /// P-HOOK-9, R-HOOK-2: an unknown event is refused and the error suggests the nearest; batches are for Pusher's
    /// format only.
    #[test]
    fn mistakes_make_no_endpoint() {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::open(directory.path(), Missing::Create).expect("opens");
        let app = store.create_app(NewApp::default()).expect("app").id;
        let slip = NewWebhook { events: vec!["channel_ocupied".into()], ..new("https://example.com/") };
        let error = store.add_webhook(&app, slip, &[]).expect_err("refused").to_string();
        assert!(error.contains("did you mean \"channel_occupied\"?"), "{error}");
        let batch =
            NewWebhook { batching: Batching::Batched, format: WebhookFormat::Relay, ..new("https://example.com/") };
        assert!(store.add_webhook(&app, batch, &[]).is_err());
        assert!(matches!(store.add_webhook("nope", new("https://example.com/"), &[]), Err(StoreError::UnknownApp(_))));
        assert!(store.webhooks(Some(&app)).expect("list").is_empty());
    }
}
