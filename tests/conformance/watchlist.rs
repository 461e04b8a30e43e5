//! Watchlists (P-WATCH-1, P-LIM-8, P-OUT-10).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::rig::on_fresh_servers;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::App;
use crate::common::socket::Socket;
use crate::common::{cli, eventually, unique};
use crate::stage::on_each_driver;

/// P-WATCH-1, P-OUT-10, P-SDK-10: a signin is followed by one frame with the initial split, byte for byte; later frames
/// report the first signin and the last disconnect of a watched user, and nothing between them.
#[test]
fn a_watchlist_from_beginning_to_end() {
    on_each_driver(|server| {
        let app = server.named_app("watch");
        let [ann, bob, eve] = ["ann", "bob", "eve"].map(unique);
        let mut first_tab = sign_in(server, app, &bob, &[]);
        let mut watcher = Socket::open(server, app);
        watcher.sign_in(&json!({"id": ann, "watchlist": [bob, eve]}).to_string());
        let split = format!(
            r#"{{"event":"pusher_internal:watchlist_events","data":"{{\"events\":[{{\"name\":\"online\",\"user_ids\":[\"{bob}\"]}},{{\"name\":\"offline\",\"user_ids\":[\"{eve}\"]}}]}}"}}"#
        );
        assert_eq!(watcher.next_text(), split);
        let second_tab = sign_in(server, app, &bob, &[]);
        let mut third_tab = sign_in(server, app, &eve, &[]);
        let online = format!(
            r#"{{"event":"pusher_internal:watchlist_events","data":"{{\"events\":[{{\"name\":\"online\",\"user_ids\":[\"{eve}\"]}}]}}"}}"#
        );
        assert_eq!(watcher.next_text(), online);
        second_tab.leave();
        first_tab.expect_quiet();
        third_tab.expect_quiet();
        watcher.expect_quiet();
        first_tab.leave();
        let offline = format!(
            r#"{{"event":"pusher_internal:watchlist_events","data":"{{\"events\":[{{\"name\":\"offline\",\"user_ids\":[\"{bob}\"]}}]}}"}}"#
        );
        assert_eq!(watcher.next_text(), offline);
        // A reset of the socket ends a user like a Close frame.
        drop(third_tab);
        assert_eq!(changes(&watcher.next_json()), [("offline".to_owned(), vec![eve])]);
        let _back = sign_in(server, app, &bob, &[&ann, &ann]);
        assert_eq!(changes(&watcher.next_json()), [("online".to_owned(), vec![bob])]);
        watcher.expect_quiet();
    });
}

/// P-WATCH-1: empty sides are omitted, an empty list sends no frame, a user may watch itself, and a list that names a
/// user twice watches it once.
#[test]
fn sides_without_users_are_omitted() {
    on_each_driver(|server| {
        let app = server.named_app("watch");
        let [ann, bob] = ["ann", "bob"].map(unique);
        let mut alone = sign_in(server, app, &ann, &[]);
        alone.expect_quiet();
        let mut watcher = Socket::open(server, app);
        watcher.sign_in(&json!({"id": bob, "watchlist": [ann, bob, ann]}).to_string());
        assert_eq!(changes(&watcher.next_json()), [("online".to_owned(), vec![ann.clone(), bob])]);
        watcher.expect_quiet();
        let mut other = Socket::open(server, app);
        other.sign_in(&json!({"id": unique("eve"), "watchlist": ["nobody", "a b"]}).to_string());
        assert_eq!(changes(&other.next_json()), [("offline".to_owned(), vec!["nobody".into(), "a b".into()])]);
        alone.leave();
        assert_eq!(changes(&watcher.next_json()), [("offline".to_owned(), vec![ann])]);
        watcher.expect_quiet();
        other.expect_quiet();
    });
}

/// P-LIM-8, P-WATCH-1: lists of 99 and 100 ids pass; with 101 the first 100 are watched: success, then the event 4302, then the split; the
/// connection stays.
#[test]
fn lists_have_a_limit() {
    on_each_driver(|server| {
        let app = server.named_app("watch");
        let friends: Vec<String> = (0..101).map(|number| unique(&format!("friend-{number}"))).collect();
        for count in [99, 100, 101] {
            let mut watcher = Socket::open(server, app);
            watcher.sign_in(&json!({"id": unique("watcher"), "watchlist": friends[..count]}).to_string());
            if count > 100 {
                assert!(watcher.expect_error(Some(4302)).contains("100 users"));
            }
            let split = changes(&watcher.next_json());
            assert_eq!(split, [("offline".to_owned(), friends[..count.min(100)].to_vec())]);
            watcher.expect_quiet();
            let hundredth = sign_in(server, app, &friends[99], &[]);
            let beyond = sign_in(server, app, &friends[100], &[]);
            if count > 99 {
                assert_eq!(changes(&watcher.next_json()), [("online".to_owned(), vec![friends[99].clone()])]);
                hundredth.leave();
                assert_eq!(changes(&watcher.next_json()), [("offline".to_owned(), vec![friends[99].clone()])]);
            } else {
                hundredth.leave();
            }
            beyond.leave();
            watcher.expect_quiet();
        }
    });
}

/// P-WATCH-1: without the flag a watchlist is accepted and nobody is notified; apps do not see each other's users.
#[test]
fn the_flag_is_off_by_default() {
    on_each_driver(|server| {
        let friend = unique("friend");
        let mut plain = Socket::open(server, server.app());
        plain.sign_in(&json!({"id": unique("watcher"), "watchlist": [friend]}).to_string());
        plain.expect_quiet();
        let mut watcher = Socket::open(server, server.named_app("watch"));
        watcher.sign_in(&json!({"id": unique("watcher"), "watchlist": [friend]}).to_string());
        assert_eq!(changes(&watcher.next_json()), [("offline".to_owned(), vec![friend.clone()])]);
        let mut namesake = sign_in(server, server.app(), &friend, &[]);
        namesake.expect_quiet();
        watcher.expect_quiet();
        plain.expect_quiet();
    });
}

/// P-WATCH-1, P-USER-6: when an app turns the flag on, a running server applies it; on 1, 2 and 5 shards every watcher
/// is notified of a user that was terminated and of one that came back.
#[test]
fn on_several_shards() {
    for shards in [1, 2, 5] {
        on_fresh_servers(|driver| ServerOptions::new(driver).shards(shards), |server| watch_a_crowd(&server));
    }
}

fn watch_a_crowd(server: &TestServer) {
    let app = server.app();
    cli::set_app(&server.data, app, &["watchlist=true"]);
    eventually("the flag is obeyed", || {
        let mut probe = Socket::open(server, app);
        probe.sign_in(r#"{"id":"probe","watchlist":["nobody"]}"#);
        probe.send(r#"{"event":"pusher:ping","data":{}}"#);
        (probe.next_json()["event"] == "pusher_internal:watchlist_events").then_some(())
    });
    let star: Vec<Socket> = (0..4).map(|_| sign_in(server, app, "star", &[])).collect();
    let mut fans: Vec<Socket> = (0..20)
        .map(|fan| {
            let mut socket = Socket::open(server, app);
            socket.sign_in(&json!({"id": format!("fan-{fan}"), "watchlist": ["star"]}).to_string());
            assert_eq!(changes(&socket.next_json()), [("online".to_owned(), vec!["star".to_owned()])]);
            socket
        })
        .collect();
    let start = Instant::now();
    server.post_signed(app, &app.path("/users/star/terminate_connections"), b"{}").expect(200);
    for fan in &mut fans {
        assert_eq!(changes(&fan.next_json()), [("offline".to_owned(), vec!["star".to_owned()])]);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(star);
    let _back = sign_in(server, app, "star", &[]);
    for fan in &mut fans {
        assert_eq!(changes(&fan.next_json()), [("online".to_owned(), vec!["star".to_owned()])]);
        fan.expect_quiet();
    }
}

/// A connection of a user; reads the split of its list, if it has one.
fn sign_in(server: &TestServer, app: &App, user: &str, watchlist: &[&String]) -> Socket {
    let mut socket = Socket::open(server, app);
    socket.sign_in(&json!({"id": user, "watchlist": watchlist}).to_string());
    if !watchlist.is_empty() {
        socket.expect_event("pusher_internal:watchlist_events");
    }
    socket
}

/// Name and users of each event of a watchlist frame.
fn changes(frame: &Value) -> Vec<(String, Vec<String>)> {
    assert_eq!(frame["event"], "pusher_internal:watchlist_events", "{frame}");
    assert_eq!(frame.get("channel"), None, "P-SDK-10");
    let data: Value = serde_json::from_str(frame["data"].as_str().expect("data is a string")).expect("JSON");
    let events = data["events"].as_array().expect("a list of events").iter();
    let users = |event: &Value| serde_json::from_value(event["user_ids"].clone()).expect("user ids");
    events.map(|event| (event["name"].as_str().expect("a name").to_owned(), users(event))).collect()
}
