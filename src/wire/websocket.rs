//! WebSocket frames and messages (RFC 6455), both directions, without extensions.

/// Frame types of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Opcode {
    /// Continues a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// Close handshake.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

/// A breach of RFC 6455 or of a limit; each maps to exactly one close code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WebSocketError {
    /// Reserved bit or opcode, unmasked frame, broken fragmentation, bad control frame, bad close payload: 1002.
    Protocol(&'static str),
    /// Text or a close reason that is not UTF-8: 1007.
    InvalidUtf8,
    /// The message is or would become longer than allowed, told from the declared length: 1009.
    TooBig,
    /// More fragments than the message's bytes justify (threat T8): 1009.
    TooManyFragments,
}

impl WebSocketError {
    /// The close code of RFC 6455 section 7.4.1 that answers this error.
    pub fn close_code(self) -> u16 {
        todo!()
    }
}

/// One message or control frame from the client.
#[derive(Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// Whole text message.
    Text(&'a str),
    /// Whole binary message.
    Binary(&'a [u8]),
    /// Ping with its payload (at most 125 bytes).
    Ping(&'a [u8]),
    /// Pong with its payload.
    Pong(&'a [u8]),
    /// Close with code (`None` for an empty payload) and reason.
    Close(Option<u16>, &'a str),
}

/// What one call of [`Decoder::decode`] gave.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// Bytes of the input that are done with; call again with the rest while there is any.
    pub consumed: usize,
    /// A message, if one became whole.
    pub message: Option<Message<'a>>,
}

/// Reads messages out of a stream of client bytes. Between whole messages it owns no memory.
#[derive(Debug, Default)]
pub struct Decoder {
    // A: partial header, partial payload (grown as bytes arrive, never by the declared length), fragment state.
    _todo: (),
}

impl Decoder {
    /// Takes input, unmasking in place. A message that lies whole in `input` is lent from it without a copy.
    ///
    /// # Errors
    /// The first breach; the decoder must not be used after it.
    pub fn decode<'a>(
        &'a mut self,
        _input: &'a mut [u8],
        _message_bytes_max: usize,
    ) -> Result<Decoded<'a>, WebSocketError> {
        todo!()
    }
    /// True when nothing of a frame or message is held, so that the decoder may be dropped.
    pub fn is_idle(&self) -> bool {
        todo!()
    }
}

/// Appends the header of one unmasked, unfragmented server frame.
pub fn encode_header(_out: &mut Vec<u8>, _opcode: Opcode, _payload_bytes: usize) {
    todo!()
}

/// Appends one whole server frame.
pub fn encode_frame(_out: &mut Vec<u8>, _opcode: Opcode, _payload: &[u8]) {
    todo!()
}

/// Appends a Close frame; the reason is cut to 123 bytes at a character boundary (P-CLOSE-3).
pub fn encode_close(_out: &mut Vec<u8>, _code: u16, _reason: &str) {
    todo!()
}
