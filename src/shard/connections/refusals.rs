//! Log lines about refusals that concern a connection.

use std::net::IpAddr;

use super::Connections;
use crate::auth::AuthFailure;
use crate::connection::Phase;
use crate::index::Slot;
use crate::label::Label;
use crate::metrics::figures::Surface;
use crate::metrics::refusal_log::{LogLine, Refused, hint, printable};
use crate::protocol::close::{CloseKind, CloseReason};
use crate::shard::context::Context;
use crate::shard::refusals::RefusedProof;

impl Connections {
    /// A WebSocket is about to be closed with this reason: counted, and logged unless the reason is routine.
    pub(in crate::shard) fn note_close(&self, context: &mut Context, slot: Slot, reason: &CloseReason) {
        let kind = reason.kind();
        context.metrics.counted.closes.count(kind);
        if matches!(kind, CloseKind::Draining | CloseKind::PongTimeout) {
            return;
        }
        let open = self.table.hot[slot].phase == Phase::Open;
        let what = if open { Refused::Close } else { Refused::Connection };
        let Some(line) = self.admit_line(context, slot, what, kind.label()) else { return };
        let key = if let CloseReason::UnknownApp(key) = reason { Some(hint(key)) } else { None };
        context.write_line(LogLine { code: Some(kind.code()), key, ..line });
    }

    /// A subscription is refused.
    pub(in crate::shard) fn note_subscription_refused(
        &self,
        context: &mut Context,
        slot: Slot,
        channel: &str,
        (reason, code): (&'static str, u16),
        proof: Option<&RefusedProof<'_>>,
    ) {
        let Some(line) = self.admit_line(context, slot, Refused::Subscription, reason) else { return };
        let (channel, kept) = (Some(printable(channel)), proof.map(|proof| proof.kept(context)));
        context.write_line(LogLine { code: Some(code), channel, kept, ..line });
    }

    /// A signin is refused.
    pub(in crate::shard) fn note_signin_refused(
        &self,
        context: &mut Context,
        slot: Slot,
        failure: AuthFailure,
        proof: Option<&RefusedProof<'_>>,
    ) {
        context.metrics.counted.auth_failed(Surface::Signin, failure);
        let Some(line) = self.admit_line(context, slot, Refused::Signin, failure.label()) else { return };
        let kept = proof.map(|proof| proof.kept(context));
        context.write_line(LogLine { code: Some(4009), kept, ..line });
    }

    /// A client event is refused.
    pub(in crate::shard) fn note_client_event_refused(
        &self,
        context: &mut Context,
        slot: Slot,
        channel: Option<&str>,
        code: Option<u16>,
    ) {
        context.metrics.counted.client_events_refused += 1;
        let reason = if code.is_some() { "over_limit" } else { "not_allowed" };
        let Some(line) = self.admit_line(context, slot, Refused::ClientEvent, reason) else { return };
        context.write_line(LogLine { code, channel: channel.map(printable), ..line });
    }

    /// A connection begins with a PROXY protocol header that is malformed, or does not come from a trusted proxy
    /// (threat T26).
    pub(in crate::shard) fn note_proxy_header_refused(&self, context: &mut Context, slot: Slot, reason: &'static str) {
        let Some(line) = self.admit_line(context, slot, Refused::ProxyHeader, reason) else { return };
        context.write_line(line);
    }

    /// A line with the available facts about a connection, if one may be written now.
    fn admit_line(&self, context: &mut Context, slot: Slot, what: Refused, reason: &'static str) -> Option<LogLine> {
        let admitted = context.admit_line(what, reason)?;
        let line = &self.table.hot[slot];
        let app = context.app(line.app);
        let open = line.phase == Phase::Open;
        Some(LogLine {
            app: app.map(|app| printable(&app.id)),
            peer: self.peer_of(slot),
            socket_id: open.then(|| context.socket_id(self.key(slot)).to_text()),
            ..admitted
        })
    }

    /// The address of the client, while the connection still stores it.
    fn peer_of(&self, slot: Slot) -> Option<IpAddr> {
        let cold = self.cold(slot)?;
        cold.http.as_ref().map(|http| http.client).or(cold.client)
    }
}
