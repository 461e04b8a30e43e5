//! Requests per minute and messages per day (R-LIM-3, R-LIM-4), per app over all shards.
//!
//! The app's counter grants permits, and with them a lease of some more to the shard that asked: the shard spends these
//! without asking again, so that a busy app costs no mail per request and no shared memory. When the counter has too
//! few it recalls the leases before it refuses: exactly the limit is spent. Apps without such limits have no cost.
//!
//! ```text
//! request -- leased permits ---------------------------------------------> executed
//!    +-- Allow --> counter -- enough --> Allowed (with a lease) ---------> executed
//!                     +-- too few --> Recall --> all shards --> Return --> decided again
//!                     +-- none leased -> Denied -------------------------> 429 or 403
//! ```

use super::Quota;
use super::rate_limit::{Asked, Lease, RateLimit};
use crate::app::{App, AppSerial};
use crate::index::ShardIndex;
use crate::shard::context::Context;
use crate::shard::io::Output;
use crate::shard::mail::{HttpMessage, PendingId, QuotaMessage, ShardMessage, Shortage};
use crate::shard::permits::{self, Meter, NONE, Permits, Window};

/// The permits that a request has spent, and those that must be requested from the app's counter.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Spent {
    pub(in crate::shard) permits: Permits,
    pub(in crate::shard) window: Window,
    pub(in crate::shard) missing: Permits,
}

impl Quota {
    /// True when a publish of the app may have to wait for the app's counter.
    pub(in crate::shard) fn may_wait(&self, app: &App) -> bool {
        permits::limits_of(&app.settings) != NONE || self.full_apps.contains(&app.serial)
    }

    /// Spends leased permits.
    pub(in crate::shard) fn spend(&mut self, context: &Context, app: AppSerial, costs: Permits) -> Spent {
        let lease = if costs == NONE { None } else { self.leases.get_mut(&app) };
        let (missing, window) = match lease {
            Some(lease) => (lease.spend(context.now, costs), lease.window),
            None => (costs, Window::default()),
        };
        Spent { permits: std::array::from_fn(|at| costs[at] - missing[at]), window, missing }
    }

    /// Requests the missing permits from the app's counter, and asks whether these channels may open.
    pub(in crate::shard) fn ask(
        &self,
        context: &mut Context,
        app: AppSerial,
        request: PendingId,
        costs: Permits,
        channels: Vec<u64>,
    ) {
        context.send(context.counter_of(app), QuotaMessage::Allow { request, app, costs, channels });
    }

    /// Returns unused permits to the lease, or to the counter if there is no lease.
    pub(in crate::shard) fn put_back(
        &mut self,
        context: &mut Context,
        app: AppSerial,
        window: Window,
        permits: Permits,
    ) {
        if permits == NONE {
            return;
        }
        match self.leases.get_mut(&app) {
            Some(lease) => lease.put_back(window, permits),
            None => {
                let message = QuotaMessage::Return { app, window, permits, recalled: false };
                context.send(context.counter_of(app), message);
            }
        }
    }

    /// The counter granted a lease.
    pub(in crate::shard) fn add_lease(&mut self, app: AppSerial, window: Window, permits: Permits) {
        if permits != NONE {
            self.leases.entry(app).or_default().add(window, permits);
        }
    }

    /// Returns all unspent permits: limits may have changed, or the process is about to end.
    pub(in crate::shard) fn return_leases(&mut self, context: &mut Context) {
        for (app, Lease { window, permits }) in std::mem::take(&mut self.leases) {
            if permits != NONE {
                let message = QuotaMessage::Return { app, window, permits, recalled: false };
                context.send(context.counter_of(app), message);
            }
        }
    }

    /// The counter recalls unspent permits.
    pub(super) fn handle_recall(&mut self, context: &mut Context, from: ShardIndex, app: AppSerial) {
        let Lease { window, permits } = self.leases.remove(&app).unwrap_or_default();
        context.send(from, QuotaMessage::Return { app, window, permits, recalled: true });
    }

    /// A request needs permits, and these channels to be open.
    pub(super) fn count_request(
        &mut self,
        context: &mut Context,
        from: ShardIndex,
        app: AppSerial,
        request: PendingId,
        costs: Permits,
        channels: &[u64],
    ) {
        if !self.channels_are_open(app, channels) {
            context.send(from, HttpMessage::Denied { request, shortage: Shortage::Channels });
            return;
        }
        let asked = Asked { from, request, costs };
        let used = context.directory.messages_used(app).filter(|used| used.day == permits::day_of(context.now));
        let resumed = || used.map_or_else(RateLimit::default, |used| RateLimit::resumed(used.day, used.messages));
        let rate_limit = self.rate_limits.entry(app).or_insert_with(resumed);
        rate_limit.waiting.push_back(asked);
        self.decide(context, app);
    }

    /// Answers the requests that wait, in order, until permits must be recalled.
    fn decide(&mut self, context: &mut Context, app: AppSerial) {
        let settings = context.directory.app(app).map(|app| permits::limits_of(&app.settings));
        let limits = settings.unwrap_or(NONE);
        let (now, shards) = (context.now, context.config.shards);
        let Some(rate_limit) = self.rate_limits.get_mut(&app) else { return };
        let mut answers: Vec<(ShardIndex, ShardMessage)> = Vec::new();
        while rate_limit.recalls == 0
            && let Some(Asked { from, request, costs }) = rate_limit.waiting.front().copied()
        {
            let answer = match rate_limit.take(now, costs, limits, shards) {
                Ok(lease) => {
                    if lease != NONE && !rate_limit.leased_to.contains(&from) {
                        rate_limit.leased_to.push(from);
                    }
                    HttpMessage::Allowed { request, window: rate_limit.window, lease }
                }
                Err(_) if !rate_limit.leased_to.is_empty() => {
                    let leased_to = std::mem::take(&mut rate_limit.leased_to);
                    rate_limit.recalls = leased_to.len();
                    answers.extend(leased_to.into_iter().map(|to| (to, QuotaMessage::Recall { app }.into())));
                    continue;
                }
                Err(meter) => {
                    let seconds = rate_limit.window.seconds_left(meter, now);
                    HttpMessage::Denied { request, shortage: Shortage::Permits(meter, seconds) }
                }
            };
            rate_limit.waiting.pop_front();
            answers.push((from, answer.into()));
        }
        let (day, messages) = rate_limit.messages();
        if limits[Meter::Messages as usize] > 0 && messages > 0 {
            context.outputs.push_back(Output::MessagesCounted { app, day, messages });
        }
        for (to, answer) in answers {
            context.send(to, answer);
        }
    }

    /// Unspent permits come back; with the last of the recalled ones, the waiting requests are answered.
    pub(super) fn count_return(
        &mut self,
        context: &mut Context,
        app: AppSerial,
        window: Window,
        permits: Permits,
        recalled: bool,
    ) {
        let Some(rate_limit) = self.rate_limits.get_mut(&app) else { return };
        rate_limit.give_back(context.now, window, permits);
        let (day, messages) = rate_limit.messages();
        if permits[Meter::Messages as usize] > 0 {
            context.outputs.push_back(Output::MessagesCounted { app, day, messages });
        }
        if recalled {
            rate_limit.recalls -= 1;
            self.decide(context, app);
        }
    }

    /// Removes the counts of apps that are deleted from the store.
    pub(super) fn forget_deleted_apps(&mut self, context: &Context) {
        let awaited = |limit: &RateLimit| limit.recalls > 0 || !limit.waiting.is_empty();
        self.rate_limits.retain(|app, limit| context.directory.app(*app).is_some() || awaited(limit));
    }
}
