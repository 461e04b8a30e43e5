//! Requests that wait for permits of their app (see `quota::permits`).

use super::command::{Command, Counted};
use super::response::{ReplyTo, ResponseSlot};
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
    reply_to: ReplyTo,
    app: AppSerial,
    spent: Spent,
    /// What it spent earlier.
    counted: Counted,
    outcome: Result<Command, Refusal>,
}

impl Requests {
    /// Executes a parsed request, or returns its refusal, once its app's permits cover it. Every request with a valid
    /// credential counts, including one that is refused for another reason, but not for the server's overload or for
    /// another limit (R-LIM-4).
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
        let channels = outcome.as_ref().map_or_else(|_| Vec::new(), |command| channels_of(parts, app, command));
        let spent = parts.quota.spend(parts.context, app, costs);
        let must_wait = spent.missing != NONE || !channels.is_empty();
        if !must_wait && let Err(refusal) = outcome {
            if !is_counted(&refusal) {
                parts.quota.put_back(parts.context, app, spent.window, costs);
            }
            return Err(refusal);
        }
        let connection = parts.connections.key(slot);
        let ticket = parts.connections.take_ticket(parts.context, slot, request);
        let reply_to = ReplyTo::Connection(ResponseSlot { connection, ticket, dialect });
        if outcome.as_ref().is_ok_and(Command::has_large_answer) {
            parts.connections.http(slot).large_answer = Some(ticket);
        }
        if must_wait {
            self.park(parts, (reply_to, app), (spent, Counted::new()), channels, outcome);
            return Ok(());
        }
        let mut command = outcome?;
        command.note_counted(spent.window, costs);
        if let Err(refusal) = self.execute(parts, reply_to, command) {
            parts.quota.put_back(parts.context, app, spent.window, costs);
            reply_to.refuse(parts, &refusal);
        }
        Ok(())
    }

    /// Executes a command of a request that was counted before, once the app's permits cover its messages. Requests
    /// behind it wait until then.
    pub(super) fn start_counted(
        &mut self,
        parts: &mut Parts<'_>,
        reply_to: ReplyTo,
        app: &App,
        (command, counted): (Command, Counted),
    ) {
        let (app, settings) = (app.serial, &app.settings);
        let costs = permits::message_costs(settings, command.messages());
        let channels = channels_of(parts, app, &command);
        let spent = parts.quota.spend(parts.context, app, costs);
        if spent.missing != NONE || !channels.is_empty() {
            return self.park(parts, (reply_to, app), (spent, counted), channels, Ok(command));
        }
        if let Err(refusal) = self.execute(parts, reply_to, command) {
            parts.quota.put_back(parts.context, app, spent.window, costs);
            put_back_counted(parts, app, counted);
            reply_to.refuse(parts, &refusal);
        }
        reply_to.resume(parts);
    }

    /// Waits for the counter of an app.
    fn park(
        &mut self,
        parts: &mut Parts<'_>,
        (reply_to, app): (ReplyTo, AppSerial),
        (spent, counted): (Spent, Counted),
        channels: Vec<u64>,
        outcome: Result<Command, Refusal>,
    ) {
        let (nonce, missing) = (self.next_nonce(), spent.missing);
        let index = self.parked.insert(Parked { nonce, reply_to, app, spent, counted, outcome });
        reply_to.hold(parts);
        let request = PendingId { index: index as u32, nonce };
        parts.quota.ask(parts.context, app, request, missing, channels);
    }

    /// The counter granted the requested permits, and a lease.
    pub(super) fn handle_allowed(&mut self, parts: &mut Parts<'_>, request: PendingId, window: Window, lease: Permits) {
        let Parked { reply_to, app, spent, counted, outcome, .. } = self.take_parked(request);
        parts.quota.add_lease(app, window, lease);
        // Its events have to be found first.
        let is_replay = matches!(outcome, Ok(Command::Replay(_)));
        let (done, refusal) = match outcome {
            // Its client is gone: treated as if the request had never arrived.
            _ if !reply_to.is_awaited(parts) => (false, None),
            Err(refusal) => (is_counted(&refusal), Some(refusal)),
            Ok(mut command) => {
                command.note_counted(spent.window, spent.permits);
                command.note_counted(window, spent.missing);
                match self.execute(parts, reply_to, command) {
                    Ok(()) => (true, None),
                    Err(refusal) => (false, Some(refusal)),
                }
            }
        };
        if !done {
            parts.quota.put_back(parts.context, app, spent.window, spent.permits);
            parts.quota.put_back(parts.context, app, window, spent.missing);
            put_back_counted(parts, app, counted);
        }
        if let Some(refusal) = refusal {
            reply_to.refuse(parts, &refusal);
        }
        if !(done && is_replay) {
            reply_to.resume(parts);
        }
    }

    /// The counter refused.
    pub(super) fn handle_denied(&mut self, parts: &mut Parts<'_>, request: PendingId, shortage: &Shortage) {
        let Parked { reply_to, app, spent, counted, outcome, .. } = self.take_parked(request);
        parts.quota.put_back(parts.context, app, spent.window, spent.permits);
        put_back_counted(parts, app, counted);
        if reply_to.is_awaited(parts) {
            let headers = outcome.as_ref().map_or_else(|refusal| &*refusal.headers, Command::answer_headers);
            let refusal = shortage_refusal(parts, app, reply_to.dialect(), shortage).with_headers(headers);
            reply_to.refuse(parts, &refusal);
            reply_to.resume(parts);
        }
    }

    fn take_parked(&mut self, request: PendingId) -> Parked {
        let parked = self.parked.remove(request.index as usize);
        assert!(parked.nonce == request.nonce, "the counter answers each request once");
        parked
    }
}

/// Returns the permits of a request that was not executed.
pub(super) fn put_back_counted(parts: &mut Parts<'_>, app: AppSerial, counted: Counted) {
    for (window, permits) in counted {
        parts.quota.put_back(parts.context, app, window, permits);
    }
}

/// Whether a request that is refused for this reason uses up a permit: not if the server is overloaded.
pub(super) fn is_counted(refusal: &Refusal) -> bool {
    refusal.status != 503
}

/// The channels that a request opens, if the app may have no more.
fn channels_of(parts: &Parts<'_>, app: AppSerial, command: &Command) -> Vec<u64> {
    if parts.quota.has_all_channels(app) { command.channel_hashes() } else { Vec::new() }
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
