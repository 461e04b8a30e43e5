//! Publishing over HTTP: encoded once, sent to the owner of each channel, answered when all have accepted (P-HTTP-17).

use smallvec::SmallVec;

use super::Shard;
use super::command::{Command, Events, Place};
use super::deliver::text_frame;
use super::mail::{Body, ChannelKey, PendingId, PublishItem, publish_cost};
use super::owner::Source;
use super::request::{JSON, Response};
use crate::api::answer::{AnswerShape, Counts};
use crate::api::events::Publish;
use crate::api::refusal::Refusal;
use crate::app::App;
use crate::channel::name::Modifiers;
use crate::connection::ConnectionKey;
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::server_event;

/// A request that owners have yet to accept.
pub(super) struct PendingPublish {
    nonce: u32,
    connection: ConnectionKey,
    ticket: u32,
    /// Owners that have not answered.
    awaited: usize,
    shape: AnswerShape,
    /// By item number, when the answer tells counts.
    counts: Vec<Counts>,
}

impl Shard {
    /// Encodes what a request publishes; nothing is published yet.
    ///
    /// # Errors
    /// 413 when it is more than one request may publish (P-LIM-11), 503 when the app has no room for it in the memory of a shard (P-STAT-9).
    pub(super) fn prepare_publish(&mut self, app: &App, publish: &Publish<'_>) -> Result<Command, Refusal> {
        let bytes = publish.events.iter().map(|event| event.channels.len() * event.data_literal.len()).sum();
        if bytes > limits::PUBLISHED_BYTES_MAX {
            return Err(Refusal::too_large(format!(
                "A request publishes at most {} bytes: the data of its events, once for each channel. These are {bytes}.",
                limits::PUBLISHED_BYTES_MAX
            )));
        }
        if !self.may_publish(app.serial, bytes) {
            self.count_overload(Overload::Memory);
            return Err(overloaded());
        }
        let shape = AnswerShape::of(publish);
        Ok(Command::Publish(self.group_by_owner(app, publish, &shape), shape))
    }

    /// Publishes all of a request or nothing of it.
    pub(super) fn publish(&mut self, place: Place, events: Events, shape: AnswerShape) -> Result<(), Refusal> {
        let Events { app, mut by_owner, unheard } = events;
        if !by_owner.iter().all(|(owner, items)| self.can_pay(app, *owner, publish_cost(items))) {
            self.count_overload(Overload::Credit);
            return Err(overloaded());
        }
        self.count_events(app, Source::Http, unheard);
        let counts = !shape.needs_no_counts();
        // What concerns no other shard is done at once, unless mail to itself is yet to be handled before it.
        let is_own = by_owner.iter().all(|(owner, _)| *owner == self.config.index);
        if by_owner.is_empty() || (is_own && self.own_mail.is_empty()) {
            let mut counted = Vec::new();
            for item in by_owner.drain(..).flat_map(|(_, items)| items) {
                self.own_event(Source::Http, counts, item, &mut counted);
            }
            let counted: Vec<Counts> = counted.into_iter().map(|(_, counts)| counts).collect();
            self.answer_publish(place.connection, place.ticket, &shape, &counted);
            return Ok(());
        }
        let count = if counts { by_owner.iter().map(|(_, items)| items.len()).sum() } else { 0 };
        self.pending_nonce = self.pending_nonce.wrapping_add(1);
        let pending = PendingPublish {
            nonce: self.pending_nonce,
            connection: place.connection,
            ticket: place.ticket,
            awaited: by_owner.len(),
            shape,
            counts: vec![Counts::default(); count],
        };
        let request = PendingId { index: self.pending.insert(pending) as u32, nonce: self.pending_nonce };
        for (owner, items) in by_owner {
            let sent = self.send_paid(owner, app.0, Body::Publish { request: Some(request), counts, items });
            assert!(sent.is_ok(), "the credit was checked for every owner");
        }
        Ok(())
    }

    /// One mail per owner, its items in the order of the request; every event is encoded here, once per channel. Events
    /// that nobody hears are only counted, where nothing can delay the request or ask for what depends on them.
    fn group_by_owner(&mut self, app: &App, publish: &Publish<'_>, shape: &AnswerShape) -> Events {
        let mut events = Events { app: app.serial, by_owner: SmallVec::new(), unheard: 0 };
        let may_skip = shape.needs_no_counts() && !self.may_wait(app);
        let mut number = 0;
        for event in &publish.events {
            let exclude = event.exclude.and_then(|id| self.connection_of(id));
            for name in &event.channels {
                let hash = self.channel_hash(app.serial, name);
                let is_cached = Modifiers::of(name).cache;
                if may_skip && !is_cached && self.is_unheard(app.serial, name, hash) {
                    events.unheard += 1;
                    continue;
                }
                let channel = ChannelKey { app: app.serial, name: (&**name).into(), hash };
                let frame = text_frame(&mut self.scratch, |out| {
                    server_event::encode_channel_event(out, &event.name, name, &event.data_literal, None);
                });
                let owner = self.owner_of(&channel);
                let cache = is_cached.then_some(event.data_literal.len() as u32);
                let item = PublishItem { channel, frame, exclude, cache, number, sent: None };
                number += 1;
                match events.by_owner.iter_mut().find(|(to, _)| *to == owner) {
                    Some((_, items)) => items.push(item),
                    None => events.by_owner.push((owner, vec![item])),
                }
            }
        }
        events
    }

    /// An owner has accepted its part; with the last one the request is answered.
    pub(super) fn handle_accepted_publish(&mut self, request: PendingId, counts: Vec<(u32, Counts)>, unheard: &[u64]) {
        self.note_unheard(unheard);
        let pending = self.pending.get_mut(request.index as usize).filter(|pending| pending.nonce == request.nonce);
        let pending = pending.expect("owners answer each request once");
        for (number, count) in counts {
            pending.counts[number as usize] = count;
        }
        pending.awaited -= 1;
        if pending.awaited == 0 {
            let PendingPublish { connection, ticket, shape, counts, .. } = self.pending.remove(request.index as usize);
            self.answer_publish(connection, ticket, &shape, &counts);
        }
    }

    fn answer_publish(&mut self, connection: ConnectionKey, ticket: u32, shape: &AnswerShape, counts: &[Counts]) {
        let mut body = Vec::new();
        shape.encode(&mut body, counts);
        let response = Response { status: shape.status(), content_type: JSON, extra: "", body: &body };
        self.finish_request(connection, ticket, &response);
    }
}

fn overloaded() -> Refusal {
    Refusal::unavailable("The server is overloaded, nothing was published: try again.", 1)
}
