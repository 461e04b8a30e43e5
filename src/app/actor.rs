//! Who changes the store: the actor of an entry in the audit log (R-ADMIN-4), and the creator of a token or webhook
//! endpoint (R-ADMIN-5).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::label::{Label, labels};

labels! {
    /// How an actor proved who it is.
    pub enum ActorKind {
        /// Access to the data directory: the command line.
        Cli => "cli",
        /// An admin token.
        AdminToken => "admin_token",
        /// A key and secret of an app, also by signature.
        AppKey => "app_key",
        /// A token of an app.
        AppToken => "app_token",
        /// A password: a user of the dashboard.
        User => "user",
        /// The server itself, at its start.
        Server => "server",
    }
}

/// Who makes a change, and from where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    /// Its kind of credential.
    pub kind: ActorKind,
    /// The public name of the credential: the id of a token, a key, the name of a user, `uid 0`. Never a secret.
    pub id: Box<str>,
    /// Its address as far as it is known (threat T26); `None` on the command line.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// An actor with a credential of this kind and name.
    pub fn new(kind: ActorKind, id: &str, address: Option<IpAddr>) -> Self {
        Self { kind, id: id.into(), address }
    }

    /// A command that this user of the system runs on the data directory.
    pub fn cli(uid: u32) -> Self {
        Self::new(ActorKind::Cli, &format!("uid {uid}"), None)
    }

    /// The server at its start.
    pub fn server() -> Self {
        Self::new(ActorKind::Server, "", None)
    }

    /// True for a credential of an app: its changes are kept apart from those of operators.
    pub fn is_of_app(&self) -> bool {
        matches!(self.kind, ActorKind::AppKey | ActorKind::AppToken)
    }
}

/// The credential that created a token or a webhook endpoint. The kind is text, so that a record of a later version can
/// be read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Creator {
    /// The label of an [`ActorKind`].
    pub kind: Box<str>,
    /// The public name of the credential.
    pub id: Box<str>,
    /// The key that created the token which is the creator: the token may be gone when the key is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
}

impl Creator {
    /// The creator of what this actor creates; for a token of an app, `key` is the key that created the token.
    pub fn new(actor: &Actor, key: Option<&str>) -> Self {
        Self { kind: actor.kind.label().into(), id: actor.id.clone(), key: key.map(Into::into) }
    }

    /// The key that it is or came from.
    pub fn key(&self) -> Option<&str> {
        if *self.kind == *ActorKind::AppKey.label() { Some(&self.id) } else { self.key.as_deref() }
    }
}

/// `app_key 2e6b...` or `app_token tok_... of key 2e6b...`; an empty id is left out.
impl fmt::Display for Creator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.id.is_empty() {
            write!(f, " {}", self.id)?;
        }
        self.key.as_ref().map_or(Ok(()), |key| write!(f, " of key {key}"))
    }
}
