//! What arrives on every transport, once it is parsed: published events, gaps, and the request by which a connection
//! begins to read.

use super::checker::Checked;
use super::shared::Shared;
use crate::messages::Measure;
use crate::wire::history::{Gap, Message, Reading};
use crate::wire::transport::Transport;

impl Shared {
    /// Takes a published event that arrived on the connection with this number, in this slot.
    pub(crate) fn take_published(&mut self, number: u32, slot: u32, message: &Message<'_>, now: u64) {
        let Some(readers) = &mut self.readers else {
            let channel = self.channel_of(number);
            let arrived =
                self.verifier.compare(slot as usize, channel, &message.event, &message.channel, message.text());
            return self.count(arrived, now);
        };
        let (checked, ready_ns, due) =
            readers.take_event(number, &message.channel, message.id.as_deref(), message.text());
        match checked {
            Checked::Next(stamp, skipped) => {
                self.counters.resume.left_out += u64::from(skipped.left_out);
                self.counters.resume.uncertain += u64::from(skipped.uncertain);
                if skipped.lost > 0 {
                    let text = format!("{} events before {} were not sent", skipped.lost, stamp.sequence);
                    self.fault(number, &message.channel, &text);
                }
                self.counters.delivered += 1;
                if stamp.intended_ns < ready_ns {
                    self.counters.resume.missed_events += 1;
                } else {
                    self.recorder.record(Measure::Delivery, stamp.intended_ns, now);
                }
            }
            Checked::Late(stamp) => {
                self.counters.disordered += 1;
                self.counters.delivered += 1;
                let text = format!("event {} after {}", stamp.sequence, due.saturating_sub(1));
                self.fault(number, &message.channel, &text);
            }
            Checked::Repeated if self.plan.transport_of(number) != Transport::Ws => self.counters.resume.repeated += 1,
            Checked::Repeated | Checked::Doubled => {
                self.counters.duplicates += 1;
                let text = format!("an event before {due} came again");
                self.fault(number, &message.channel, &text);
            }
            Checked::WrongChannel => self.counters.wrong_channel += 1,
            Checked::Foreign => self.counters.foreign += 1,
            Checked::Damaged(why) => {
                self.counters.damaged += 1;
                self.fault(number, &message.channel, &format!("event {due}: {why}"));
            }
        }
    }

    /// Takes a gap that was reported on the connection with this number.
    pub(crate) fn take_gap(&mut self, number: u32, channel: &str, gap: &Gap) {
        let reason = GAP_REASONS.iter().find(|reason| **reason == gap.reason).copied().unwrap_or("unknown");
        *self.counters.resume.gaps.entry(reason.to_owned()).or_default() += 1;
        let Some(readers) = &mut self.readers else { return self.reason(&format!("{channel}: a gap ({reason})")) };
        match readers.take_gap(number, channel, gap.resumes_at.as_deref()) {
            Some(left_out) => self.counters.resume.left_out += u64::from(left_out),
            None => {
                self.counters.wrong_channel += 1;
                self.fault(number, channel, "a gap of a channel that was not subscribed");
            }
        }
    }

    /// A message of the server that is none.
    #[cold]
    pub(crate) fn take_unreadable(&mut self, what: &str) {
        self.counters.damaged += 1;
        self.reason(&format!("{what} that cannot be parsed"));
    }

    /// Describes what is wrong, so that it can be found in the server.
    #[cold]
    fn fault(&mut self, number: u32, channel: &str, text: &str) {
        let transport = self.plan.transport_of(number);
        self.reason(&format!("{channel} on connection {number} ({transport}): {text}"));
    }

    /// What the connection with this number sends first.
    pub(crate) fn opening_request(&self, number: u32) -> Vec<u8> {
        match self.plan.transport_of(number) {
            Transport::Ws => self.upgrade.clone(),
            Transport::Sse => self.reading_request(number, Reading::Stream, ""),
            Transport::Poll => self.poll_request(number, FIRST_POLL_SECONDS, ""),
        }
    }

    /// A poll, which continues after `cursor` or where the reader is.
    pub(crate) fn poll_request(&self, number: u32, seconds: u32, cursor: &str) -> Vec<u8> {
        self.reading_request(number, Reading::Poll { seconds }, cursor)
    }

    fn reading_request(&self, number: u32, reading: Reading, cursor: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let name = |index: usize| &*self.plan.channels[index];
        match &self.readers {
            None => {
                let cursor = Some(cursor).filter(|cursor| !cursor.is_empty());
                reading.append(&self.plan.target, &[name(self.channel_of(number))], cursor, &mut out);
            }
            Some(readers) => {
                let (channels, cursor) = readers.last_events(number);
                let names: Vec<&str> = channels.map(|(index, _)| name(index as usize)).collect();
                reading.append(&self.plan.target, &names, Some(cursor).filter(|cursor| !cursor.is_empty()), &mut out);
            }
        }
        out
    }

    /// The messages by which a reader's WebSocket subscribes to its channels after the last event of each.
    pub(crate) fn resume_messages(&self, number: u32, socket_id: &str) -> Vec<String> {
        let Some(readers) = &self.readers else { return Vec::new() };
        let subscribe = |(index, last_event_id): (u32, &str)| {
            let channel = &self.plan.channels[index as usize];
            let mut data = format!("\"channel\":\"{channel}\"");
            if channel.starts_with("private-") {
                let auth = self.signer.subscription(socket_id, channel, None);
                data.push_str(&format!(",\"auth\":\"{auth}\""));
            }
            if !last_event_id.is_empty() {
                data.push_str(&format!(",\"last_event_id\":\"{last_event_id}\""));
            }
            format!("{{\"event\":\"pusher:subscribe\",\"data\":{{{data}}}}}")
        };
        readers.last_events(number).0.map(subscribe).collect()
    }
}

/// The reasons of gaps that the protocol has.
const GAP_REASONS: [&str; 4] = ["expired", "epoch", "ahead", "unreadable"];
/// How long the first poll of a connection is held. Its answer shows that the connection works, and where it is.
const FIRST_POLL_SECONDS: u32 = 2;
/// How long further polls are held.
pub(crate) const POLL_SECONDS: u32 = 25;
