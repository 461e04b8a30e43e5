//! The apps and tokens of a run, as facts of the test and as the directory that the shards receive.

use std::sync::Arc;

use relay::app::outgoing_url::Reach;
use relay::app::webhook::{Batching, CountName, WebhookEndpoint, WebhookFormat, WebhookKinds, Webhooks};
use relay::app::{App, AppKey, AppSerial, AppSettings, Directory, Scopes, Secret, Token};

use crate::client::sign::sha256;
use crate::history::HISTORIES;
use crate::random::Random;

/// Channels that events are replayed to begin with this.
pub(crate) const REPLAYS: &str = "replays-";

/// Only clients with ids subscribe to channels that begin with this.
pub(crate) const WITH_IDS: &str = "with-ids-";

/// The test's facts about an app.
#[derive(Clone, Debug)]
pub(crate) struct AppFacts {
    /// Its id in paths.
    pub(crate) id: String,
    /// Key pairs.
    pub(crate) keys: Vec<(String, String)>,
    /// Client events are on.
    pub(crate) client_events: bool,
    /// Users of a presence channel.
    pub(crate) members_max: u32,
    /// Bytes of event data.
    pub(crate) data_bytes_max: u32,
    /// Concurrent WebSockets; 0 means no quota.
    pub(crate) connections_max: u32,
    /// Requests, messages and channels are limited, far above the numbers that a run reaches: they are counted over all
    /// shards.
    pub(crate) counted: bool,
    /// Over quota the code is 4100 instead of 4004.
    pub(crate) soft_quota: bool,
    /// Watchlists are on.
    pub(crate) watchlist: bool,
    /// Connections must authorize themselves (P-AUTHZ-1).
    pub(crate) authorized_connections: bool,
    /// Subscribers receive the subscription count (P-COUNT-1).
    pub(crate) subscription_count: bool,
    /// False while disabled.
    pub(crate) enabled: bool,
    /// True once deleted.
    pub(crate) deleted: bool,
    /// Channels that are used.
    pub(crate) channels: Vec<String>,
}

/// The test's facts about a token.
#[derive(Clone, Debug)]
pub(crate) struct TokenFacts {
    /// The token itself.
    pub(crate) text: String,
    /// Its public id.
    pub(crate) id: String,
    /// Its app.
    pub(crate) app: usize,
    /// True once revoked.
    pub(crate) revoked: bool,
    /// True if it expired long ago.
    pub(crate) expired: bool,
}

/// Two apps: one with client events, one without, with two key pairs and with few members per channel.
pub(crate) fn apps(random: &mut Random, data_bytes_max: u32) -> Vec<AppFacts> {
    (0..2)
        .map(|number| {
            let mut channels = Vec::new();
            for prefix in ["", "private-", "presence-", "private-encrypted-", "", "presence-"] {
                channels.push(format!("{prefix}room-{}", random.below(10_000)));
            }
            channels.truncate(random.between(3, 6));
            if random.one_in(2) {
                channels.push("#server-to-user-user-1".to_owned());
            }
            let pairs = if number == 0 { 1 } else { 2 };
            // Targets of replays, and a channel of clients with ids alone, which tell originals from replays.
            channels.push(format!("{REPLAYS}{}", random.below(10_000)));
            channels.push(format!("{WITH_IDS}{}", random.below(10_000)));
            AppFacts {
                id: format!("{}", number + 1),
                keys: (0..pairs)
                    .map(|pair| (format!("key-{number}-{pair}"), format!("secret-{number}-{pair}")))
                    .collect(),
                client_events: number == 0,
                members_max: if number == 0 { 100 } else { random.between(1, 2) as u32 },
                data_bytes_max,
                connections_max: 0,
                counted: number == 1,
                soft_quota: false,
                watchlist: number == 0,
                authorized_connections: false,
                subscription_count: number == 0,
                enabled: true,
                deleted: false,
                channels,
            }
        })
        .collect()
}

/// Tokens: one that is good and will be revoked in some runs, one for the other app, one that has expired.
pub(crate) fn tokens() -> Vec<TokenFacts> {
    [(0, false), (0, false), (1, false), (0, true)]
        .into_iter()
        .enumerate()
        .map(|(number, (app, expired))| TokenFacts {
            text: format!("rly_{}", char::from(b'a' + number as u8).to_string().repeat(40)),
            id: format!("tok_{number}"),
            app,
            revoked: false,
            expired,
        })
        .collect()
}

/// The directory that shows these facts.
pub(crate) fn directory(version: u64, apps: &[AppFacts], tokens: &[TokenFacts]) -> Arc<Directory> {
    let apps_deleted: Vec<bool> = apps.iter().map(|app| app.deleted).collect();
    let apps = apps
        .iter()
        .enumerate()
        .filter(|(_, app)| !app.deleted)
        .map(|(number, app)| {
            let limit = |limit: u32| if app.counted { limit } else { 0 };
            App {
                serial: AppSerial(number as u32 + 1),
                id: app.id.as_str().into(),
                name: "simulated".into(),
                enabled: app.enabled,
                keys: app.keys.iter().map(|(key, secret)| AppKey::new(key, secret)).collect(),
                encryption_master_key: None,
                settings: AppSettings {
                    client_events: app.client_events,
                    max_connections: app.connections_max,
                    connection_limit_soft: app.soft_quota,
                    max_event_data_bytes: app.data_bytes_max,
                    max_presence_members: app.members_max,
                    max_channels: limit(1_000_000),
                    messages_per_day: limit(u32::MAX),
                    requests_per_minute: limit(20_000),
                    signed_requests_per_minute: limit(100_000),
                    watchlist: app.watchlist,
                    authorized_connections: app.authorized_connections,
                    subscription_count: app.subscription_count,
                    history_events: HISTORIES[number].0,
                    history_seconds: HISTORIES[number].1,
                    ..AppSettings::default()
                },
                webhooks: webhooks(),
            }
        })
        .collect();
    let tokens = tokens
        .iter()
        .filter(|token| !apps_deleted[token.app])
        .map(|token| Token {
            id: token.id.as_str().into(),
            hash: sha256(&token.text),
            app: AppSerial(token.app as u32 + 1),
            scopes: Scopes::default(),
            expires_at_ms: token.expired.then_some(1_000),
            revoked: token.revoked,
        })
        .collect();
    Arc::new(Directory::new(version, apps, tokens))
}

/// One endpoint that receives every event.
fn webhooks() -> Webhooks {
    Webhooks::new(vec![WebhookEndpoint {
        id: "wh_1".into(),
        url: "https://example.com/".into(),
        secret: Secret::new("whs_simulated"),
        kinds: WebhookKinds::all(),
        format: WebhookFormat::Pusher,
        batching: Batching::Single,
        reach: Reach::Public,
        count_name: CountName::Pusher,
        enabled: true,
    }])
}
