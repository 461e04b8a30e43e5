//! Opening a WebSocket (P-CONN rules): the upgrade is answered first, then the connection is told that it is
//! established, or why it is refused (P-CONN-8).

use super::Shard;
use super::mail::Body;
use super::request::After;
use crate::app::origin::{missing_origin_allowed, origin_allowed};
use crate::app::{App, AppSerial};
use crate::auth::handshake::accept_value;
use crate::connection::{ConnectionKey, Flags, Phase, Proxy};
use crate::limits::SUBPROTOCOLS_MAX;
use crate::protocol::close::CloseReason;
use crate::protocol::server_event;
use crate::wire::http::{Request, UpgradeError, decode_upgrade, encode_response, encode_upgrade};
use crate::wire::query::Query;

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

impl Shard {
    /// Answers a request to upgrade; `key` is the app key, `None` on a path that is not `/app/{key}`.
    pub(super) fn handle_upgrade(&mut self, slot: u32, key: Option<&str>, request: &Request<'_>) -> After {
        let client_key = match decode_upgrade(request) {
            Ok(client_key) => client_key,
            Err(error) => {
                self.refuse_upgrade(slot, error);
                return After::Next;
            }
        };
        // What is sent from here on is no HTTP, and ends with the stream: the answers before it must have left (P-HTTP-16).
        if !self.http(slot).is_answered() || self.hot[slot as usize].outbox.unsent_bytes() > 0 {
            return After::Waits;
        }
        self.http(slot).upgrade_waits = false;
        if self.hot[slot as usize].flags.contains(Flags::READ_ENDED) {
            self.refuse_upgrade(slot, UpgradeError::BadRequest("A WebSocket needs both directions of its connection"));
            return After::Next;
        }
        if let Some(client) = self.client_address(slot, request) {
            self.http(slot).client = client;
        }
        let verdict = self.judge(slot, key, request);
        self.count_response(101);
        let mut answer = Vec::new();
        encode_upgrade(&mut answer, &accept_value(client_key), subprotocol(request));
        self.queue(slot, answer.into());
        self.hot[slot as usize].phase = Phase::Admitting;
        match verdict {
            Verdict::Refused(reason) => self.close_websocket(slot, &reason),
            Verdict::App { app, connections_max } => {
                self.count_client(request.query);
                let (counter, connection) = (self.counter_of(app), self.key(slot));
                self.send(counter, Body::Admit { app, connection, connections_max });
            }
            Verdict::Unauthorized => {
                self.count_client(request.query);
                self.open_unauthorized(slot);
            }
            #[cfg(feature = "conformance")]
            Verdict::Echo => {
                self.hot[slot as usize].phase = Phase::Open;
                self.hot[slot as usize].flags.insert(Flags::ECHO);
                self.stats.websockets += 1;
            }
        }
        After::Upgraded
    }

    /// The connection is a WebSocket now; `held_back` came with the request. While it is being admitted it is not read.
    pub(super) fn start_websocket(&mut self, slot: u32, mut held_back: Vec<u8>) {
        let cold = self.cold_mut(slot);
        cold.client = cold.http.take().map(|http| http.client);
        match self.hot[slot as usize].phase {
            Phase::Admitting => {
                self.cold_mut(slot).held_back = held_back;
                self.handle_own_mail();
                if self.hot[slot as usize].phase == Phase::Admitting {
                    self.pause(slot);
                }
            }
            Phase::Open | Phase::Closing => self.receive_websocket(slot, &mut held_back),
            Phase::Free | Phase::Http | Phase::Lingering | Phase::Ended => {}
        }
        if self.hot[slot as usize].phase != Phase::Free {
            if self.hot[slot as usize].phase != Phase::Admitting
                && let Some(cold) = self.cold_of(slot)
            {
                cold.client = None;
            }
            self.drop_cold_if_empty(slot);
        }
    }

    /// The app's counter has answered (P-CLOSE-2).
    pub(super) fn handle_admitted(&mut self, app: AppSerial, connection: ConnectionKey, admitted: bool) {
        let slot = connection.slot;
        let phase = if self.is_live(connection) { self.hot[slot as usize].phase } else { Phase::Free };
        if !matches!(phase, Phase::Admitting | Phase::Open) {
            if admitted {
                let counter = self.counter_of(app);
                self.send(counter, Body::Departed { app });
            }
            return;
        }
        if !admitted {
            let settings = self.directory.app(app).map(|app| &app.settings);
            let connections_max = settings.map_or(0, |settings| settings.max_connections);
            let soft = settings.is_some_and(|settings| settings.connection_limit_soft);
            let reason = if soft { CloseReason::OverSoftQuota } else { CloseReason::OverQuota }(connections_max);
            return self.close_websocket(slot, &reason);
        }
        self.hot[slot as usize].flags.insert(Flags::COUNTED);
        if phase == Phase::Open {
            return; // It opened unauthorized and counts only now (P-AUTHZ-1).
        }
        if self.drain.is_some() {
            return self.close_websocket(slot, &CloseReason::Draining);
        }
        self.open_websocket(slot);
        self.resume_reading(slot);
        let mut held_back = Vec::new();
        if let Some(cold) = self.cold_of(slot) {
            (held_back, cold.client) = (std::mem::take(&mut cold.held_back), None);
        }
        self.drop_cold_if_empty(slot);
        if !held_back.is_empty() {
            self.receive_websocket(slot, &mut held_back);
        }
        self.account_input(slot);
    }

    /// The connection is established.
    pub(super) fn open_websocket(&mut self, slot: u32) {
        let socket_id = self.socket_id(self.key(slot));
        let activity_timeout_s = self.activity_timeout_s(AppSerial(self.hot[slot as usize].app));
        self.hot[slot as usize].phase = Phase::Open;
        self.fill_client_events(slot);
        self.count_opened(AppSerial(self.hot[slot as usize].app));
        self.send_text(slot, |out| server_event::encode_connection_established(out, socket_id, activity_timeout_s));
    }

    fn judge(&mut self, slot: u32, key: Option<&str>, request: &Request<'_>) -> Verdict {
        #[cfg(feature = "conformance")]
        if request.path == "/conformance/echo" {
            return Verdict::Echo;
        }
        if self.drain.is_some() {
            return Verdict::Refused(CloseReason::Draining);
        }
        if self.http(slot).refuse {
            return Verdict::Refused(CloseReason::OverCapacity);
        }
        let Some(key) = key else { return Verdict::Refused(CloseReason::PathNotFound) };
        let Some(app) = self.directory.app_by_key(key) else {
            return Verdict::Refused(CloseReason::UnknownApp(crate::protocol::quote(key).to_owned()));
        };
        self.hot[slot as usize].app = app.serial.0;
        let secure = self.came_through_tls(slot, request);
        match check(app, request, secure, self.config.options.strict_protocol) {
            Ok(()) if self.lacks_slots_for_app(app.serial) => Verdict::Refused(CloseReason::OverShare),
            Ok(()) if app.settings.authorized_connections => Verdict::Unauthorized,
            Ok(()) => Verdict::App { app: app.serial, connections_max: app.settings.max_connections },
            Err(reason) => Verdict::Refused(reason),
        }
    }

    /// True when a trusted proxy says that it ended TLS.
    fn came_through_tls(&self, slot: u32, request: &Request<'_>) -> bool {
        let http = self.cold(slot).and_then(|cold| cold.http.as_ref());
        let trusted = http.is_some_and(|http| matches!(http.proxy, Proxy::Trusted));
        // Some write `wss` for a WebSocket, and several proxies make a list.
        let is_tls = |proto: &[u8]| {
            let proto = proto.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
        };
        trusted && request.headers.first("x-forwarded-proto").is_some_and(is_tls)
    }

    fn refuse_upgrade(&mut self, slot: u32, error: UpgradeError) {
        let mut answer = Vec::new();
        match error {
            UpgradeError::BadRequest(what) => {
                self.count_response(400);
                encode_response(&mut answer, 400, TEXT, "", what.as_bytes(), false);
            }
            UpgradeError::Version => {
                self.count_response(426);
                let body = b"Sec-WebSocket-Version must be 13";
                encode_response(&mut answer, 426, TEXT, "Sec-WebSocket-Version: 13\r\n", body, false);
            }
        }
        self.answer_last(slot, answer);
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// What of the app and of the query refuses a connection, in the order of the close codes' gravity.
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
