//! Requests that wait for an authorizer: bounds and shares (R-AUTHEP-8, R-AUTHEP-11, threat T39).

use super::*;
use crate::api::authorizer::Decision;
use crate::limits;

/// Two apps with authorizers, on this many shards.
fn process(shards: ShardIndex) -> Process {
    let settings = || AppSettings { authorizer_url: "https://backend.test/auth".into(), ..AppSettings::default() };
    let mut process = Process::with_settings(shards, settings());
    let second = App {
        serial: AppSerial(2),
        id: "2".into(),
        keys: vec![AppKey::new("key-b", "secret-b")],
        ..app_with(settings())
    };
    let directory = Arc::new(Directory::new(2, vec![app_with(settings()), second], Vec::new()));
    for shard in 0..usize::from(shards) {
        process.feed(shard, Input::Directory(Arc::clone(&directory)));
    }
    process
}

fn open_on(process: &mut Process, shard: usize, key: &str) -> (ConnectionKey, String) {
    let connection = process.accept(shard);
    process.receive(shard, connection, UPGRADE.replace("app-key", key).as_bytes());
    assert!(process.take(shard, connection).contains("connection_established"));
    let id = process.shards[shard].context.socket_id(connection).to_text();
    (connection, id)
}

/// What a browser sends.
fn asks(app: u32, socket_id: &str, channels: usize) -> Vec<u8> {
    let list: String = (0..channels).map(|number| format!("&channels[]=private-{number}")).collect();
    let body = format!("socket_id={socket_id}{list}");
    let length = body.len();
    format!("POST /apps/{app}/auth HTTP/1.1\r\nHost: h\r\nCookie: s=1\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

/// R-AUTHEP-11, threat T39: 10,000 callers of one app: as many wait as it may have, the others get 503 with
/// `Retry-After` at once, another app is served, and memory is bounded. With the decisions all are answered.
#[test]
fn ten_thousand_callers_are_bounded() {
    let mut process = process(1);
    let (mut callers, mut refused) = (Vec::new(), 0);
    for _ in 0..10_000 {
        let (_, id) = open_on(&mut process, 0, "app-key");
        let caller = process.accept(0);
        process.receive(0, caller, &asks(1, &id, 1));
        let answer = process.take(0, caller);
        if answer.is_empty() {
            callers.push(caller);
        } else {
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After: "), "{answer}");
            refused += 1;
        }
    }
    let places = limits::AUTHORIZER_CALLS_PER_SHARD_MAX;
    assert_eq!((callers.len(), refused), (places / 4 * 3, 10_000 - places / 4 * 3));
    assert!(process.shards[0].requests.waiting_bytes() <= limits::AUTHORIZER_BYTES_PER_SHARD_MAX);
    let (_, id) = open_on(&mut process, 0, "key-b");
    let other = process.accept(0);
    process.receive(0, other, &asks(2, &id, 1));
    assert_eq!(process.take(0, other), "", "another app has room");
    callers.push(other);
    for authorize in std::mem::take(&mut process.authorizes) {
        let mail = Mail::authorized(authorize.id, vec![Decision::Granted(None)]);
        process.feed(0, Input::Mail { from: 0, mail });
    }
    for caller in callers {
        assert!(process.take(0, caller).starts_with("HTTP/1.1 200"));
    }
    assert_eq!(process.shards[0].requests.waiting_bytes(), 0);
    process.finish();
}

/// R-AUTHEP-11: long lists reach the bound in bytes before that in number.
#[test]
fn bytes_that_wait_are_bounded() {
    let mut process = process(1);
    let long = "x".repeat(190);
    for number in 0.. {
        let (_, id) = open_on(&mut process, 0, "app-key");
        let list: String = (0..100).map(|channel| format!("&channels[]=private-{long}{channel}")).collect();
        let body = format!("socket_id={id}{list}");
        let length = body.len();
        let caller = process.accept(0);
        let head = format!("POST /apps/1/auth HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
        process.receive(0, caller, head.as_bytes());
        assert!(process.shards[0].requests.waiting_bytes() <= limits::AUTHORIZER_BYTES_PER_SHARD_MAX);
        if process.take(0, caller).starts_with("HTTP/1.1 503") {
            assert!((100..1_000).contains(&number), "{number}");
            break;
        }
    }
    for authorize in std::mem::take(&mut process.authorizes) {
        let decisions = vec![Decision::Refused; authorize.call.subjects.len()];
        process.feed(0, Input::Mail { from: 0, mail: Mail::authorized(authorize.id, decisions) });
    }
    process.finish();
}

/// R-AUTHEP-8, threat T34: the socket may be on any shard; one that is closed, or reused by another, while the
/// authorizer decides is not signed for, and neither is an app that was disabled meanwhile.
#[test]
fn sockets_and_apps_are_checked_when_the_decision_arrives() {
    let mut process = process(2);
    for (socket_shard, caller_shard) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (socket, id) = open_on(&mut process, socket_shard, "app-key");
        let caller = process.accept(caller_shard);
        let decide = |process: &mut Process, expected: &str| {
            let authorize = process.authorizes.pop().expect("it is asked");
            let from = authorize.id.shard;
            let mail = Mail::authorized(authorize.id, vec![Decision::Granted(None)]);
            process.feed(usize::from(from), Input::Mail { from, mail });
            let answer = process.take(caller_shard, caller);
            assert!(answer.starts_with(expected), "{answer}");
        };
        process.receive(caller_shard, caller, &asks(1, &id, 1));
        decide(&mut process, "HTTP/1.1 200");
        process.receive(caller_shard, caller, &asks(1, &id, 1));
        process.feed(socket_shard, Input::Closed { connection: socket });
        decide(&mut process, "HTTP/1.1 403");
        process.receive(caller_shard, caller, &asks(1, &id, 1));
        assert!(process.take(caller_shard, caller).starts_with("HTTP/1.1 403"));
        assert!(process.authorizes.is_empty(), "the backend is not asked");
    }
    let (_, id) = open_on(&mut process, 0, "app-key");
    let caller = process.accept(1);
    process.receive(1, caller, &asks(1, &id, 2));
    // A caller that leaves is not answered, and nothing is left over.
    process.feed(1, Input::Closed { connection: caller });
    let authorize = process.authorizes.pop().expect("it was asked");
    let decisions = vec![Decision::Granted(None), Decision::Failed];
    process.feed(1, Input::Mail { from: 1, mail: Mail::authorized(authorize.id, decisions) });
    process.finish();
}
