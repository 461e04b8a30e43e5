//! `relay token ...`: app tokens in the store (R-TOKEN rules).

use std::collections::HashMap;

use clap::Subcommand;
use serde_json::{Value, json};

use super::columns::Columns;
use super::{CommandError, StoreArguments, actor, note, time};
use crate::app::actor::Creator;
use crate::metrics::refusal_log::printable;
use crate::store::record::TokenRecord;
use crate::store::{CreatedToken, Missing, NewToken, Store, StoreError, unix_ms};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it; it is shown only once.
    Create {
        /// Id of the app.
        #[arg(long, value_name = "ID")]
        app: String,
        /// Display name.
        #[arg(long, default_value = "")]
        name: String,
        /// Permissions, such as events:publish,events:batch [default: all].
        #[arg(long, value_delimiter = ',', value_name = "SCOPES")]
        scopes: Vec<String>,
        /// Time of expiry, such as 2027-01-31T00:00:00Z [default: none].
        #[arg(long, value_name = "RFC3339", conflicts_with = "expires_in")]
        expires_at: Option<String>,
        /// Time until expiry, such as 30d, 12h, 90m or 45s.
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// List tokens by id, without their secret values.
    List {
        /// Only those of this app.
        #[arg(long, value_name = "ID")]
        app: Option<String>,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Replace a token by a new one with the same name, scopes and expiry, and print it; the old one is revoked.
    Rotate {
        /// Its id, tok_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Revoke a token permanently.
    Revoke {
        /// Its id, tok_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
}

pub(super) fn run(command: TokenCommand) -> Result<(), CommandError> {
    match command {
        TokenCommand::Create { app, name, scopes, expires_at, expires_in, store } => {
            let expires_at_ms = expiry(expires_at.as_deref(), expires_in.as_deref(), unix_ms())?;
            let scopes = scopes.iter().map(|scope| scope.trim().to_owned()).collect();
            let new = NewToken { app: app.clone(), name, scopes, expires_at_ms };
            let created = store.open(Missing::Refuse)?.create_token(&actor(), new)?;
            answer_created(&created, &app, &store)
        }
        TokenCommand::List { app, store } => {
            let opened = store.open(Missing::Refuse)?;
            let (tokens, apps) = (opened.tokens(app.as_deref())?, app_ids(&opened)?);
            let app_id = |token: &TokenRecord| apps.get(&token.app).cloned().unwrap_or_default();
            let json = tokens.iter().map(|token| token_json(token, &app_id(token))).collect();
            store.answer(&json, &list_text(&tokens, app_id))
        }
        TokenCommand::Rotate { id, store } => {
            let opened = store.open(Missing::Refuse)?;
            let created = opened.rotate_token(&actor(), None, &id)?;
            let app = app_ids(&opened)?.remove(&created.record.app).unwrap_or_default();
            answer_created(&created, &app, &store)
        }
        TokenCommand::Revoke { id, store } => {
            let opened = store.open(Missing::Refuse)?;
            let token = opened.revoke_token(&actor(), None, &id)?;
            let app = app_ids(&opened)?.remove(&token.app).unwrap_or_default();
            store.answer(&token_json(&token, &app), &format!("token {id} is revoked\n"))
        }
    }
}

/// Shows a new token, once.
fn answer_created(created: &CreatedToken, app: &str, store: &StoreArguments) -> Result<(), CommandError> {
    let mut json = token_json(&created.record, app);
    json["token"] = json!(created.token);
    note("This is the only time that the token is shown.");
    store.answer(&json, &format!("id     {}\ntoken  {}\n", created.record.id, created.token))
}

fn app_ids(store: &Store) -> Result<HashMap<u32, String>, StoreError> {
    Ok(store.apps()?.into_iter().map(|app| (app.serial, app.id)).collect())
}

/// The time of expiry from `--expires-at` or `--expires-in`.
pub(super) fn expiry(at: Option<&str>, within: Option<&str>, now_ms: u64) -> Result<Option<u64>, CommandError> {
    let end = match (at, within) {
        (None, None) => return Ok(None),
        (Some(at), _) => time::parse_rfc3339(at)
            .ok_or_else(|| format!("--expires-at takes a time such as 2027-01-31T00:00:00Z, not {at:?}")),
        (None, Some(within)) => {
            let end = time::parse_duration_ms(within).and_then(|length| now_ms.checked_add(length));
            let end = end.filter(|end| time::is_representable(*end));
            end.ok_or_else(|| format!("--expires-in takes a time such as 30d, 12h, 90m or 45s, not {within:?}"))
        }
    };
    let end = end.map_err(CommandError::Usage)?;
    if end <= now_ms {
        return Err(CommandError::Usage(format!("the token would end at {}, which is past", time::rfc3339(end))));
    }
    Ok(Some(end))
}

fn token_json(token: &TokenRecord, app: &str) -> Value {
    json!({
        "id": token.id,
        "app": app,
        "name": token.name,
        "scopes": token.scopes,
        "created_at": time::rfc3339(token.created_at_ms),
        "expires_at": token.expires_at_ms.map(time::rfc3339),
        "last_used_at": token.last_used_at_ms.map(time::rfc3339),
        "revoked_at": token.revoked_at_ms.map(time::rfc3339),
        "created_by": token.created_by.as_ref().map(ToString::to_string),
    })
}

/// The credential that created something; records of an older Relay do not name it.
pub(super) fn creator_text(creator: Option<&Creator>) -> String {
    creator.map_or_else(|| "unknown".into(), |creator| printable(&creator.to_string()))
}

fn list_text(tokens: &[TokenRecord], app_id: impl Fn(&TokenRecord) -> String) -> String {
    let mut table = Columns::new(["ID", "APP", "STATE", "LAST USED", "CREATED BY", "NAME"]);
    for token in tokens {
        let expired = token.expires_at_ms.is_some_and(|end| end <= unix_ms());
        let state = match (token.revoked_at_ms, expired) {
            (Some(_), _) => "revoked",
            (None, true) => "expired",
            (None, false) => "active",
        };
        let used = token.last_used_at_ms.map_or_else(|| "never".into(), time::rfc3339);
        let created_by = creator_text(token.created_by.as_ref());
        table.push([token.id.clone(), app_id(token), state.into(), used, created_by, printable(&token.name)]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R-TOKEN-3: both ways to specify an expiry, and expiries that are past or invalid.
    #[test]
    fn ends() {
        let now = 1_700_000_000_000;
        assert_eq!(expiry(None, None, now).expect("none"), None);
        assert_eq!(expiry(None, Some("30d"), now).expect("30d"), Some(now + 30 * 86_400_000));
        let at = expiry(Some("2027-01-31T01:00:00+01:00"), None, now).expect("at");
        assert_eq!(at, Some(1_801_353_600_000));
        for (at, within) in
            [(Some("2020-01-01T00:00:00Z"), None), (Some("tomorrow"), None), (None, Some("30")), (None, Some("0s"))]
        {
            let error = expiry(at, within, now).expect_err("refused");
            assert!(matches!(error, CommandError::Usage(_)), "{error}");
        }
    }
}
