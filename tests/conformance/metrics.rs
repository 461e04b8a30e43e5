//! The metrics port: known traffic gives known values, on a page that Prometheus accepts.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::common::exposition::Page;
use crate::common::receiver::{Receiver, Reply};
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing};
use crate::common::socket::Socket;
use crate::common::tools::promtool;
use crate::common::{eventually, http, wire};

fn page(server: &TestServer) -> Page {
    let answer = http::get(server.health, "/metrics").expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Page::read(answer.text())
}

fn stats(server: &TestServer) -> Value {
    http::get(server.health, "/stats").expect(200).json()
}

/// A value of one app.
#[track_caller]
fn of_app(page: &Page, server: &TestServer, app: &App, name: &str) -> f64 {
    page.value(name, &[("app_id", &app.id), ("port", &server.address.port().to_string())])
}

/// Waits until a metric, summed over its series, has a value.
fn await_sum(server: &TestServer, name: &str, labels: &[(&str, &str)], value: f64) {
    eventually(&format!("{name} {labels:?} is {value}"), || (page(server).sum(name, labels) == value).then_some(()));
}

fn check_with_promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new(promtool());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("lint"), "promtool {arguments:?}: {told}");
}

/// R-BASE-3: known numbers of sockets, messages, events and requests give exactly these values, with any number of
/// shards; the page is valid and `/stats` has the same values.
#[test]
fn known_traffic_gives_known_figures() {
    for shards in [1, 2, 5] {
        on_fresh_servers(
            |driver| ServerOptions::new(driver).shards(shards).app("idle", &[]),
            |server| {
                let app = server.app();
                let mut sockets: Vec<Socket> = (0..6).map(|_| Socket::open(&server, app)).collect();
                sockets.iter_mut().for_each(|socket| socket.subscribe("private-m"));
                for _ in 0..4 {
                    server.publish(app, "private-m", "tick", "data");
                    sockets.iter_mut().for_each(|socket| socket.expect_data("tick", "private-m", "data"));
                }
                sockets[0].send_json(&json!({"event": "client-x", "channel": "private-m", "data": "d"}));
                for socket in &mut sockets[1..] {
                    socket.expect_event("client-x");
                }
                sockets.pop().unwrap().leave();
                await_sum(&server, "relay_connected", &[], 5.0);
                check_known_figures(&server, app, shards);
            },
        );
    }
}

fn check_known_figures(server: &TestServer, app: &App, shards: u16) {
    let page = page(server);
    for (name, value) in [
        ("relay_connected", 5.0),
        ("relay_new_connections_total", 6.0),
        ("relay_new_disconnections_total", 1.0),
        // Each subscribed once, one sent a client event.
        ("relay_ws_messages_received_total", 7.0),
        // Established and succeeded for each, four events for six, one for five.
        ("relay_ws_messages_sent_total", 12.0 + 24.0 + 5.0),
        ("relay_http_calls_received_total", 4.0),
        ("relay_events_total", 4.0),
        ("relay_client_events_total", 1.0),
    ] {
        assert_eq!(of_app(&page, server, app, name), value, "{name}");
    }
    for (name, value) in [
        ("relay_websockets", 5.0),
        ("relay_subscriptions", 5.0),
        ("relay_owned_channels", 1.0),
        ("relay_owned_events_total", 5.0),
        ("relay_deliveries_total", 29.0),
        ("relay_slow_consumer_closes_total", 0.0),
        ("relay_gap_closes_total", 0.0),
        ("relay_ring_overflows_total", 0.0),
    ] {
        assert_eq!(page.sum(name, &[]), value, "{name}");
        assert_eq!(page.samples(name).len(), usize::from(shards), "{name}");
    }
    assert_eq!(page.value("relay_shards", &[]), f64::from(shards));
    assert_eq!(page.value("relay_apps", &[]), 2.0);
    let port = server.address.port().to_string();
    let apps: BTreeSet<_> =
        page.samples("relay_connected").iter().map(|sample| sample.labels["app_id"].clone()).collect();
    assert_eq!(apps, BTreeSet::from([app.id.clone()]), "an app without traffic is not told");
    assert!(page.samples("relay_connected").iter().all(|sample| sample.labels["port"] == port));

    // One time per event and shard with subscribers: each of five events at least once.
    let written = page.sum("relay_publish_to_last_write_seconds_count", &[]);
    assert!((5.0..=5.0 * f64::from(shards)).contains(&written), "{written}");
    let slow = page.sum("relay_publish_to_last_write_seconds_sum", &[]);
    assert!(slow > 0.0 && slow < 5.0, "{slow} s for {written} events on loopback");
    assert!(page.sum("relay_loop_lag_seconds_count", &[]) > 10.0);
    let driver = &page.samples("relay_driver_info")[0].labels["driver"];
    assert_eq!(driver, server.driver.word());
    assert_eq!(page.sum("relay_rings", &[]) > 0.0, driver == "io_uring");
    assert!(page.value("process_resident_memory_bytes", &[]) > 1e6 && page.value("process_open_fds", &[]) > 3.0);

    let told = stats(server);
    assert_eq!(told["apps"][&app.id]["connected"], 5);
    assert_eq!(told["apps"][&app.id]["ws_messages_sent"], 41);
    assert_eq!(told["driver"]["name"], server.driver.word());
    let of_shards =
        |name: &str| told["shards"].as_array().unwrap().iter().map(|shard| shard[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((of_shards("websockets"), of_shards("deliveries")), (5, 29));
    assert!(told["publish_to_last_write_us"]["p99"].as_u64().unwrap() < 5_000_000);
}

/// Byte counts are those on the wire: one request and its answer exactly, and every byte of a WebSocket after its
/// handshake's answer and including that answer.
#[test]
fn bytes_are_those_on_the_wire() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let body = json!({"name": "e", "channel": "c", "data": "x".repeat(3_000)}).to_string();
        let request = http::encode_request(
            "POST",
            &app.sign("POST", &app.path("/events"), body.as_bytes()),
            &[],
            body.as_bytes(),
        );
        let mut stream = TcpStream::connect(server.address).unwrap();
        // In two parts: the bytes of a request are those of all reads.
        stream.write_all(&request[..100]).unwrap();
        stream.flush().unwrap();
        stream.write_all(&request[100..]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        let before = page(&server);
        assert_eq!(of_app(&before, &server, app, "relay_http_received_bytes_total"), request.len() as f64);
        assert_eq!(of_app(&before, &server, app, "relay_http_transmitted_bytes_total"), answer.len() as f64);
        assert_eq!(of_app(&before, &server, app, "relay_http_received_bytes"), request.len() as f64);

        let mut socket = wire::RawSocket::open(server.address, &format!("/app/{}", app.key));
        let established = socket.read().unwrap();
        let message = wire::frame(wire::FIN | wire::TEXT, br#"{"event":"pusher:ping","data":{}}"#);
        socket.write(&message).unwrap();
        let pong = socket.read().unwrap();
        let frames = (2 + established.payload.len() + 2 + pong.payload.len()) as f64;
        let after = page(&server);
        assert_eq!(of_app(&after, &server, app, "relay_socket_received_bytes_total"), message.len() as f64);
        let sent = of_app(&after, &server, app, "relay_socket_transmitted_bytes_total");
        // Besides the frames the answer to the handshake, which has no app of its own.
        assert!(sent > frames + 100.0 && sent < frames + 300.0, "{sent} for {frames}");
    });
}

/// P-CONN-4: 16 names of clients are counted separately, on all shards together, and as `other` from then on; without a
/// name it is `unknown`.
#[test]
fn clients_are_told_apart() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(3),
        |server| {
            let app = server.app();
            let mut open = Vec::new();
            let mut connect = |query: &str| {
                let mut socket = Socket::upgrade(&server, app, &format!("/app/{}{query}", app.key));
                socket.established();
                open.push(socket);
            };
            connect("?protocol=7");
            for number in 0..20 {
                connect(&format!("?protocol=7&client=sdk-{number}"));
                connect(&format!("?client=sdk-{number}&protocol=7"));
                page(&server);
            }
            let page = page(&server);
            let clients = page.samples("relay_new_connections_by_client_total");
            assert_eq!(clients.len(), 17);
            assert_eq!(page.sum("relay_new_connections_by_client_total", &[]), 41.0);
            assert_eq!(page.value("relay_new_connections_by_client_total", &[("client", "unknown")]), 1.0);
            assert_eq!(page.value("relay_new_connections_by_client_total", &[("client", "sdk-3")]), 2.0);
            assert_eq!(page.value("relay_new_connections_by_client_total", &[("client", "other")]), 10.0);
        },
    );
}

/// T6: every kind of credential failure is one reason, counted once.
#[test]
fn failed_credentials_have_reasons() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let body = json!({"name": "e", "channel": "c", "data": "d"}).to_string();
        let path = app.path("/events");
        let post = |target: &str, headers: &[(&str, &str)]| {
            http::ask(server.address, "POST", target, headers, body.as_bytes()).expect(401);
        };
        let signed = app.sign("POST", &path, body.as_bytes());
        let bearer = format!("Bearer rly_{}", "a".repeat(40));
        post(&path, &[]);
        post(&path, &[("X-Relay-Key", &app.key)]);
        post(&path, &[("X-Relay-Key", "nobody"), ("X-Relay-Secret", "x")]);
        post(&path, &[("X-Relay-Key", &app.key), ("X-Relay-Secret", "x")]);
        post(&path, &[("Authorization", &bearer)]);
        post(&format!("{}{}", &signed[..signed.len() - 4], "0000"), &[]);
        let mut query = Signing::new(app, "POST", &path, body.as_bytes());
        query.set("auth_timestamp", "1000000000");
        post(&query.target(), &[]);
        http::ask(server.address, "POST", &signed, &[], b"{}").expect(401);

        let mut socket = Socket::open(&server, app);
        for auth in [None, Some(format!("nobody:{}", "0".repeat(64))), Some(format!("{}:{}", app.key, "0".repeat(64)))]
        {
            socket.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": "private-a", "auth": auth}}));
            while socket.next_json()["event"] != "pusher:subscription_error" {}
        }
        let signature = "0".repeat(64);
        let signin = json!({"auth": format!("{}:{signature}", app.key), "user_data": "{\"id\":\"u\"}"});
        socket.send_json(&json!({"event": "pusher:signin", "data": signin}));
        socket.expect_error(Some(4009));
        let page = page(&server);
        for (surface, reasons) in [
            (
                "http",
                &[
                    "missing",
                    "malformed",
                    "unknown_key",
                    "bad_secret",
                    "bad_token",
                    "bad_signature",
                    "stale_timestamp",
                    "body_mismatch",
                ][..],
            ),
            ("subscribe", &["missing", "unknown_key", "bad_signature"][..]),
            ("signin", &["bad_signature"][..]),
        ] {
            for sample in page.samples("relay_auth_failures_total") {
                if sample.labels["surface"] == surface {
                    let expected = f64::from(u8::from(reasons.contains(&sample.labels["reason"].as_str())));
                    assert_eq!(sample.value, expected, "{sample:?}");
                }
            }
        }
        assert_eq!(page.value("relay_subscription_errors_total", &[("type", "AuthError")]), 3.0);
        assert_eq!(page.value("relay_http_responses_total", &[("status", "401")]), 8.0);
    });
}

/// P-CONN-8, P-CLOSE-2: refusals at the handshake are counted by close code and reason.
#[test]
fn closes_have_codes_and_reasons() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("quota", &["max_connections=1"]).app("tls", &["tls_only=true"]),
        |server| {
            let app = server.app();
            let (quota, tls) = (server.named_app("quota"), server.named_app("tls"));
            let _kept = Socket::open(&server, quota);
            Socket::upgrade(&server, quota, &format!("/app/{}", quota.key)).expect_fatal(4004);
            Socket::upgrade(&server, tls, &format!("/app/{}", tls.key)).expect_fatal(4000);
            Socket::upgrade(&server, app, "/app/nobody").expect_fatal(4001);
            Socket::upgrade(&server, app, "/nowhere").expect_fatal(4005);
            Socket::upgrade(&server, app, &format!("/app/{}?protocol=3", app.key)).expect_fatal(4007);
            let page = page(&server);
            for (code, reason) in [
                ("4004", "over_quota"),
                ("4000", "tls_only"),
                ("4001", "unknown_app"),
                ("4005", "path_not_found"),
                ("4007", "unsupported_protocol_version"),
            ] {
                assert_eq!(page.value("relay_websocket_closes_total", &[("code", code), ("reason", reason)]), 1.0);
            }
            assert_eq!(page.sum("relay_websocket_closes_total", &[]), 5.0);
            assert_eq!(of_app(&page, &server, tls, "relay_new_connections_total"), 0.0);
        },
    );
}

/// The names and labels of soketi, all ten, under its prefix; and promtool reports no problem under either prefix.
#[test]
fn soketis_boards_find_their_names() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--metrics-prefix", "soketi_"]),
        |server| {
            let _open = Socket::open(&server, server.app());
            server.publish(server.app(), "c", "e", "x");
            let page = page(&server);
            for name in [
                "connected",
                "new_connections_total",
                "new_disconnections_total",
                "socket_received_bytes",
                "socket_transmitted_bytes",
                "ws_messages_received_total",
                "ws_messages_sent_total",
                "http_received_bytes",
                "http_transmitted_bytes",
                "http_calls_received_total",
            ] {
                let samples = page.samples(&format!("soketi_{name}"));
                let labels: Vec<_> = samples[0].labels.keys().cloned().collect();
                assert_eq!((samples.len(), labels), (1, vec!["app_id".to_owned(), "port".to_owned()]), "{name}");
            }
            assert!(page.families.keys().all(|name| name.starts_with("soketi_") || name.starts_with("process_")));
            check_with_promtool(&["check", "metrics"], http::get(server.health, "/metrics").text());
        },
    );
}

/// promtool accepts the page, and the files for Prometheus; every metric that rules and boards use exists.
#[test]
fn promtool_takes_page_and_files() {
    on_fresh_servers(ServerOptions::new, |server| {
        let mut socket = Socket::open(&server, server.app());
        socket.subscribe("c");
        server.publish(server.app(), "c", "e", "x");
        check_with_promtool(&["check", "metrics"], http::get(server.health, "/metrics").text());
        let page = page(&server);
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let documents = ["tuning/prometheus/alerts.yml", "tuning/grafana/relay.json", "docs/metrics.md"];
        let texts = documents.map(|path| std::fs::read_to_string(folder.join(path)).unwrap());
        for text in &texts[..2] {
            let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
            for word in words.filter(|word| word.starts_with("relay_") && *word != "relay_") {
                let base =
                    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
                assert!(page.families.contains_key(word) || page.families.contains_key(base), "{word} is no metric");
            }
        }
        for name in page.families.keys() {
            let name = name.strip_prefix("relay_").unwrap_or(name);
            assert!(texts[2].contains(&format!("`{name}`")), "docs/metrics.md does not tell of {name}");
        }
        let board: Value = serde_json::from_str(&texts[1]).unwrap();
        assert!(board["panels"].as_array().unwrap().len() >= 10);
    });
    for (kind, file) in [("config", "scrape.yml"), ("rules", "alerts.yml")] {
        let path = format!("{}/tuning/prometheus/{file}", env!("CARGO_MANIFEST_DIR"));
        check_with_promtool(&["check", kind, &path], "");
    }
}

/// Threat T30: the metrics port is on loopback unless the operator sets otherwise, and the public port has none of its
/// pages; the metrics pages accept GET only.
#[test]
fn pages_stay_on_their_port() {
    on_fresh_servers(ServerOptions::new, |server| {
        for path in ["/metrics", "/stats", "/usage"] {
            http::get(server.address, path).expect(404);
            let refused = http::ask(server.health, "POST", path, &[], b"").expect(405);
            assert_eq!(refused.header("allow"), Some("GET"));
            http::get(server.health, path).expect(200);
        }
        // It is not reachable through another address of this machine.
        let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 2], server.health.port()));
        assert!(TcpStream::connect(elsewhere).is_err());
        let checked = crate::common::cli::run(&["check-config", "--listen", "0.0.0.0:6001"]);
        assert!(String::from_utf8_lossy(&checked.stdout).contains("health 127.0.0.1:9601"), "{checked:?}");
        let refused = crate::common::cli::run(&["check-config", "--metrics-prefix", "9-"]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--metrics-prefix takes"), "{refused:?}");
    });
}

/// Health, usage and headroom: text for load balancers, JSON with `?verbose` on the metrics port; 503 when connections
/// run out, and again 200 when they are gone.
#[test]
fn headroom_is_told() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).shards(1).with(&["--max-connections", "200"]),
        |server| {
            for address in [server.address, server.health] {
                assert_eq!(http::get(address, "/accept-traffic").expect(200).text(), "OK\n");
            }
            assert_eq!(http::get(server.address, "/ready?verbose").expect(200).text(), "OK\n");
            assert_eq!(http::get(server.health, "/ready?verbose").expect(200).json()["status"], "ok");
            let told = http::get(server.health, "/accept-traffic?verbose").expect(200).json();
            assert_eq!((&told["status"], &told["reason"]), (&json!("ok"), &Value::Null));
            let usage = http::get(server.health, "/usage").expect(200).json();
            let used = usage["memory"]["used"].as_u64().unwrap();
            assert!(used > 1 << 20 && usage["memory"]["total"].as_u64().unwrap() > used, "{usage}");

            let held: Vec<Socket> = (0..200).map(|_| Socket::open(&server, server.app())).collect();
            eventually("connections have run out", || {
                let told = http::get(server.health, "/accept-traffic?verbose");
                (told.status == 503).then(|| assert_eq!(told.json()["reason"], "connections"))
            });
            drop(held);
            eventually("there is room again", || {
                (http::get(server.address, "/accept-traffic").status == 200).then_some(())
            });
        },
    );
}

/// P-CLOSE-5: a slow reader is counted, its event is complete when the reader is gone, and nothing stays held.
#[test]
fn slow_readers_are_counted() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("large", &["max_event_data_bytes=1000000"]),
        |server| {
            let app = server.named_app("large");
            let mut slow = Socket::open(&server, app);
            slow.subscribe("c");
            let data = "x".repeat(900_000);
            let mut events = 0.0;
            eventually("the slow reader is closed", || {
                server.publish(app, "c", "e", &data);
                events += 1.0;
                (page(&server).sum("relay_slow_consumer_closes_total", &[]) == 1.0).then_some(())
            });
            await_sum(&server, "relay_websocket_closes_total", &[("code", "4100"), ("reason", "too_slow")], 1.0);
            await_sum(&server, "relay_send_bytes", &[], 0.0);
            eventually("every event that was queued is over", || {
                let page = page(&server);
                let written = page.sum("relay_publish_to_last_write_seconds_count", &[]);
                (written == page.sum("relay_deliveries_total", &[]) && written <= events).then_some(())
            });
            await_sum(&server, "relay_connected", &[], 0.0);
        },
    );
}

/// Deleted apps are no longer listed, and their id can be used again from 0.
#[test]
fn deleted_apps_are_forgotten() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).app("gone", &[]),
        |server| {
            let app = server.named_app("gone");
            server.publish(app, "c", "e", "x");
            assert_eq!(of_app(&page(&server), &server, app, "relay_events_total"), 1.0);
            let deleted = crate::common::cli::run(&["app", "delete", &app.id, "--data", server.data.to_str().unwrap()]);
            assert!(deleted.status.success());
            eventually("the app is told no more", || {
                let page = page(&server);
                let told = page.samples("relay_events_total").iter().any(|sample| sample.labels["app_id"] == app.id);
                (!told).then_some(())
            });
        },
    );
}

/// P-HOOK-7: requests to endpoints are counted by their outcome, and the waiting deliveries are reported.
#[test]
fn webhooks_are_counted() {
    let seen = Mutex::new(BTreeSet::new());
    let first_fails = move |_, body: &str| {
        let is_new = seen.lock().expect("no holder panics").insert(body.to_owned());
        Reply::Status(if is_new { 500 } else { 200 })
    };
    let receiver = Receiver::with(first_fails);
    on_fresh_servers(
        |driver| {
            let options = ServerOptions::new(driver).webhook(&receiver.url(), &["--allow-private"]);
            options.with(&["--webhook-retry-ms", "100"])
        },
        |server| {
            Socket::open(&server, server.app()).subscribe("room");
            await_sum(&server, "relay_webhook_requests_total", &[("result", "delivered")], 1.0);
            await_sum(&server, "relay_webhook_queue", &[], 0.0);
            let page = page(&server);
            assert_eq!(page.value("relay_webhook_requests_total", &[("result", "refused")]), 1.0);
            assert_eq!(page.value("relay_webhook_deliveries_given_up_total", &[]), 0.0);
            assert_eq!(page.value("relay_webhook_events_dropped_total", &[]), 0.0);
        },
    );
}
