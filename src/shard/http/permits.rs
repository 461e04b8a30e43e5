//! Requests that wait for permits of their app (see `quota::permits`).

use super::command::Command;
use super::response::ResponseSlot;
use super::{Call, Parts, Requests};
use crate::api::refusal::Refusal;
use crate::app::{App, AppSerial};
use crate::auth::request::Caller;
use crate::protocol::dialect::Dialect;
use crate::shard::mail::{PendingId, Shortage};
use crate::shard::permits::{self, Meter, NONE, Permits, Window};
use crate::shard::quota::Spent;

/// A request that waits for its app's counter.
pub(super) struct Parked {
    nonce: u32,
    reply_to: ResponseSlot,
    app: AppSerial,
    spent: Spent,
    outcome: Result<Command, Refusal>,
}

impl Requests {
    /// Executes a parsed request, or returns its refusal, once its app's permits cover it. Every request with a valid
    /// credential counts, including one that is refused for another reason.
    ///
    /// # Errors
    /// The refusal that is in `outcome`, or 503.
    pub(super) fn start_request(
        &mut self,
        parts: &mut Parts<'_>,
        call: Call<'_>,
        app: &App,
        caller: &Caller,
        outcome: Result<Command, Refusal>,
    ) -> Result<(), Refusal> {
        let Call { slot, request, dialect } = call;
        let (app, settings) = (app.serial, &app.settings);
        let costs = permits::costs(settings, &caller.credential, outcome.as_ref().map_or(0, Command::messages));
        let channels = match &outcome {
            Ok(command) if parts.quota.has_all_channels(app) => command.channel_hashes(),
            Ok(_) | Err(_) => Vec::new(),
        };
        let spent = parts.quota.spend(parts.context, app, costs);
        let must_wait = spent.missing != NONE || !channels.is_empty();
        if !must_wait && outcome.is_err() {
            return outcome.map(drop);
        }
        let connection = parts.connections.key(slot);
        let ticket = parts.connections.take_ticket(parts.context, slot, request);
        let reply_to = ResponseSlot { connection, ticket, dialect };
        if outcome.as_ref().is_ok_and(Command::has_large_answer) {
            parts.connections.http(slot).large_answer = Some(ticket);
        }
        if must_wait {
            let nonce = self.next_nonce();
            let index = self.parked.insert(Parked { nonce, reply_to, app, spent, outcome });
            parts.connections.http(slot).parked = true;
            let request = PendingId { index: index as u32, nonce };
            parts.quota.ask(parts.context, app, request, spent.missing, channels);
            return Ok(());
        }
        if let Err(refusal) = self.execute(parts, reply_to, outcome?) {
            parts.quota.put_back(parts.context, app, spent.window, costs);
            self.refuse(parts, reply_to, &refusal);
        }
        Ok(())
    }

    /// The counter granted the requested permits, and a lease.
    pub(super) fn handle_allowed(&mut self, parts: &mut Parts<'_>, request: PendingId, window: Window, lease: Permits) {
        let Parked { reply_to, app, spent, outcome, .. } = self.take_parked(request);
        parts.quota.add_lease(app, window, lease);
        let (done, refusal) = match outcome {
            // Its client is gone: treated as if the request had never arrived.
            _ if !parts.connections.is_awaiting_answers(reply_to.connection) => (false, None),
            Err(refusal) => (true, Some(refusal)),
            Ok(command) => match self.execute(parts, reply_to, command) {
                Ok(()) => (true, None),
                Err(refusal) => (false, Some(refusal)),
            },
        };
        if !done {
            parts.quota.put_back(parts.context, app, spent.window, spent.permits);
            parts.quota.put_back(parts.context, app, window, spent.missing);
        }
        if let Some(refusal) = refusal {
            self.refuse(parts, reply_to, &refusal);
        }
        resume_parked(parts, reply_to);
    }

    /// The counter refused.
    pub(super) fn handle_denied(&mut self, parts: &mut Parts<'_>, request: PendingId, shortage: &Shortage) {
        let Parked { reply_to, app, spent, outcome, .. } = self.take_parked(request);
        parts.quota.put_back(parts.context, app, spent.window, spent.permits);
        if parts.connections.is_awaiting_answers(reply_to.connection) {
            let headers = outcome.as_ref().map_or_else(|refusal| &*refusal.headers, Command::answer_headers);
            let refusal = shortage_refusal(parts, app, reply_to.dialect, shortage).with_headers(headers);
            self.refuse(parts, reply_to, &refusal);
            resume_parked(parts, reply_to);
        }
    }

    fn take_parked(&mut self, request: PendingId) -> Parked {
        let parked = self.parked.remove(request.index as usize);
        assert!(parked.nonce == request.nonce, "the counter answers each request once");
        parked
    }
}

/// Continues with the requests behind one that waited.
fn resume_parked(parts: &mut Parts<'_>, reply_to: ResponseSlot) {
    if parts.connections.is_awaiting_answers(reply_to.connection) {
        parts.connections.http(reply_to.connection.slot()).parked = false;
        parts.connections.follow_up(reply_to.connection);
    }
}

fn shortage_refusal(parts: &Parts<'_>, app: AppSerial, dialect: Dialect, shortage: &Shortage) -> Refusal {
    let settings = parts.context.directory.app(app).map(|app| app.settings.clone()).unwrap_or_default();
    match *shortage {
        Shortage::Permits(Meter::Messages, seconds) => {
            Refusal::over_daily_quota(dialect, settings.messages_per_day, seconds)
        }
        Shortage::Permits(meter, seconds) => Refusal::over_rate(meter.limit(&settings), meter.setting(), seconds),
        Shortage::Channels => Refusal::over_channels(settings.max_channels),
    }
}
