//! Long polling (R-POLL rules). A poll is a request that waits, and no subscription: it reads the histories of its
//! channels, and if they have nothing new, their owners keep it until one of them has.
//!
//! ```text
//! admitted -> asks each owner: events or a gap -----------------------------> answered
//!                              nothing: held by the owners -> event, timeout -^
//! ```
//!
//! A poll whose time is over before all owners have answered is answered when they have: a client is not refused because
//! the server was slow. Its counter and its owners answer every mail, and a connection holds one poll, so this is bounded.

use std::collections::{BTreeSet, HashMap};

use foldhash::quality::FixedState;

use super::by_owner::{ByOwner, push_to_owner};
use super::pending::Pending;
use super::response::ResponseSlot;
use super::stream::{ask_for_place, asked_channels, check_place, over_connections};
use super::{Call, Parts, Requests};
use crate::api::refusal::Refusal;
use crate::api::stream::{PolledEvent, check_history, decode_timeout, encode_poll};
use crate::app::{App, AppSerial};
use crate::auth::request::Caller;
use crate::channel::history::Gap;
use crate::connection::ConnectionKey;
use crate::index::{ShardIndex, Slot};
use crate::label::Label;
use crate::limits;
use crate::protocol::cursor::Cursor;
use crate::protocol::event_id::EventId;
use crate::protocol::server_event::MissedEvents;
use crate::shard::connections::{AskedChannel, JSON, Response};
use crate::shard::context::Context;
use crate::shard::mail::{ChannelKey, Continued, OwnerMessage, PendingId, PolledChannel, PolledPart};
use crate::wire::query::Query;
use crate::wire::websocket;

/// A poll that may be held.
pub(super) struct PollCommand {
    app: AppSerial,
    channels: Vec<PollChannel>,
    timeout_ms: u64,
    /// The answer has the positions of the channels.
    positions: bool,
    /// Header lines of the answer.
    pub(super) headers: Box<str>,
}

/// A channel of a poll.
struct PollChannel {
    key: ChannelKey,
    /// The position that the client named, if it named one; a gap if that is not known.
    after: Option<Result<EventId, Gap>>,
    /// The position in the cursor of the answer; `None` without history.
    position: Option<u64>,
}

/// The polls of a shard.
#[derive(Default)]
pub(super) struct Polls {
    held: Pending<Poll>,
    by_slot: HashMap<Slot, PendingId, FixedState>,
    /// When the time of each is over, on the monotonic clock; without those whose time is over and that wait for owners.
    due: BTreeSet<(u64, Slot)>,
}

/// A poll that waits for its app's counter, for owners, or for an event.
struct Poll {
    reply_to: ResponseSlot,
    app: AppSerial,
    headers: Box<str>,
    channels: Vec<PollChannel>,
    positions: bool,
    due_ms: u64,
    /// Owners that have been asked, and how many of them have yet to answer.
    owners: Vec<ShardIndex>,
    awaited: usize,
    found: Vec<PolledPart>,
}

impl Poll {
    /// Whether it was admitted, and all owners have said what their channels have.
    fn is_answered_by_owners(&self) -> bool {
        self.awaited == 0 && !self.owners.is_empty()
    }
}

impl Polls {
    fn take(&mut self, slot: Slot) -> Option<(PendingId, Poll)> {
        let request = self.by_slot.remove(&slot)?;
        let poll = self.held.remove(request)?;
        self.due.remove(&(poll.due_ms, slot));
        Some((request, poll))
    }

    /// The number of polls.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

impl Requests {
    /// Checks a poll.
    pub(super) fn prepare_poll(
        &self,
        parts: &Parts<'_>,
        call: Call<'_>,
        caller: &Caller,
        app: &App,
        headers: &str,
    ) -> Result<PollCommand, Refusal> {
        let (reading, grant) = self.prepare_reading(parts, call, caller, app)?;
        check_history(app, &reading)?;
        let timeout_ms = u64::from(decode_timeout(Query::new(call.request.query))?) * 1_000;
        let channels = asked_channels(parts.context, app.serial, &reading);
        let channels = channels.map(|AskedChannel { key, after, .. }| PollChannel { key, after, position: None });
        Ok(PollCommand {
            app: app.serial,
            channels: channels.collect(),
            // It ends with its credential.
            timeout_ms: timeout_ms.min(grant.ends_at_ms.saturating_sub(parts.context.now.unix_ms)),
            positions: reading.positions,
            headers: headers.into(),
        })
    }

    /// Asks the app's counter whether it has room for the poll.
    ///
    /// # Errors
    /// 400 behind other requests, and 503 without a place.
    pub(super) fn start_poll(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        command: PollCommand,
    ) -> Result<(), Refusal> {
        let PollCommand { app, channels, timeout_ms, positions, headers } = command;
        check_place(parts, reply_to, app)?;
        let (slot, due_ms) = (reply_to.connection.slot(), parts.context.now.monotonic_ms + timeout_ms);
        let (owners, found) = (Vec::new(), Vec::new());
        let poll = Poll { reply_to, app, headers, channels, positions, due_ms, owners, awaited: 0, found };
        let request = self.polls.held.insert(poll);
        self.polls.by_slot.insert(slot, request);
        self.polls.due.insert((due_ms, slot));
        parts.connections.http(slot).polls = true;
        ask_for_place(parts, reply_to.connection, app);
        parts.connections.end_if_read_ended(parts.context, slot);
        Ok(())
    }

    /// The app's counter has answered about a poll; false if the connection has none.
    pub(super) fn handle_poll_place(
        &mut self,
        parts: &mut Parts<'_>,
        connection: ConnectionKey,
        admitted: bool,
    ) -> bool {
        let slot = connection.slot();
        let Some(&request) = self.polls.by_slot.get(&slot) else { return false };
        let Some(poll) = self.polls.held.get_mut(request) else { return true };
        debug_assert!(poll.owners.is_empty(), "no poll is answered before the counter has answered");
        if !admitted {
            let Some((_, poll)) = self.take_poll(parts, slot) else { return true };
            let refusal = over_connections(parts, poll.app).with_headers(&poll.headers);
            self.refuse(parts, poll.reply_to, &refusal);
            return true;
        }
        parts.connections.count_poll(slot);
        let share = poll.channels.len();
        let (events_max, bytes_max) = ((limits::POLL_EVENTS_MAX / share).max(1), limits::POLL_BYTES_MAX / share);
        let mut by_owner = ByOwner::new();
        for (number, channel) in poll.channels.iter().enumerate() {
            let owner = parts.context.owner_of(&channel.key);
            let asked = PolledChannel { number, channel: channel.key.clone(), after: channel.after };
            push_to_owner(&mut by_owner, owner, asked);
        }
        poll.owners = by_owner.iter().map(|(owner, _)| *owner).collect();
        poll.awaited = by_owner.len();
        for (owner, channels) in by_owner {
            parts.context.send(owner, OwnerMessage::Poll { request, channels, events_max, bytes_max });
        }
        true
    }

    /// An owner has answered: with what its channels have, or with an event that a held poll waited for.
    pub(super) fn handle_polled(
        &mut self,
        parts: &mut Parts<'_>,
        request: PendingId,
        found: Vec<PolledPart>,
        is_first: bool,
    ) {
        let Some(poll) = self.polls.held.get_mut(request) else { return };
        poll.awaited -= usize::from(is_first);
        for PolledPart { number, position, .. } in &found {
            poll.channels[*number].position = *position;
        }
        poll.found.extend(found.into_iter().filter(PolledPart::is_new));
        let is_over = poll.due_ms <= parts.context.now.monotonic_ms || parts.context.is_draining;
        if poll.awaited == 0 && (!poll.found.is_empty() || is_over) {
            let slot = poll.reply_to.connection.slot();
            self.answer_poll(parts, slot);
        }
    }

    /// When the time of the next poll is over, on the monotonic clock.
    pub(in crate::shard) fn polls_due_ms(&self) -> Option<u64> {
        self.polls.due.first().map(|(at_ms, _)| *at_ms)
    }

    /// Answers the polls whose time is over; those that wait for owners are answered when these have answered.
    pub(in crate::shard) fn end_due_polls(&mut self, parts: &mut Parts<'_>) {
        let now_ms = parts.context.now.monotonic_ms;
        while let Some(&(at_ms, slot)) = self.polls.due.first()
            && at_ms <= now_ms
        {
            self.polls.due.pop_first();
            self.answer_if_known(parts, slot);
        }
    }

    /// The process will end: answers all polls that are held; others are answered with what their owners have.
    pub(in crate::shard) fn end_polls(&mut self, parts: &mut Parts<'_>) {
        let slots: Vec<Slot> = self.polls.due.iter().map(|(_, slot)| *slot).collect();
        for slot in slots {
            self.answer_if_known(parts, slot);
        }
    }

    /// Answers a poll if its owners have said what their channels have.
    fn answer_if_known(&mut self, parts: &mut Parts<'_>, slot: Slot) {
        let poll = self.polls.by_slot.get(&slot).and_then(|request| self.polls.held.get_mut(*request));
        if poll.is_some_and(|poll| poll.is_answered_by_owners()) {
            self.answer_poll(parts, slot);
        }
    }

    /// The connection is closed: nobody waits for its poll.
    pub(in crate::shard) fn leave_poll(&mut self, parts: &mut Parts<'_>, slot: Slot) {
        self.take_poll(parts, slot);
    }

    /// Removes a poll here and at the owners.
    fn take_poll(&mut self, parts: &mut Parts<'_>, slot: Slot) -> Option<(PendingId, Poll)> {
        let (request, poll) = self.polls.take(slot)?;
        for owner in &poll.owners {
            parts.context.send(*owner, OwnerMessage::EndPoll { request });
        }
        parts.connections.end_poll(parts.context, poll.reply_to.connection, poll.app);
        Some((request, poll))
    }

    fn answer_poll(&mut self, parts: &mut Parts<'_>, slot: Slot) {
        let Some((request, mut poll)) = self.take_poll(parts, slot) else { return };
        // Another channel is first each time, so that none of them is left out for ever.
        poll.found.sort_by_key(|part| part.number);
        let first = request.nonce as usize % poll.found.len().max(1);
        poll.found.rotate_left(first);
        let body = encode_answer(parts.context, &mut poll);
        let response = Response { status: 200, content_type: JSON, extra: &poll.headers, body: &body };
        let ResponseSlot { connection, ticket, .. } = poll.reply_to;
        parts.connections.finish_request(parts.context, connection, ticket, &response);
    }
}

/// The body of the answer; the positions of the channels move to the last event in it.
fn encode_answer(context: &Context, poll: &mut Poll) -> Vec<u8> {
    let (mut events, mut gaps, mut bytes) = (Vec::new(), Vec::new(), 0);
    for PolledPart { number, after, continued, .. } in &poll.found {
        let channel = &mut poll.channels[*number];
        let Some(Continued { start, gap, part }) = continued else {
            let missed = MissedEvents { after: *after, resumes_at: None, reason: Gap::Expired.label() };
            gaps.push((*number, missed));
            continue;
        };
        channel.position = Some(*start);
        if let Some(gap) = gap {
            let resumes_at = Some(context.event_id(&channel.key, *start));
            gaps.push((*number, MissedEvents { after: *after, resumes_at, reason: gap.label() }));
        }
        for (sequence, frame) in &part.events {
            if bytes >= limits::POLL_BYTES_MAX || events.len() == limits::POLL_EVENTS_MAX {
                break;
            }
            bytes += frame.len();
            channel.position = Some(*sequence);
            events.push((*number, context.event_id(&channel.key, *sequence), websocket::payload(frame)));
        }
    }
    let name = |number: usize| &*poll.channels[number].key.name;
    let mut cursor = Vec::new();
    encode_cursor(context, &poll.channels, &mut cursor);
    let events = events.iter().map(|(number, id, text)| PolledEvent { id: *id, channel: name(*number), text });
    let gaps = gaps.iter().map(|(number, gap)| (name(*number), gap));
    let mut body = Vec::with_capacity(bytes + 256);
    let positions = poll.channels.iter().map(|PollChannel { key, position, .. }| {
        (&*key.name, position.map(|position| context.event_id(key, position)))
    });
    let cursor = std::str::from_utf8(&cursor).ok().filter(|text| !text.is_empty());
    encode_poll(&mut body, events, cursor, gaps, poll.positions.then_some(positions));
    body
}

/// The position of a poll of one channel, or a cursor.
fn encode_cursor(context: &Context, channels: &[PollChannel], out: &mut Vec<u8>) {
    if let [only] = channels {
        if let Some(position) = only.position {
            context.event_id(&only.key, position).encode(out);
        }
        return;
    }
    let order = &context.config.order;
    let positions =
        channels.iter().filter_map(|channel| Some((order.cursor_hash(channel.key.hash), channel.position?)));
    if positions.clone().next().is_some() {
        let epoch = channels.first().map_or(0, |channel| context.event_id(&channel.key, 0).epoch);
        Cursor::encode(out, epoch, positions);
    }
}
