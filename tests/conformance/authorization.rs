//! Authorized connections (P-AUTHZ-1): an app may demand that a connection signs in or joins a protected channel in time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::cli::set_app;
use crate::common::eventually;
use crate::common::http;
use crate::common::rig::on_fresh_servers_at_once;
use crate::common::server::{Driver, ServerOptions, TestServer};
use crate::common::sign::App;
use crate::common::socket::{Arrival, Socket};

fn options(driver: Driver) -> ServerOptions {
    ServerOptions::new(driver)
        .app("strict", &["authorized_connections=true"])
        .app("quota", &["authorized_connections=true", "max_connections=2"])
        .with(&["--authorization-timeout", "1"])
}

/// P-AUTHZ-1: after the deadline a connection that did nothing, or subscribed a public channel, or failed to prove
/// itself gets `pusher:error` and Close 4009; one that signed in, or joined a private, encrypted or presence channel
/// stays open; an app without the flag closes no connection.
#[test]
fn unauthorized_connections_end() {
    on_fresh_servers_at_once(options, |server| {
        let app = server.named_app("strict");
        let open = || Socket::open(&server, app);
        let (mut user, mut private, mut encrypted, mut member) = (open(), open(), open(), open());
        let mut free = Socket::open(&server, server.app());
        user.sign_in(r#"{"id":"u"}"#);
        private.subscribe("private-a");
        encrypted.subscribe("private-encrypted-a");
        member.join("presence-a", r#"{"user_id":"m"}"#);
        let start = Instant::now();
        let (mut idle, mut public, mut failing, mut leaver) = (open(), open(), open(), open());
        public.subscribe("public");
        leaver.subscribe("private-a");
        leaver.unsubscribe("private-a");
        failing.send_json(&json!({"event": "pusher:signin", "data": {"auth": "x:y", "user_data": "{}"}}));
        failing.expect_error(Some(4009));
        failing.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": "private-a", "auth": "x:y"}}));
        failing.expect_error(Some(4009));
        failing.expect_event("pusher:subscription_error");
        for socket in [&mut idle, &mut public, &mut failing] {
            assert_eq!(socket.expect_fatal(4009), "Connection not authorized within timeout");
        }
        let elapsed = start.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&elapsed), "{elapsed:?}");
        for socket in [&mut user, &mut private, &mut encrypted, &mut member, &mut free, &mut leaver] {
            socket.expect_quiet();
        }
    });
}

/// P-AUTHZ-1, P-CLOSE-2, P-HTTP-9: unauthorized connections do not count towards the quota; a connection counts once it
/// is authorized, and one too many is then closed with 4004.
#[test]
fn only_authorized_connections_count() {
    on_fresh_servers_at_once(options, |server| {
        let app = server.named_app("quota");
        let connections = || connections(&server, app);
        let mut sockets: Vec<Socket> = (0..4).map(|_| Socket::open(&server, app)).collect();
        assert_eq!(connections(), 0);
        sockets[0].sign_in(r#"{"id":"u"}"#);
        sockets[1].subscribe("private-a");
        eventually("two count", || (connections() == 2).then_some(()));
        sockets[2].send_signin(r#"{"id":"u"}"#);
        sockets[2].expect_event("pusher:signin_success");
        sockets[2].expect_fatal(4004);
        assert_eq!(connections(), 2);
        sockets.swap_remove(0).leave();
        eventually("one counts", || (connections() == 1).then_some(()));
        let mut late = Socket::open(&server, app);
        late.sign_in(r#"{"id":"u"}"#);
        eventually("two count again", || (connections() == 2).then_some(()));
        late.expect_quiet();
        drop(sockets);
        drop(late);
        eventually("nobody counts", || (connections() == 0).then_some(()));
    });
}

/// P-AUTHZ-1: an app that turns the flag on keeps its present connections.
#[test]
fn older_connections_are_kept() {
    on_fresh_servers_at_once(options, |server| {
        let app = server.app();
        let mut older = Socket::open(&server, app);
        set_app(&server.data, app, &["authorized_connections=true"]);
        eventually("new connections must prove themselves", || {
            let mut newer = Socket::open(&server, app);
            newer.stream().set_read_timeout(Some(Duration::from_millis(1_500))).expect("a timeout can be set");
            matches!(newer.next(), Arrival::Text(_)).then_some(())
        });
        older.expect_quiet();
    });
}

/// P-AUTHZ-1: an app that turns the flag off keeps connections that are not authorized, and counts them when their
/// deadline has passed.
#[test]
fn without_the_flag_the_time_means_nothing() {
    let options = |driver| {
        ServerOptions::new(driver)
            .app("strict", &["authorized_connections=true"])
            .with(&["--authorization-timeout", "6"])
    };
    on_fresh_servers_at_once(options, |server| {
        let app = server.named_app("strict");
        let mut newer = Socket::open(&server, app);
        set_app(&server.data, app, &["authorized_connections=false"]);
        eventually("the change is obeyed", || {
            let probe = Socket::open(&server, app);
            let counted = connections(&server, app) >= 1;
            probe.leave();
            counted.then_some(())
        });
        eventually("the connection counts", || (connections(&server, app) == 1).then_some(()));
        newer.expect_quiet();
    });
}

/// The connections of an app that count towards its quota.
fn connections(server: &TestServer, app: &App) -> u64 {
    let target = app.sign("GET", &app.path("/connections"), b"");
    http::get(server.address, &target).expect(200).json()["connections"].as_u64().expect("a number")
}
