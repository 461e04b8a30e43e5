//! Requests that change the store (R-HOOK-8, R-TOKEN-10), or read what only the store has: the shard does not own the store, so a change is an output, and its
//! answer arrives as mail when it is on disk. The shard serves others meanwhile.

use super::command::Command;
use super::query::{Gathered, PendingQuery};
use super::response::ResponseSlot;
use super::{Call, Parts, Requests};
use crate::api::encryption_key::encode_master_key;
use crate::api::refusal::Refusal;
use crate::api::webhooks::encode_new_webhook;
use crate::app::actor::{Actor, ActorKind};
use crate::app::{App, AppSerial};
use crate::auth::request::{Caller, Credential};
use crate::connection::NONE;
use crate::limits;
use crate::shard::connections::{JSON, Response};
use crate::shard::io::{Change, ChangeKind, Output};
use crate::shard::mail::{AnswerId, ChangeRefused, Changed, PendingId};

impl Requests {
    /// Requests a change.
    ///
    /// # Errors
    /// 503 when too many are in flight: one app may have a multiple of the free ones (P-STAT-9).
    pub(super) fn ask_change(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        app: Box<str>,
        actor: Actor,
        what: ChangeKind,
    ) -> Result<(), Refusal> {
        let own = self.changes_in_flight.values().filter(|other| **other == app).count();
        let free = limits::STORE_CHANGES_PER_SHARD_MAX - self.changes_in_flight.len();
        if free == 0 || own >= (free - 1) * limits::APP_SHARE_OF_FREE {
            return Err(Refusal::unavailable("Too many changes are in flight: try again.", 1));
        }
        let serial = parts.context.directory.app_by_id(&app).map_or(AppSerial(NONE), |app| app.serial);
        let request = self.start_query(parts, reply_to, serial, Gathered::Nothing);
        self.changes_in_flight.insert(request.index, app.clone());
        let id = AnswerId { shard: parts.context.config.index, request };
        parts.context.outputs.push_back(Output::Change(Change { id, actor, app, what }));
        Ok(())
    }

    /// A change has ended.
    pub(super) fn handle_changed(&mut self, parts: &mut Parts<'_>, request: PendingId, changed: Changed) {
        self.changes_in_flight.remove(&request.index).expect("a change ends once");
        let (status, body) = match changed {
            Changed::Added(endpoint) => (201, encode_new_webhook(&endpoint)),
            Changed::Created(body) => (201, body),
            Changed::Listed(body) => return self.answer_list(parts, request, &body),
            Changed::Removed => (204, Vec::new()),
            Changed::MasterKey(key, stored) => (201, encode_master_key(&key, stored)),
            Changed::Refused(cause) => return self.refuse_query(parts, request, &refusal(cause)),
        };
        let PendingQuery { reply_to, .. } = self.take_query(parts, request);
        parts.connections.finish_request(
            parts.context,
            reply_to.connection,
            reply_to.ticket,
            &Response { status, content_type: JSON, extra: NOT_STORED, body: &body },
        );
    }
}

/// Some of these answers contain a secret.
const NOT_STORED: &str = "Cache-Control: no-store\r\n";

/// A change for the app of the caller, on behalf of the caller as the audit log and the records of what it creates name
/// it (R-ADMIN-4, R-ADMIN-5).
pub(super) fn change(parts: &mut Parts<'_>, call: Call<'_>, caller: &Caller, app: &App, what: ChangeKind) -> Command {
    let address = parts.connections.client_address(parts.context, call.slot, call.request);
    let actor = match &caller.credential {
        Credential::Signature(index) | Credential::KeyAndSecret(index) => {
            Actor::new(ActorKind::AppKey, &app.keys[*index].key, address)
        }
        Credential::Token(id, _) => Actor::new(ActorKind::AppToken, id, address),
        Credential::Authorizer | Credential::PublicKey(_) => unreachable!("they authorize subscriptions only"),
    };
    Command::Change(app.id.clone(), actor, what)
}

fn refusal(cause: ChangeRefused) -> Refusal {
    match cause {
        ChangeRefused::Invalid(reason) => Refusal::bad_request(reason),
        ChangeRefused::UnknownWebhook => Refusal::not_found("This app has no such webhook."),
        ChangeRefused::UnknownToken => Refusal::not_found("This app has no such token."),
        ChangeRefused::NoMasterKey => Refusal::not_found("This app stores no encryption master key."),
        ChangeRefused::UnknownApp => Refusal::not_found("The app was deleted."),
        ChangeRefused::Unwritable => Refusal::unavailable("The store cannot be written; nothing was changed.", 5),
    }
}
