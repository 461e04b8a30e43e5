//! Webhooks over TCP: from clients' actions to the requests that a receiver gets (section 9 of the Pusher protocol,
//! section 6 of Relay's).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::receiver::{Received, Receiver, Reply};
use crate::common::rig::{drivers, on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{Driver, RunningProcess, ServerOptions, TestServer, data_directory};
use crate::common::sign::{App, hmac_hex};
use crate::common::socket::Socket;
use crate::common::tools::say_skipped;
use crate::common::{cli, http};
use crate::common::{eventually, eventually_within, unique};

const LOCAL: &[&str] = &["--allow-private"];

fn options(driver: Driver, shards: u16) -> ServerOptions {
    let apps = vec![("main", vec!["client_events=true", "subscription_count=true"])];
    ServerOptions { apps, ..ServerOptions::new(driver) }.shards(shards)
}

/// Subscribes, acts and leaves, so that every kind of event happens.
fn live(server: &TestServer, suffix: &str) -> (Socket, Vec<String>) {
    let name = |prefix: &str| format!("{prefix}-{suffix}");
    let channels = ["room", "presence-room", "private-chat", "cache-board"].map(name);
    let [public, presence, private, cache] = &channels;
    let mut socket = Socket::open(server, server.app());
    socket.subscribe(public);
    socket.expect_event("pusher_internal:subscription_count");
    socket.join(presence, r#"{"user_id":"alice"}"#);
    socket.subscribe(private);
    socket.expect_event("pusher_internal:subscription_count");
    socket.subscribe(cache);
    socket.expect_event("pusher:cache_miss");
    socket.send_json(&json!({"event": "client-typing", "channel": private, "data": {"a": 1}}));
    socket.send_json(&json!({"event": "client-wave", "channel": presence, "data": "hello"}));
    (socket, channels.to_vec())
}

/// P-HOOK-1 to P-HOOK-6, P-HOOK-8, P-HOOK-9, P-SDK-24, P-CEV-2, P-CACHE-2, P-COUNT-1, P-SUB-1: every kind of event in Pusher's format, one per request,
/// signed with the app's secret, in the order in which it happened on its channel; with 1 and 3 shards.
#[test]
fn every_kind_is_told() {
    for shards in [1, 3] {
        let receiver = Receiver::start();
        on_fresh_servers(
            |driver| options(driver, shards).webhook(&receiver.url(), LOCAL),
            |server| {
                let (socket, channels) = live(&server, &unique("kinds"));
                let [public, presence, private, cache] = &*channels else { unreachable!() };
                let socket_id = socket.socket_id.clone();
                receiver.await_names(presence, &["channel_occupied", "member_added", "client_event"]);
                receiver.await_names(private, &["channel_occupied", "subscription_count", "client_event"]);
                receiver.await_names(cache, &["channel_occupied", "cache_miss", "subscription_count"]);
                socket.leave();
                receiver.await_names(
                    public,
                    &["channel_occupied", "subscription_count", "subscription_count", "channel_vacated"],
                );
                receiver.await_names(
                    presence,
                    &["channel_occupied", "member_added", "client_event", "member_removed", "channel_vacated"],
                );
                let data = r#"{"a":1}"#;
                let sent = json!({"name": "client_event", "channel": private, "event": "client-typing", "data": data, "socket_id": socket_id});
                assert_eq!(receiver.events_of(private)[2], sent, "P-HOOK-3: no user_id outside of presence channels");
                let sent = json!({"name": "client_event", "channel": presence, "event": "client-wave", "data": "hello",
                                  "socket_id": socket_id, "user_id": "alice"});
                assert_eq!(receiver.events_of(presence)[2], sent);
                assert_eq!(
                    receiver.events_of(presence)[1],
                    json!({"name": "member_added", "channel": presence, "user_id": "alice"})
                );
                assert_eq!(
                    receiver.events_of(presence)[3],
                    json!({"name": "member_removed", "channel": presence, "user_id": "alice"})
                );
                let counts: Vec<Value> =
                    receiver.events_of(public)[1..3].iter().map(|event| event["subscription_count"].clone()).collect();
                assert_eq!(counts, [json!(1), json!(0)]);
                let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
                for received in receiver.received().iter().filter(|received| received.body.contains(public.as_str())) {
                    received.check_pusher(server.app());
                    assert_eq!(received.events().len(), 1, "P-HOOK-6: one event per request");
                    assert!(now_ms - received.json()["time_ms"].as_u64().unwrap() < 30_000, "P-SDK-24");
                }
            },
        );
    }
}

/// R-HOOK-1 to R-HOOK-6: Relay's format with the endpoint's secret, one event per request; a filter; the other spelling
/// of the count; endpoints are independent.
#[test]
fn formats_and_filters() {
    let [all, filtered, spelled] = [(); 3].map(|()| Receiver::start());
    let options = |driver| {
        options(driver, 2)
            .webhook(&all.url(), &["--allow-private", "--format", "relay"])
            .webhook(&filtered.url(), &["--allow-private", "--events", "member_added,channel.vacated"])
            .webhook(&spelled.url(), &["--allow-private", "--count-changed", "--events", "subscription_count_changed"])
    };
    on_fresh_servers(options, |server| {
        let (socket, channels) = live(&server, &unique("formats"));
        let [public, presence, ..] = &*channels else { unreachable!() };
        socket.leave();
        let secret = server.webhooks[0]["secret"].as_str().unwrap();
        let of = |received: &[Received], channel: &str| -> Vec<Received> {
            let is = |received: &&Received| received.json()["data"]["channel"] == channel;
            received.iter().filter(is).cloned().collect()
        };
        let told = all.until("the presence channel is vacated", |received| {
            let told = of(received, presence);
            (told.len() >= 5).then_some(told)
        });
        let names: Vec<&str> = told.iter().map(|received| received.header("x-relay-event")).collect();
        assert_eq!(names, ["channel.occupied", "member.added", "client.event", "member.removed", "channel.vacated"]);
        for received in &told {
            assert_eq!(received.header("x-relay-signature"), hmac_hex(secret, &received.body));
            assert_eq!(received.header("content-type"), "application/json");
            assert_eq!(received.json()["event"], received.header("x-relay-event"));
            let stamp: u64 = received.header("x-relay-timestamp").parse().unwrap();
            assert!(stamp.abs_diff(received.json()["timestamp"].as_u64().unwrap()) <= 5, "R-HOOK-2: seconds");
        }
        assert_eq!(told[0].json()["data"], json!({"channel": presence, "subscription_count": 1}));
        assert_eq!(told[1].json()["data"], json!({"channel": presence, "user_id": "alice"}));
        filtered.await_names(presence, &["member_added", "channel_vacated"]);
        filtered.await_names(public, &["channel_vacated"]);
        spelled.await_names(public, &["subscription_count_changed", "subscription_count_changed"]);
        spelled.await_names(presence, &[]);
    });
}

/// P-HOOK-6: batches contain many events, never those of another app, in the order of their channel.
#[test]
fn batches() {
    let receiver = Receiver::start();
    on_fresh_servers(
        |driver| {
            options(driver, 2).webhook(
                &receiver.url(),
                &["--allow-private", "--batch", "--events", "channel_occupied,subscription_count"],
            )
        },
        |server| {
            let prefix = unique("batch");
            let mut socket = Socket::open(&server, server.app());
            for number in 0..300 {
                socket.send_subscribe(&format!("{prefix}-{number}"));
            }
            for number in 0..300 {
                let channel = format!("{prefix}-{number}");
                receiver.await_names(&channel, &["channel_occupied", "subscription_count"]);
            }
            let mut received = receiver.received();
            received.retain(|received| received.body.contains(&prefix));
            let sizes: Vec<usize> = received.iter().map(|received| received.events().len()).collect();
            assert!(sizes.iter().all(|size| (1..=100).contains(size)), "{sizes:?}");
            assert!(sizes.len() < 100, "600 events in {} requests", sizes.len());
            received.iter().for_each(|received| received.check_pusher(server.app()));
        },
    );
}

/// P-HOOK-7: a refused request is sent again after 1 s and 2 s, with the same bytes; later events of the channel wait,
/// other channels do not.
#[test]
fn refused_requests_are_made_again() {
    let scenario = |driver| {
        let receiver = Receiver::with(|_, body| match body.contains("\"stuck") && body.contains("channel_occupied") {
            true if FAILURES.fetch_add(1, Ordering::SeqCst) % 3 < 2 => Reply::Status(503),
            _ => Reply::Status(200),
        });
        let events = "channel_occupied,subscription_count";
        let server = TestServer::start_with(
            options(driver, 2).webhook(&receiver.url(), &["--allow-private", "--events", events]),
        );
        let mut socket = Socket::open(&server, server.app());
        socket.subscribe("stuck");
        receiver.until("the first try", |received| (!received.is_empty()).then_some(()));
        socket.expect_event("pusher_internal:subscription_count");
        socket.subscribe("free");
        receiver.await_names("free", &["channel_occupied", "subscription_count"]);
        assert!(receiver.events_of("stuck").is_empty(), "the count waits for the occupation");
        receiver.await_names("stuck", &["channel_occupied", "subscription_count"]);
        let tries: Vec<Received> = receiver
            .received()
            .into_iter()
            .filter(|received| received.body.contains("\"stuck") && received.body.contains("occupied"))
            .collect();
        assert_eq!(tries.iter().map(|received| received.status).collect::<Vec<_>>(), [503, 503, 200]);
        assert!(tries.iter().all(|received| received.body == tries[0].body), "the same bytes and time_ms");
        let gaps: Vec<u128> = tries.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect();
        assert!((990..1_900).contains(&gaps[0]) && (1_990..2_900).contains(&gaps[1]), "{gaps:?}");
    };
    use std::sync::atomic::{AtomicUsize, Ordering};
    static FAILURES: AtomicUsize = AtomicUsize::new(0);
    drivers().iter().for_each(|driver| scenario(*driver));
}

/// P-HOOK-7: queued events survive SIGKILL and SIGTERM, attempts included; after SIGTERM the last events are delivered
/// too: the channels that the end vacated.
#[test]
fn the_queue_survives_a_restart() {
    let scenario = |driver| {
        let is_up = Arc::new(AtomicBool::new(false));
        let policy = Arc::clone(&is_up);
        let receiver = Receiver::with(move |_, _| Reply::Status(if policy.load(Ordering::SeqCst) { 200 } else { 500 }));
        let mut server = TestServer::start_with(
            options(driver, 2)
                .webhook(&receiver.url(), &["--allow-private", "--events", "channel_occupied,channel_vacated"]),
        );
        let mut socket = Socket::open(&server, server.app());
        for number in 0..50 {
            socket.send_subscribe(&format!("kept-{number}"));
        }
        let distinct = |received: &[Received]| {
            received.iter().map(|received| received.body.clone()).collect::<BTreeSet<_>>().len()
        };
        receiver.until("each was tried", |received| (distinct(received) == 50).then_some(()));
        server = server.restart(&[]);
        receiver.until("each was tried again", |received| (received.len() >= 100).then_some(()));
        assert_eq!(distinct(&receiver.received()), 50, "the same bytes after SIGKILL");
        let mut socket = Socket::open(&server, server.app());
        socket.subscribe("last");
        socket.expect_event("pusher_internal:subscription_count");
        server.signal("TERM");
        assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(0));
        assert!(receiver.events_of("last").is_empty());
        is_up.store(true, Ordering::SeqCst);
        let server = server.restart(&[]);
        receiver.await_names("last", &["channel_occupied", "channel_vacated"]);
        for number in 0..50 {
            receiver.await_names(&format!("kept-{number}"), &["channel_occupied"]);
        }
        let listed = cli::run_json(&["webhook", "failed", "--data", server.data.to_str().unwrap(), "--json"]);
        assert_eq!(listed, json!([]), "nothing was given up");
    };
    use std::sync::atomic::{AtomicBool, Ordering};
    drivers().iter().for_each(|driver| scenario(*driver));
}

/// P-HOOK-6, P-HOOK-7, P-HOOK-8: 10,000 events to a receiver that fails every third request: none is lost, none is
/// duplicated except after a failure, and the order of each channel is kept. The same app also has an endpoint that
/// never answers, and there is one of another app that answers everything: it is not delayed.
#[test]
fn ten_thousand_events_and_a_receiver_that_fails_every_third() {
    const CHANNELS: usize = 5_000;
    let failing = Receiver::with(|number, _| Reply::Status(if number % 3 == 2 { 500 } else { 200 }));
    let (dead, other) = (Receiver::with(|_, _| Reply::Hang), Receiver::start());
    let events = ["--allow-private", "--events", "channel_occupied,channel_vacated"];
    let driver = drivers()[0];
    let server = TestServer::start_with(
        ServerOptions { apps: vec![("main", vec![]), ("other", vec![])], ..ServerOptions::new(driver) }
            .webhook(&failing.url(), &events)
            .webhook(&dead.url(), &events)
            .with(&["--webhook-retry-ms", "100"]),
    );
    cli::add_webhook(&server.data, server.named_app("other"), &["--url", &other.url(), "--allow-private"]);
    let mut neighbour = Socket::open(&server, server.named_app("other"));
    eventually("the server knows the other endpoint", || {
        neighbour.subscribe(&unique("warm"));
        (other.count() > 0).then_some(())
    });
    let begun = Instant::now();
    let mut sockets: Vec<Socket> = (0..CHANNELS / 500).map(|_| Socket::open(&server, server.app())).collect();
    for (at, socket) in sockets.iter_mut().enumerate() {
        for number in 0..500 {
            socket.send_subscribe(&format!("c{}", at * 500 + number));
        }
        for _ in 0..500 {
            socket.expect_event("pusher_internal:subscription_succeeded");
        }
    }
    sockets.into_iter().for_each(Socket::leave);
    let mut delays = Vec::new();
    for number in 0..20 {
        let (channel, asked) = (format!("n{number}"), Instant::now());
        neighbour.subscribe(&channel);
        other.await_names(&channel, &["channel_occupied"]);
        delays.push(asked.elapsed());
    }
    let tell = |received: &[Received]| {
        let taken = received.iter().filter(|received| received.status == 200).count();
        (taken == 2 * CHANNELS).then_some(())
    };
    failing.until_within("all are delivered", Duration::from_secs(100), tell);
    let took = begun.elapsed();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut received = failing.received();
    let requests = received.len();
    received.retain(|received| received.status == 200);
    for event in received.iter().flat_map(Received::events) {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        told.entry(text("channel")).or_default().push(text("name"));
    }
    assert_eq!(told.len(), CHANNELS);
    assert!(
        told.values().all(|names| *names == ["channel_occupied", "channel_vacated"]),
        "none lost, none doubled, in order"
    );
    received.iter().take(100).for_each(|received| received.check_pusher(server.app()));
    delays.sort();
    println!(
        "{} events in {requests} requests within {took:?}; beside them events of another app took {:?} at the median, {:?} at most; \
         the dead endpoint was tried {} times",
        2 * CHANNELS,
        delays[10],
        delays[19],
        dead.count()
    );
    assert!(delays[19] < Duration::from_secs(3), "{delays:?}");
    assert!(dead.count() > 0);
    let timed_out = || server.log().contains("timeout").then_some(());
    eventually_within("P-HOOK-7: no answer within 10 s is a failure", Duration::from_secs(15), timed_out);
}

/// P-HOOK-9: endpoints are added, turned off and removed while the server runs, each within 2 s; waiting deliveries of
/// a removed one are dropped. `relay webhook test` shows an endpoint's answer.
#[test]
fn endpoints_change_while_the_server_runs() {
    on_fresh_servers(ServerOptions::new, |server| {
        let (receiver, refusing) = (Receiver::start(), Receiver::with(|_, _| Reply::Status(418)));
        let data = server.data.to_str().unwrap();
        let mut socket = Socket::open(&server, server.app());
        let mut told = |what: &str| {
            eventually_within(what, Duration::from_secs(3), || {
                let before = receiver.count();
                socket.subscribe(&unique("change"));
                std::thread::sleep(Duration::from_millis(100));
                Some(receiver.count() > before)
            })
        };
        assert!(!told("nothing yet"));
        let made = cli::add_webhook(&server.data, server.app(), &["--url", &receiver.url(), "--allow-private"]);
        let id = made["id"].as_str().unwrap();
        eventually_within("obeyed", Duration::from_secs(2), || told("added").then_some(()));
        cli::run_json(&["webhook", "disable", id, "--data", data, "--json"]);
        eventually_within("obeyed", Duration::from_secs(2), || (!told("disabled")).then_some(()));
        cli::run_json(&["webhook", "enable", id, "--data", data, "--json"]);
        eventually_within("obeyed", Duration::from_secs(2), || told("enabled").then_some(()));
        let tested = cli::run_json(&["webhook", "test", id, "--data", data, "--json"]);
        assert_eq!((&tested["id"], &tested["delivered"], &tested["status"]), (&json!(id), &json!(true), &json!(200)));
        let test = receiver
            .until("the test", |received| received.iter().find(|received| received.body.contains("\"test\"")).cloned());
        test.check_pusher(server.app());
        cli::run_json(&["webhook", "remove", id, "--data", data, "--json"]);
        eventually_within("obeyed", Duration::from_secs(2), || (!told("removed")).then_some(()));
        assert_eq!(cli::run_json(&["webhook", "list", "--data", data, "--json"]), json!([]));
        let made = cli::add_webhook(&server.data, server.app(), &["--url", &refusing.url(), "--allow-private"]);
        let output = cli::run(&["webhook", "test", made["id"].as_str().unwrap(), "--data", data]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("answered 418"));
        assert!(!server.log().contains(made["secret"].as_str().unwrap()), "R-AUTH-7");
    });
}

/// Threat T19: an endpoint at an internal address is refused when it is created, and Relay never connects to one whose
/// name resolves to such an address.
#[test]
fn internal_addresses_need_leave() {
    let receiver = Receiver::start();
    let port = receiver.address.port();
    on_fresh_servers(
        |driver| options(driver, 1).webhook(&format!("https://localhost:{port}/"), &[]),
        |server| {
            for url in [
                receiver.url(),
                format!("https://127.0.0.1:{port}/"),
                format!("https://[::ffff:127.0.0.1]:{port}/"),
                format!("http://localhost:{port}/"),
            ] {
                let data = server.data.to_str().unwrap();
                let output = cli::run(&["webhook", "add", "--app", &server.app().id, "--url", &url, "--data", data]);
                assert_eq!(output.status.code(), Some(2), "{url}");
                assert!(String::from_utf8_lossy(&output.stderr).contains("--allow-private"), "{url}");
            }
            Socket::open(&server, server.app()).subscribe("c");
            eventually("the log tells", || server.log().contains("is not a public address").then_some(()));
            assert_eq!(receiver.connections(), 0);
        },
    );
}

/// Threat T19: `webhook_allow` allows every endpoint in a network, over http too.
#[test]
fn the_operator_may_allow_a_network() {
    let receiver = Receiver::start();
    on_fresh_servers_at_once(
        |driver| options(driver, 1).with(&["--webhook-allow", "127.0.0.1/32"]),
        |server| {
            let file = server.data.join("relay.toml");
            std::fs::write(&file, format!("data = {:?}\nwebhook_allow = \"127.0.0.1/32\"\n", server.data)).unwrap();
            let url = receiver.url();
            let made = [
                "webhook",
                "add",
                "--app",
                &server.app().id,
                "--url",
                &url,
                "--config",
                file.to_str().unwrap(),
                "--json",
            ];
            cli::run_json(&made);
            let mut socket = Socket::open(&server, server.app());
            eventually("it is told", || {
                let channel = unique("allowed");
                socket.subscribe(&channel);
                socket.expect_event("pusher_internal:subscription_count");
                std::thread::sleep(Duration::from_millis(50));
                (!receiver.events_of(&channel).is_empty()).then_some(())
            });
        },
    );
}

/// The queue is bounded per app; events beyond its capacity are counted and logged, and the server continues.
#[test]
fn a_full_queue_drops_and_tells() {
    let refusing = Receiver::with(|_, _| Reply::Status(500));
    on_fresh_servers_at_once(
        |driver| {
            options(driver, 2)
                .webhook(&refusing.url(), &["--allow-private", "--events", "channel_occupied"])
                .with(&["--webhook-queue", "20"])
        },
        |server| {
            let mut socket = Socket::open(&server, server.app());
            for number in 0..100 {
                socket.subscribe(&format!("full-{number}"));
                socket.expect_event("pusher_internal:subscription_count");
            }
            eventually("the log tells", || server.log().contains("the queue is full").then_some(()));
            server.publish(server.app(), "full-1", "e", "x");
            socket.expect_event("e");
        },
    );
}

/// R-HOOK-7, R-HOOK-8, R-TOKEN-6, threat T19: endpoints are created, listed and removed over HTTP, under both bases,
/// with the scope; the secret is shown once; only the operator can allow private addresses; another app's endpoint is
/// not found. Each change is in effect when it is answered.
#[test]
fn endpoints_over_http() {
    let receiver = Receiver::start();
    on_fresh_servers_at_once(
        |driver| {
            let options = options(driver, 3).app("other", &[]);
            options.with(&["--webhook-allow", "127.0.0.1/32"])
        },
        |server| {
            let app = server.app();
            let ask = |app: &App, method: &str, path: &str, body: &Value| {
                let body = if body.is_null() { String::new() } else { body.to_string() };
                let target = app.sign(method, path, body.as_bytes());
                http::ask(server.address, method, &target, &[("Content-Type", "application/json")], body.as_bytes())
            };
            for path in [app.path("/webhooks"), app.relay_path("/webhooks")] {
                assert_eq!(ask(app, "GET", &path, &Value::Null).expect(200).json(), json!({"webhooks": []}));
                let made = ask(
                    app,
                    "POST",
                    &path,
                    &json!({"url": receiver.url(), "format": "relay", "events": ["channel_occupied"]}),
                );
                let made = made.expect(201).json();
                let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
                let expected = json!({"id": id, "url": receiver.url(), "events": ["channel_occupied"], "format": "relay",
                                      "batch": false, "count_changed": false, "allow_private": false, "enabled": true});
                let listed = eventually("every shard knows it", || {
                    let lists: Vec<Value> =
                        (0..8).map(|_| ask(app, "GET", &path, &Value::Null).expect(200).json()).collect();
                    lists
                        .iter()
                        .all(|list| *list == lists[0] && list["webhooks"][0].is_object())
                        .then(|| lists[0].clone())
                });
                assert_eq!(listed, json!({"webhooks": [expected]}));
                let mut socket = Socket::open(&server, app);
                let channel = unique("http");
                socket.subscribe(&channel);
                let told = receiver.until("it is told", |received| {
                    received.iter().find(|received| received.body.contains(&channel)).cloned()
                });
                assert_eq!(told.header("x-relay-signature"), hmac_hex(secret, &told.body));

                let verify = |payload: &str, signature: &str| {
                    let body = json!({"payload": payload, "signature": signature, "webhook_id": id});
                    ask(app, "POST", &format!("{path}/verify"), &body).expect(200).json()["valid"].as_bool().unwrap()
                };
                assert!(verify(&told.body, told.header("x-relay-signature")));
                assert!(!verify(&format!("{} ", told.body), told.header("x-relay-signature")));

                let other = server.named_app("other");
                let foreign = other.path(&format!("/webhooks/{id}"));
                ask(other, "DELETE", &foreign, &Value::Null).expect(404);
                let gone = ask(app, "DELETE", &format!("{path}/{id}"), &Value::Null).expect(204);
                assert!(gone.body.is_empty());
                ask(app, "DELETE", &format!("{path}/{id}"), &Value::Null).expect(404);
                eventually("every shard forgot it", || {
                    let lists: Vec<Value> =
                        (0..8).map(|_| ask(app, "GET", &path, &Value::Null).expect(200).json()).collect();
                    lists.iter().all(|list| *list == json!({"webhooks": []})).then_some(())
                });
            }
            let path = app.path("/webhooks");
            for (body, status) in [
                (json!({"url": "https://example.com/", "allow_private": true}), 403),
                (json!({"url": "https://10.0.0.1/"}), 400),
                (json!({"url": "ftp://example.com/"}), 400),
                (json!({"url": "https://example.com/", "events": ["nonsense"]}), 400),
                (json!({"url": "https://example.com/", "secret": "mine"}), 400),
                (json!([]), 400),
            ] {
                ask(app, "POST", &path, &body).expect(status);
            }
            let bearer = |scopes: &str| {
                let token = cli::create_token(&server.data, app, &["--scopes", scopes]).token;
                let header = format!("Bearer {token}");
                eventually("the token is known", || {
                    let answer = http::ask(server.address, "GET", &path, &[("Authorization", &header)], b"");
                    (answer.status != 401).then_some(answer.status)
                })
            };
            assert_eq!(bearer("webhooks:manage"), 200);
            assert_eq!(bearer("events:publish"), 403);
            for number in 0..20 {
                ask(app, "POST", &path, &json!({"url": format!("https://example.com/{number}")})).expect(201);
            }
            let full = ask(app, "POST", &path, &json!({"url": "https://example.com/"})).expect(400);
            assert!(full.text().contains("20 webhooks"), "{}", full.text());
        },
    );
}

/// P-HOOK-9: https: the certificate is checked, against the roots of `webhook_ca` where it is set; a name that is not
/// in the certificate, and a missing root, are refused before anything is sent.
#[test]
fn certificates_are_checked() {
    let directory = data_directory();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &str| {
        let arguments: Vec<String> =
            arguments.split(' ').map(|word| word.replace("DIR", directory.path().to_str().unwrap())).collect();
        let output = std::process::Command::new("openssl").args(&arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    std::fs::write(file("leaf.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let made = openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ca -keyout DIR/ca.key -out DIR/ca.pem",
    ) && openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=leaf -keyout DIR/leaf.key -out DIR/leaf.csr",
    ) && openssl(
        "x509 -req -in DIR/leaf.csr -CA DIR/ca.pem -CAkey DIR/ca.key -CAcreateserial -days 2 -extfile DIR/leaf.ext -out DIR/leaf.pem",
    );
    if !made {
        return say_skipped("openssl is not available: https of webhooks is not tested");
    }
    let mut endpoint = RunningProcess::spawn(python_https(&file("leaf.pem"), &file("leaf.key")));
    let Some(port) = endpoint.line(Duration::from_secs(10)) else {
        return say_skipped(&format!("no https server could be started: {}", endpoint.log()));
    };
    cli::create_app(directory.path(), &[]);
    let data = directory.path().to_str().unwrap();
    let app = cli::run_json(&["app", "list", "--data", data, "--json"])[0]["id"].as_str().unwrap().to_owned();
    let test = |host: &str, more: &str| {
        let url = format!("https://{host}:{port}/");
        let made = cli::run_json(&[
            "webhook",
            "add",
            "--app",
            &app,
            "--url",
            &url,
            "--allow-private",
            "--data",
            data,
            "--json",
        ]);
        std::fs::write(file("relay.toml"), format!("data = {data:?}\n{more}")).unwrap();
        let output = cli::run(&["webhook", "test", made["id"].as_str().unwrap(), "--config", &file("relay.toml")]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ca = format!("webhook_ca = {:?}\n", file("ca.pem"));
    assert_eq!(test("127.0.0.1", &ca), (Some(0), String::new()));
    for (host, more) in [("127.0.0.1", ""), ("localhost", &*ca)] {
        let (code, told) = test(host, more);
        assert!(code == Some(1) && told.contains("certificate"), "{host}: {told}");
    }
    let missing = format!("webhook_ca = {:?}\n", file("leaf.ext"));
    let (code, told) = test("127.0.0.1", &missing);
    assert!(code == Some(2) && told.contains("webhook_ca takes a readable file"), "{told}");
}

/// An https server that answers 200 to every POST and prints its port.
fn python_https(certificate: &str, key: &str) -> std::process::Command {
    let program = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";
    let mut command = cli::command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "python3", "-c", program, certificate, key]);
    command
}
