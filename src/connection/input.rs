//! Memory for incomplete input: heads, bodies, messages, and bytes that wait behind an unanswered request; and for
//! answers to unauthenticated callers, until they are sent.
//!
//! Invariant: unauthenticated callers can make a shard hold only a bounded amount of it, all such connections together
//! (threat T14), and one app's part is bounded separately from that of the others. So every byte is counted for one
//! [`Payer`], by the capacity of its buffer.

use std::collections::BTreeMap;

use super::ConnectionKey;
use crate::app::AppSerial;
use crate::limits;

/// The party that input is counted for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Payer {
    /// An HTTP connection that has not authenticated.
    Stranger,
    /// A WebSocket of an app. It needs only the app's public key, so all of them count as strangers too.
    Socket(AppSerial),
    /// A connection whose last request had a valid credential of the app.
    Caller(AppSerial),
}

/// The memory that one connection holds.
#[derive(Debug)]
pub struct HeldInput {
    payer: Payer,
    /// Orders the holders by the time since which they hold something.
    number: u64,
    bytes: usize,
}

/// Which connection has to release its memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Over {
    /// The one that has waited longest for the rest of its input, which is never a fast sender.
    Oldest(ConnectionKey),
    /// The one that has just allocated more: the app's other connections are equally entitled.
    Newest,
}

/// The memory that all connections of a shard hold. Trees instead of hash maps, so that no peer can cause collisions.
#[derive(Debug, Default)]
pub struct InputMemory {
    numbered: u64,
    /// Bytes by payer, for payers that hold some.
    payers: BTreeMap<Payer, usize>,
    /// Strangers, and WebSockets by app, each in the order in which they began to hold something.
    holders: BTreeMap<(Payer, u64), ConnectionKey>,
    /// WebSockets of all apps in that order.
    sockets: BTreeMap<u64, ConnectionKey>,
    socket_bytes: usize,
    caller_bytes: usize,
}

impl InputMemory {
    /// Counts a connection's current memory instead of its previous memory.
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

    /// The connection no longer holds anything.
    pub fn release(&mut self, held: &mut Option<Box<HeldInput>>) {
        let Some(HeldInput { payer, number, bytes }) = held.take().map(|held| *held) else { return };
        self.holders.remove(&(payer, number));
        if matches!(payer, Payer::Socket(_)) {
            self.sockets.remove(&number);
        }
        self.count(payer, bytes, 0);
    }

    /// The connection that has to release memory, if this payer is over a bound. Each answer that is followed by a
    /// release lowers the amount held, so the loop ends.
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

    /// Threat T14: the connection that has to release memory is the one that has held some for the longest time without
    /// a break. One that no longer holds anything is not chosen, and starts over.
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
