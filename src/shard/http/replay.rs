//! Publishing kept events again (R-REPLAY-1, R-REPLAY-2), for a request over HTTP or for the admin API.
//!
//! ```text
//! request -> FindEvents to the owners -> FoundEvents of all of them -> permits for the messages -> publish
//! ```
//!
//! The shard with the request asks each shard that owns groups of the ids once. The events that they find are published
//! like those of any other request: all of them or none. Later requests of the connection wait until then, so that
//! requests take effect in the order in which they were sent, and a connection has one replay in flight.

use super::by_owner::{ByOwner, push_to_owner};
use super::command::{Command, Counted, ReplayRequest};
use super::permits::{is_counted, put_back_counted};
use super::response::ReplyTo;
use super::{Call, Parts, Requests};
use crate::api::answer::AnswerShape;
use crate::api::refusal::Refusal;
use crate::api::replay::{Declassify, KeptEvent, Replay};
use crate::app::{App, AppSerial, Scope};
use crate::auth::request::Caller;
use crate::index::ShardIndex;
use crate::protocol::event_id::EventId;
use crate::shard::mail::{FoundEvent, HttpMessage, PendingId, ReplayCall, WantedEvent};
use crate::wire::websocket;

/// A replay that waits for owners.
pub(super) struct PendingReplay {
    nonce: u32,
    reply_to: ReplyTo,
    request: ReplayRequest,
    /// Owners that have not answered.
    awaited: usize,
    /// The events by their number in the request, as far as they were found.
    found: Vec<Option<FoundEvent>>,
}

impl ReplayRequest {
    /// Of an app, for itself.
    pub(super) fn of_app(parts: &mut Parts<'_>, call: Call<'_>, caller: &Caller, app: &App, replay: Replay) -> Self {
        let client = parts.connections.client_address(parts.context, call.slot, call.request);
        let declassify = replay.declassify_by(&caller.credential);
        Self { source: app.serial, target: app.serial, replay, declassify, client, counted: Counted::new() }
    }
}

impl Requests {
    /// The admin API asks for a replay.
    pub(super) fn handle_replay_call(&mut self, parts: &mut Parts<'_>, call: ReplayCall) {
        let reply_to = ReplyTo::Admin(call.id);
        match of_admin(parts, call) {
            Ok(request) => self.start_replay(parts, reply_to, request),
            Err(refusal) => reply_to.refuse(parts, &refusal),
        }
    }

    /// Asks the owners for the events.
    pub(super) fn start_replay(&mut self, parts: &mut Parts<'_>, reply_to: ReplyTo, request: ReplayRequest) {
        reply_to.hold(parts);
        let (app, wanted) = (request.source, wanted_by_owner(parts, &request));
        let found = request.replay.events.iter().map(|_| None).collect();
        let nonce = self.next_nonce();
        let pending = PendingReplay { nonce, reply_to, request, awaited: wanted.len(), found };
        if wanted.is_empty() {
            return self.publish_found(parts, pending);
        }
        let request = PendingId { index: self.replays.insert(pending) as u32, nonce };
        for (owner, events) in wanted {
            parts.context.send(owner, HttpMessage::FindEvents { request, app, events });
        }
    }

    /// Looks for events on the shard that owns their groups.
    pub(super) fn handle_find_events(
        &self,
        parts: &mut Parts<'_>,
        from: ShardIndex,
        request: PendingId,
        app: AppSerial,
        events: &[WantedEvent],
    ) {
        let found = events.iter().filter_map(|event| parts.owner.find_event(parts.context, app, event)).collect();
        parts.context.send(from, HttpMessage::FoundEvents { request, events: found });
    }

    /// An owner has answered; with the last one the events are published.
    pub(super) fn handle_found_events(&mut self, parts: &mut Parts<'_>, request: PendingId, events: Vec<FoundEvent>) {
        let pending = self.replays.get_mut(request.index as usize).filter(|pending| pending.nonce == request.nonce);
        let pending = pending.expect("owners answer each request once");
        for event in events {
            let number = event.number as usize;
            pending.found[number] = Some(event);
        }
        pending.awaited -= 1;
        if pending.awaited == 0 {
            let pending = self.replays.remove(request.index as usize);
            // Nothing is published for a client that is gone: it would not know of it.
            if pending.reply_to.is_awaited(parts) {
                self.publish_found(parts, pending);
            } else {
                put_back_counted(parts, pending.request.source, pending.request.counted);
            }
        }
    }

    fn publish_found(&mut self, parts: &mut Parts<'_>, pending: PendingReplay) {
        let PendingReplay { reply_to, mut request, found, .. } = pending;
        let Some(app) = parts.context.take_app(request.target) else {
            return self.refuse_replay(parts, reply_to, &request, &gone());
        };
        let counted = std::mem::take(&mut request.counted);
        match self.prepare_replay(parts, &app, &request, &found) {
            Ok(command) => self.start_counted(parts, reply_to, &app, (command, counted)),
            Err(refusal) => {
                if !is_counted(&refusal) {
                    put_back_counted(parts, request.source, counted);
                }
                self.refuse_replay(parts, reply_to, &request, &refusal);
            }
        }
        parts.context.keep_app(app);
    }

    fn prepare_replay(
        &self,
        parts: &mut Parts<'_>,
        app: &App,
        request: &ReplayRequest,
        found: &[Option<FoundEvent>],
    ) -> Result<Command, Refusal> {
        if !app.enabled {
            return Err(Refusal::forbidden(format!("App {} is disabled.", app.id)));
        }
        let kept = found.iter().flatten().map(|FoundEvent { number, channel, frame }| KeptEvent {
            number: *number as usize,
            channel,
            text: websocket::payload(frame),
        });
        let kept: Vec<KeptEvent<'_>> = kept.collect();
        let publish = request.replay.publish(&kept, request.declassify, &app.settings)?;
        let body = request.replay.answer(|number| found.get(number).is_none_or(Option::is_none));
        self.prepare_publish_with(parts, app, &publish, AnswerShape::Whole(body.into()))
    }

    fn refuse_replay(&self, parts: &mut Parts<'_>, reply_to: ReplyTo, request: &ReplayRequest, refusal: &Refusal) {
        if let ReplyTo::Connection(_) = reply_to {
            let app = parts.context.directory.app(request.source).map(|app| app.id.clone()).unwrap_or_default();
            parts.context.note_request_refused(request.client, &app, Some(Scope::EventsPublish), refusal.status);
        }
        reply_to.refuse(parts, refusal);
        reply_to.resume(parts);
    }
}

/// A replay of the admin API, whose apps this shard may not know yet.
fn of_admin(parts: &Parts<'_>, call: ReplayCall) -> Result<ReplayRequest, Refusal> {
    let ReplayCall { app, replay, .. } = call;
    let find = |id: &str| {
        let found = parts.context.directory.app_by_id(id);
        found.map(|app| app.serial).ok_or_else(|| Refusal::not_found(format!("There is no app {id}.")))
    };
    let (source, target) = (find(&app)?, find(replay.target_app_id.as_deref().unwrap_or(&app))?);
    replay.check_channel(parts.context.config.options.channel_names)?;
    let declassify = if replay.declassify { Declassify::Permitted } else { Declassify::NotRequested };
    Ok(ReplayRequest { source, target, replay, declassify, client: None, counted: Counted::new() })
}

/// The ids that this server may have assigned to events of the app.
fn wanted_by_owner(parts: &Parts<'_>, request: &ReplayRequest) -> ByOwner<WantedEvent> {
    let mut by_owner = ByOwner::new();
    for (number, (_, id)) in request.replay.events.iter().enumerate() {
        let of_app = |id: EventId| parts.context.config.order.event_id(request.source, id.group, id.sequence);
        let Some(id) = id.filter(|id| of_app(*id) == *id) else { continue };
        let event = WantedEvent { number: number as u32, group: id.group, sequence: id.sequence };
        let owner = parts.context.owner_of_group(id.group);
        push_to_owner(&mut by_owner, owner, event);
    }
    by_owner
}

fn gone() -> Refusal {
    Refusal::not_found("The app was deleted.")
}
