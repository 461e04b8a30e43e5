//! Publishing over HTTP: encoded once, sent to the owner of each channel, answered when all have accepted (P-HTTP-17).

use super::by_owner::{ByOwner, push_to_owner};
use super::command::{Command, Events};
use super::response::ReplyTo;
use super::{Parts, Requests};
use crate::api::answer::{AnswerShape, Counts};
use crate::api::events::Publish;
use crate::api::refusal::Refusal;
use crate::app::{App, AppSerial};
use crate::channel::name::Modifiers;
use crate::index::ShardIndex;
use crate::limits;
use crate::metrics::figures::Overload;
use crate::protocol::server_event;
use crate::shard::connections::{JSON, Response};
use crate::shard::mail::{ChannelKey, OwnerMessage, PendingId, PublishItem, publish_cost};
use crate::shard::owner::{Origin, keeps_history};

/// A request that owners have yet to accept.
pub(super) struct PendingPublish {
    nonce: u32,
    reply_to: ReplyTo,
    /// Owners that have not answered.
    awaited: usize,
    shape: AnswerShape,
    /// By item number, when the answer includes counts.
    counts: Vec<Counts>,
}

impl Requests {
    /// Encodes the events of a request; nothing is published yet.
    ///
    /// # Errors
    /// 413 when it is more than one request may publish (P-LIM-11), 503 when the app has no space for it in the memory
    /// of a shard (P-STAT-9).
    pub(super) fn prepare_publish(
        &self,
        parts: &mut Parts<'_>,
        app: &App,
        publish: &Publish<'_>,
    ) -> Result<Command, Refusal> {
        self.prepare_publish_with(parts, app, publish, AnswerShape::of(publish))
    }

    /// The same, with another answer than that of the endpoint.
    ///
    /// # Errors
    /// As [`Requests::prepare_publish`].
    pub(super) fn prepare_publish_with(
        &self,
        parts: &mut Parts<'_>,
        app: &App,
        publish: &Publish<'_>,
        shape: AnswerShape,
    ) -> Result<Command, Refusal> {
        let bytes = publish.events.iter().map(|event| event.channels.len() * event.data_literal.len()).sum();
        if bytes > limits::PUBLISHED_BYTES_MAX {
            return Err(Refusal::too_large(format!(
                "A request publishes at most {} bytes: the data of its events, once for each channel. These are {bytes}.",
                limits::PUBLISHED_BYTES_MAX
            )));
        }
        if !parts.connections.may_publish(app.serial, bytes) {
            parts.context.metrics.count_overload(Overload::Memory);
            return Err(overloaded());
        }
        Ok(Command::Publish(self.group_by_owner(parts, app, publish, &shape), shape))
    }

    /// Publishes all of a request or none of it.
    pub(super) fn publish(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ReplyTo,
        events: Events,
        shape: AnswerShape,
    ) -> Result<(), Refusal> {
        let Events { app, mut by_owner, unoccupied } = events;
        if !by_owner.iter().all(|(owner, items)| parts.context.can_pay(app, *owner, publish_cost(items))) {
            parts.context.metrics.count_overload(Overload::Credit);
            return Err(overloaded());
        }
        parts.owner.count_events(parts.context, app, Origin::Http, unoccupied);
        let counts = !shape.needs_no_counts();
        // Items that involve no other shard are handled at once, unless mail to itself has yet to be handled before
        // them.
        let is_own = by_owner.iter().all(|(owner, _)| *owner == parts.context.config.index);
        if by_owner.is_empty() || (is_own && parts.context.mail.is_own_empty()) {
            let mut counted = Vec::new();
            for item in by_owner.drain(..).flat_map(|(_, items)| items) {
                parts.owner.accept(parts.context, Origin::Http, counts, item, &mut counted);
            }
            let counted: Vec<Counts> = counted.into_iter().map(|(_, counts)| counts).collect();
            answer_publish(parts, reply_to, &shape, &counted);
            return Ok(());
        }
        let count = if counts { by_owner.iter().map(|(_, items)| items.len()).sum() } else { 0 };
        let nonce = self.next_nonce();
        let pending =
            PendingPublish { nonce, reply_to, awaited: by_owner.len(), shape, counts: vec![Counts::default(); count] };
        let request = PendingId { index: self.publishes.insert(pending) as u32, nonce };
        for (owner, items) in by_owner {
            let sent =
                parts.context.send_paid(owner, app.0, OwnerMessage::Publish { request: Some(request), counts, items });
            assert!(sent.is_ok(), "the credit was checked for every owner");
        }
        Ok(())
    }

    /// One mail per owner, its items in the order of the request; every event is encoded here, once per channel. Events
    /// of unoccupied channels are only counted, unless something can delay the request or its answer depends on them.
    fn group_by_owner(&self, parts: &mut Parts<'_>, app: &App, publish: &Publish<'_>, shape: &AnswerShape) -> Events {
        let mut events = Events { app: app.serial, by_owner: ByOwner::new(), unoccupied: 0 };
        let may_skip = shape.needs_no_counts() && !parts.quota.may_wait(app);
        let mut number = 0;
        for event in &publish.events {
            let exclude = event.exclude.and_then(|id| parts.context.connection_of(id));
            for name in &event.channels {
                let hash = parts.context.keyed_hash(app.serial, name);
                let modifiers = Modifiers::of(name);
                if may_skip
                    && !modifiers.cache
                    && !keeps_history(app, modifiers)
                    && self.is_unoccupied(parts, app.serial, name, hash)
                {
                    events.unoccupied += 1;
                    continue;
                }
                let channel = ChannelKey { app: app.serial, name: (&**name).into(), hash };
                let frame = parts.context.text_frame(|out| {
                    server_event::encode_channel_event(out, &event.name, name, &event.data_literal, None);
                });
                let owner = parts.context.owner_of(&channel);
                let cache = modifiers.cache.then_some(event.data_literal.len() as u32);
                let item = PublishItem { channel, frame, exclude, cache, number, sent: None };
                number += 1;
                push_to_owner(&mut events.by_owner, owner, item);
            }
        }
        events
    }

    /// An owner has accepted its part; with the last one the request is answered.
    pub(super) fn handle_accepted(
        &mut self,
        parts: &mut Parts<'_>,
        request: PendingId,
        counts: Vec<(u32, Counts)>,
        unoccupied: &[u64],
    ) {
        self.note_unoccupied(unoccupied);
        let pending = self.publishes.get_mut(request.index as usize).filter(|pending| pending.nonce == request.nonce);
        let pending = pending.expect("owners answer each request once");
        for (number, count) in counts {
            pending.counts[number as usize] = count;
        }
        pending.awaited -= 1;
        if pending.awaited == 0 {
            let PendingPublish { reply_to, shape, counts, .. } = self.publishes.remove(request.index as usize);
            answer_publish(parts, reply_to, &shape, &counts);
        }
    }

    /// True when the channel certainly has no subscriber and no cached event. For channels of other shards only their
    /// owner's notice counts.
    fn is_unoccupied(&self, parts: &Parts<'_>, app: AppSerial, name: &str, hash: u64) -> bool {
        if parts.context.owner_of_hash(hash) == parts.context.config.index {
            parts.owner.is_unoccupied(app, name, hash)
        } else {
            self.unoccupied.contains(&hash)
        }
    }

    /// Records these channels as unoccupied, as their owner reports. Channels that find no space here cost mail with
    /// every publish.
    fn note_unoccupied(&mut self, hashes: &[u64]) {
        for hash in hashes {
            if self.unoccupied.len() < limits::UNOCCUPIED_KNOWN_MAX {
                self.unoccupied.insert(*hash);
            }
        }
    }

    /// A channel may be occupied from now on: publishes to it are sent to its owner again.
    pub(super) fn handle_recall(&mut self, parts: &mut Parts<'_>, from: ShardIndex, hash: u64) {
        self.unoccupied.remove(&hash);
        parts.context.send(from, OwnerMessage::RecallNoted { hash });
    }
}

fn answer_publish(parts: &mut Parts<'_>, reply_to: ReplyTo, shape: &AnswerShape, counts: &[Counts]) {
    let mut body = Vec::new();
    shape.encode(&mut body, counts);
    reply_to.answer(parts, &Response { status: shape.status(), content_type: JSON, extra: "", body: &body });
}

fn overloaded() -> Refusal {
    Refusal::unavailable("The server is overloaded, nothing was published: try again.", 1)
}
