//! A Pusher client over `tungstenite`, which shares no code with the server's codec.

use std::io;
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

use super::PATIENCE;
use super::server::TestServer;
use super::sign::App;
use super::wire::RawSocket;

/// The query that stock pusher-js appends to `/app/{key}`.
pub const QUERY: &str = "?protocol=7&client=js&version=8.6.0&flash=false";

/// One thing that arrived on a socket.
#[derive(Debug, PartialEq)]
pub enum Arrival {
    /// A text message.
    Text(String),
    /// A ping with its payload.
    Ping(Vec<u8>),
    /// A pong with its payload.
    Pong(Vec<u8>),
    /// A Close frame: code and reason.
    Close(u16, String),
    /// The connection ended without a Close frame, or nothing arrived in time.
    Ended(String),
}

/// A WebSocket of a Pusher client.
pub struct Socket {
    /// Its app, used to sign subscriptions.
    pub app: App,
    /// The socket id of `connection_established`; empty before it.
    pub socket_id: String,
    inner: WebSocket<TcpStream>,
}

impl Socket {
    /// Connects as pusher-js does and reads the first frame (P-CONN-1, P-CONN-9).
    #[track_caller]
    pub fn open(server: &TestServer, app: &App) -> Self {
        let mut socket = Self::upgrade(server, app, &format!("/app/{}{QUERY}", app.key));
        socket.established();
        socket
    }

    /// Connects to any path and reads nothing.
    #[track_caller]
    pub fn upgrade(server: &TestServer, app: &App, target: &str) -> Self {
        Self::upgrade_with(server, app, target, &[]).0
    }

    /// Connects to any path with further request headers; also returns the response of the handshake.
    #[track_caller]
    pub fn upgrade_with(server: &TestServer, app: &App, target: &str, headers: &[(&str, &str)]) -> (Self, Response) {
        let stream = TcpStream::connect(server.address).expect("the server accepts");
        Self::upgrade_on(stream, app, target, headers)
    }

    /// Upgrades a stream that is already connected.
    #[track_caller]
    pub fn upgrade_on(stream: TcpStream, app: &App, target: &str, headers: &[(&str, &str)]) -> (Self, Response) {
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let address = stream.peer_addr().expect("a connected socket has a peer");
        let mut request = format!("ws://{address}{target}").into_client_request().expect("a valid URL");
        for (name, value) in headers {
            let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            request.headers_mut().append(name, value.parse().expect("a header value"));
        }
        let config = WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20));
        let (inner, response) = tungstenite::client::client_with_config(request, stream, Some(config))
            .unwrap_or_else(|error| panic!("the upgrade of {target}: {error}"));
        (Self { app: app.clone(), socket_id: String::new(), inner }, response)
    }

    /// Reads `connection_established` and keeps the socket id.
    #[track_caller]
    pub fn established(&mut self) -> Value {
        let frame = self.next_json();
        assert_eq!(frame["event"], "pusher:connection_established", "{frame}");
        let data: Value = serde_json::from_str(frame["data"].as_str().expect("P-SDK-3: data is a string"))
            .expect("the data string holds JSON");
        self.socket_id = data["socket_id"].as_str().expect("a socket_id").to_owned();
        data
    }

    /// Sends a text message.
    pub fn send(&mut self, text: &str) {
        self.try_send(text).expect("the message goes out");
    }

    /// Sends a text message; the server may have ended the connection.
    pub fn try_send(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.inner.send(Message::text(text))
    }

    /// Sends JSON.
    pub fn send_json(&mut self, message: &Value) {
        self.send(&message.to_string());
    }

    /// Sends any message.
    pub fn send_message(&mut self, message: Message) {
        self.inner.send(message).expect("the message goes out");
    }

    /// The next arrival. Close codes after which clients do not reconnect (P-SDK-14) fail here.
    pub fn next(&mut self) -> Arrival {
        match self.inner.read() {
            Ok(Message::Text(text)) => Arrival::Text(text.to_string()),
            Ok(Message::Ping(payload)) => Arrival::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Arrival::Pong(payload.to_vec()),
            Ok(Message::Close(Some(frame))) => {
                let code = u16::from(frame.code);
                assert!(code < 4300, "P-SDK-14: close code {code}");
                assert!(frame.reason.len() <= 123, "P-CLOSE-3: a reason of {} bytes", frame.reason.len());
                let _ = self.inner.flush();
                Arrival::Close(code, frame.reason.to_string())
            }
            Ok(Message::Close(None)) => Arrival::Close(1005, String::new()),
            Ok(other) => Arrival::Ended(format!("an unexpected message: {other:?}")),
            // A read with a time limit is not restarted automatically when the process was stopped meanwhile.
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => self.next(),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Arrival::Ended("nothing arrived in time".to_owned())
            }
            Err(error) => Arrival::Ended(error.to_string()),
        }
    }

    /// The next text message, exactly as on the wire.
    #[track_caller]
    pub fn next_text(&mut self) -> String {
        match self.next() {
            Arrival::Text(text) => text,
            other => panic!("a text message was due, not {other:?}"),
        }
    }

    /// The next text message as JSON.
    #[track_caller]
    pub fn next_json(&mut self) -> Value {
        let text = self.next_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The next text message, whose event must be this one.
    #[track_caller]
    pub fn expect_event(&mut self, event: &str) -> Value {
        let frame = self.next_json();
        assert_eq!(frame["event"], event, "{frame}");
        frame
    }

    /// The next message, which must be this event with this data.
    #[track_caller]
    pub fn expect_data(&mut self, event: &str, channel: &str, data: &str) {
        let frame = self.next_json();
        assert_eq!(frame, json!({"event": event, "channel": channel, "data": data}));
    }

    /// The next message, which must be `pusher:error` with this code (P-SDK-4, P-OUT-11); returns its text.
    #[track_caller]
    pub fn expect_error(&mut self, code: Option<u16>) -> String {
        let frame = self.expect_event("pusher:error");
        assert!(frame["data"].is_object(), "P-SDK-4: the data of an error is an object: {frame}");
        assert_eq!(frame["data"]["code"], json!(code), "{frame}");
        frame["data"]["message"].as_str().unwrap_or_else(|| panic!("a message in {frame}")).to_owned()
    }

    /// The next message, which must be `pusher:error` with a numeric code; returns the code.
    #[track_caller]
    pub fn expect_error_code(&mut self) -> u16 {
        let frame = self.expect_event("pusher:error");
        frame["data"]["code"]
            .as_u64()
            .and_then(|code| code.try_into().ok())
            .unwrap_or_else(|| panic!("a code in {frame}"))
    }

    /// The next frame, which must be Close with this code; the connection then ends. Returns the reason.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        match self.next() {
            Arrival::Close(found, reason) => {
                assert_eq!(found, code, "{reason}");
                reason
            }
            other => panic!("Close {code} was due, not {other:?}"),
        }
    }

    /// A fatal refusal: the event and the Close frame have the same code (P-SDK-13). Returns the event's message.
    #[track_caller]
    pub fn expect_fatal(&mut self, code: u16) -> String {
        let message = self.expect_error(Some(code));
        self.expect_close(code);
        message
    }

    /// Fails unless nothing is in flight to this socket: the answer to a ping must be the next arrival.
    #[track_caller]
    pub fn expect_quiet(&mut self) {
        self.send(r#"{"event":"pusher:ping","data":{}}"#);
        let text = self.next_text();
        assert_eq!(text, r#"{"event":"pusher:pong","data":"{}"}"#, "something was on its way");
    }

    /// The data of a subscribe, signed as the channel's type requires.
    pub fn subscribe_data(&self, channel: &str, channel_data: Option<&str>) -> Value {
        match channel_data {
            Some(text) => {
                let auth = self.app.sign_presence(&self.socket_id, channel, text);
                json!({"auth": auth, "channel_data": text, "channel": channel})
            }
            None if channel.starts_with("private-") => {
                json!({"auth": self.app.sign_private(&self.socket_id, channel), "channel": channel})
            }
            None => json!({"auth": "", "channel": channel}),
        }
    }

    /// Sends a subscribe of a public or private channel.
    pub fn send_subscribe(&mut self, channel: &str) {
        let data = self.subscribe_data(channel, None);
        self.send_json(&json!({"event": "pusher:subscribe", "data": data}));
    }

    /// Subscribes a public or private channel, with success.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.send_subscribe(channel);
        self.expect_data("pusher_internal:subscription_succeeded", channel, "{}");
    }

    /// Sends a subscribe of a presence channel.
    pub fn send_join(&mut self, channel: &str, channel_data: &str) {
        let data = self.subscribe_data(channel, Some(channel_data));
        self.send_json(&json!({"event": "pusher:subscribe", "data": data}));
    }

    /// Subscribes a presence channel, with success; returns the roster: `count`, `ids`, `hash`.
    #[track_caller]
    pub fn join(&mut self, channel: &str, channel_data: &str) -> Value {
        self.send_join(channel, channel_data);
        let frame = self.expect_event("pusher_internal:subscription_succeeded");
        assert_eq!(frame["channel"], channel);
        let data: Value = serde_json::from_str(frame["data"].as_str().expect("data is a string")).expect("JSON");
        data["presence"].clone()
    }

    /// Sends a signin.
    pub fn send_signin(&mut self, user_data: &str) {
        let auth = self.app.sign_user(&self.socket_id, user_data);
        self.send_json(&json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}));
    }

    /// Signs in, with success: the answer echoes the data that was sent (P-OUT-9).
    #[track_caller]
    pub fn sign_in(&mut self, user_data: &str) {
        self.send_signin(user_data);
        let data = json!({"user_data": user_data}).to_string();
        assert_eq!(self.next_json(), json!({"event": "pusher:signin_success", "data": data}));
    }

    /// Sends an unsubscribe.
    pub fn unsubscribe(&mut self, channel: &str) {
        self.send_json(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}));
    }

    /// Returns the stream without tungstenite: from here on the test reads and writes frames itself. Nothing may be
    /// unread.
    pub fn into_raw(self) -> RawSocket {
        RawSocket::from_stream(self.inner.into_inner())
    }

    /// The underlying TCP stream.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.inner.get_mut()
    }

    /// Closes the connection properly: Close 1000, and waits for the server's answer.
    pub fn leave(mut self) {
        let _ = self.inner.close(None);
        while !matches!(self.next(), Arrival::Close(..) | Arrival::Ended(_)) {}
    }
}
