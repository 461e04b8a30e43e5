//! `relay admin ...`: admin tokens, passwords and the audit log in the store (R-ADMIN rules).

use clap::{Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::columns::Columns;
use super::password::read_password;
use super::place::{Place, text};
use super::remote::RemoteArguments;
use super::token::{answer_created, creator_text, expiry, last_used, state};
use super::{CommandError, StoreArguments, actor, time};
use crate::admin::Operation;
use crate::admin::call::Call;
use crate::metrics::refusal_log::printable;
use crate::store::audit::AuditChange;
use crate::store::{Missing, NewPassword, Role, UserRecord, unix_ms};

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Create, list and revoke admin tokens.
    #[command(subcommand)]
    Token(AdminTokenCommand),
    /// Set the password of a user of the dashboard; it is read from the terminal or standard input.
    Passwd {
        /// Name of the user; a new one is created.
        #[arg(long, value_name = "NAME")]
        user: String,
        /// Role of the user [default: unchanged, admin for a new user].
        #[arg(long, conflicts_with = "remove")]
        role: Option<RoleArgument>,
        /// Remove the user instead.
        #[arg(long)]
        remove: bool,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// List the users of the dashboard.
    Users {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Show who changed what, the newest first.
    Audit {
        /// Show this many entries.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Only entries about this app.
        #[arg(long, value_name = "ID")]
        app: Option<String>,
        #[command(flatten)]
        store: StoreArguments,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AdminTokenCommand {
    /// Create an admin token and print it; it is shown only once.
    Create {
        /// Display name.
        #[arg(long, default_value = "")]
        name: String,
        /// It may read, without secrets, and change nothing.
        #[arg(long)]
        read_only: bool,
        /// Expiry: a time such as 2027-01-31T00:00:00Z, or a duration such as 30d, 12h or 90m [default: none].
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        #[command(flatten)]
        store: StoreArguments,
    },
    /// List admin tokens by id, without their secret values.
    List {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Revoke an admin token permanently.
    Revoke {
        /// Its id, adm_...
        id: String,
        #[command(flatten)]
        store: StoreArguments,
    },
}

/// A role on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RoleArgument {
    /// Everything.
    Admin,
    /// Read only.
    Viewer,
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Self {
        match role {
            RoleArgument::Admin => Self::Admin,
            RoleArgument::Viewer => Self::Viewer,
        }
    }
}

pub(super) fn run(command: AdminCommand, remote: &RemoteArguments) -> Result<(), CommandError> {
    match command {
        AdminCommand::Token(command) => run_token(command, remote),
        AdminCommand::Passwd { user, role, remove, store } => {
            let place = Place::new(store, remote)?;
            let store = place.local("admin passwd")?;
            if remove { remove_user(&user, store) } else { set_password(user, role, store) }
        }
        AdminCommand::Users { store } => {
            let place = Place::new(store, remote)?;
            let store = place.local("admin users")?;
            let users = store.open(Missing::Refuse)?.users()?;
            let mut table = Columns::new(["USER", "ROLE", "CHANGED"]);
            for user in &users {
                table.push([user.name.clone(), user.role.clone(), time::rfc3339(user.changed_at_ms)]);
            }
            store.answer(&users.iter().map(user_json).collect(), &table.to_string())
        }
        AdminCommand::Audit { limit, app, store } => {
            let place = Place::new(store, remote)?;
            let call = Call::new(Operation::ListAudit);
            let call = app.into_iter().fold(call, |call, app| call.with("app", app));
            let entries = place.list(&call, limit as usize)?;
            place.answer(&json!(entries), &audit_text(&entries))
        }
    }
}

fn remove_user(user: &str, store: &StoreArguments) -> Result<(), CommandError> {
    let removed = store.open(Missing::Refuse)?.remove_user(&actor(), user)?;
    let json = json!({ "user": removed.name, "removed": true });
    store.answer(&json, &format!("user {} is removed\n", removed.name))
}

fn set_password(user: String, role: Option<RoleArgument>, store: &StoreArguments) -> Result<(), CommandError> {
    // A directory that cannot be used is reported before a password is typed.
    let opened = store.open(Missing::Create)?;
    let password = read_password(&user)?;
    let new = NewPassword { user, password, role: role.map(Into::into) };
    let (user, is_new) = opened.set_password(&actor(), &new)?;
    let done = if is_new { "created" } else { "changed" };
    store.answer(&user_json(&user), &format!("user {} ({}) is {done}\n", user.name, user.role))
}

fn run_token(command: AdminTokenCommand, remote: &RemoteArguments) -> Result<(), CommandError> {
    match command {
        AdminTokenCommand::Create { name, read_only, expires, store } => {
            let expires_at_ms = expires.as_deref().map(|when| end(when, unix_ms())).transpose()?;
            let fields = [("name", json!(name)), ("read_only", json!(read_only))];
            let mut fields: Map<String, Value> =
                fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
            fields.extend(expires_at_ms.map(|end| ("expires_at".to_owned(), json!(time::rfc3339(end)))));
            let place = Place::new(store, remote)?;
            answer_created(&place.call_with(Call::new(Operation::CreateAdminToken), fields)?, &place)
        }
        AdminTokenCommand::List { store } => {
            let place = Place::new(store, remote)?;
            let tokens = place.list(&Call::new(Operation::ListAdminTokens), usize::MAX)?;
            place.answer(&json!(tokens), &list_text(&tokens))
        }
        AdminTokenCommand::Revoke { id, store } => {
            let place = Place::new(store, remote)?;
            let token = place.call(&Call::new(Operation::RevokeAdminToken).item(&id))?;
            place.answer(&token, &format!("admin token {id} is revoked\n"))
        }
    }
}

/// A time of expiry, or a duration until then.
fn end(when: &str, now_ms: u64) -> Result<u64, CommandError> {
    let is_duration = time::parse_duration_ms(when).is_some();
    let end = if is_duration { expiry(None, Some(when), now_ms) } else { expiry(Some(when), None, now_ms) };
    let usage = || {
        let text = "--expires takes a time such as 2027-01-31T00:00:00Z, or a duration such as 30d, 12h or 90m";
        CommandError::Usage(format!("{text}, not {when:?}"))
    };
    match end {
        Err(_) if !is_duration && time::parse_rfc3339(when).is_none() => Err(usage()),
        Ok(None) => Err(usage()),
        Ok(Some(end)) => Ok(end),
        Err(error) => Err(error),
    }
}

fn list_text(tokens: &[Value]) -> String {
    let mut table = Columns::new(["ID", "ROLE", "STATE", "LAST USED", "CREATED BY", "NAME"]);
    for token in tokens {
        let (id, role, name) = (text(token, "id"), text(token, "role"), text(token, "name"));
        let (used, created_by) = (last_used(token), creator_text(token));
        table.push([printable(id), printable(role), state(token).into(), used, created_by, printable(name)]);
    }
    table.to_string()
}

fn user_json(user: &UserRecord) -> Value {
    json!({
        "user": user.name,
        "role": user.role,
        "created_at": time::rfc3339(user.created_at_ms),
        "changed_at": time::rfc3339(user.changed_at_ms),
    })
}

fn audit_text(entries: &[Value]) -> String {
    let mut table = Columns::new(["TIME", "WHO", "FROM", "ACTION", "APP", "SUBJECT", "CHANGES"]);
    for entry in entries {
        let changes: Vec<String> = entry["changes"].as_array().into_iter().flatten().map(change_text).collect();
        let member = |value: &Value, name: &str| match value[name].as_str() {
            Some(text) => printable(text),
            None => "-".to_owned(),
        };
        let who = format!("{} {}", text(&entry["actor"], "kind"), text(&entry["actor"], "id"));
        table.push([
            member(entry, "at"),
            printable(who.trim_end()),
            member(&entry["actor"], "address"),
            member(entry, "action"),
            member(entry, "app"),
            member(entry, "subject"),
            printable(&changes.join(", ")),
        ]);
    }
    table.to_string()
}

fn change_text(change: &Value) -> String {
    AuditChange::deserialize(change).map_or_else(|_| text(change, "field").to_owned(), |change| change.to_string())
}
