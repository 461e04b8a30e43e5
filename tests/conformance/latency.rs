//! The latency of every kind of answer on a quiet server. A lost wake or a late flush loses nothing: the pending output
//! is sent with the next turn, which on a quiet server is the sweep's, up to 100 ms later. So such an error is visible
//! only in these times. Each run prints its table.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::http::HttpConnection;
use crate::common::receiver::Receiver;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::{Arrival, Socket};
use crate::common::unique;

const SAMPLES: usize = 25;
/// The median of each kind is below this on a machine with time for it; output left for the sweep takes 100 ms.
const MEDIAN_MAX: Duration = Duration::from_millis(20);
/// A webhook waits 50 ms for others to be batched with it, and is then written to disk.
const HAND_OFF_MAX: Duration = Duration::from_millis(150);

/// Times of each kind, in the order of the table.
#[derive(Default)]
struct Table(Vec<(&'static str, Vec<Duration>)>);

impl Table {
    fn add(&mut self, kind: &'static str, time: Duration) {
        match self.0.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, times)) => times.push(time),
            None => self.0.push((kind, vec![time])),
        }
    }

    /// Runs `step` and adds its time.
    fn time<T>(&mut self, kind: &'static str, step: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = step();
        self.add(kind, start.elapsed());
        result
    }

    fn median(times: &[Duration]) -> Duration {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    }

    /// Prints the table and returns the kinds that take too long. A busy machine delays everything: the time beyond a
    /// millisecond that a plain request and its answer take is added to each kind's limit several times, since one
    /// sample has several such steps.
    fn check(&self, heading: &str) -> Vec<String> {
        let plain = self.0.iter().find(|(kind, _)| *kind == "health request").expect("it was measured");
        let delay = 8 * Self::median(&plain.1).saturating_sub(Duration::from_millis(1));
        let mut text = format!("{heading}\n{:<28} {:>9} {:>9}\n", "", "p50 ms", "max ms");
        let mut late = Vec::new();
        for (kind, times) in &self.0 {
            let (median, max) = (Self::median(times), times.iter().max().expect("there are some"));
            let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            writeln!(text, "{kind:<28} {:>9.2} {:>9.2}", ms(median), ms(*max)).expect("a string takes everything");
            let bound = if *kind == "webhook hand-off" { HAND_OFF_MAX } else { MEDIAN_MAX };
            if median > bound + delay {
                late.push(format!("{kind}: {median:?}"));
            }
        }
        println!("{text}");
        late
    }
}

/// Goal: no kind of answer waits for the sweep, on both drivers, with one shard and with two. Method: one operation
/// after the other on a server that is otherwise quiet, timed from the last byte sent to the last byte read.
#[test]
fn every_kind_of_answer_comes_at_once() {
    let mut late = Vec::new();
    let collected = std::sync::Mutex::new(&mut late);
    for shards in [1, 2] {
        let receiver = Receiver::start();
        let options = |driver| {
            ServerOptions::new(driver)
                .shards(shards)
                .webhook(&receiver.url(), &["--allow-private"])
                .app("live", &["client_events=true", "watchlist=true"])
                .app("counted", &["subscription_count=true"])
        };
        on_fresh_servers(options, |server| {
            let mut table = Table::default();
            measure_http(&server, &mut table);
            measure_channels(&server, &mut table);
            measure_presence(&server, &mut table);
            measure_users(&server, &mut table);
            measure_webhooks(&server, &receiver, &mut table);
            let heading = format!("{} with {shards} shards", server.driver.word());
            let mut collected = collected.lock().expect("no holder panics");
            collected.extend(table.check(&heading).into_iter().map(|kind| format!("{heading}: {kind}")));
        });
    }
    assert!(late.is_empty(), "something waits for the sweep: {late:#?}");
}

fn measure_http(server: &TestServer, table: &mut Table) {
    let app = server.named_app("live");
    let mut connection = HttpConnection::open(server.address);
    for _ in 0..SAMPLES {
        table.time("health request", || connection.ask("GET", "/up", &[], b"").expect(200));
        let query = app.sign("GET", &app.path("/channels"), b"");
        table.time("query", || connection.ask("GET", &query, &[], b"").expect(200));
        let metrics = table.time("metrics page", || crate::common::http::get(server.health, "/metrics"));
        metrics.expect(200);
    }
}

fn measure_channels(server: &TestServer, table: &mut Table) {
    let app = server.named_app("live");
    let mut publisher = HttpConnection::open(server.address);
    for _ in 0..SAMPLES {
        let mut socket = table.time("connection", || Socket::open(server, app));
        let mut other = Socket::open(server, app);
        let (public, private, cache) = (unique("public"), unique("private-p"), unique("cache-c"));
        table.time("subscribe, public", || socket.subscribe(&public));
        table.time("subscribe, private", || socket.subscribe(&private));
        other.subscribe(&private);
        table.time("cache miss", || {
            socket.subscribe(&cache);
            socket.expect_event("pusher:cache_miss")
        });
        table.time("ping", || socket.expect_quiet());
        table.time("client event", || {
            socket.send_json(&json!({"event": "client-e", "channel": private, "data": {}}));
            other.expect_event("client-e")
        });
        let body = json!({"name": "e", "channel": public, "data": "x"}).to_string();
        let target = app.sign("POST", &app.path("/events"), body.as_bytes());
        let start = Instant::now();
        publisher.send("POST", &target, &[], body.as_bytes());
        socket.expect_data("e", &public, "x");
        table.add("publish to delivery", start.elapsed());
        publisher.read().expect(200);
        table.add("publish to answer", start.elapsed());
        table.time("unsubscribe and ping", || {
            socket.unsubscribe(&public);
            socket.expect_quiet();
        });
        let counted = server.named_app("counted");
        let (mut first, mut second) = (Socket::open(server, counted), Socket::open(server, counted));
        first.subscribe("room");
        first.expect_event("pusher_internal:subscription_count");
        table.time("count to others", || {
            second.send_subscribe("room");
            first.expect_event("pusher_internal:subscription_count")
        });
        second.leave();
        first.leave();
    }
}

fn measure_presence(server: &TestServer, table: &mut Table) {
    let app = server.named_app("live");
    let channel = unique("presence-room");
    let mut observer = Socket::open(server, app);
    observer.join(&channel, r#"{"user_id":"observer"}"#);
    for number in 0..SAMPLES {
        let mut joiner = Socket::open(server, app);
        let start = Instant::now();
        joiner.join(&channel, &json!({"user_id": format!("user-{number}")}).to_string());
        table.add("presence join", start.elapsed());
        observer.expect_event("pusher_internal:member_added");
        table.add("member_added to others", start.elapsed());
        if number % 2 == 0 {
            table.time("member_removed, unsubscribe", || {
                joiner.unsubscribe(&channel);
                observer.expect_event("pusher_internal:member_removed")
            });
        } else {
            table.time("member_removed, disconnect", || {
                drop(joiner);
                observer.expect_event("pusher_internal:member_removed")
            });
        }
    }
}

fn measure_users(server: &TestServer, table: &mut Table) {
    let app = server.named_app("live");
    for _ in 0..SAMPLES {
        let (watcher_id, user_id) = (unique("watcher"), unique("user"));
        let mut watcher = Socket::open(server, app);
        watcher.sign_in(&json!({"id": watcher_id, "watchlist": [user_id]}).to_string());
        watcher.expect_event("pusher_internal:watchlist_events");
        let mut user = Socket::open(server, app);
        let start = Instant::now();
        user.sign_in(&json!({"id": user_id}).to_string());
        table.add("signin", start.elapsed());
        watcher.expect_event("pusher_internal:watchlist_events");
        table.add("watchlist event, online", start.elapsed());
        let path = app.path(&format!("/users/{user_id}/terminate_connections"));
        let start = Instant::now();
        server.post_signed(app, &path, b"{}").expect(200);
        table.add("terminate to answer", start.elapsed());
        while !matches!(user.next(), Arrival::Close(..) | Arrival::Ended(_)) {}
        table.add("terminate to close", start.elapsed());
        watcher.expect_event("pusher_internal:watchlist_events");
        table.add("watchlist event, offline", start.elapsed());
    }
}

fn measure_webhooks(server: &TestServer, receiver: &Receiver, table: &mut Table) {
    for _ in 0..SAMPLES {
        let mut socket = Socket::open(server, server.app());
        let channel = unique("hooked");
        let start = Instant::now();
        socket.subscribe(&channel);
        let at = receiver.until("the webhook", |received| {
            received.iter().find(|request| request.body.contains(&channel)).map(|request| request.at)
        });
        table.add("webhook hand-off", at - start);
    }
}
