//! `subscription_count` over TCP (section 5.7 of the Pusher protocol).

use serde_json::json;

use crate::common::cli::set_app;
use crate::common::eventually;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;

fn options(driver: crate::common::server::Driver, shards: u16) -> ServerOptions {
    let apps = vec![("main", vec!["client_events=true", "subscription_count=true"])];
    ServerOptions { apps, ..ServerOptions::new(driver).shards(shards) }
}

#[track_caller]
fn expect_count(socket: &mut Socket, channel: &str, count: usize) {
    let data = format!(r#"{{"subscription_count":{count}}}"#);
    socket.expect_data("pusher_internal:subscription_count", channel, &data);
}

/// P-COUNT-1, P-OUT-8, P-SUB-1: on public, private and cache channels, on any shard, each subscribe, unsubscribe and
/// end of a connection is sent to all subscribers, the new one included; presence channels have no counts.
#[test]
fn changes_are_told() {
    for shards in [1, 3] {
        on_fresh_servers(
            |driver| options(driver, shards),
            |server: TestServer| {
                for channel in ["open", "private-x", "cache-x"] {
                    let mut sockets: Vec<Socket> = Vec::new();
                    for number in 1..=8 {
                        let mut socket = Socket::open(&server, server.app());
                        socket.subscribe(channel);
                        if channel == "cache-x" {
                            socket.expect_event("pusher:cache_miss");
                        }
                        sockets.push(socket);
                        sockets.iter_mut().for_each(|socket| expect_count(socket, channel, number));
                    }
                    for number in (1..=7).rev() {
                        let mut socket = sockets.remove(0);
                        if number % 2 == 0 {
                            socket.unsubscribe(channel);
                            socket.expect_quiet();
                        }
                        drop(socket);
                        sockets.iter_mut().for_each(|socket| expect_count(socket, channel, number));
                    }
                    sockets[0].expect_quiet();
                }
                let mut member = Socket::open(&server, server.app());
                member.join("presence-x", &json!({"user_id": "1"}).to_string());
                member.expect_quiet();
            },
        );
    }
}

/// P-COUNT-1: above 100 subscribers at most one count is sent in 5 s, and then the last one.
#[test]
fn large_channels_are_told_less_often() {
    on_fresh_servers_at_once(
        |driver| options(driver, 2),
        |server| {
            let mut watcher = Socket::open(&server, server.app());
            watcher.subscribe("crowd");
            expect_count(&mut watcher, "crowd", 1);
            let mut crowd: Vec<Socket> = Vec::new();
            let mut join = || {
                let mut socket = Socket::open(&server, server.app());
                socket.subscribe("crowd");
                crowd.push(socket);
            };
            for number in 2..=101 {
                join();
                expect_count(&mut watcher, "crowd", number);
            }
            let start = std::time::Instant::now();
            (102..=130).for_each(|_| join());
            let mut told = 0;
            loop {
                let frame = watcher.expect_event("pusher_internal:subscription_count");
                told += 1;
                if frame["data"] == r#"{"subscription_count":130}"# {
                    break;
                }
            }
            // A machine under load may need several intervals for the joins.
            let elapsed_ms = start.elapsed().as_millis();
            assert!(told * 5_000 <= elapsed_ms + 500, "{told} counts within {elapsed_ms} ms");
            watcher.expect_quiet();
        },
    );
}

/// P-COUNT-1: off by default; a running server applies the setting within 2 s.
#[test]
fn the_setting_is_obeyed() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let mut watcher = Socket::open(&server, app);
        watcher.subscribe("open");
        let join = || {
            let mut socket = Socket::open(&server, app);
            socket.subscribe("open");
            socket
        };
        let _second = join();
        watcher.expect_quiet();
        set_app(&server.data, app, &["subscription_count=true"]);
        let mut others = Vec::new();
        eventually("a count", || {
            others.push(join());
            watcher.send(r#"{"event":"pusher:ping","data":{}}"#);
            let frame = watcher.next_json();
            if frame["event"] == "pusher:pong" {
                return None;
            }
            assert_eq!(frame["event"], "pusher_internal:subscription_count", "{frame}");
            Some(())
        });
    });
}
