//! Requests per minute and messages per day (R-LIM-3, R-LIM-4), per app over all shards.
//!
//! The app's counter grants permits, and with them a lease of some more to the shard that asked: it spends these
//! without asking again, so that a busy app costs no mail per request and no shared memory. When the counter has too
//! few it calls the leases in before it refuses: exactly the limit is spent. Apps without such limits pay nothing.
//!
//! ```text
//! request -- permits at hand --------------------------------------------> carried out
//!    +-- Allow --> counter -- enough --> Allowed (with a lease) ---------> carried out
//!                     +-- too few --> Recall --> all shards --> Return --> decided again
//!                     +-- none leased -> Denied -------------------------> 429 or 403
//! ```

use std::collections::BTreeMap;

use slab::Slab;

use super::command::{Command, Place};
use super::mail::{Body, PendingId};
use super::tally::{self, Asked, Lease, Meter, NONE, Permits, Tally, Window};
use super::{Output, Shard, ShardIndex};
use crate::api::refusal::Refusal;
use crate::app::{App, AppSerial};
use crate::auth::request::Caller;
use crate::connection::Phase;
use crate::protocol::dialect::Dialect;
use crate::wire::http::Request;

/// What a shard knows of the allowances of apps.
#[derive(Default)]
pub(super) struct Allowances {
    /// Permits at hand.
    leases: BTreeMap<AppSerial, Lease>,
    /// Requests that wait for their counter.
    pub(super) parked: Slab<Parked>,
    /// For the apps whose counter this shard is.
    tallies: BTreeMap<AppSerial, Tally>,
}

/// A request that waits for its counter.
pub(super) struct Parked {
    nonce: u32,
    place: Place,
    app: AppSerial,
    /// Permits that were at hand and are spent, and their window.
    spent: Permits,
    window: Window,
    /// Permits that the counter was asked for.
    asked: Permits,
    outcome: Result<Command, Refusal>,
}

/// Why the counter said no.
#[derive(Debug)]
pub(super) enum Shortage {
    /// A limit per minute or day, and the seconds until it starts anew.
    Permits(Meter, u32),
    /// The app has all the channels that it may have, and this request is for another one (R-LIM-5).
    Channels,
}

impl Shard {
    /// Carries out what a request was understood as, or refuses it as it was, once the app's allowance covers it. Every
    /// request with a good credential counts, also one that is refused for something else.
    ///
    /// # Errors
    /// The refusal that is in `outcome`, or 503.
    pub(super) fn start_request(
        &mut self,
        slot: u32,
        request: &Request<'_>,
        dialect: Dialect,
        app: &App,
        caller: &Caller,
        outcome: Result<Command, Refusal>,
    ) -> Result<(), Refusal> {
        let (app, settings) = (app.serial, &app.settings);
        let costs = tally::costs(settings, &caller.credential, outcome.as_ref().map_or(0, Command::messages));
        let channels = match &outcome {
            Ok(command) if self.full_apps.contains(&app) => command.channel_hashes(),
            Ok(_) | Err(_) => Vec::new(),
        };
        let (asked, window) = self.spend(app, costs);
        if asked != NONE || !channels.is_empty() {
            let place = Place { connection: self.key(slot), ticket: self.take_ticket(slot, request), dialect };
            self.await_large_answer(place, &outcome);
            let spent = std::array::from_fn(|at| costs[at] - asked[at]);
            self.pending_nonce = self.pending_nonce.wrapping_add(1);
            let nonce = self.pending_nonce;
            let index = self.allowances.parked.insert(Parked { nonce, place, app, spent, window, asked, outcome });
            self.http(slot).parked = true;
            let request = PendingId { index: index as u32, nonce };
            self.send(self.counter_of(app), Body::Allow { request, app, costs: asked, channels });
            return Ok(());
        }
        if outcome.is_err() {
            return outcome.map(drop);
        }
        let place = Place { connection: self.key(slot), ticket: self.take_ticket(slot, request), dialect };
        self.await_large_answer(place, &outcome);
        let command = outcome?;
        if let Err(refusal) = self.carry_out(place, command) {
            self.put_back(app, window, costs);
            self.answer_place(place, &refusal);
        }
        Ok(())
    }

    fn await_large_answer(&mut self, place: Place, outcome: &Result<Command, Refusal>) {
        if outcome.as_ref().is_ok_and(Command::has_large_answer) {
            self.http(place.connection.slot).large_answer = Some(place.ticket);
        }
    }

    /// True when a publish of the app may have to wait for the app's counter.
    pub(super) fn may_wait(&self, app: &App) -> bool {
        tally::limits_of(&app.settings) != NONE || self.full_apps.contains(&app.serial)
    }

    /// Spends permits at hand; gives those that are missing.
    fn spend(&mut self, app: AppSerial, costs: Permits) -> (Permits, Window) {
        if costs == NONE {
            return (NONE, Window::default());
        }
        let Some(lease) = self.allowances.leases.get_mut(&app) else { return (costs, Window::default()) };
        (lease.spend(self.now, costs), lease.window)
    }

    /// Permits that were not used after all go back to the lease, or to the counter where there is none.
    fn put_back(&mut self, app: AppSerial, window: Window, permits: Permits) {
        if permits == NONE {
            return;
        }
        match self.allowances.leases.get_mut(&app) {
            Some(lease) => lease.put_back(window, permits),
            None => self.send(self.counter_of(app), Body::Return { app, window, permits, recalled: false }),
        }
    }

    /// As counter: a request needs permits, and for these channels that they are open.
    pub(super) fn count_request(
        &mut self,
        from: ShardIndex,
        app: AppSerial,
        request: PendingId,
        costs: Permits,
        channels: &[u64],
    ) {
        if !self.channels_are_open(app, channels) {
            self.send(from, Body::Denied { request, shortage: Shortage::Channels });
            return;
        }
        let asked = Asked { from, request, costs };
        let used = self.directory.messages_used(app).filter(|used| used.day == tally::day_of(self.now));
        let resumed = || used.map_or_else(Tally::default, |used| Tally::resumed(used.day, used.messages));
        let tally = self.allowances.tallies.entry(app).or_insert_with(resumed);
        tally.waiting.push_back(asked);
        self.decide(app);
    }

    /// As counter: answers those who wait, in order, until permits must be called in.
    fn decide(&mut self, app: AppSerial) {
        let settings = self.directory.app(app).map(|app| tally::limits_of(&app.settings));
        let limits = settings.unwrap_or(NONE);
        let (now, shards) = (self.now, self.config.shards);
        let Some(tally) = self.allowances.tallies.get_mut(&app) else { return };
        let mut answers = Vec::new();
        while tally.recalls == 0
            && let Some(Asked { from, request, costs }) = tally.waiting.front().copied()
        {
            let body = match tally.take(now, costs, limits, shards) {
                Ok(lease) => {
                    if lease != NONE && !tally.leased_to.contains(&from) {
                        tally.leased_to.push(from);
                    }
                    Body::Allowed { request, window: tally.window, lease }
                }
                Err(_) if !tally.leased_to.is_empty() => {
                    let leased_to = std::mem::take(&mut tally.leased_to);
                    tally.recalls = leased_to.len();
                    answers.extend(leased_to.into_iter().map(|to| (to, Body::Recall { app })));
                    continue;
                }
                Err(meter) => {
                    let seconds = tally.window.seconds_left(meter, now);
                    Body::Denied { request, shortage: Shortage::Permits(meter, seconds) }
                }
            };
            tally.waiting.pop_front();
            answers.push((from, body));
        }
        let (day, messages) = tally.messages();
        if limits[Meter::Messages as usize] > 0 && messages > 0 {
            self.outputs.push_back(Output::MessagesCounted { app, day, messages });
        }
        for (to, body) in answers {
            self.send(to, body);
        }
    }

    /// The counter wants unspent permits back.
    pub(super) fn handle_recall(&mut self, from: ShardIndex, app: AppSerial) {
        let Lease { window, permits } = self.allowances.leases.remove(&app).unwrap_or_default();
        self.send(from, Body::Return { app, window, permits, recalled: true });
    }

    /// As counter: unspent permits come back; with the last that were called in, those who wait are answered.
    pub(super) fn count_return(&mut self, app: AppSerial, window: Window, permits: Permits, recalled: bool) {
        let Some(tally) = self.allowances.tallies.get_mut(&app) else { return };
        tally.give_back(self.now, window, permits);
        let (day, messages) = tally.messages();
        if permits[Meter::Messages as usize] > 0 {
            self.outputs.push_back(Output::MessagesCounted { app, day, messages });
        }
        if recalled {
            tally.recalls -= 1;
            self.decide(app);
        }
    }

    /// Gives all unspent permits back: limits may have changed, or the process is about to end.
    pub(super) fn return_leases(&mut self) {
        for (app, Lease { window, permits }) in std::mem::take(&mut self.allowances.leases) {
            if permits != NONE {
                self.send(self.counter_of(app), Body::Return { app, window, permits, recalled: false });
            }
        }
    }

    /// Forgets what was counted for apps that are gone from the store.
    pub(super) fn forget_tallies_of_deleted_apps(&mut self) {
        let directory = &self.directory;
        let awaited = |tally: &Tally| tally.recalls > 0 || !tally.waiting.is_empty();
        self.allowances.tallies.retain(|app, tally| directory.app(*app).is_some() || awaited(tally));
    }

    /// The counter granted what was asked, and more to spend without asking.
    pub(super) fn handle_allowed(&mut self, request: PendingId, window: Window, lease: Permits) {
        let Parked { place, app, spent, window: spent_in, asked, outcome, .. } = self.take_parked(request);
        if lease != NONE {
            self.allowances.leases.entry(app).or_default().add(window, lease);
        }
        let (done, refusal) = match outcome {
            // Its client has gone: it is as if it had never come.
            _ if !self.is_awaiting(place) => (false, None),
            Err(refusal) => (true, Some(refusal)),
            Ok(command) => match self.carry_out(place, command) {
                Ok(()) => (true, None),
                Err(refusal) => (false, Some(refusal)),
            },
        };
        if !done {
            self.put_back(app, spent_in, spent);
            self.put_back(app, window, asked);
        }
        if let Some(refusal) = refusal {
            self.answer_place(place, &refusal);
        }
        self.resume_parked(place);
    }

    /// The counter refused.
    pub(super) fn handle_denied(&mut self, request: PendingId, shortage: &Shortage) {
        let Parked { place, app, spent, window, .. } = self.take_parked(request);
        self.put_back(app, window, spent);
        if self.is_awaiting(place) {
            let refusal = self.shortage_refusal(app, place.dialect, shortage);
            self.answer_place(place, &refusal);
            self.resume_parked(place);
        }
    }

    fn take_parked(&mut self, request: PendingId) -> Parked {
        let parked = self.allowances.parked.remove(request.index as usize);
        assert!(parked.nonce == request.nonce, "the counter answers each request once");
        parked
    }

    fn is_awaiting(&self, place: Place) -> bool {
        self.is_live(place.connection) && self.hot[place.connection.slot as usize].phase == Phase::Http
    }

    /// Goes on with the requests behind one that waited.
    fn resume_parked(&mut self, place: Place) {
        if self.is_awaiting(place) {
            self.http(place.connection.slot).parked = false;
            self.resume_if_due(place.connection.slot);
        }
    }

    fn shortage_refusal(&self, app: AppSerial, dialect: Dialect, shortage: &Shortage) -> Refusal {
        let settings = self.directory.app(app).map(|app| app.settings.clone()).unwrap_or_default();
        match *shortage {
            Shortage::Permits(Meter::Messages, seconds) => {
                Refusal::over_daily_quota(dialect, settings.messages_per_day, seconds)
            }
            Shortage::Permits(meter, seconds) => Refusal::over_rate(meter.limit(&settings), meter.setting(), seconds),
            Shortage::Channels => Refusal::over_channels(settings.max_channels),
        }
    }
}
