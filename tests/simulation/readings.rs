//! What readers must have at rest: over all their connections everything that was published since they began, once and
//! in order, except for gaps that were reported (R-HIST-4, R-HIST-12, R-SSE-7, R-POLL-2).

use crate::client::reader::{Asked, Named, Places, Reader, ReaderPhase};
use crate::reference::Outcome;
use crate::world::World;

/// An overdue poll is answered within this, in ms: time passes in hops of up to a second.
const OVERDUE_MS: u64 = 1_500;

impl World {
    /// The run has come to rest: requests of accepted connections were read.
    pub(crate) fn note_read_requests(&mut self) {
        let now_ms = self.system.now.monotonic_ms;
        for reader in &mut self.readers {
            if let ReaderPhase::Asked(asked) = &mut reader.phase
                && reader.wire.is_some_and(|wire| self.system.holds(wire))
            {
                asked.read_ms.get_or_insert(now_ms);
            }
        }
    }

    /// No stream has outlived its app or its token (R-TOKEN-7). Some seconds have passed since the store changed.
    pub(crate) fn check_credentials(&self) {
        for (number, reader) in self.readers.iter().enumerate().filter(|(_, reader)| reader.is_open()) {
            let app = &self.apps[reader.app];
            assert!(app.enabled && !app.deleted, "reader {number} has a stream of an app that is gone (P-CLOSE-4)");
            let is_revoked = reader.token.is_some_and(|token| self.tokens[token].revoked);
            assert!(!is_revoked, "reader {number} has a stream, and its token is revoked (R-TOKEN-7)");
        }
    }

    /// All checks of readers at rest.
    pub(crate) fn check_readers(&self) {
        for (number, reader) in self.readers.iter().enumerate() {
            self.check_holes(number, reader);
            let Some(wire) = reader.wire.filter(|wire| !reader.stalled && self.system.holds(*wire)) else { continue };
            match &reader.phase {
                ReaderPhase::Idle => {}
                ReaderPhase::Open => {
                    self.check_newest(number, reader, &reader.places);
                    self.check_chains(number, reader);
                }
                ReaderPhase::Opening(_) => panic!("reader {number} waits for the position of its stream"),
                ReaderPhase::Asked(asked) => {
                    assert!(reader.polls, "reader {number} waits for its stream on wire {wire}");
                    self.check_held(number, reader, asked);
                }
            }
        }
        let open = self.readers.iter().filter(|reader| reader.is_open()).count() as u64;
        let streams: u64 = self.system.stats().iter().map(|stats| stats.streams).sum();
        assert_eq!(streams, open, "open streams: {:?}", self.system.stats());
    }

    /// A held poll has nothing to answer with, and its time is not over.
    fn check_held(&self, number: usize, reader: &Reader, asked: &Asked) {
        let now_ms = self.system.now.monotonic_ms;
        let is_overdue = asked.read_ms.is_some_and(|read_ms| read_ms + asked.timeout_ms + OVERDUE_MS < now_ms);
        assert!(!is_overdue, "the poll of reader {number} is overdue (R-POLL-2): {asked:?}");
        match &asked.named {
            Named::Bad { .. } => panic!("reader {number} waits, and a bad position is a gap (R-HIST-4): {asked:?}"),
            Named::Nothing => {}
            Named::Given(places) => {
                self.check_newest(number, reader, places);
                if asked.continues {
                    self.check_chains(number, reader);
                }
            }
        }
    }

    /// A reader that is at these places has missed no event that anybody has read.
    fn check_newest(&self, number: usize, reader: &Reader, places: &Places) {
        for channel in &reader.channels {
            let Some(history) = self.model.histories.get(&(reader.app, channel.clone())) else { continue };
            let newest = history.events.last_key_value().map(|(sequence, _)| *sequence);
            let place = places[channel].sequence;
            assert!(
                newest <= Some(place) || newest.is_none(),
                "reader {number} is at {place} on {channel}, and {newest:?} was published (R-HIST-12, R-POLL-2)"
            );
        }
    }

    /// Everything that was published since a reader began has arrived.
    fn check_chains(&self, number: usize, reader: &Reader) {
        for (channel, chain) in &reader.chains {
            let history = self.model.histories.get(&(reader.app, channel.clone()));
            for (group, publish) in self.model.publishes.iter().enumerate() {
                let is_due = publish.app == reader.app
                    && publish.started > chain.from
                    && matches!(publish.outcome, Outcome::Accepted(_))
                    && publish.is_stored()
                    && publish.channels.contains(channel);
                if !is_due || chain.received.values().any(|known| *known == group) {
                    continue;
                }
                let known = history.and_then(|history| history.events.iter().find(|(_, known)| **known == group));
                let sequence = known.map(|(sequence, _)| *sequence);
                assert!(
                    chain.may_lack(sequence),
                    "reader {number} has read {channel} since tick {} and misses group {group} of tick {} (R-HIST-12)",
                    chain.from,
                    publish.started
                );
            }
        }
    }

    /// What a reader was sent has no hole.
    fn check_holes(&self, number: usize, reader: &Reader) {
        for (channel, chain) in reader.chains.iter().filter(|(_, chain)| chain.start < chain.last) {
            let Some(history) = self.model.histories.get(&(reader.app, channel.clone())) else { continue };
            for (sequence, group) in history.events.range(chain.start + 1..=chain.last) {
                let is_there = chain.received.get(sequence) == Some(group) || chain.may_lack(Some(*sequence));
                assert!(is_there, "reader {number} has a hole on {channel}: {sequence}, group {group}, of {chain:?}");
            }
        }
    }
}
