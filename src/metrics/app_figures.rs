//! Figures of one app in one shard, looked up by the app's serial without hashing.

use slab::Slab;

use crate::app::AppSerial;

/// Counters of one shard for one app. All but `connected` only increase.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AppFigures {
    /// WebSockets open now.
    pub connected: u64,
    /// WebSockets opened.
    pub connections: u64,
    /// WebSockets that ended.
    pub disconnections: u64,
    /// Bytes read from its WebSockets.
    pub socket_received_bytes: u64,
    /// Bytes that the kernel accepted for its WebSockets.
    pub socket_sent_bytes: u64,
    /// Text messages read from its WebSockets.
    pub messages_received: u64,
    /// Text messages queued to its WebSockets.
    pub messages_sent: u64,
    /// Bytes of requests to its HTTP API, heads included.
    pub http_received_bytes: u64,
    /// Bytes of the answers to them.
    pub http_sent_bytes: u64,
    /// Requests to its HTTP API.
    pub http_calls: u64,
    /// Events accepted over HTTP, one per channel, with the owner.
    pub events: u64,
    /// Client events accepted, with the owner.
    pub client_events: u64,
}

impl AppFigures {
    /// Adds the counts of another shard.
    pub fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.connections += other.connections;
        self.disconnections += other.disconnections;
        self.socket_received_bytes += other.socket_received_bytes;
        self.socket_sent_bytes += other.socket_sent_bytes;
        self.messages_received += other.messages_received;
        self.messages_sent += other.messages_sent;
        self.http_received_bytes += other.http_received_bytes;
        self.http_sent_bytes += other.http_sent_bytes;
        self.http_calls += other.http_calls;
        self.events += other.events;
        self.client_events += other.client_events;
    }
}

/// The figures of all apps that a shard has handled. An app without traffic costs only a place in the index.
#[derive(Debug, Default)]
pub struct AppTable {
    /// Place in `figures` by serial, or `NONE`. Serials are small: the store counts apps.
    places: Vec<u32>,
    figures: Slab<(AppSerial, AppFigures)>,
    /// Bytes sent to connections of one app in a row: recorded when the app changes or a reader asks.
    run: SentRun,
    /// Bytes that were sent, for all apps and for connections without one.
    sent_bytes: u64,
}

/// Consecutive sends of one app.
#[derive(Debug, Default)]
struct SentRun {
    app: u32,
    bytes: u64,
}

const NONE: u32 = u32::MAX;

impl AppTable {
    /// The figures of an app, created when there are none.
    #[inline]
    pub fn of(&mut self, app: AppSerial) -> &mut AppFigures {
        let place = self.places.get(app.0 as usize).copied().unwrap_or(NONE);
        let place = if place == NONE { self.make(app) } else { place };
        &mut self.figures[place as usize].1
    }

    /// WebSockets of an app that are open now.
    pub fn connected(&self, app: AppSerial) -> u64 {
        let figures = self.places.get(app.0 as usize).and_then(|&place| self.figures.get(place as usize));
        figures.map_or(0, |(_, figures)| figures.connected)
    }

    #[cold]
    #[inline(never)]
    fn make(&mut self, app: AppSerial) -> u32 {
        let serial = app.0 as usize;
        if serial >= self.places.len() {
            self.places.resize(serial + 1, NONE);
        }
        let place = self.figures.insert((app, AppFigures::default())) as u32;
        self.places[serial] = place;
        place
    }

    /// Records bytes that the kernel accepted for a connection of this app (the serial of its hot line, `u32::MAX` for
    /// none). A fan-out stays within one app, so this is one comparison and one addition per send.
    pub fn sent(&mut self, app: u32, bytes: usize) {
        if self.run.app != app {
            self.write_down();
            self.run.app = app;
        }
        self.run.bytes += bytes as u64;
    }

    /// Bytes sent so far, including those without an app.
    pub fn sent_bytes(&mut self) -> u64 {
        self.write_down();
        self.sent_bytes
    }

    /// A copy of everything, by serial.
    pub fn snapshot(&mut self) -> Vec<(AppSerial, AppFigures)> {
        self.write_down();
        let mut apps: Vec<_> = self.figures.iter().map(|(_, entry)| *entry).collect();
        apps.sort_unstable_by_key(|(app, _)| *app);
        apps
    }

    /// Drops apps that no longer exist, once no client of theirs is connected.
    pub fn retain(&mut self, exists: impl Fn(AppSerial) -> bool) {
        self.write_down();
        let places = &mut self.places;
        self.figures.retain(|_, (app, figures)| {
            let keep = figures.connected > 0 || exists(*app);
            if !keep {
                places[app.0 as usize] = NONE;
            }
            keep
        });
    }

    fn write_down(&mut self) {
        let SentRun { app, bytes } = std::mem::take(&mut self.run);
        self.sent_bytes += bytes;
        if bytes > 0
            && let Some((_, figures)) =
                self.places.get(app as usize).and_then(|&place| self.figures.get_mut(place as usize))
        {
            figures.socket_sent_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes are counted for the app that they were sent for, in whatever order sends complete; those without an app
    /// only in the sum.
    #[test]
    fn runs_of_sends_are_attributed() {
        let mut table = AppTable::default();
        table.of(AppSerial(1)).connected = 1;
        table.of(AppSerial(7)).connected = 1;
        for (app, bytes) in [(1, 10), (1, 5), (7, 100), (u32::MAX, 1_000), (1, 1)] {
            table.sent(app, bytes);
        }
        let sent: Vec<_> = table.snapshot().iter().map(|(app, figures)| (app.0, figures.socket_sent_bytes)).collect();
        assert_eq!(sent, [(1, 16), (7, 100)]);
        assert_eq!(table.sent_bytes(), 1_116);
    }

    /// An app that no longer exists is kept while a client is connected and then dropped; its place is reused by
    /// others.
    #[test]
    fn gone_apps_are_forgotten() {
        let mut table = AppTable::default();
        table.of(AppSerial(2)).connected = 1;
        table.of(AppSerial(3)).http_calls = 4;
        table.retain(|_| false);
        assert_eq!(table.snapshot().len(), 1);
        table.of(AppSerial(2)).connected = 0;
        table.retain(|_| false);
        assert!(table.snapshot().is_empty());
        assert_eq!(table.of(AppSerial(3)).http_calls, 0);
        table.of(AppSerial(9)).http_calls = 1;
        assert_eq!(table.snapshot().len(), 2);
    }
}
