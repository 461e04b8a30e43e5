//! A question: bytes for a fresh socket, and the expected answer.

use std::time::Duration;

use crate::common::rig::{SharedServers, on_shared_servers};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::wire::{CLOSE, FIN, PING, PONG, RawSocket, ServerFrame, TEXT, frame};

/// A message that is answered with [`PUSHER_PONG`].
pub(crate) const PUSHER_PING: &str = r#"{"event":"pusher:ping"}"#;
/// The answer to [`PUSHER_PING`].
pub(crate) const PUSHER_PONG: &str = r#"{"event":"pusher:pong","data":"{}"}"#;

/// The answer to a question, before the test checks whether the socket still works.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// The pong of the Pusher protocol: a text message arrived complete.
    PusherPong,
    /// A `pusher:error`: a text message arrived, and is not JSON.
    Error,
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// A Close frame with this code; then the server ends the connection.
    Close(u16),
    /// An answer to an empty Close frame: empty or 1000. Then the server ends the connection.
    EmptyClose,
}

/// A question to the endpoint.
pub(crate) struct Question {
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) answers: Vec<Answer>,
}

impl Question {
    pub(crate) fn new(what: impl Into<String>, bytes: Vec<u8>, answers: &[Answer]) -> Self {
        Self { what: what.into(), bytes, answers: answers.to_vec() }
    }

    /// Is refused with this code.
    pub(crate) fn refused(what: impl Into<String>, bytes: Vec<u8>, code: u16) -> Self {
        Self::new(what, bytes, &[Answer::Close(code)])
    }
}

static SERVERS: SharedServers = SharedServers::new(|driver| {
    // `large` takes messages of 424,096 bytes, `main` of 65,536 (P-IN-5).
    let settings = ["max_event_data_bytes=70000", "client_events=true", "max_client_events_per_second=0"];
    ServerOptions::new(driver).app("large", &settings)
});

/// Runs a scenario on the server of each driver.
pub(crate) fn on_both(scenario: impl Fn(&'static TestServer)) {
    on_shared_servers(&SERVERS, scenario);
}

/// A fresh socket of an app, established.
pub(crate) fn open(server: &TestServer, app: &str) -> RawSocket {
    RawSocket::established(server.address, &format!("/app/{}?protocol=7", server.named_app(app).key))
}

/// Asks all questions on both drivers, each on a fresh socket, in one piece and byte by byte.
#[track_caller]
pub(crate) fn ask_all(app: &'static str, questions: &[Question]) {
    on_both(|server| {
        for question in questions {
            ask(server, app, question, "whole", &[&question.bytes]);
            ask(server, app, question, "byte by byte", &single_bytes(&question.bytes));
        }
        server.assert_alive();
    });
}

/// One byte at a time; for long questions only at the beginning and the end, with pieces of an odd length between them.
fn single_bytes(bytes: &[u8]) -> Vec<&[u8]> {
    let ends = if bytes.len() <= 4_096 { bytes.len() } else { 200 };
    let (first, rest) = bytes.split_at(ends);
    let (middle, last) = rest.split_at(rest.len().saturating_sub(ends));
    first.chunks(1).chain(middle.chunks(509)).chain(last.chunks(1)).collect()
}

#[track_caller]
fn ask(server: &TestServer, app: &str, question: &Question, how: &str, pieces: &[&[u8]]) {
    let mut socket = open(server, app);
    let what = format!("{}, {how}, on {}", question.what, server.driver.word());
    for piece in pieces {
        // A refusal may end the connection while the rest is in flight.
        if socket.write(piece).is_err() {
            break;
        }
    }
    for answer in &question.answers {
        let found = socket.read().unwrap_or_else(|error| panic!("{what}: {answer:?} was due: {error}"));
        check(&what, answer, &found);
    }
    match question.answers.last() {
        Some(Answer::Close(code)) => end(&mut socket, &what, &code.to_be_bytes()),
        Some(Answer::EmptyClose) => end(&mut socket, &what, &[]),
        _ => is_well(&mut socket, &what),
    }
}

#[track_caller]
fn check(what: &str, answer: &Answer, found: &ServerFrame) {
    let text = || String::from_utf8_lossy(&found.payload).into_owned();
    match answer {
        Answer::PusherPong => assert_eq!((found.first, text().as_str()), (FIN | TEXT, PUSHER_PONG), "{what}"),
        Answer::Error => {
            assert!(found.first == FIN | TEXT && text().contains("pusher:error"), "{what}: {found:?}");
        }
        Answer::Pong(payload) => assert_eq!((found.first, &found.payload), (FIN | PONG, payload), "{what}"),
        Answer::Close(code) => {
            assert_eq!(found.close_code(), Some(*code), "{what}: {found:?}");
            let reason = found.payload.get(2..).unwrap_or_default();
            assert!(std::str::from_utf8(reason).is_ok() && found.payload.len() <= 125, "{what}: {found:?}");
        }
        Answer::EmptyClose => assert!(matches!(found.close_code(), Some(1000 | 1005)), "{what}: {found:?}"),
    }
}

/// The socket answers a ping, and nothing came before that.
#[track_caller]
fn is_well(socket: &mut RawSocket, what: &str) {
    socket.write(&frame(FIN | PING, b"still here?")).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = socket.read().unwrap_or_else(|error| panic!("{what}: the socket is gone: {error}"));
    check(what, &Answer::Pong(b"still here?".to_vec()), &found);
}

/// The client answers the Close, and the server ends the connection without another frame.
#[track_caller]
fn end(socket: &mut RawSocket, what: &str, payload: &[u8]) {
    let _ = socket.write(&frame(FIN | CLOSE, payload));
    match socket.read() {
        Ok(frame) => panic!("{what}: a frame after the Close: {frame:?}"),
        Err(error) => assert!(
            !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "{what}: the connection stays open"
        ),
    }
}

/// The server ends the connection with this code although nothing more is sent: it does not wait for bytes that cannot
/// help.
#[track_caller]
pub(crate) fn closes_at_once(server: &TestServer, app: &str, what: &str, bytes: &[u8], code: u16) {
    let mut socket = open(server, app);
    socket.write(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = socket.read().unwrap_or_else(|error| panic!("{what}: a Close was due: {error}"));
    check(what, &Answer::Close(code), &found);
}

/// The server does not answer these bytes, since they may become valid: a ping behind them would be part of them, so
/// the test reads the socket for a moment.
#[track_caller]
pub(crate) fn is_waited_for(server: &TestServer, app: &str, what: &str, bytes: &[u8], rest: &[u8]) {
    let mut socket = open(server, app);
    socket.write(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    socket.stream().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    if let Ok(found) = socket.read() {
        panic!("{what}: {found:?}");
    }
    socket.stream().set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    socket.write(rest).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = socket.read().unwrap_or_else(|error| panic!("{what}: an answer was due: {error}"));
    check(what, &Answer::PusherPong, &found);
}
