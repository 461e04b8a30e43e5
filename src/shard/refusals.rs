//! One log line per refusal, suppressed when there are too many of a kind (see `crate::metrics::refusal_log`).

use std::net::IpAddr;

use super::context::Context;
use super::io::Output;
use crate::app::{App, Scope};
use crate::auth::AuthFailure;
use crate::auth::explain::Kept;
use crate::auth::signature::is_signed;
use crate::label::Label;
use crate::metrics::figures::Surface;
use crate::metrics::refusal_log::{LogLine, Refused, hint, printable};
use crate::wire::http::Request;

/// A proof of a WebSocket client that is refused.
pub(super) struct RefusedProof<'a> {
    pub(super) app: &'a App,
    pub(super) socket_id: &'a str,
    /// None for a signin.
    pub(super) channel: Option<&'a str>,
    /// `channel_data` or `user_data`.
    pub(super) data: Option<&'a str>,
    pub(super) auth: &'a str,
    pub(super) failure: AuthFailure,
}

impl RefusedProof<'_> {
    /// What is kept of it, for a line that is written (R-EXPLAIN-6).
    pub(super) fn kept(&self, context: &Context) -> Kept {
        let text = (self.socket_id, self.channel, self.data);
        Kept::of_socket(&context.directory, self.app, text, self.auth, (self.failure, context.now.unix_ms))
    }
}

impl Context {
    /// A request has an invalid credential.
    pub(super) fn note_credential_refused(
        &mut self,
        client: Option<IpAddr>,
        app_id: &str,
        request: &Request<'_>,
        failure: AuthFailure,
    ) {
        self.metrics.counted.auth_failed(Surface::Http, failure);
        let Some(line) = self.admit_line(Refused::Credential, failure.label()) else { return };
        let signed = request.query.filter(|query| is_signed(query)).zip(self.directory.app_by_id(app_id));
        let kept = signed.map(|(query, app)| {
            let text = (request.method, request.path, query);
            Kept::of_request(&self.directory, app, text, (failure, self.now.unix_ms))
        });
        // Empty where the path names no app.
        let app = Some(printable(app_id)).filter(|app| !app.is_empty());
        self.write_line(LogLine { code: Some(401), app, peer: client, kept, ..line });
    }

    /// A request is refused for a reason other than its credential.
    pub(super) fn note_request_refused(
        &mut self,
        client: Option<IpAddr>,
        app_id: &str,
        scope: Option<Scope>,
        status: u16,
    ) {
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
        let Some(line) = self.admit_line(Refused::Request, reason) else { return };
        let known = self.directory.app_by_id(app_id).is_some();
        let app = Some(if known { printable(app_id) } else { hint(app_id) }).filter(|app| !app.is_empty());
        let scope = scope.map(Scope::label);
        self.write_line(LogLine { code: Some(status), app, peer: client, scope, ..line });
    }

    /// A trusted proxy reports the client in an unknown format (threat T26).
    pub(super) fn note_unreadable_address(&mut self, proxy: IpAddr) {
        let Some(line) = self.admit_line(Refused::ForwardedAddress, "malformed") else { return };
        self.write_line(LogLine { peer: Some(proxy), ..line });
    }

    /// Reports how many lines were suppressed, a minute after the last report.
    pub(super) fn report_suppressed_lines(&mut self) {
        while let Some(line) = self.metrics.log_limit.take_due(self.now.monotonic_ms) {
            self.write_line(line);
        }
    }

    /// A line with this refusal and the number of lines suppressed before it, if one may be written now.
    pub(super) fn admit_line(&mut self, what: Refused, reason: &'static str) -> Option<LogLine> {
        let admitted = self.metrics.log_limit.admit(self.now.monotonic_ms, what, reason);
        self.metrics.counted.lines_suppressed += u64::from(admitted.is_none());
        admitted.map(|suppressed| LogLine { suppressed, ..LogLine::new(what, reason) })
    }

    pub(super) fn write_line(&mut self, line: LogLine) {
        self.outputs.push_back(Output::Log(Box::new(line)));
    }
}
