//! One log line per refusal, held back when there are too many of a kind (see `metrics::refusal_log`).

use std::net::IpAddr;

use super::{Output, Shard};
use crate::app::{AppSerial, Scope};
use crate::auth::AuthFailure;
use crate::connection::{NONE, Phase};
use crate::label::Label;
use crate::metrics::figures::Surface;
use crate::metrics::refusal_log::{LogLine, Refused, hint, printable};
use crate::protocol::close::{CloseKind, CloseReason};

impl Shard {
    /// A WebSocket is about to be closed with this reason: counted, and logged unless it is in the order of things.
    pub(super) fn note_close(&mut self, slot: u32, reason: &CloseReason) {
        let kind = reason.kind();
        self.figures.counted.closes.count(kind);
        if matches!(kind, CloseKind::Draining | CloseKind::PongTimeout) {
            return;
        }
        let open = self.hot[slot as usize].phase == Phase::Open;
        let what = if open { Refused::Close } else { Refused::Connection };
        let Some(suppressed) = self.admit_line(what, kind.label()) else { return };
        let key = if let CloseReason::UnknownApp(key) = reason { Some(hint(key)) } else { None };
        let line = LogLine { code: Some(kind.code()), key, suppressed, ..self.line_about(slot, what, kind.label()) };
        self.write_line(line);
    }

    /// A subscription is refused.
    pub(super) fn note_subscription_refused(&mut self, slot: u32, channel: &str, reason: &'static str, code: u16) {
        let Some(suppressed) = self.admit_line(Refused::Subscription, reason) else { return };
        let about = self.line_about(slot, Refused::Subscription, reason);
        let channel = Some(printable(channel));
        self.write_line(LogLine { code: Some(code), channel, suppressed, ..about });
    }

    /// A signin is refused.
    pub(super) fn note_signin_refused(&mut self, slot: u32, failure: AuthFailure) {
        self.figures.counted.auth_failed(Surface::Signin, failure);
        let Some(suppressed) = self.admit_line(Refused::Signin, failure.label()) else { return };
        let about = self.line_about(slot, Refused::Signin, failure.label());
        self.write_line(LogLine { code: Some(4009), suppressed, ..about });
    }

    /// The signature of a subscription does not hold.
    pub(super) fn note_auth_failure(&mut self, surface: Surface, failure: AuthFailure) {
        self.figures.counted.auth_failed(surface, failure);
    }

    /// A client event is refused.
    pub(super) fn note_client_event_refused(&mut self, slot: u32, channel: Option<&str>, code: Option<u16>) {
        self.figures.counted.client_events_refused += 1;
        let reason = if code.is_some() { "over_limit" } else { "not_allowed" };
        let Some(suppressed) = self.admit_line(Refused::ClientEvent, reason) else { return };
        let about = self.line_about(slot, Refused::ClientEvent, reason);
        self.write_line(LogLine { code, channel: channel.map(printable), suppressed, ..about });
    }

    /// A request brought a credential that does not hold.
    pub(super) fn note_credential_refused(&mut self, client: Option<IpAddr>, app_id: &str, failure: AuthFailure) {
        self.figures.counted.auth_failed(Surface::Http, failure);
        let Some(suppressed) = self.admit_line(Refused::Credential, failure.label()) else { return };
        let line = LogLine::new(Refused::Credential, failure.label());
        // Empty where the path names no app.
        let app = Some(printable(app_id)).filter(|app| !app.is_empty());
        self.write_line(LogLine { code: Some(401), app, peer: client, suppressed, ..line });
    }

    /// A request is refused for another cause than its credential.
    pub(super) fn note_request_refused(&mut self, client: Option<IpAddr>, app_id: &str, scope: Scope, status: u16) {
        let reason = match status {
            400 => "bad_request",
            403 => "forbidden",
            404 => "not_found",
            413 => "too_large",
            415 => "encoded_body",
            429 => "rate_limited",
            503 => "unavailable",
            _ => return,
        };
        let Some(suppressed) = self.admit_line(Refused::Request, reason) else { return };
        let known = self.directory.app_by_id(app_id).is_some();
        let app = Some(if known { printable(app_id) } else { hint(app_id) }).filter(|app| !app.is_empty());
        let line = LogLine::new(Refused::Request, reason);
        let scope = Some(scope.name());
        self.write_line(LogLine { code: Some(status), app, peer: client, scope, suppressed, ..line });
    }

    /// A connection begins with a PROXY protocol header that is broken, or comes from no trusted proxy (threat T26).
    pub(super) fn note_proxy_header_refused(&mut self, slot: u32, reason: &'static str) {
        let Some(suppressed) = self.admit_line(Refused::ProxyHeader, reason) else { return };
        let about = self.line_about(slot, Refused::ProxyHeader, reason);
        self.write_line(LogLine { suppressed, ..about });
    }

    /// A trusted proxy names the client in a form that nobody knows (threat T26).
    pub(super) fn note_unreadable_address(&mut self, proxy: IpAddr) {
        let Some(suppressed) = self.admit_line(Refused::ForwardedAddress, "malformed") else { return };
        let line = LogLine::new(Refused::ForwardedAddress, "malformed");
        self.write_line(LogLine { peer: Some(proxy), suppressed, ..line });
    }

    /// Tells what was held back and has not been told for a minute.
    pub(super) fn tell_suppressed_lines(&mut self) {
        while let Some(line) = self.figures.log_brakes.take_due(self.now.monotonic_ms) {
            self.write_line(line);
        }
    }

    fn admit_line(&mut self, what: Refused, reason: &'static str) -> Option<u64> {
        let admitted = self.figures.log_brakes.admit(self.now.monotonic_ms, what, reason);
        self.figures.counted.lines_suppressed += u64::from(admitted.is_none());
        admitted
    }

    /// What is known of a connection.
    fn line_about(&self, slot: u32, what: Refused, reason: &'static str) -> LogLine {
        let line = &self.hot[slot as usize];
        let app = if line.app == NONE { None } else { self.directory.app(AppSerial(line.app)) };
        let open = line.phase == Phase::Open;
        LogLine {
            app: app.map(|app| printable(&app.id)),
            peer: self.peer_of(slot),
            socket_id: open.then(|| self.socket_id(self.key(slot)).to_text()),
            ..LogLine::new(what, reason)
        }
    }

    /// The address of the client, while the connection still knows it.
    fn peer_of(&self, slot: u32) -> Option<IpAddr> {
        let cold = self.cold(slot)?;
        cold.http.as_ref().map(|http| http.client).or(cold.client)
    }

    fn write_line(&mut self, line: LogLine) {
        self.outputs.push_back(Output::Log(Box::new(line)));
    }
}
