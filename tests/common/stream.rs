//! A client of server-sent events, by the event stream format of the HTML standard.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::http::{HttpConnection, Response};

/// One event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamEvent {
    /// Its line `event:`; `message` without one.
    pub name: String,
    /// Its own line `id:`.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

impl StreamEvent {
    /// Its data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// An open stream.
pub struct EventStream {
    connection: HttpConnection,
    /// The head of the answer.
    pub head: Response,
    /// The last line `id:`, which the client sends when it connects again.
    pub last_event_id: Option<String>,
    /// Comments so far.
    pub comments: usize,
}

impl EventStream {
    /// Opens a stream, which the server must accept.
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut connection = HttpConnection::open(address);
        connection.send("GET", target, headers, b"");
        Self::read(connection)
    }

    /// Reads the head of a stream that was requested.
    #[track_caller]
    pub fn read(mut connection: HttpConnection) -> Self {
        let head = connection.try_read_head().expect("an answer");
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
        Self { connection, head, last_event_id: None, comments: 0 }
    }

    /// The next event; `None` when the stream has ended.
    pub fn next(&mut self) -> Option<StreamEvent> {
        let (mut name, mut id, mut data) = (String::new(), None, Vec::new());
        loop {
            let line = self.connection.read_line()?;
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() && data.is_empty() => (name, id) = (String::new(), None),
                "" if line.is_empty() => {
                    if id.is_some() {
                        self.last_event_id.clone_from(&id);
                    }
                    let name = if name.is_empty() { "message".to_owned() } else { name };
                    return Some(StreamEvent { name, id, data: data.join("\n") });
                }
                "" => self.comments += 1,
                "event" => value.clone_into(&mut name),
                "id" => id = Some(value.to_owned()),
                "data" => data.push(value.to_owned()),
                "retry" => assert_eq!(value, "3000"),
                _ => panic!("a field of the format: {line:?}"),
            }
        }
    }

    /// The next event, which must come.
    #[track_caller]
    pub fn expect(&mut self, name: &str) -> StreamEvent {
        let event = self.next().unwrap_or_else(|| panic!("{name} was due"));
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// The next event, which must be `connected`; returns its data.
    #[track_caller]
    pub fn expect_connected(&mut self, channels: &[&str], resumed: bool) -> Value {
        let data = self.expect("connected").json();
        assert_eq!((&data["channels"], &data["resumed"]), (&json!(channels), &json!(resumed)), "{data}");
        data
    }

    /// The next event, which must be a published one.
    #[track_caller]
    pub fn expect_event(&mut self, channel: &str, name: &str, data: &str) -> StreamEvent {
        let event = self.expect(name);
        let json = event.json();
        let fields = (&json["channel"], &json["event"], &json["data"]);
        assert_eq!(fields, (&json!(channel), &json!(name), &json!(data)), "{event:?}");
        event
    }

    /// Fails unless the stream ends without another event.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let next = self.next();
        assert_eq!(next, None, "the stream ends");
    }

    /// The connection.
    pub fn connection(&self) -> &HttpConnection {
        &self.connection
    }
}
