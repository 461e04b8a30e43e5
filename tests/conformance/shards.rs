//! The same guarantees with 1, 2 and 5 shards: publishes cross shards, channels have one order, presence one roster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::http::HttpConnection;
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;

/// Runs a scenario with 1, 2 and 5 shards on both drivers.
fn with_shards(scenario: impl Fn(&TestServer)) {
    for shards in [1, 2, 5] {
        on_fresh_servers(|driver| ServerOptions::new(driver).shards(shards), |server| scenario(&server));
    }
}

/// P-HTTP-17, R-PUB-6, P-SUB-5: 40 subscribers on all shards get every event once; four publishers that run at once see one total order of the
/// channel, with each publisher's own order in it.
#[test]
fn every_subscriber_sees_one_total_order() {
    with_shards(|server| {
        let app = server.app();
        let mut sockets: Vec<Socket> = (0..40).map(|_| Socket::open(server, app)).collect();
        sockets.iter_mut().for_each(|socket| socket.subscribe("private-order"));
        std::thread::scope(|scope| {
            for publisher in 0..4 {
                scope.spawn(move || {
                    let mut connection = HttpConnection::open(server.address);
                    for index in 0..50 {
                        let data = format!("{publisher} {index}");
                        let body = json!({"name": "e", "channel": "private-order", "data": data}).to_string();
                        let target = app.sign("POST", &app.path("/events"), body.as_bytes());
                        connection.ask("POST", &target, &[], body.as_bytes()).expect(200);
                    }
                });
            }
        });
        let orders: Vec<Vec<String>> = sockets
            .iter_mut()
            .map(|socket| {
                let order = (0..200).map(|_| text(&socket.next_json()["data"])).collect();
                socket.expect_quiet();
                order
            })
            .collect();
        assert!(orders.iter().all(|order| order == &orders[0]), "all see the same order");
        for publisher in 0..4 {
            let start = format!("{publisher} ");
            let own: Vec<&String> = orders[0].iter().filter(|data| data.starts_with(&start)).collect();
            let wanted: Vec<String> = (0..50).map(|index| format!("{publisher} {index}")).collect();
            assert_eq!(own, wanted.iter().collect::<Vec<_>>());
        }
    });
}

/// P-HTTP-1: publishing to 50 channels with different owners reaches every subscriber once; `socket_id` excludes one,
/// on any shard; counts are summed over the shards.
#[test]
fn many_channels_and_exclusion_cross_shards() {
    with_shards(|server| {
        let app = server.app();
        let channels: Vec<String> = (0..50).map(|index| format!("wide-{index}")).collect();
        let mut sockets: Vec<Socket> = (0..12).map(|_| Socket::open(server, app)).collect();
        for socket in &mut sockets {
            channels.iter().for_each(|channel| socket.subscribe(channel));
        }
        for excluded in 0..sockets.len() {
            let id = sockets[excluded].socket_id.clone();
            let body =
                json!({"name": "e", "channels": channels, "data": "x", "socket_id": id, "info": "subscription_count"});
            let answer = server.post_events(app, &body).expect(200).json();
            assert!(channels.iter().all(|channel| answer["channels"][channel]["subscription_count"] == 12), "{answer}");
            for (index, socket) in sockets.iter_mut().enumerate() {
                if index == excluded {
                    socket.expect_quiet();
                } else {
                    let got: BTreeSet<String> = channels.iter().map(|_| text(&socket.next_json()["channel"])).collect();
                    assert_eq!(got.len(), 50);
                }
            }
        }
    });
}

/// P-PRES-2, P-PRES-5: 20 users on all shards form one roster; every member is notified of each join and leave once.
#[test]
fn presence_is_one_roster_over_all_shards() {
    with_shards(|server| {
        let app = server.app();
        let mut members: Vec<Socket> = Vec::new();
        for user in 0..20 {
            let mut socket = Socket::open(server, app);
            let roster = socket.join("presence-all", &json!({"user_id": user.to_string()}).to_string());
            assert_eq!(roster["count"], user + 1);
            let ids: BTreeSet<String> = roster["ids"].as_array().unwrap().iter().map(text).collect();
            assert_eq!(ids, (0..=user).map(|id| id.to_string()).collect());
            for other in &mut members {
                assert_eq!(member(&other.expect_event("pusher_internal:member_added")), user.to_string());
            }
            members.push(socket);
        }
        for user in 0..10 {
            let mut socket = members.remove(0);
            if user % 2 == 0 {
                socket.unsubscribe("presence-all");
                socket.expect_quiet();
            } else {
                socket.leave();
            }
            for other in &mut members {
                assert_eq!(member(&other.expect_event("pusher_internal:member_removed")), user.to_string());
            }
        }
        members.iter_mut().for_each(Socket::expect_quiet);
    });
}

/// P-CEV-2: client events reach subscribers on every shard once, never the sender.
#[test]
fn client_events_cross_shards() {
    with_shards(|server| {
        let app = server.app();
        let mut sockets: Vec<Socket> = (0..15).map(|_| Socket::open(server, app)).collect();
        sockets.iter_mut().for_each(|socket| socket.subscribe("private-talk"));
        for sender in 0..sockets.len() {
            let data = format!("from {sender}");
            sockets[sender].send_json(&json!({"event": "client-x", "channel": "private-talk", "data": data}));
            for (index, socket) in sockets.iter_mut().enumerate() {
                if index == sender {
                    socket.expect_quiet();
                } else {
                    socket.expect_data("client-x", "private-talk", &data);
                }
            }
        }
    });
}

/// P-SUB-5, P-SUB-3: subscribing and unsubscribing at random on all shards while events flow: a socket sees exactly the
/// events published between its `succeeded` and its unsubscribe, plus those in flight.
#[test]
fn churn_loses_and_doubles_nothing() {
    with_shards(|server| {
        let app = server.app();
        let mut steady = Socket::open(server, app);
        steady.subscribe("churn");
        let mut sockets: Vec<Socket> = (0..10).map(|_| Socket::open(server, app)).collect();
        for round in 0..60 {
            let socket = &mut sockets[round * 7 % 10];
            socket.subscribe("churn");
            server.publish(app, "churn", "e", &round.to_string());
            socket.expect_data("e", "churn", &round.to_string());
            socket.unsubscribe("churn");
            socket.expect_quiet();
            steady.expect_data("e", "churn", &round.to_string());
        }
        steady.expect_quiet();
        sockets.iter_mut().for_each(Socket::expect_quiet);
    });
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}")).to_owned()
}

fn member(frame: &Value) -> String {
    let data: Value = serde_json::from_str(frame["data"].as_str().expect("data is a string")).expect("JSON");
    text(&data["user_id"])
}
