//! Memory for input that is not whole yet: heads, bodies, messages, and bytes that wait behind an unanswered request; and
//! for answers to callers that have not proved themselves, until they are sent.
//!
//! What must hold: callers that proved nothing can make a shard hold a bounded amount of it, all such connections together
//! (threat T14), and one app's part is bounded apart from that of the others. So every byte is counted for one [`Payer`], by
//! the capacity of its buffer.

use std::collections::BTreeMap;

use super::ConnectionKey;
use crate::app::AppSerial;
use crate::limits;

/// For whom input is held.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Payer {
    /// A connection that speaks HTTP and has not proved itself.
    Stranger,
    /// A WebSocket of an app. It needs the app's public key only, so that all of them count as strangers too.
    Socket(AppSerial),
    /// A connection whose last request had a good credential of the app.
    Caller(AppSerial),
}

/// What one connection holds.
#[derive(Debug)]
pub struct HeldInput {
    payer: Payer,
    /// Numbers the holders by the time since which they hold something.
    number: u64,
    bytes: usize,
}

/// Which connection has to give its memory back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Over {
    /// The one that has waited longest for the rest of its input: a fast sender is never it.
    Oldest(ConnectionKey),
    /// The one that has just taken more: the others of the app are as good as it.
    Newest,
}

/// What all connections of a shard hold. Trees instead of hash maps: nothing in them can be aimed at.
#[derive(Debug, Default)]
pub struct InputMemory {
    numbered: u64,
    /// Bytes by payer, of those who hold some.
    payers: BTreeMap<Payer, usize>,
    /// Strangers, and WebSockets by app, each in the order in which they began to hold something.
    holders: BTreeMap<(Payer, u64), ConnectionKey>,
    /// WebSockets of all apps in that order.
    sockets: BTreeMap<u64, ConnectionKey>,
    socket_bytes: usize,
    caller_bytes: usize,
}

impl InputMemory {
    /// Counts what a connection holds now instead of what it held before.
    pub fn update(&mut self, held: &mut Option<Box<HeldInput>>, connection: ConnectionKey, payer: Payer, bytes: usize) {
        let number = held.as_ref().map(|held| held.number);
        if let Some(held) = held.as_mut().filter(|held| held.payer == payer && bytes > 0) {
            let before = std::mem::replace(&mut held.bytes, bytes);
            return self.count(payer, before, bytes);
        }
        self.release(held);
        if bytes == 0 {
            return;
        }
        let number = number.unwrap_or_else(|| {
            self.numbered += 1;
            self.numbered
        });
        *held = Some(Box::new(HeldInput { payer, number, bytes }));
        self.holders.insert((payer, number), connection);
        if matches!(payer, Payer::Socket(_)) {
            self.sockets.insert(number, connection);
        }
        self.count(payer, 0, bytes);
    }

    /// The connection holds nothing any more.
    pub fn release(&mut self, held: &mut Option<Box<HeldInput>>) {
        let Some(HeldInput { payer, number, bytes }) = held.take().map(|held| *held) else { return };
        self.holders.remove(&(payer, number));
        if matches!(payer, Payer::Socket(_)) {
            self.sockets.remove(&number);
        }
        self.count(payer, bytes, 0);
    }

    /// Who has to give memory back, if this payer is over a bound. Each answer that is followed by a release lowers what
    /// is held, so asking ends.
    pub fn over(&self, payer: Payer) -> Option<Over> {
        let bytes = self.payers.get(&payer).copied().unwrap_or(0);
        let oldest = || self.holders.range((payer, 0)..).next().map(|(_, connection)| Over::Oldest(*connection));
        match payer {
            Payer::Stranger if bytes > limits::STRANGER_BYTES_MAX => oldest(),
            Payer::Socket(_) if bytes > limits::SOCKET_INPUT_BYTES_PER_APP_MAX => oldest(),
            Payer::Socket(_) if self.socket_bytes > limits::SOCKET_INPUT_BYTES_MAX => {
                self.sockets.first_key_value().map(|(_, connection)| Over::Oldest(*connection))
            }
            Payer::Caller(_)
                if bytes > limits::CALLER_INPUT_BYTES_PER_APP_MAX
                    || self.caller_bytes > limits::CALLER_INPUT_BYTES_MAX =>
            {
                Some(Over::Newest)
            }
            Payer::Stranger | Payer::Socket(_) | Payer::Caller(_) => None,
        }
    }

    /// All bytes held.
    pub fn bytes(&self) -> usize {
        self.payers.values().sum()
    }

    fn count(&mut self, payer: Payer, before: usize, after: usize) {
        let bytes = self.payers.entry(payer).or_default();
        *bytes = *bytes - before + after;
        if *bytes == 0 {
            self.payers.remove(&payer);
        }
        match payer {
            Payer::Stranger => {}
            Payer::Socket(_) => self.socket_bytes = self.socket_bytes - before + after,
            Payer::Caller(_) => self.caller_bytes = self.caller_bytes - before + after,
        }
    }
}

const _: () = assert!(
    limits::STRANGER_BYTES_MAX + limits::SOCKET_INPUT_BYTES_MAX < 64 * 1024 * 1024,
    "all unauthenticated connections together stay below 64 MiB"
);

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: usize = limits::STRANGER_BYTES_MAX + 1;

    fn connection(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: 1 }
    }

    /// Threat T14: who has to give memory back is the connection that has held some for the longest time without a break. One
    /// that holds nothing any more is not asked, and begins anew.
    #[test]
    fn who_holds_nothing_gives_nothing_back() {
        let mut memory = InputMemory::default();
        let (mut first, mut second) = (None, None);
        memory.update(&mut first, connection(1), Payer::Stranger, 10);
        memory.update(&mut second, connection(2), Payer::Stranger, OVER);
        assert_eq!(memory.over(Payer::Stranger), Some(Over::Oldest(connection(1))));
        memory.update(&mut first, connection(1), Payer::Stranger, 20);
        assert_eq!(memory.over(Payer::Stranger), Some(Over::Oldest(connection(1))), "more of the same wait");
        memory.update(&mut first, connection(1), Payer::Stranger, 0);
        assert!(first.is_none());
        assert_eq!(memory.over(Payer::Stranger), Some(Over::Oldest(connection(2))));
        memory.update(&mut first, connection(1), Payer::Stranger, 10);
        assert_eq!(memory.over(Payer::Stranger), Some(Over::Oldest(connection(2))));
        memory.release(&mut second);
        assert_eq!((memory.over(Payer::Stranger), memory.bytes()), (None, 10));
        memory.release(&mut first);
        assert_eq!(memory.bytes(), 0);
    }
}
