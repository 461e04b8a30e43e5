//! Reading the history of a channel over HTTP (R-HIST-5, R-HIST-8): the owner of the channel answers.

use super::Parts;
use crate::api::channel_history::{HistoryQuery, encode_history};
use crate::channel::history::Gap;
use crate::label::Label;
use crate::limits;
use crate::protocol::event_id::EventId;
use crate::protocol::server_event::MissedEvents;
use crate::shard::mail::{ChannelKey, Continued};
use crate::shard::owner::sequence_of;
use crate::wire::websocket;

/// The position of the history of a channel, if it has one.
pub(super) fn position_of(parts: &mut Parts<'_>, channel: &ChannelKey) -> Option<EventId> {
    let position = parts.owner.position(parts.context, channel)?;
    Some(parts.context.event_id(channel, position))
}

/// Encodes the events of a channel after a position, as many as one answer may have (R-HIST-5).
pub(super) fn answer_history(parts: &mut Parts<'_>, body: &mut Vec<u8>, channel: &ChannelKey, query: &HistoryQuery) {
    let after = match query.after {
        Some(Some(id)) => sequence_of(parts.context, channel, id),
        Some(None) | None => Err(Gap::Unreadable),
    };
    let bytes_max = limits::HISTORY_ANSWER_BYTES_MAX;
    let position = position_of(parts, channel);
    let found = parts.owner.read_history(parts.context, channel, after, bytes_max, query.limit);
    let id_of = |sequence| parts.context.event_id(channel, sequence);
    let missed = |resumes_at, gap: Gap| MissedEvents { after: query.after.flatten(), resumes_at, reason: gap.label() };
    let Some(Continued { start, gap, part }) = found else {
        let gap = query.after.map(|_| missed(None, Gap::Expired));
        return encode_history(body, &channel.name, std::iter::empty(), gap.as_ref(), None);
    };
    let gap = gap.filter(|_| query.after.is_some()).map(|gap| missed(Some(id_of(start)), gap));
    let next = match part.events.last() {
        Some((sequence, _)) if !part.complete => Some(id_of(*sequence)),
        Some(_) | None => position,
    };
    let events = part.events.iter().map(|(sequence, frame)| (id_of(*sequence), websocket::payload(frame)));
    encode_history(body, &channel.name, events, gap.as_ref(), next);
}
