//! Endpoints that wait for a thread, and how many threads each app may have (P-HOOK-10).
//!
//! Apps take turns, and within an app its endpoints do. How many requests an app may have in flight depends on how many
//! threads are free: the more requests it has, the more threads must be free for it to get another one. So an app alone
//! has most of the threads, and there is always one for an app that has none.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::app::AppSerial;

/// The speed of an endpoint's last answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::webhook) enum Pace {
    /// It was never sent anything.
    New,
    /// It answered, or refused the connection, quickly.
    Quick,
    /// It answered late or not at all.
    Slow,
}

/// The order in which the paces take turns.
const PACES: [Pace; 3] = [Pace::Quick, Pace::New, Pace::Slow];

/// Endpoints with something to send and nothing in flight.
pub(super) struct Lines {
    threads: usize,
    lines: [Line; PACES.len()],
    /// Requests in flight by app, and of these by pace.
    in_flight: HashMap<AppSerial, [usize; PACES.len()]>,
    /// In flight of all apps, by pace.
    in_flight_total: [usize; PACES.len()],
    /// Index of the pace whose turn is next.
    next: usize,
}

/// The endpoints of one pace.
#[derive(Default)]
struct Line {
    /// Apps that wait, each once, in the order of their turns.
    apps: VecDeque<AppSerial>,
    endpoints: HashMap<AppSerial, VecDeque<Arc<str>>>,
}

impl Lines {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, lines: Default::default(), in_flight: HashMap::new(), in_flight_total: [0; 3], next: 0 }
    }

    /// Puts an endpoint at the end of its line.
    pub(super) fn push(&mut self, app: AppSerial, endpoint: Arc<str>, pace: Pace) {
        let line = &mut self.lines[pace as usize];
        let endpoints = line.endpoints.entry(app).or_default();
        if endpoints.is_empty() {
            line.apps.push_back(app);
        }
        endpoints.push_back(endpoint);
    }

    /// Takes the endpoint whose turn it is, if its app may use a thread.
    pub(super) fn pop(&mut self) -> Option<Arc<str>> {
        for turn in 0..PACES.len() {
            let at = (self.next + turn) % PACES.len();
            let pace = PACES[at];
            // No more apps are checked than there are threads: an app that may not begin has requests in flight.
            if !self.may_begin(pace, [0; PACES.len()]) {
                continue;
            }
            let may = |app: &AppSerial| self.in_flight.get(app).is_none_or(|own| self.may_begin(pace, *own));
            let Some(found) = self.lines[pace as usize].apps.iter().position(may) else { continue };
            self.next = (at + 1) % PACES.len();
            return Some(self.lines[pace as usize].take(found));
        }
        None
    }

    /// Counts a request to an endpoint of this app and pace that begins.
    pub(super) fn begin(&mut self, app: AppSerial, pace: Pace) {
        self.in_flight_total[pace as usize] += 1;
        self.in_flight.entry(app).or_default()[pace as usize] += 1;
    }

    /// Counts a request that has ended.
    pub(super) fn end(&mut self, app: AppSerial, pace: Pace) {
        self.in_flight_total[pace as usize] -= 1;
        let own = self.in_flight.get_mut(&app).expect("a request that ends was begun");
        own[pace as usize] -= 1;
        if own.iter().all(|count| *count == 0) {
            self.in_flight.remove(&app);
        }
    }

    /// Removes the endpoints for which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for line in &mut self.lines {
            line.endpoints.retain(|_, endpoints| {
                endpoints.retain(|endpoint| keep(endpoint));
                !endpoints.is_empty()
            });
            let waiting = &line.endpoints;
            line.apps.retain(|app| waiting.contains_key(app));
        }
    }

    /// Whether an app with this many requests in flight, by pace, may begin another one of this pace.
    fn may_begin(&self, pace: Pace, own: [usize; PACES.len()]) -> bool {
        let free = self.threads.saturating_sub(self.in_flight_total.iter().sum());
        let [new, quick, slow] = [Pace::New, Pace::Quick, Pace::Slow].map(|pace| own[pace as usize]);
        match pace {
            // 5 of 8 threads for an app alone.
            Pace::Quick => 2 * (new + quick + slow) < 3 * free,
            // With few threads even the last one is available to everyone; otherwise it is not for an endpoint of
            // unknown pace. Half of the threads for an app alone; one even if its quick endpoints leave none.
            Pace::New => free > usize::from(self.threads >= 4) && (new == 0 || new + quick < free),
            // Half of the threads for the slow endpoints of all apps together, half of these for an app alone.
            Pace::Slow => {
                let slow_max = (self.threads / 2).max(1);
                free > 0 && slow < slow_max.saturating_sub(self.in_flight_total[pace as usize])
            }
        }
    }
}

impl Line {
    /// Takes the first endpoint of the app at this place; an app with more endpoints moves to the end.
    fn take(&mut self, at: usize) -> Arc<str> {
        let app = self.apps.remove(at).expect("it was found there");
        let endpoints = self.endpoints.get_mut(&app).expect("an app that waits has endpoints");
        let endpoint = endpoints.pop_front().expect("an app that waits has endpoints");
        if endpoints.is_empty() {
            self.endpoints.remove(&app);
        } else {
            self.apps.push_back(app);
        }
        endpoint
    }
}
