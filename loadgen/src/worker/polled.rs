//! How a client handles the answers to its polls: it polls again at once, after the last id of the answer.

use super::connection::Phase;
use super::published::POLL_SECONDS;
use super::receive::Receiver;
use super::socket::{Ended, send};
use crate::wire::answer::{Answer, read_answer};
use crate::wire::history::Polled;

impl Receiver<'_> {
    /// Takes each answer that is complete.
    pub(super) fn take_answers(&mut self, bytes: &[u8]) -> (usize, Ended) {
        let mut at = 0;
        while at < bytes.len() {
            let ended = match read_answer(&bytes[at..]) {
                Answer::Partial => break,
                Answer::Invalid(reason) => Some(format!("poll: {reason}")),
                Answer::Done { status: 200, body, consumed } => {
                    at += consumed;
                    self.take_answer(body)
                }
                Answer::Done { status, body, .. } => {
                    let body = String::from_utf8_lossy(&body[..body.len().min(100)]);
                    Some(format!("poll answered {status}: {}", body.trim()))
                }
            };
            if ended.is_some() {
                return (at, ended);
            }
        }
        (at, None)
    }

    fn take_answer(&mut self, body: &[u8]) -> Ended {
        let number = self.connection.number;
        let Ok(polled) = serde_json::from_slice::<Polled<'_>>(body) else {
            self.shared.take_unreadable("an answer to a poll");
            return Some("an answer to a poll that cannot be parsed".into());
        };
        let Some(cursor) = &polled.last_event_id else { return Some("a poll without an id: no history".into()) };
        // Gaps are before the events of their channels.
        for gap in &polled.gaps {
            self.shared.take_gap(number, &gap.channel, gap);
        }
        if self.connection.phase == Phase::Polling {
            self.connection.phase = Phase::Ready;
            let ended = self.joined();
            if ended.is_some() {
                return ended;
            }
        }
        for event in &polled.events {
            self.shared.take_published(number, self.slot, event, self.now);
        }
        match &mut self.shared.readers {
            Some(readers) => readers.set_cursor(number, cursor),
            None => self.connection.kept().cursor.clone_from(cursor),
        }
        let request = self.shared.poll_request(number, POLL_SECONDS, cursor);
        send(self.connection, &request)
    }
}
