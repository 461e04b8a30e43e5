//! Socket ids: two decimal integers that name shard, slot and generation of a connection (P-CONN-10, P-SDK-23).
//!
//! The 64 bits (shard, slot, generation) pass through a keyed permutation, so that ids are unguessable, unique over
//! restarts and need no map: whoever holds the boot secret reads the connection out of the id.

/// Text of a socket id, at most 21 bytes: `\d+\.\d+`, the first number at least 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketId {
    /// The first number.
    pub high: u64,
    /// The second number.
    pub low: u64,
}

impl SocketId {
    /// Parses `^\d+\.\d+$`; `None` for anything else and for numbers above 64 bits.
    pub fn parse(_text: &str) -> Option<Self> {
        todo!()
    }
    /// The id as text.
    pub fn to_text(self) -> String {
        todo!()
    }
}

/// The keyed permutation of one process.
#[derive(Clone)]
pub struct SocketIdCipher {
    // A: 128-bit key; four Feistel rounds of SipHash-2-4 over 32-bit halves.
    _todo: (),
}

impl SocketIdCipher {
    /// A cipher under the process's boot secret.
    pub fn new(_boot_secret: [u8; 16]) -> Self {
        todo!()
    }
    /// Seals 64 bits into an id whose first number is at least 1.
    pub fn seal(&self, _plain: u64) -> SocketId {
        todo!()
    }
    /// Reads the 64 bits back; `None` when the id is out of the range that `seal` gives.
    pub fn open(&self, _id: SocketId) -> Option<u64> {
        todo!()
    }
}
