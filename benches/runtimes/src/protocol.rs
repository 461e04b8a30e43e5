//! The minimum of the protocol that the load generator needs, the same for every runtime: bytes in, bytes and demands
//! out. It uses Relay's own codecs, so that the servers differ only in how they move bytes.
//!
//! A session is an HTTP connection until it upgrades. As [`Role::FanOut`] it accepts subscriptions and publishes
//! without verifying anything; as [`Role::Echo`] it answers every message with the same message and every POST with
//! `{}`.

use std::borrow::Cow;

use bytes::Bytes;
use clap::ValueEnum;
use relay::auth::handshake::accept_value;
use relay::limits::MESSAGE_BYTES_MAX;
use relay::wire::http::{
    Progress, Request, RequestDecoder, RequestLimits, decode_upgrade, encode_response, encode_upgrade,
};
use relay::wire::websocket::{Decoder, Message, Opcode, encode_frame};
use serde::Deserialize;

/// How a server responds to what it receives.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Role {
    /// Every published event is sent to every subscriber of its channel.
    FanOut,
    /// Everything is sent back.
    Echo,
}

/// A request of a connection to the server that holds it.
pub(crate) enum Demand {
    Join(Box<str>),
    Leave(Box<str>),
    /// Send the frame to every subscriber of the channel.
    Publish {
        channel: Box<str>,
        frame: Bytes,
    },
}

/// The peer sent invalid bytes or a Close frame: end the connection.
pub(crate) struct Ended;

/// One connection.
pub(crate) struct Session {
    role: Role,
    /// Makes its `socket_id` unique.
    number: u64,
    phase: Phase,
}

enum Phase {
    Http(RequestDecoder),
    WebSocket(Decoder),
}

#[derive(Deserialize)]
struct ClientMessage<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: ClientData<'a>,
}

#[derive(Deserialize)]
struct ClientData<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Publish<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    channels: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

impl Session {
    pub(crate) fn new(role: Role, number: u64) -> Self {
        Self { role, number, phase: Phase::Http(RequestDecoder::default()) }
    }

    /// Consumes bytes; appends the reply bytes and the demands.
    pub(crate) fn receive(
        &mut self,
        mut input: &mut [u8],
        replies: &mut Vec<u8>,
        demands: &mut Vec<Demand>,
    ) -> Result<(), Ended> {
        while !input.is_empty() {
            let consumed = match &mut self.phase {
                Phase::Http(decoder) => {
                    let decoded = decoder.decode(input, &RequestLimits::default()).map_err(|_| Ended)?;
                    let consumed = decoded.consumed;
                    if let Progress::Request(request) = decoded.progress {
                        match answer(self.role, &request, replies, demands)? {
                            After::Next => decoder.release(),
                            After::Upgraded => {
                                greet(self.number, replies);
                                self.phase = Phase::WebSocket(Decoder::default());
                            }
                        }
                    }
                    consumed
                }
                Phase::WebSocket(decoder) => {
                    let decoded = decoder.decode(input, MESSAGE_BYTES_MAX).map_err(|_| Ended)?;
                    if let Some(message) = decoded.message {
                        take_message(self.role, &message, replies, demands)?;
                    }
                    let consumed = decoded.consumed;
                    decoder.release();
                    consumed
                }
            };
            input = &mut input[consumed..];
        }
        Ok(())
    }
}

enum After {
    Next,
    Upgraded,
}

fn answer(role: Role, request: &Request<'_>, replies: &mut Vec<u8>, demands: &mut Vec<Demand>) -> Result<After, Ended> {
    if request.method == "GET" {
        let key = decode_upgrade(request).map_err(|_| Ended)?;
        encode_upgrade(replies, &accept_value(key), None);
        return Ok(After::Upgraded);
    }
    if role == Role::FanOut {
        let publish: Publish<'_> = serde_json::from_slice(request.body).map_err(|_| Ended)?;
        for channel in &publish.channels {
            let frame = encode_event(&publish.name, channel, &publish.data);
            demands.push(Demand::Publish { channel: channel.as_ref().into(), frame });
        }
    }
    // Byte for byte Relay's response, so that a comparison measures only the work around it.
    encode_response(replies, 200, "application/json", "", b"{}", true);
    Ok(After::Next)
}

/// One complete frame, encoded once for all subscribers.
fn encode_event(name: &str, channel: &str, data: &str) -> Bytes {
    let mut payload = Vec::with_capacity(64 + name.len() + channel.len() + data.len());
    for (before, text) in [("{\"event\":", name), (",\"channel\":", channel), (",\"data\":", data)] {
        payload.extend_from_slice(before.as_bytes());
        serde_json::to_writer(&mut payload, text).expect("a vector takes all");
    }
    payload.push(b'}');
    let mut frame = Vec::new();
    encode_frame(&mut frame, Opcode::Text, &payload);
    frame.into()
}

fn greet(number: u64, replies: &mut Vec<u8>) {
    let text = format!(
        "{{\"event\":\"pusher:connection_established\",\
         \"data\":\"{{\\\"socket_id\\\":\\\"1.{number}\\\",\\\"activity_timeout\\\":120}}\"}}"
    );
    encode_frame(replies, Opcode::Text, text.as_bytes());
}

fn take_message(
    role: Role,
    message: &Message<'_>,
    replies: &mut Vec<u8>,
    demands: &mut Vec<Demand>,
) -> Result<(), Ended> {
    match message {
        Message::Text(text) if role == Role::Echo => encode_frame(replies, Opcode::Text, text.as_bytes()),
        Message::Text(text) => {
            let message: ClientMessage<'_> = serde_json::from_str(text).map_err(|_| Ended)?;
            let channel = message.data.channel;
            match &*message.event {
                "pusher:subscribe" => {
                    let name = serde_json::to_string(&channel).expect("a string");
                    let text = format!(
                        "{{\"event\":\"pusher_internal:subscription_succeeded\",\"channel\":{name},\"data\":\"{{}}\"}}"
                    );
                    encode_frame(replies, Opcode::Text, text.as_bytes());
                    demands.push(Demand::Join(channel.into()));
                }
                "pusher:unsubscribe" => demands.push(Demand::Leave(channel.into())),
                "pusher:ping" => encode_frame(replies, Opcode::Text, br#"{"event":"pusher:pong","data":{}}"#),
                _ => {}
            }
        }
        Message::Binary(bytes) => encode_frame(replies, Opcode::Binary, bytes),
        Message::Ping(payload) => encode_frame(replies, Opcode::Pong, payload),
        Message::Pong(_) => {}
        Message::Close(..) => return Err(Ended),
    }
    Ok(())
}
