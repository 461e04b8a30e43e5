//! TCP as the simulation models it: one [`Wire`] per connection, two byte streams, a bounded send buffer on the
//! server's side, orderly ends and resets.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// The state of one direction of a wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// More may come.
    Open,
    /// FIN follows the bytes in flight.
    Finished,
    /// RST: no more bytes can be read.
    Reset,
}

/// One TCP connection between a client and the server.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// The shard that accepted it.
    pub(crate) shard: usize,
    up: VecDeque<u8>,
    up_end: End,
    down: VecDeque<u8>,
    down_end: End,
    send_buffer_bytes: usize,
    server_gone: bool,
}

impl Wire {
    /// A connection of which the server's kernel buffers `send_buffer_bytes` unread bytes at most.
    pub(crate) fn new(peer: SocketAddr, shard: usize, send_buffer_bytes: usize) -> Self {
        Self {
            peer,
            shard,
            up: VecDeque::new(),
            up_end: End::Open,
            down: VecDeque::new(),
            down_end: End::Open,
            send_buffer_bytes,
            server_gone: false,
        }
    }

    // The client's end.

    /// Sends bytes; after an end of the client's direction they are lost, as are bytes sent to a server that has
    /// closed, which answers with a reset.
    pub(crate) fn client_write(&mut self, bytes: &[u8]) {
        if self.server_gone {
            self.down_end = End::Reset;
        } else if self.up_end == End::Open {
            self.up.extend(bytes);
        }
    }

    /// Ends the client's direction with FIN.
    pub(crate) fn client_finish(&mut self) {
        if self.up_end == End::Open {
            self.up_end = End::Finished;
        }
    }

    /// Resets the connection; bytes that the server has not read are lost or not, at random.
    pub(crate) fn client_reset(&mut self, lose_unread: bool) {
        if lose_unread {
            self.up.clear();
        }
        self.up_end = End::Reset;
        self.down.clear();
        self.down_end = End::Reset;
    }

    /// Reads up to `bytes_max` bytes.
    pub(crate) fn client_read(&mut self, bytes_max: usize) -> Vec<u8> {
        take(&mut self.down, bytes_max)
    }

    /// The state of the server's direction for the client; `Open` while bytes are left to read.
    pub(crate) fn client_sees(&self) -> End {
        if self.down.is_empty() { self.down_end } else { End::Open }
    }

    // The server's end.

    /// Bytes that the server can read now.
    pub(crate) fn server_readable(&self) -> usize {
        self.up.len()
    }

    /// Reads up to `bytes_max` bytes.
    pub(crate) fn server_read(&mut self, bytes_max: usize) -> Vec<u8> {
        take(&mut self.up, bytes_max)
    }

    /// The state of the client's direction for the server; `Open` while bytes are left to read.
    pub(crate) fn server_sees(&self) -> End {
        match self.up_end {
            End::Finished if !self.up.is_empty() => End::Open,
            End::Open | End::Finished | End::Reset => self.up_end,
        }
    }

    /// Bytes that the kernel would accept now.
    pub(crate) fn server_space(&self) -> usize {
        self.send_buffer_bytes.saturating_sub(self.down.len())
    }

    /// Puts bytes into the send buffer; the caller respects `server_space`.
    pub(crate) fn server_write(&mut self, bytes: &[u8]) {
        if self.up_end != End::Reset {
            self.down.extend(bytes);
        }
    }

    /// Ends the server's direction with FIN.
    pub(crate) fn server_finish(&mut self) {
        if self.down_end == End::Open {
            self.down_end = End::Finished;
        }
    }

    /// Closes the server's socket. As in a kernel, closing over unread input sends a reset, which may overtake bytes
    /// that the client has not read yet: `lose_unread` selects whether it does.
    pub(crate) fn server_close(&mut self, reset: bool, lose_unread: bool) {
        self.server_gone = true;
        let unread_input = !self.up.is_empty();
        self.up.clear();
        if reset || unread_input {
            if reset || lose_unread {
                self.down.clear();
            }
            self.down_end = End::Reset;
        } else {
            self.server_finish();
        }
    }
}

/// Takes up to `bytes_max` bytes, in slices: byte by byte it would take half of a run's time.
fn take(stream: &mut VecDeque<u8>, bytes_max: usize) -> Vec<u8> {
    let count = bytes_max.min(stream.len());
    let (first, second) = stream.as_slices();
    let from_first = count.min(first.len());
    let taken = [&first[..from_first], &second[..count - from_first]].concat();
    stream.drain(..count);
    taken
}
