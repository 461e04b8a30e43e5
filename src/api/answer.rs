//! The 200 answer to a publish (P-HTTP-1, P-HTTP-2).
//!
//! The counts may have to be fetched from other shards, so what the answer shall hold is kept apart from the body
//! that asked for it.

use super::events::{Info, Publish};
use crate::protocol::server_event::encode_json_string;

/// What the answer to a publish shall hold; outlives the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AnswerShape {
    /// `{}`: no counts were asked for.
    Empty,
    /// `{"channels":{...}}`: one entry per channel.
    Channels(Vec<AnswerEntry>),
    /// `{"batch":[...]}`: one entry per event, also for events that asked for nothing.
    Batch(Vec<AnswerEntry>),
}

/// One object of the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AnswerEntry {
    /// The channel that is counted.
    pub channel: Box<str>,
    /// The counts that apply to it (P-HTTP-11).
    pub info: Info,
}

/// Counts of one channel, as far as they were fetched.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Distinct users, on presence channels.
    pub user_count: Option<u32>,
    /// Connections.
    pub subscription_count: Option<u32>,
}

impl AnswerShape {
    /// The shape that answers this publish.
    pub fn of(publish: &Publish<'_>) -> Self {
        if publish.events.iter().all(|event| event.info.is_none()) {
            return Self::Empty;
        }
        let entries = publish
            .events
            .iter()
            .flat_map(|event| {
                let info = event.info.unwrap_or_default();
                event.channels.iter().map(move |channel| AnswerEntry::new(channel, info))
            })
            .collect();
        if publish.batch { Self::Batch(entries) } else { Self::Channels(entries) }
    }

    /// The channels to count, in the order that [`AnswerShape::encode`] takes their counts. A batch may name a channel
    /// several times.
    pub fn entries(&self) -> &[AnswerEntry] {
        match self {
            Self::Empty => &[],
            Self::Channels(entries) | Self::Batch(entries) => entries,
        }
    }

    /// True when no channel must be counted, so that the answer needs no counts.
    pub fn needs_no_counts(&self) -> bool {
        self.entries().iter().all(|entry| entry.info.is_empty())
    }

    /// Appends the body. `counts` belong to [`AnswerShape::entries`] one by one; what was not asked for, does not
    /// apply or is missing is left out.
    pub fn encode(&self, out: &mut Vec<u8>, counts: &[Counts]) {
        let (before, entries, after): (&[u8], _, &[u8]) = match self {
            Self::Empty => {
                out.extend_from_slice(b"{}");
                return;
            }
            Self::Channels(entries) => (b"{\"channels\":{", entries, b"}}"),
            Self::Batch(entries) => (b"{\"batch\":[", entries, b"]}"),
        };
        out.extend_from_slice(before);
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if matches!(self, Self::Channels(_)) {
                encode_json_string(out, &entry.channel);
                out.push(b':');
            }
            encode_counts(out, entry.info, counts.get(index).copied().unwrap_or_default());
        }
        out.extend_from_slice(after);
    }
}

impl AnswerEntry {
    fn new(channel: &str, info: Info) -> Self {
        // Users are counted on presence channels only (P-HTTP-11), which their prefix tells (P-CHAN-1).
        let user_count = info.user_count && channel.starts_with("presence-");
        Self { channel: channel.into(), info: Info { user_count, ..info } }
    }
}

fn encode_counts(out: &mut Vec<u8>, info: Info, counts: Counts) {
    let members = [
        (&b"\"user_count\":"[..], counts.user_count.filter(|_| info.user_count)),
        (&b"\"subscription_count\":"[..], counts.subscription_count.filter(|_| info.subscription_count)),
    ];
    let asked = members.into_iter().filter_map(|(member, count)| Some((member, count?)));
    out.push(b'{');
    for (index, (member, count)) in asked.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member);
        out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
    }
    out.push(b'}');
}
