//! Requests that change the store (R-HOOK-8): the store is not the shard's, so a change is an output, and its answer
//! comes as mail when it is on disk. The shard goes on meanwhile.

use super::command::Place;
use super::gather::{Gather, Gathered};
use super::mail::{Body, PendingId};
use super::request::{JSON, Response};
use super::{Mail, Output, Shard, ShardIndex};
use crate::api::refusal::Refusal;
use crate::api::webhooks::encode_new_webhook;
use crate::app::AppSerial;
use crate::app::webhook::{NewWebhook, WebhookEndpoint};
use crate::connection::NONE;
use crate::limits;

/// A change of the store that a caller of the API asks for, as an output.
#[derive(Debug)]
pub struct Change {
    /// Names it in its answer.
    pub id: ChangeId,
    /// Id of the caller's app.
    pub app: Box<str>,
    /// What to do.
    pub what: ChangeKind,
}

/// What to change.
#[derive(Debug)]
pub enum ChangeKind {
    /// Make an endpoint.
    AddWebhook(NewWebhook),
    /// Remove the app's endpoint with this id.
    RemoveWebhook(Box<str>),
}

/// Names one change in its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChangeId {
    /// The shard that asked.
    pub shard: ShardIndex,
    request: PendingId,
}

/// How a change ended.
#[derive(Debug)]
pub enum Changed {
    /// The endpoint was made.
    Added(Box<WebhookEndpoint>),
    /// It was removed.
    Removed,
    /// Nothing was changed; the answer says why.
    Refused(Refusal),
}

impl Mail {
    /// The answer to a change, for the shard that asked; it comes as if that shard had sent it.
    pub fn changed(id: ChangeId, changed: Changed) -> Self {
        Self(Body::Changed { request: id.request, changed })
    }
}

impl Shard {
    /// Asks for a change.
    ///
    /// # Errors
    /// 503 when too many are in flight: of one app a multiple of what is free (P-STAT-9).
    pub(super) fn ask_change(&mut self, place: Place, app: Box<str>, what: ChangeKind) -> Result<(), Refusal> {
        let own = self.changes_in_flight.values().filter(|other| **other == app).count();
        let free = limits::STORE_CHANGES_PER_SHARD_MAX - self.changes_in_flight.len();
        if free == 0 || own >= (free - 1) * limits::APP_SHARE_OF_FREE {
            return Err(Refusal::unavailable("Too many changes are in flight: try again.", 1));
        }
        let serial = self.directory.app_by_id(&app).map_or(AppSerial(NONE), |app| app.serial);
        let request = self.start_gather(place, serial, Gathered::Nothing);
        self.changes_in_flight.insert(request.index, app.clone());
        let id = ChangeId { shard: self.config.index, request };
        self.outputs.push_back(Output::Change(Change { id, app, what }));
        Ok(())
    }

    /// A change has ended.
    pub(super) fn handle_changed(&mut self, request: PendingId, changed: Changed) {
        self.changes_in_flight.remove(&request.index).expect("a change ends once");
        let (status, body) = match changed {
            Changed::Added(endpoint) => (201, encode_new_webhook(&endpoint)),
            Changed::Removed => (204, Vec::new()),
            Changed::Refused(refusal) => return self.refuse_gather(request, &refusal),
        };
        let Gather { place, .. } = self.take_gather(request);
        self.finish_request(
            place.connection,
            place.ticket,
            &Response { status, content_type: JSON, extra: "", body: &body },
        );
    }
}
