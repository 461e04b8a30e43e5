//! Users: changes combined within a turn, and the bounds of watchlists.

use ::hmac::{Hmac, KeyInit, Mac};

use super::*;

fn watching(shards: ShardIndex) -> Process {
    Process::with_settings(shards, AppSettings { watchlist: true, ..AppSettings::default() })
}

/// A signin as the customer's server signs it.
fn signin(process: &Process, shard: usize, connection: ConnectionKey, user_data: &str) -> String {
    let socket_id = process.shards[shard].context.socket_id(connection).to_text();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"app-secret").expect("any length");
    mac.update(format!("{}::user::{user_data}", &*socket_id).as_bytes());
    let auth = format!("app-key:{}", hex::encode(mac.finalize().into_bytes()));
    serde_json::json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}).to_string()
}

/// Opens a connection, signs in, and returns the output after the success.
fn open_as(process: &mut Process, shard: usize, id: &str, watchlist: &[String]) -> (ConnectionKey, String) {
    let connection = process.open(shard);
    let user_data = serde_json::json!({"id": id, "watchlist": watchlist}).to_string();
    let message = signin(process, shard, connection, &user_data);
    process.say(shard, connection, &message);
    let got = process.take(shard, connection);
    let success = got.find("pusher:signin_success").unwrap_or_else(|| panic!("{got}"));
    (connection, got[success..].to_owned())
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("friend-{number}")).collect()
}

/// P-WATCH-1: users who go online or offline in one turn are reported in one frame, and one that went and came back not
/// at all.
#[test]
fn a_turn_is_one_frame() {
    let mut process = watching(1);
    let friends = names(0..5);
    let (watcher, split) = open_as(&mut process, 0, "watcher", &friends);
    assert_eq!(split.matches("watchlist_events").count(), 1, "{split}");
    let (other, _) = open_as(&mut process, 0, "other", &friends[..1]);
    let (stays, _) = open_as(&mut process, 0, &friends[4], &[]);
    for connection in [watcher, other] {
        process.take(0, connection);
    }
    let opened: Vec<ConnectionKey> = (0..4).map(|_| process.open(0)).collect();
    let now = process.now;
    for (connection, id) in opened.iter().zip(&friends) {
        let message = signin(&process, 0, *connection, &serde_json::json!({ "id": id }).to_string());
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(message.as_bytes());
        process.shards[0].handle_input(now, Input::Received { connection: *connection, bytes: &mut frame });
    }
    process.shards[0].handle_input(now, Input::Closed { connection: opened[3] });
    process.shards[0].handle_input(now, Input::Closed { connection: stays });
    process.feed(0, Input::Timeout);
    let event = |name: &str, users: &str| format!(r#"{{\"name\":\"{name}\",\"user_ids\":[{users}]}}"#);
    let three = friends[..3].iter().map(|id| format!(r#"\"{id}\""#)).collect::<Vec<_>>().join(",");
    let online = event("online", &three);
    let offline = event("offline", r#"\"friend-4\""#);
    let frame =
        |events: &str| format!(r#"{{"event":"pusher_internal:watchlist_events","data":"{{\"events\":[{events}]}}"}}"#);
    let got = process.take(0, watcher);
    assert!(got.contains(&frame(&format!("{online},{offline}"))), "{got}");
    assert_eq!(got.matches("watchlist_events").count(), 1, "{got}");
    let got = process.take(0, other);
    assert!(got.ends_with(&frame(&event("online", r#"\"friend-0\""#))), "{got}");
    process.finish();
}

/// P-LIM-8, P-WATCH-1: when the watched users of a shard use all of their memory, a further watchlist is truncated,
/// which is reported with 4302 after the success; with memory again it is watched completely.
#[test]
fn watches_are_bounded_in_bytes() {
    let mut process = watching(1);
    let per_connection = limits::WATCHLIST_USERS_MAX;
    // Three quarters of the memory are for one app.
    let fit = limits::WATCH_BYTES_MAX / 4 * 3 / (limits::USER_BYTES + limits::WATCH_BYTES) / per_connection;
    let mut connections = Vec::new();
    for at in 0..fit + 2 {
        let friends = names(at * per_connection..(at + 1) * per_connection);
        let (connection, told) = open_as(&mut process, 0, &format!("watcher-{at}"), &friends);
        let is_cut = told.contains(r#""code":4302"#);
        assert!(is_cut == (at > fit) || at.abs_diff(fit) <= 40, "connection {at} of {fit}: {told}");
        connections.push(connection);
        if is_cut {
            let split = told.find("watchlist_events");
            assert!(split.is_none_or(|split| split > told.find("4302").expect("it is cut")), "{told}");
        }
    }
    let (late, told) = open_as(&mut process, 0, "late", &names(0..1));
    assert!(told.contains(r#""code":4302"#) && !told.contains("watchlist_events"), "{told}");
    process.say(0, late, r#"{"event":"pusher:ping","data":{}}"#);
    assert!(process.take(0, late).contains("pusher:pong"));
    for connection in connections.drain(..10) {
        process.feed(0, Input::Closed { connection });
    }
    let (_, told) = open_as(&mut process, 0, "later", &names(0..100));
    assert!(!told.contains("4302") && told.contains("watchlist_events"), "{told}");
    process.finish();
}

/// P-WATCH-1, P-USER-2: a connection that closes before its signin is recorded is signed in nowhere; P-USER-3: signins
/// beyond those that may wait fail, the others are answered in their order.
#[test]
fn signins_under_way() {
    for shards in [1_u16, 2, 5] {
        let mut process = watching(shards);
        for shard in 0..usize::from(shards) {
            let connection = process.open(shard);
            let message = signin(&process, shard, connection, r#"{"id":"piper","watchlist":["piper","x"]}"#);
            let mut frame = vec![0x81, 0x80 | 126];
            frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(message.as_bytes());
            let mut many = frame.repeat(usize::from(limits::SIGNINS_WAITING_MAX) + 1);
            let now = process.now;
            process.shards[shard].handle_input(now, Input::Received { connection, bytes: &mut many });
            if shard % 2 == 0 {
                process.feed(shard, Input::Closed { connection });
                continue;
            }
            process.feed(shard, Input::Timeout);
            let got = process.take(shard, connection);
            let refused = got.matches("Too many signins").count();
            let answered = got.matches("pusher:signin_success").count();
            assert_eq!(refused + answered, usize::from(limits::SIGNINS_WAITING_MAX) + 1, "{got}");
            assert_eq!(got.matches("watchlist_events").count(), 1, "{got}");
        }
        process.finish();
    }
}
