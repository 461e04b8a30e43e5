//! The app of the configuration: it is in the store before the server listens, with this key pair. Its other properties
//! in the configuration apply when the start creates it; afterwards the store defines them.

use ipnet::IpNet;

use super::migrate;
use crate::app::actor::Actor;
use crate::config::ConfiguredApp;
use crate::store::record::AppRecord;
use crate::store::{Store, StoreError, Upserted, setting};

/// Creates the app, or gives it the key pair (conventions of `RELAY_APP_*`). `allowed` are networks in which every
/// webhook may be.
pub(super) fn ensure(store: &Store, app: &ConfiguredApp, allowed: &[IpNet]) -> Result<(), StoreError> {
    let mut wished = AppRecord::stand_in();
    for (name, value) in &app.settings {
        setting::apply(&mut wished, name, value)?;
    }
    match store.upsert_app(&Actor::server(), &app.id, &app.key, app.secret.expose(), wished.settings)? {
        Upserted::Created => complete(store, app, allowed)?,
        Upserted::Changed => {
            tracing::info!(app = app.id, "gave the app the key pair of the configuration");
            warn_of_others(store, app)?;
        }
        Upserted::Same => warn_of_others(store, app)?,
    }
    if !store.app(&app.id)?.enabled {
        tracing::warn!(app = app.id, "the app of the configuration is disabled: `relay app enable` it to serve it");
    }
    Ok(())
}

/// Gives a new app its properties other than the settings, and logs the result.
fn complete(store: &Store, app: &ConfiguredApp, allowed: &[IpNet]) -> Result<(), StoreError> {
    if !app.enabled {
        store.change_app(&Actor::server(), &app.id, |record| {
            record.enabled = false;
            Ok(())
        })?;
    }
    if let Some((variable, list)) = &app.webhooks {
        let (webhooks, losses) = migrate::webhooks_of(variable, list, allowed);
        for webhook in webhooks {
            store.upsert_webhook(&Actor::server(), &app.id, webhook, allowed)?;
        }
        for (at, reason) in losses {
            tracing::warn!(app = app.id, "{at} is not taken: {reason}");
        }
    }
    let settings: Vec<String> = app.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tracing::info!(app = app.id, settings = settings.join(" "), "made the app of the configuration");
    Ok(())
}

/// Logs the settings that the configuration names and that have another value in an existing app.
fn warn_of_others(store: &Store, app: &ConfiguredApp) -> Result<(), StoreError> {
    let before = store.app(&app.id)?;
    let mut others = Vec::new();
    for (name, value) in &app.settings[..app.explicit] {
        let mut after = before.clone();
        setting::apply(&mut after, name, value)?;
        if after != before {
            others.push(format!("{name}={value}"));
        }
    }
    if before.enabled && !app.enabled {
        others.push("disabled".into());
    }
    if !others.is_empty() {
        tracing::warn!(
            app = app.id,
            "the app has other settings than the configuration, which counts only when the start makes the app: \
             use `relay app set` to change {}",
            others.join(" ")
        );
    }
    Ok(())
}
