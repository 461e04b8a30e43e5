//! How a client handles a stream of server-sent events.

use super::connection::Phase;
use super::receive::Receiver;
use super::socket::Ended;
use super::verifier::Arrived;
use crate::wire::event_stream::{Block, Decoded, Head, decode, read_head};
use crate::wire::history::{Gaps, Message};

impl Receiver<'_> {
    /// Takes the head of the answer, and each block that is complete.
    pub(super) fn take_blocks(&mut self, bytes: &[u8]) -> (usize, Ended) {
        let mut at = 0;
        if self.connection.phase == Phase::Upgrading {
            match read_head(bytes) {
                Head::Done(length) => {
                    self.connection.phase = Phase::Subscribing;
                    at = length;
                }
                Head::Partial => return (0, None),
                Head::Refused(text) => return (0, Some(format!("stream refused: {text}"))),
            }
        }
        while at < bytes.len() {
            let ended = match decode(&bytes[at..]) {
                Decoded::Partial => break,
                Decoded::Invalid(reason) => Some(reason.to_owned()),
                Decoded::Block { block, consumed } => {
                    at += consumed;
                    self.take_block(&block)
                }
            };
            if ended.is_some() {
                return (at, ended);
            }
        }
        (at, None)
    }

    fn take_block(&mut self, block: &Block<'_>) -> Ended {
        let number = self.connection.number;
        // A whole block was received, so its id is that of the client, whatever the event is.
        if let (Some(id), Some(readers)) = (block.id, self.shared.readers.as_mut()) {
            readers.set_cursor(number, id);
        }
        let data = block.data.as_deref()?;
        match block.name {
            "connected" => {
                let readers = self.shared.readers.as_ref();
                if readers.is_some_and(|readers| !readers.continues(number) && readers.last_events(number).1.is_empty())
                {
                    return Some("a stream without an id: no history".into());
                }
                if self.connection.phase == Phase::Subscribing {
                    self.connection.phase = Phase::Ready;
                    return self.joined();
                }
            }
            "gap" => match serde_json::from_str::<Gaps>(data) {
                Ok(gaps) => {
                    for gap in gaps.channels {
                        self.shared.take_gap(number, &gap.channel, &gap);
                    }
                }
                Err(_) => self.shared.take_unreadable("a gap"),
            },
            _ => self.take_data(data),
        }
        None
    }

    /// The data of a published event.
    fn take_data(&mut self, data: &str) {
        let (number, slot) = (self.connection.number, self.slot);
        // Without its id, which is the first member, it is the same in every stream.
        let members = data.strip_prefix("{\"id\":\"").and_then(|rest| rest.split_once("\",")).map(|(_, rest)| rest);
        if let Some(members) = members.filter(|_| self.shared.readers.is_none()) {
            let shared = &mut *self.shared;
            let mut body = std::mem::take(&mut shared.body);
            body.clear();
            body.push(b'{');
            body.extend_from_slice(members.as_bytes());
            let channel = shared.channel_of(number);
            let arrived = shared.verifier.check(slot as usize, channel, &body);
            shared.body = body;
            if arrived != Arrived::Other {
                return shared.count(arrived, self.now);
            }
        }
        match serde_json::from_str::<Message<'_>>(data) {
            Ok(message) => self.shared.take_published(number, slot, &message, self.now),
            Err(_) => self.shared.take_unreadable("an event"),
        }
    }
}
