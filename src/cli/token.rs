//! `relay token ...`: app tokens in the store (R-TOKEN rules).

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::place::{Place, text};
use super::remote::RemoteArguments;
use super::{CommandError, StoreArguments, note, time};
use crate::admin::Operation;
use crate::admin::call::Call;
use crate::metrics::refusal_log::printable;
use crate::store::unix_ms;

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

pub(super) fn run(command: TokenCommand, remote: &RemoteArguments) -> Result<(), CommandError> {
    match command {
        TokenCommand::Create { app, name, scopes, expires_at, expires_in, store } => {
            let expires_at_ms = expiry(expires_at.as_deref(), expires_in.as_deref(), unix_ms())?;
            let scopes: Vec<&str> = scopes.iter().map(|scope| scope.trim()).collect();
            let mut fields = Map::from_iter([("name".to_owned(), json!(name)), ("scopes".to_owned(), json!(scopes))]);
            fields.extend(expires_at_ms.map(|end| ("expires_at".to_owned(), json!(time::rfc3339(end)))));
            let place = Place::new(store, remote)?;
            let created = place.call_with(Call::new(Operation::CreateToken).app(&app), fields)?;
            answer_created(&created, &place)
        }
        TokenCommand::List { app, store } => {
            let place = Place::new(store, remote)?;
            let call = match app {
                Some(app) => Call::new(Operation::ListAppTokens).app(&app),
                None => Call::new(Operation::ListTokens),
            };
            let tokens = place.list(&call, usize::MAX)?;
            place.answer(&json!(tokens), &list_text(&tokens))
        }
        TokenCommand::Rotate { id, store } => {
            let place = Place::new(store, remote)?;
            let created = place.call(&Call::new(Operation::RotateToken).item(&id))?;
            answer_created(&created, &place)
        }
        TokenCommand::Revoke { id, store } => {
            let place = Place::new(store, remote)?;
            let token = place.call(&Call::new(Operation::RevokeToken).item(&id))?;
            place.answer(&token, &format!("token {id} is revoked\n"))
        }
    }
}

/// Shows a new token, once.
pub(super) fn answer_created(created: &Value, place: &Place) -> Result<(), CommandError> {
    note("This is the only time that the token is shown.");
    place.answer(created, &format!("id     {}\ntoken  {}\n", text(created, "id"), text(created, "token")))
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

fn list_text(tokens: &[Value]) -> String {
    let mut table = Columns::new(["ID", "APP", "STATE", "LAST USED", "CREATED BY", "NAME"]);
    for token in tokens {
        let (id, app) = (text(token, "id").to_owned(), text(token, "app").to_owned());
        let (created_by, name) = (creator_text(token), printable(text(token, "name")));
        table.push([id, app, state(token).into(), last_used(token), created_by, name]);
    }
    table.to_string()
}

/// The state of a token of an app, or of an admin token.
pub(super) fn state(token: &Value) -> &'static str {
    let end = token["expires_at"].as_str().and_then(time::parse_rfc3339);
    match (token["revoked_at"].is_string(), end.is_some_and(|end| end <= unix_ms())) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "active",
    }
}

/// When a token was last used.
pub(super) fn last_used(token: &Value) -> String {
    token["last_used_at"].as_str().unwrap_or("never").to_owned()
}

/// The credential that created something; records of an older Relay do not name it.
pub(super) fn creator_text(value: &Value) -> String {
    value["created_by"].as_str().map_or_else(|| "unknown".into(), printable)
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
