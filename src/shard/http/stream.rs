//! Streams and polls over HTTP (R-SSE, R-POLL rules): checked here, and admitted as connections of their app.

use super::response::ResponseSlot;
use super::{Call, Parts, Requests};
use crate::api::refusal::Refusal;
use crate::api::stream::{Reading, StreamId, decode_stream, encode_time};
use crate::app::{App, AppSerial};
use crate::auth::request::{Caller, Credential, token_of};
use crate::connection::ConnectionKey;
use crate::metrics::figures::Overload;
use crate::shard::connections::{AskedChannel, Grant, GrantedBy, Opening, OpeningChannel, ended_early};
use crate::shard::context::Context;
use crate::shard::mail::QuotaMessage;

/// A stream that may be opened.
pub(super) struct StreamCommand {
    app: AppSerial,
    grant: Grant,
    channels: Vec<AskedChannel>,
    socket_id: Option<StreamId>,
    /// Its first event has the positions of its channels.
    positions: bool,
    /// Header lines of the answer.
    pub(super) headers: Box<str>,
}

impl Requests {
    /// Checks a request for a stream.
    pub(super) fn prepare_stream(
        &self,
        parts: &Parts<'_>,
        call: Call<'_>,
        caller: &Caller,
        app: &App,
        headers: &str,
    ) -> Result<StreamCommand, Refusal> {
        let (reading, grant) = self.prepare_reading(parts, call, caller, app)?;
        Ok(StreamCommand {
            app: app.serial,
            grant,
            channels: asked_channels(parts.context, app.serial, &reading).collect(),
            socket_id: reading.socket_id,
            positions: reading.positions,
            headers: headers.into(),
        })
    }

    /// What a stream or poll reads, and how long it may.
    pub(super) fn prepare_reading(
        &self,
        parts: &Parts<'_>,
        call: Call<'_>,
        caller: &Caller,
        app: &App,
    ) -> Result<(Reading, Grant), Refusal> {
        let request = call.request;
        check_tls(parts, call, app)?;
        let names = parts.context.config.options.channel_names;
        let reading = decode_stream(request, app, caller, names, parts.context.now)?;
        let mut ends_at_ms = reading.socket_id.map_or(u64::MAX, |id| id.ends_at_ms());
        let credential = match caller.credential {
            Credential::Token(..) => {
                let token = token_of(&parts.context.directory, request);
                let token = token.ok_or_else(|| Refusal::unauthorized("The token is not valid for this app."))?;
                ends_at_ms = ends_at_ms.min(token.expires_at_ms.unwrap_or(u64::MAX));
                GrantedBy::Token(token.hash)
            }
            Credential::Signature(index) | Credential::KeyAndSecret(index) | Credential::PublicKey(index) => {
                GrantedBy::Key(parts.context.keyed_hash(app.serial, &app.keys[index].key))
            }
            Credential::Authorizer => unreachable!("it authorizes subscriptions only"),
        };
        Ok((reading, Grant { ends_at_ms, credential }))
    }

    /// Asks the app's counter whether it has room for the stream.
    ///
    /// # Errors
    /// 400 behind other requests, and 503 without a place.
    pub(super) fn start_stream(
        &self,
        parts: &mut Parts<'_>,
        reply_to: ResponseSlot,
        command: StreamCommand,
    ) -> Result<(), Refusal> {
        let StreamCommand { app, grant, channels, socket_id, positions, headers } = command;
        check_place(parts, reply_to, app)?;
        let opening = Opening {
            grant,
            dialect: reply_to.dialect,
            ticket: reply_to.ticket,
            headers,
            socket_id: socket_id.map(|id| id.id.to_text().into()),
            awaited: channels.len(),
            continues: channels.iter().any(|channel| channel.after.is_some()),
            positions,
            channels: channels.into_iter().map(OpeningChannel::new).collect(),
        };
        let slot = reply_to.connection.slot();
        parts.connections.add_stream(slot, opening);
        ask_for_place(parts, reply_to.connection, app);
        parts.connections.end_if_read_ended(parts.context, slot);
        Ok(())
    }

    /// The app's counter has answered about a stream or poll.
    pub(in crate::shard) fn handle_place(
        &mut self,
        parts: &mut Parts<'_>,
        app: AppSerial,
        connection: ConnectionKey,
        admitted: bool,
    ) {
        let slot = connection.slot();
        if self.handle_poll_place(parts, connection, admitted) {
            return;
        }
        let Some(opening) = parts.connections.opening_mut(slot) else {
            // The client is gone.
            if admitted {
                parts.context.send_departure(app);
            }
            return;
        };
        let reply_to = ResponseSlot { connection, ticket: opening.ticket, dialect: opening.dialect };
        let headers = opening.headers.clone();
        let is_granted = parts.connections.is_still_granted(parts.context, slot, app);
        if admitted && is_granted && !parts.context.is_draining {
            parts.connections.become_stream(parts.context, slot, app);
            return parts.channels.start_stream(parts.context, parts.connections, slot);
        }
        parts.connections.forget_stream(slot);
        let refusal = if admitted {
            parts.context.send_departure(app);
            if is_granted { draining() } else { ended_early() }
        } else {
            over_connections(parts, app)
        };
        self.refuse(parts, reply_to, &refusal.with_headers(&headers));
    }
}

/// Streams of an app that requires TLS need it too (R-SSE-3).
fn check_tls(parts: &Parts<'_>, call: Call<'_>, app: &App) -> Result<(), Refusal> {
    if app.settings.tls_only && !parts.connections.came_through_tls(call.slot, call.request) {
        return Err(Refusal::forbidden("This app accepts only connections over TLS (tls_only)."));
    }
    Ok(())
}

/// The answer with the server's clock (R-SSE-11).
pub(super) fn encode_clock(parts: &Parts<'_>, call: Call<'_>, app: &App) -> Result<Vec<u8>, Refusal> {
    check_tls(parts, call, app)?;
    Ok(encode_time(parts.context.now))
}

/// The channels of a stream or poll, each with the position that the client named.
pub(super) fn asked_channels(
    context: &Context,
    app: AppSerial,
    reading: &Reading,
) -> impl Iterator<Item = AskedChannel> {
    let is_only_channel = reading.channels.len() == 1;
    reading.channels.iter().map(move |(name, kind)| {
        let key = context.channel_key(app, name);
        let (first, hash) = (context.event_id(&key, 0), context.config.order.cursor_hash(key.hash));
        let after = match reading.after.iter().find(|(channel, _)| **channel == **name) {
            Some((_, last_seen)) => last_seen.position(first, hash, true),
            None => reading.last_seen.position(first, hash, is_only_channel),
        };
        AskedChannel { key, kind: *kind, after }
    })
}

/// Whether a stream or poll may have its place in the order of answers, and a slot.
pub(super) fn check_place(parts: &mut Parts<'_>, reply_to: ResponseSlot, app: AppSerial) -> Result<(), Refusal> {
    let slot = reply_to.connection.slot();
    let (is_alone, refuse) = {
        let http = parts.connections.http(slot);
        (http.answers.len() == 1, http.refuse)
    };
    if !is_alone {
        return Err(Refusal::bad_request(
            "A stream or poll must not be sent behind requests that are not answered yet.",
        ));
    }
    if parts.context.is_draining {
        return Err(draining());
    }
    if refuse || parts.connections.lacks_slots_for_app(parts.context, app) {
        parts.context.metrics.count_overload(Overload::Capacity);
        return Err(Refusal::unavailable("The server has as many connections as it can hold: try again.", 5));
    }
    Ok(())
}

/// Asks the app's counter to admit a stream or poll; the answer goes to [`Requests::handle_place`].
pub(super) fn ask_for_place(parts: &mut Parts<'_>, connection: ConnectionKey, app: AppSerial) {
    let connections_max = parts.context.directory.app(app).map_or(0, |app| app.settings.max_connections);
    let counter = parts.context.counter_of(app);
    parts.context.send(counter, QuotaMessage::Admit { app, connection, connections_max });
}

fn draining() -> Refusal {
    Refusal::unavailable("The server is restarting: try again.", 1)
}

pub(super) fn over_connections(parts: &Parts<'_>, app: AppSerial) -> Refusal {
    let connections_max = parts.context.directory.app(app).map_or(0, |app| app.settings.max_connections);
    Refusal::too_many(format!("This app is at its limit of {connections_max} connections (max_connections)."), 10)
}
