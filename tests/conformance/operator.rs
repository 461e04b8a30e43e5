//! An operator's actions while the server runs, and the contents of the log: all of it within 2 seconds, none of it
//! secret.

use std::time::Duration;

use serde_json::json;

use crate::common::cli::{self, create_token};
use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, data_directory};
use crate::common::socket::{QUERY, Socket};
use crate::common::{eventually, eventually_within, http};

const OBEYED_WITHIN: Duration = Duration::from_secs(2);

/// R-ADMIN-1, P-STAT-4: an app created while the server runs is served within 2 s, on all shards; a deleted one is
/// unknown within 2 s, its sockets closed.
#[test]
fn apps_come_and_go() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = cli::create_app(&server.data, &[]);
        eventually_within("the new app is known", OBEYED_WITHIN, || {
            (http::get(server.address, &format!("/up/{}", app.id)).status == 200).then_some(())
        });
        // One shard knows; the others take the same snapshot within the same second.
        eventually_within("all shards know it", OBEYED_WITHIN, || {
            let known = (0..8).all(|_| http::get(server.address, &format!("/up/{}", app.id)).status == 200);
            known.then_some(())
        });
        let mut socket = Socket::open(&server, &app);
        socket.subscribe("private-new");
        server.publish(&app, "private-new", "e", "x");
        socket.expect_data("e", "private-new", "x");
        let deleted = cli::run(&["app", "delete", &app.id, "--data", server.data.to_str().unwrap()]);
        assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
        socket.stream().set_read_timeout(Some(OBEYED_WITHIN)).unwrap();
        let code = socket.expect_error_code();
        assert!((4000..4010).contains(&code), "{code}");
        socket.expect_close(code);
        eventually("the app is unknown", || {
            let answer = server.post_events(&app, &json!({"name": "e", "channel": "c", "data": "x"}));
            (answer.status == 404).then_some(())
        });
        Socket::upgrade(&server, &app, &format!("/app/{}{QUERY}", app.key)).expect_fatal(4001);
    });
}

/// P-CEV-1, P-LIM-3: a changed setting takes effect within 2 s for sockets that were connected before.
#[test]
fn settings_change_under_connections() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let (mut sender, mut other) = (Socket::open(&server, app), Socket::open(&server, app));
        sender.subscribe("private-setting");
        other.subscribe("private-setting");
        let message = json!({"event": "client-x", "channel": "private-setting", "data": "d"});
        sender.send_json(&message);
        other.expect_event("client-x");
        cli::set_app(&server.data, app, &["client_events=false", "max_event_data_bytes=10"]);
        eventually_within("the smaller limit is obeyed", OBEYED_WITHIN, || {
            let body = json!({"name": "e", "channel": "c", "data": "d".repeat(11)});
            let refused = (0..8).all(|_| server.post_events(app, &body).status == 413);
            refused.then_some(())
        });
        sender.send_json(&message);
        sender.expect_error(None);
        other.expect_quiet();
    });
}

/// R-AUTH-7, P-FAIL-6, threat T27: at the finest log level the log contains no secret, token, signature or query,
/// whatever was sent.
#[test]
fn the_log_holds_no_secret() {
    on_fresh_servers(
        |driver| ServerOptions::new(driver).with(&["--log", "trace"]),
        |server| {
            let app = server.app();
            let token = create_token(&server.data, app, &[]).token;
            let mut socket = Socket::open(&server, app);
            let expected = app.sign_private(&socket.socket_id, "private-log");
            let wrong = format!("{}:{}", app.key, "0".repeat(64));
            socket.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": "private-log", "auth": wrong}}));
            socket.expect_error(Some(4009));
            socket.expect_event("pusher:subscription_error");
            socket.subscribe("private-log");
            let body = json!({"name": "e", "channel": "private-log", "data": "payload-of-the-customer"}).to_string();
            let signed = app.sign("POST", &app.path("/events"), body.as_bytes());
            http::ask(server.address, "POST", &signed, &[], body.as_bytes()).expect(200);
            let forged = format!("{}ff", &signed[..signed.len() - 2]);
            http::ask(server.address, "POST", &forged, &[], body.as_bytes());
            let bearer = format!("Bearer {token}");
            let pair = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", app.secret.as_str())];
            let path = app.path("/events");
            http::ask(server.address, "POST", &path, &[("Authorization", &bearer)], body.as_bytes());
            http::ask(server.address, "POST", &path, &pair, body.as_bytes()).expect(200);
            http::get(server.address, &format!("/nothing?token={token}")).expect(404);
            let log = server.log();
            let signature = signed.split("auth_signature=").nth(1).unwrap();
            let digest = expected.split(':').nth(1).unwrap();
            for secret in [app.secret.as_str(), &token, &token[4..], signature, digest, "payload-of-the-customer"] {
                assert!(!log.contains(secret), "{secret} stands in the log:\n{log}");
            }
            assert!(!log.is_empty());
        },
    );
}

/// With `--dev` a metrics port that is taken is a warning; without it the start is refused.
#[test]
fn a_taken_metrics_port() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let directory = data_directory();
    let data = directory.path().to_str().unwrap();
    let fixed = ["serve", "--listen", "127.0.0.1:0", "--data", data, "--metrics-listen", taken.as_str()];
    let mut dev = crate::common::server::RunningProcess::relay(&[&fixed[..], &["--dev"]].concat());
    assert!(dev.listening_line().contains("no health port"));
    dev.kill();
    let refused = cli::run(&fixed);
    assert!(!refused.status.success());
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(line.contains(&taken) && line.trim_end().lines().count() == 1, "{line}");
}
