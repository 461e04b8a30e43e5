//! `relay admin ...`: admin tokens, passwords and the audit log in the store (R-ADMIN rules).

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::columns::Columns;
use super::password::read_password;
use super::token::expiry;
use super::{CommandError, StoreArguments, actor, note, time};
use crate::metrics::refusal_log::printable;
use crate::store::audit::{AuditEntry, AuditQuery};
use crate::store::{AdminTokenRecord, Missing, NewAdminToken, NewPassword, Role, UserRecord, unix_ms};

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

pub(super) fn run(command: AdminCommand) -> Result<(), CommandError> {
    match command {
        AdminCommand::Token(command) => run_token(command),
        AdminCommand::Passwd { user, remove: true, store, .. } => {
            let removed = store.open(Missing::Refuse)?.remove_user(&actor(), &user)?;
            let json = json!({ "user": removed.name, "removed": true });
            store.answer(&json, &format!("user {} is removed\n", removed.name))
        }
        AdminCommand::Passwd { user, role, remove: false, store } => {
            // A directory that cannot be used is reported before a password is typed.
            let opened = store.open(Missing::Create)?;
            let password = read_password(&user)?;
            let new = NewPassword { user, password, role: role.map(Into::into) };
            let (user, is_new) = opened.set_password(&actor(), &new)?;
            let done = if is_new { "created" } else { "changed" };
            store.answer(&user_json(&user), &format!("user {} ({}) is {done}\n", user.name, user.role))
        }
        AdminCommand::Users { store } => {
            let users = store.open(Missing::Refuse)?.users()?;
            let mut table = Columns::new(["USER", "ROLE", "CHANGED"]);
            for user in &users {
                table.push([user.name.clone(), user.role.clone(), time::rfc3339(user.changed_at_ms)]);
            }
            store.answer(&users.iter().map(user_json).collect(), &table.to_string())
        }
        AdminCommand::Audit { limit, app, store } => {
            let query = AuditQuery { before: None, app: app.as_deref(), limit: limit as usize };
            let entries = store.open(Missing::Refuse)?.audit(query)?;
            store.answer(&entries.iter().map(audit_json).collect(), &audit_text(&entries))
        }
    }
}

fn run_token(command: AdminTokenCommand) -> Result<(), CommandError> {
    match command {
        AdminTokenCommand::Create { name, read_only, expires, store } => {
            let role = if read_only { Role::Viewer } else { Role::Admin };
            let expires_at_ms = expires.as_deref().map(|when| end(when, unix_ms())).transpose()?;
            let new = NewAdminToken { name, role, expires_at_ms };
            let created = store.open(Missing::Create)?.create_admin_token(&actor(), new)?;
            let mut json = token_json(&created.record);
            json["token"] = json!(created.token);
            note("This is the only time that the token is shown.");
            store.answer(&json, &format!("id     {}\ntoken  {}\n", created.record.id, created.token))
        }
        AdminTokenCommand::List { store } => {
            let tokens = store.open(Missing::Refuse)?.admin_tokens()?;
            store.answer(&tokens.iter().map(token_json).collect(), &list_text(&tokens))
        }
        AdminTokenCommand::Revoke { id, store } => {
            let token = store.open(Missing::Refuse)?.revoke_admin_token(&actor(), &id)?;
            store.answer(&token_json(&token), &format!("admin token {id} is revoked\n"))
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

fn token_json(token: &AdminTokenRecord) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "created_at": time::rfc3339(token.created_at_ms),
        "expires_at": token.expires_at_ms.map(time::rfc3339),
        "last_used_at": token.last_used_at_ms.map(time::rfc3339),
        "revoked_at": token.revoked_at_ms.map(time::rfc3339),
        "created_by": token.created_by.to_string(),
    })
}

fn list_text(tokens: &[AdminTokenRecord]) -> String {
    let mut table = Columns::new(["ID", "ROLE", "STATE", "LAST USED", "CREATED BY", "NAME"]);
    for token in tokens {
        let state = match (token.revoked_at_ms, token.is_active(unix_ms())) {
            (Some(_), _) => "revoked",
            (None, true) => "active",
            (None, false) => "expired",
        };
        let used = token.last_used_at_ms.map_or_else(|| "never".into(), time::rfc3339);
        let (role, created_by) = (printable(&token.role), printable(&token.created_by.to_string()));
        table.push([token.id.clone(), role, state.into(), used, created_by, printable(&token.name)]);
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

fn audit_json(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.number.to_string(),
        "at": time::rfc3339(entry.at_ms),
        "actor": { "kind": entry.actor, "id": entry.actor_id, "address": entry.address },
        "action": entry.action,
        "app": entry.app,
        "subject": entry.subject,
        "changes": entry.changes,
    })
}

/// The texts of entries were escaped when they were written.
fn audit_text(entries: &[AuditEntry]) -> String {
    let mut table = Columns::new(["TIME", "WHO", "FROM", "ACTION", "APP", "SUBJECT", "CHANGES"]);
    for entry in entries {
        let changes: Vec<String> = entry.changes.iter().map(ToString::to_string).collect();
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        table.push([
            time::rfc3339(entry.at_ms),
            format!("{} {}", entry.actor, entry.actor_id).trim_end().to_owned(),
            text(&entry.address),
            entry.action.clone(),
            text(&entry.app),
            text(&entry.subject),
            changes.join(", "),
        ]);
    }
    table.to_string()
}
