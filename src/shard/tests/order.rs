//! Requests pipelined behind one that is not answered yet: the answers keep the order of the requests (P-HTTP-16).

use super::*;

const BODY: &str = r#"{"name":"e","channel":"c","data":"d"}"#;

/// The possible last requests of a pipeline, and how their answers begin.
fn last_requests() -> Vec<(String, &'static str)> {
    vec![
        (UPGRADE.to_owned(), "HTTP/1.1 101 "),
        (UPGRADE.replace("app-key", "unknown"), "HTTP/1.1 101 "),
        (UPGRADE.replace("Version: 13", "Version: 8"), "HTTP/1.1 426 "),
        (UPGRADE.replace("dGhl", "x"), "HTTP/1.1 400 "),
        (UPGRADE.replace("Host: h", "Host: h\r\nContent-Length: 1") + "x", "HTTP/1.1 400 "),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
        (format!("GET /up HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(20_000)), "HTTP/1.1 431 "),
        ("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n".to_owned(), "HTTP/1.1 413 "),
        ("POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), "HTTP/1.1 501 "),
        ("GET /up HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned(), "HTTP/1.1 200 "),
        ("GET /nothing HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.1 404 "),
    ]
}

/// A publish for a channel of each shard, a list of all channels, and the questions that one shard answers.
fn waiting_requests() -> String {
    let channels: Vec<String> = (0..8).map(|number| format!("\"c{number}\"")).collect();
    let publish = format!(r#"{{"name":"e","channels":[{}],"data":"d"}}"#, channels.join(","));
    request("POST", "/apps/1/events", &publish)
        + &request("GET", "/apps/1/channels", "")
        + &request("POST", "/apps/1/events", BODY)
        + &request("GET", "/apps/1/channels/c1", "")
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.match_indices("HTTP/1.1 ").filter_map(|(at, _)| answers.get(at..at + 13)).collect()
}

/// P-HTTP-16, threat T25: whatever follows requests that other shards must answer, in one read or split anywhere, is
/// answered after their answers; this includes the output of a WebSocket.
#[test]
fn answers_keep_the_order_of_requests() {
    for shards in [1, 2, 3] {
        for (last, answer) in last_requests() {
            let waiting = waiting_requests();
            let sent = format!("{waiting}{last}").into_bytes();
            let splits = [sent.len(), 1, 60, waiting.len() - 1, waiting.len(), waiting.len() + 1, waiting.len() + 40];
            for split in splits.map(|split| split.min(sent.len())) {
                let mut process = Process::new(shards);
                let connection = process.accept(0);
                let now = process.now;
                let (first, second) = sent.split_at(split);
                for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                    // Mail is delivered later: nothing is answered between the two parts.
                    process.shards[0].handle_input(now, Input::Received { connection, bytes: &mut part.to_vec() });
                }
                process.feed(0, Input::Timeout);
                let answers = process.take(0, connection);
                let expected = ["HTTP/1.1 200 ", "HTTP/1.1 200 ", "HTTP/1.1 200 ", "HTTP/1.1 200 ", answer];
                assert_eq!(statuses(&answers), expected, "{shards} shards, split at {split}: {answers}");
                if last == UPGRADE {
                    let (_, after) = answers.split_once("101 Switching").expect("it was upgraded");
                    assert!(after.contains("connection_established"), "{answers}");
                    process.say(0, connection, r#"{"event":"pusher:ping"}"#);
                    assert!(process.take(0, connection).contains("pusher:pong"));
                }
                process.finish();
            }
        }
    }
}

/// P-HTTP-16: frames that a client sends right after its upgrade are read once the upgrade is.
#[test]
fn frames_behind_a_waiting_upgrade_are_read() {
    let mut process = Process::new(2);
    let connection = process.accept(0);
    let mut sent = (waiting_requests() + UPGRADE).into_bytes();
    sent.extend_from_slice(&client_frame(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#));
    process.receive(0, connection, &sent);
    let answers = process.take(0, connection);
    assert_eq!(statuses(&answers).len(), 5, "{answers}");
    assert!(answers.contains("subscription_succeeded"), "{answers}");
    process.finish();
}

/// P-HTTP-16: a client that ends its stream after its requests gets all answers; an upgrade among them is impossible,
/// since a WebSocket needs both directions.
#[test]
fn end_of_stream_behind_waiting_requests() {
    for shards in [1, 2] {
        for (last, count) in [(String::new(), 4), (UPGRADE.to_owned(), 5), ("GET /up HTTP/1.1\r\nHo".to_owned(), 4)] {
            let mut process = Process::new(shards);
            let connection = process.accept(0);
            let now = process.now;
            let mut sent = (waiting_requests() + &last).into_bytes();
            process.shards[0].handle_input(now, Input::Received { connection, bytes: &mut sent });
            process.shards[0].handle_input(now, Input::ReadEnded { connection });
            process.feed(0, Input::Timeout);
            let answers = process.take(0, connection);
            assert_eq!(statuses(&answers).len(), count, "{answers}");
            assert_eq!(answers.matches("HTTP/1.1 400 ").count(), count - 4, "{answers}");
            assert!(process.closed.contains(&(0, connection.slot, false)), "it has ended");
            process.finish();
        }
    }
}
