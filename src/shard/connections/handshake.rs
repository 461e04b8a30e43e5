//! Opening a WebSocket (P-CONN rules): the upgrade is answered first; then the client is sent `connection_established`,
//! or the reason for the refusal (P-CONN-8).

use super::Connections;
use crate::app::origin::{missing_origin_allowed, origin_allowed};
use crate::app::{App, AppSerial};
use crate::auth::handshake::accept_value;
use crate::connection::encoding::Encoding;
use crate::connection::http::Proxy;
use crate::connection::outbox::FrameKind;
use crate::connection::{ConnectionKey, Flags, Phase};
use crate::index::Slot;
use crate::limits::SUBPROTOCOLS_MAX;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::shard::context::Context;
use crate::shard::mail::QuotaMessage;
use crate::wire::http::{Request, UpgradeError, decode_upgrade, encode_upgrade};
use crate::wire::query::Query;

/// What follows a request on its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::shard) enum After {
    /// Another request.
    Next,
    /// WebSocket frames.
    Upgraded,
    /// Nothing yet: this request is handled again once all earlier ones are answered.
    Waits,
}

/// What follows the 101 answer.
enum Verdict {
    Refused(CloseReason),
    /// A connection of this app, if its quota allows.
    App {
        app: AppSerial,
        connections_max: u32,
    },
    /// A connection of this app that has to authorize itself first (P-AUTHZ-1).
    Unauthorized,
    #[cfg(feature = "conformance")]
    Echo,
}

impl Connections {
    /// Answers an upgrade request; `key` is the app key, `None` on a path that is not `/app/{key}`.
    pub(in crate::shard) fn handle_upgrade(
        &mut self,
        context: &mut Context,
        slot: Slot,
        key: Option<&str>,
        request: &Request<'_>,
    ) -> After {
        let client_key = match decode_upgrade(request) {
            Ok(client_key) => client_key,
            Err(error) => {
                self.refuse_upgrade(context, slot, error);
                return After::Next;
            }
        };
        // Bytes sent from here on are not HTTP, and end with the stream: earlier answers must have been sent
        // (P-HTTP-16).
        if !self.http(slot).is_answered() || self.table.hot[slot].outbox.unsent_bytes() > 0 {
            return After::Waits;
        }
        self.http(slot).upgrade_waits = false;
        if self.table.hot[slot].flags.contains(Flags::READ_ENDED) {
            self.refuse_upgrade(
                context,
                slot,
                UpgradeError::BadRequest("A WebSocket needs both directions of its connection"),
            );
            return After::Next;
        }
        if let Some(client) = self.client_address(context, slot, request) {
            self.http(slot).client = client;
        }
        let verdict = self.judge(context, slot, key, request);
        context.metrics.count_response(101);
        let mut answer = Vec::new();
        encode_upgrade(&mut answer, &accept_value(client_key), subprotocol(request));
        self.send(context, slot, answer.into(), FrameKind::Control);
        self.table.hot[slot].phase = Phase::Admitting;
        match verdict {
            Verdict::Refused(reason) => self.close_websocket(context, slot, &reason),
            Verdict::App { app, connections_max } => {
                context.metrics.count_client(request.query);
                let connection = self.key(slot);
                context.send(context.counter_of(app), QuotaMessage::Admit { app, connection, connections_max });
            }
            Verdict::Unauthorized => {
                context.metrics.count_client(request.query);
                self.open_unauthorized(context, slot);
            }
            #[cfg(feature = "conformance")]
            Verdict::Echo => self.open_echo(context, slot),
        }
        After::Upgraded
    }

    /// The connection is a WebSocket now.
    pub(in crate::shard) fn end_http(&mut self, slot: Slot) {
        let cold = self.cold_or_default(slot);
        cold.client = cold.http.take().map(|http| http.client);
    }

    /// The connection is admitted or refused: the client's address is no longer needed.
    pub(in crate::shard) fn forget_client(&mut self, slot: Slot) {
        if let Some(cold) = self.cold_mut(slot) {
            cold.client = None;
        }
        self.drop_cold_if_empty(slot);
    }

    /// The app's counter has answered (P-CLOSE-2).
    pub(in crate::shard) fn handle_admitted(
        &mut self,
        context: &mut Context,
        app: AppSerial,
        connection: ConnectionKey,
        admitted: bool,
    ) {
        let slot = connection.slot();
        let phase = if self.is_live(connection) { self.table.hot[slot].phase } else { Phase::Free };
        if !matches!(phase, Phase::Admitting | Phase::Open) {
            if admitted {
                context.send_departure(app);
            }
            return;
        }
        if !admitted {
            let settings = context.directory.app(app).map(|app| &app.settings);
            let connections_max = settings.map_or(0, |settings| settings.max_connections);
            let soft = settings.is_some_and(|settings| settings.connection_limit_soft);
            let reason = if soft { CloseReason::OverSoftQuota } else { CloseReason::OverQuota }(connections_max);
            return self.close_websocket(context, slot, &reason);
        }
        self.table.hot[slot].flags.insert(Flags::COUNTED);
        if phase == Phase::Open {
            return; // It opened unauthorized and counts only now (P-AUTHZ-1).
        }
        if context.is_draining {
            return self.close_websocket(context, slot, &CloseReason::Draining);
        }
        self.open_websocket(context, slot);
        self.resume_reading(context, slot);
        let held_back_bytes = self.cold(slot).map_or(0, |cold| cold.held_back.len());
        self.count_socket_received(context, slot, held_back_bytes);
        self.forget_client(slot);
        self.follow_up(connection);
    }

    /// The connection is established.
    pub(super) fn open_websocket(&mut self, context: &mut Context, slot: Slot) {
        let socket_id = context.socket_id(self.key(slot));
        let activity_timeout_s = context.activity_timeout_s(AppSerial(self.table.hot[slot].app));
        self.table.hot[slot].phase = Phase::Open;
        self.fill_client_events(context, slot);
        context.metrics.count_opened(AppSerial(self.table.hot[slot].app), false);
        self.send_text(context, slot, |out| {
            server_event::encode_connection_established(out, socket_id, activity_timeout_s)
        });
    }

    fn judge(&mut self, context: &Context, slot: Slot, key: Option<&str>, request: &Request<'_>) -> Verdict {
        #[cfg(feature = "conformance")]
        if request.path == super::echo::PATH {
            return Verdict::Echo;
        }
        if context.is_draining {
            return Verdict::Refused(CloseReason::Draining);
        }
        if self.http(slot).refuse {
            return Verdict::Refused(CloseReason::OverCapacity);
        }
        let Some(key) = key else { return Verdict::Refused(CloseReason::PathNotFound) };
        let Some(app) = context.directory.app_by_key(key) else {
            return Verdict::Refused(CloseReason::UnknownApp(crate::protocol::quote(key).to_owned()));
        };
        self.table.hot[slot].app = app.serial.0;
        if Query::new(request.query).first("event_ids").is_some_and(|value| value == "true") {
            self.table.hot[slot].outbox.set_encoding(Encoding::WithId); // R-HIST-6
        }
        let secure = self.came_through_tls(slot, request);
        match check(app, request, secure, context.config.options.strict_protocol) {
            Ok(()) if self.lacks_slots_for_app(context, app.serial) => Verdict::Refused(CloseReason::OverShare),
            Ok(()) if app.settings.authorized_connections => Verdict::Unauthorized,
            Ok(()) => Verdict::App { app: app.serial, connections_max: app.settings.max_connections },
            Err(reason) => Verdict::Refused(reason),
        }
    }

    /// True when a trusted proxy reports that it terminated TLS.
    pub(in crate::shard) fn came_through_tls(&self, slot: Slot, request: &Request<'_>) -> bool {
        let http = self.http_of(slot);
        let trusted = http.is_some_and(|http| matches!(http.proxy, Proxy::Trusted));
        // Some proxies write `wss` for a WebSocket, and several proxies make a list.
        let is_tls = |proto: &[u8]| {
            let proto = proto.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
        };
        trusted && request.headers.first("x-forwarded-proto").is_some_and(is_tls)
    }

    fn refuse_upgrade(&mut self, context: &mut Context, slot: Slot, error: UpgradeError) {
        match error {
            UpgradeError::BadRequest(what) => self.answer_last_text(context, slot, 400, "", what),
            UpgradeError::Version => {
                let extra = "Sec-WebSocket-Version: 13\r\n";
                self.answer_last_text(context, slot, 426, extra, "Sec-WebSocket-Version must be 13");
            }
        }
    }
}

/// Checks the app and the query; returns the reason to refuse a connection, in the order of the close codes' severity.
fn check(app: &App, request: &Request<'_>, secure: bool, strict: bool) -> Result<(), CloseReason> {
    if !app.enabled {
        return Err(CloseReason::AppDisabled);
    }
    if app.settings.tls_only && !secure {
        return Err(CloseReason::TlsOnly);
    }
    if !check_origin(app, request) {
        return Err(CloseReason::OriginNotAllowed);
    }
    check_protocol(Query::new(request.query), strict)
}

/// P-CONN-3 and P-CONN-5.
fn check_protocol(query: Query<'_>, strict: bool) -> Result<(), CloseReason> {
    match query.first("protocol") {
        None if strict => return Err(CloseReason::NoProtocolVersion),
        None => {}
        Some(text) => match text.parse::<i64>() {
            Ok(4..=7) => {}
            Ok(_) => return Err(CloseReason::UnsupportedProtocolVersion),
            Err(_) => return Err(CloseReason::InvalidVersionString),
        },
    }
    let well_formed = |version: &str| {
        !version.is_empty()
            && version.split('.').all(|part| part.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
    };
    if strict && !query.first("version").is_none_or(|version| well_formed(&version)) {
        return Err(CloseReason::InvalidVersionString);
    }
    Ok(())
}

/// P-CONN-8, threat T21: an origin must be one of the app's; clients outside browsers send none.
fn check_origin(app: &App, request: &Request<'_>) -> bool {
    let origin = request.headers.first("origin").filter(|origin| !origin.is_empty());
    let allowed = &app.settings.allowed_origins;
    origin.map_or_else(|| missing_origin_allowed(allowed), |origin| origin_allowed(allowed, origin))
}

/// P-CONN-6, P-SDK-11: the first offered `pusher-channels-protocol-N`.
fn subprotocol<'a>(request: &Request<'a>) -> Option<&'a str> {
    let offers = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
    offers
        .filter_map(|(_, value)| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .take(SUBPROTOCOLS_MAX)
        .map(str::trim)
        .find(|offer| {
            let version = offer.strip_prefix("pusher-channels-protocol-");
            version.is_some_and(|version| {
                (1..=2).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit())
            })
        })
}
