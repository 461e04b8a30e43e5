//! The answer to a request for a stream: its head, then the events of the HTML standard's event stream format, or a
//! refusal. Written for these tests alone.

use super::responses::{Response, ResponseReader};

/// The lines up to an empty one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Block {
    /// The last line `id:`, if there was one.
    pub(crate) id: Option<String>,
    /// The line `event:`.
    pub(crate) event: Option<String>,
    /// The lines `data:`, joined; `None` without any, so that nothing is dispatched.
    pub(crate) data: Option<String>,
}

/// Something that was read.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The stream began, with this head.
    Opened(Response),
    /// Lines of the stream.
    Block(Block),
    /// An answer that is no stream.
    Refused(Response),
}

/// Reads the answer, however it is split.
#[derive(Debug, Default)]
pub(crate) struct EventStreamReader {
    head: ResponseReader,
    is_open: bool,
    text: Vec<u8>,
}

impl EventStreamReader {
    /// Adds bytes that were read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_open { self.text.extend_from_slice(bytes) } else { self.head.push(bytes) }
    }

    /// True where the end of the connection cuts nothing: a stream may end within an event, an answer may not.
    pub(crate) fn may_end(&self) -> bool {
        self.is_open || self.head.pending() == 0
    }

    /// The next item.
    pub(crate) fn next(&mut self) -> Option<Item> {
        if !self.is_open {
            if let Some(head) = self.head.next_stream_head() {
                self.is_open = true;
                self.text = self.head.take_rest();
                return Some(Item::Opened(head));
            }
            return self.head.next(false).map(Item::Refused);
        }
        let end = self.text.windows(2).position(|window| window == b"\n\n")? + 2;
        let text: Vec<u8> = self.text.drain(..end).collect();
        let text = String::from_utf8(text).expect("an event stream is UTF-8");
        assert!(!text.contains(['\r', '\0']), "these lines end with line feeds alone: {text:?}");
        let mut block = Block::default();
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => {}
                "id" => block.id = Some(value),
                "event" => block.event = Some(value),
                "data" => {
                    let data = block.data.take();
                    block.data = Some(data.map_or(value.clone(), |data| format!("{data}\n{value}")));
                }
                "retry" => assert_eq!(value, "3000", "R-SSE-7"),
                other => panic!("no stream has a line {other:?}: {text:?}"),
            }
        }
        Some(Item::Block(block))
    }
}
