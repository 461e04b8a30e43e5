//! Requests per minute and messages per day: exact with any number of shards, cheap when the limit is high.

use super::*;

const ONE: &str = r#"{"name":"e","channel":"c","data":"d"}"#;

/// One caller per shard.
fn accept_callers(process: &mut Process) -> Vec<ConnectionKey> {
    (0..process.shards.len()).map(|shard| process.accept(shard)).collect()
}

/// Sends requests over the shards in turn until an answer has another status than 200; returns how many had it, and
/// that answer.
fn ask_until_refused(process: &mut Process, callers: &[ConnectionKey], path: &str, body: &str) -> (u32, String) {
    for accepted in 0..10_000 {
        let shard = accepted as usize % callers.len();
        let answer = process.ask(shard, callers[shard], "POST", path, body);
        if !answer.starts_with("HTTP/1.1 200 ") {
            return (accepted, answer);
        }
    }
    panic!("10,000 requests were accepted");
}

/// R-LIM-4, P-STAT-6: exactly the limit passes in a minute, through whatever shards, on both bases; the answer to the
/// next names the limit, its setting and when to retry; then the minute restarts.
#[test]
fn requests_end_at_the_limit() {
    for shards in [1, 2, 5] {
        for limit in [1, 2, 7, 300] {
            let settings = AppSettings { requests_per_minute: limit, ..AppSettings::default() };
            let mut process = Process::with_settings(shards, settings);
            let callers = accept_callers(&mut process);
            for path in ["/apps/1/events", "/api/v1/apps/1/events"] {
                let (accepted, refusal) = ask_until_refused(&mut process, &callers, path, ONE);
                assert_eq!(accepted, limit, "{shards} shards");
                assert!(refusal.starts_with("HTTP/1.1 429 "), "{refusal}");
                let told = format!("This app is at its limit of {limit} requests per minute (requests_per_minute).");
                for text in [&told, "Retry-After: 60\r\n", "X-RateLimit-Remaining: 0\r\n"] {
                    assert!(refusal.contains(text), "{text:?} in {refusal}");
                }
                assert!(refusal.contains(&format!("X-RateLimit-Limit: {limit}\r\n")), "{refusal}");
                process.pass_time(59_999);
                assert_eq!(ask_until_refused(&mut process, &callers, path, ONE).0, 0);
                process.pass_time(1);
            }
            process.finish();
        }
    }
}

/// R-LIM-4: a request that is refused for another reason counts too, a bad credential does not, and queries do.
#[test]
fn what_counts() {
    let settings = AppSettings { requests_per_minute: 3, ..AppSettings::default() };
    let mut process = Process::with_settings(2, settings);
    let caller = process.accept(1);
    let forged = request("POST", "/apps/1/events", ONE).replace("app-secret", "another");
    for _ in 0..5 {
        process.receive(1, caller, forged.as_bytes());
        assert!(process.take(1, caller).starts_with("HTTP/1.1 401 "));
    }
    assert!(process.ask(1, caller, "POST", "/apps/1/events", "{}").starts_with("HTTP/1.1 400 "));
    assert!(process.ask(1, caller, "GET", "/apps/1/channels", "").starts_with("HTTP/1.1 200 "));
    assert!(process.publish(1, caller, ONE).starts_with("HTTP/1.1 200 "));
    assert!(process.ask(1, caller, "GET", "/apps/1/channels", "").starts_with("HTTP/1.1 429 "));
    assert!(process.ask(1, caller, "POST", "/apps/1/events", "{}").starts_with("HTTP/1.1 429 "));
    process.finish();
}

/// R-LIM-4: the limit of one way to authenticate does not affect the others, and requests that it refuses use up
/// nothing of the limit of all.
#[test]
fn ways_to_authenticate_are_limited_apart() {
    let settings = AppSettings { requests_per_minute: 6, key_requests_per_minute: 2, ..AppSettings::default() };
    let mut process = Process::with_settings(2, settings);
    let callers = accept_callers(&mut process);
    let (accepted, refusal) = ask_until_refused(&mut process, &callers, "/apps/1/events", ONE);
    assert_eq!(accepted, 2);
    assert!(refusal.contains("2 requests with key and secret per minute (key_requests_per_minute)"), "{refusal}");
    assert_eq!(ask_until_refused(&mut process, &callers, "/apps/1/events", ONE).0, 0);
    let settings = AppSettings { requests_per_minute: 6, signed_requests_per_minute: 2, ..AppSettings::default() };
    for shard in 0..2 {
        process.feed(shard, Input::Directory(directory(settings.clone())));
    }
    let (accepted, refusal) = ask_until_refused(&mut process, &callers, "/apps/1/events", ONE);
    assert_eq!(accepted, 4, "of the 6 in this minute 2 are used");
    assert!(refusal.contains("(requests_per_minute)"), "{refusal}");
    process.finish();
}

/// R-LIM-3: exactly the limit is published in a day of UTC, an event for two channels being two messages; a request
/// that does not fit completely publishes nothing. `/apps` answers 403, `/api/v1` 429 with the time to midnight.
#[test]
fn messages_end_at_the_limit() {
    let three = r#"{"batch":[{"name":"e","channel":"a","data":""},{"name":"e","channel":"b","data":""},
                    {"name":"e","channel":"c","data":""}]}"#;
    for shards in [1, 2, 5] {
        let settings = AppSettings { messages_per_day: 10, ..AppSettings::default() };
        let mut process = Process::with_settings(shards, settings);
        let callers = accept_callers(&mut process);
        let subscriber = process.open(0);
        process.subscribe(0, subscriber, "c");
        let (accepted, refusal) = ask_until_refused(&mut process, &callers, "/apps/1/batch_events", three);
        assert_eq!(accepted, 3);
        assert!(refusal.starts_with("HTTP/1.1 403 ") && refusal.contains("10 messages per day (messages_per_day)"));
        assert!(!refusal.contains("Retry-After"), "{refusal}");
        let (accepted, refusal) = ask_until_refused(&mut process, &callers, "/api/v1/apps/1/events", ONE);
        assert_eq!(accepted, 1, "{shards} shards");
        let seconds = 86_400 - process.now.unix_ms / 1_000 % 86_400;
        assert!(refusal.starts_with("HTTP/1.1 429 ") && refusal.contains(&format!("Retry-After: {seconds}\r\n")));
        assert_eq!(process.take(0, subscriber).matches(r#""event":"e""#).count(), 4);
        assert!(process.ask(0, callers[0], "GET", "/apps/1/channels", "").starts_with("HTTP/1.1 200 "));
        process.pass_turn(seconds * 1_000);
        let callers = accept_callers(&mut process);
        assert_eq!(ask_until_refused(&mut process, &callers, "/apps/1/events", ONE).0, 10);
        process.finish();
    }
}

/// R-LIM-3: a counter that starts continues with the store's count of this day, and reports its own count.
#[test]
fn a_restart_goes_on() {
    let settings = AppSettings { messages_per_day: 5, ..AppSettings::default() };
    let mut process = Process::with_settings(2, settings.clone());
    let day = process.now.unix_ms / 86_400_000;
    for (used, left) in [
        (crate::app::MessagesUsed { day, messages: 3 }, 2),
        (crate::app::MessagesUsed { day: day - 1, messages: 3 }, 5),
    ] {
        process = Process::with_settings(2, settings.clone());
        for shard in 0..2 {
            let apps = vec![app_with(settings.clone())];
            let with = Directory::new(2, apps, Vec::new()).with_messages_used([(AppSerial(1), used)]);
            process.feed(shard, Input::Directory(Arc::new(with)));
        }
        let callers = accept_callers(&mut process);
        assert_eq!(ask_until_refused(&mut process, &callers, "/apps/1/events", ONE).0, left);
        assert_eq!(process.messages_counted, Some((AppSerial(1), day, 5)));
    }
    process.finish();
}

/// R-LIM-4: pipelined requests that wait for their counter are answered in order, and events stay in order.
#[test]
fn pipelined_requests_wait_in_order() {
    for shards in [1, 2, 5] {
        let settings = AppSettings { requests_per_minute: 6, ..AppSettings::default() };
        let mut process = Process::with_settings(shards, settings);
        let caller = process.accept(0);
        let subscriber = process.open(0);
        process.subscribe(0, subscriber, "c");
        let bodies: Vec<String> = (0..8).map(|number| ONE.replace("\"d\"", &format!("\"{number}\""))).collect();
        let requests: String = bodies.iter().map(|body| request("POST", "/apps/1/events", body)).collect();
        process.receive(0, caller, requests.as_bytes());
        let answers = process.take(0, caller);
        let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "200", "200", "200", "200", "200", "429", "429"]);
        let frames = process.take(0, subscriber);
        let data: Vec<&str> = frames.split("\"data\":\"").skip(1).map(|rest| &rest[..1]).collect();
        assert_eq!(data, ["0", "1", "2", "3", "4", "5"]);
        process.finish();
    }
}

/// R-LIM-4: a high limit costs little mail: leases cover most requests. No limit costs none.
#[test]
fn leases_spare_mail() {
    for (limit, mails_max) in [(0, 0), (100_000, 40)] {
        let settings = AppSettings { requests_per_minute: limit, ..AppSettings::default() };
        let mut process = Process::with_settings(2, settings);
        // App 1 is counted by shard 1; nobody subscribes, so a publish to a channel of shard 0 goes nowhere else.
        let caller = process.accept(0);
        let name = (0..).map(|number| format!("c{number}")).find(|name| {
            let shard = &process.shards[0];
            shard.context.owner_of(&shard.context.channel_key(AppSerial(1), name)) == 0
        });
        let body = ONE.replace("\"c\"", &format!("\"{}\"", name.expect("half of the channels")));
        for _ in 0..2_000 {
            assert!(process.publish(0, caller, &body).starts_with("HTTP/1.1 200 "));
        }
        assert!(process.mails <= mails_max, "{} mails", process.mails);
        process.finish();
    }
}

/// R-LIM-4: a limit that was lowered applies at once, leases or not; one that was raised allows more.
#[test]
fn changed_limits_hold_at_once() {
    let limited = |limit| AppSettings { requests_per_minute: limit, ..AppSettings::default() };
    let mut process = Process::with_settings(5, limited(100_000));
    let callers = accept_callers(&mut process);
    for (shard, caller) in callers.iter().enumerate() {
        assert!(process.publish(shard, *caller, ONE).starts_with("HTTP/1.1 200 "));
    }
    for (limit, more) in [(5, 0), (8, 3), (2, 0)] {
        for shard in 0..5 {
            process.feed(shard, Input::Directory(directory(limited(limit))));
        }
        assert_eq!(ask_until_refused(&mut process, &callers, "/apps/1/events", ONE).0, more);
    }
    process.finish();
}

/// Threat T6: wrong credentials of one address are counted over all shards: 100 are answered 401, further ones 429,
/// while a valid one passes.
#[test]
fn failures_are_counted_over_all_shards() {
    for shards in [1, 2, 5] {
        let mut process = Process::new(shards);
        let callers = accept_callers(&mut process);
        let forged = request("POST", "/apps/1/events", ONE).replace("app-secret", "another");
        let unauthorized = (0..300)
            .filter(|number| {
                let shard = number % callers.len();
                process.receive(shard, callers[shard], forged.as_bytes());
                let answer = process.take(shard, callers[shard]);
                assert!(answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
                answer.starts_with("HTTP/1.1 401 ")
            })
            .count();
        assert_eq!(unauthorized, 100);
        assert!(process.publish(0, callers[0], ONE).starts_with("HTTP/1.1 200 "));
        process.finish();
    }
}

/// R-LIM-3, R-LIM-4: a client that disconnects while its request waits for the counter uses nothing up, and nothing is
/// published.
#[test]
fn who_goes_uses_nothing_up() {
    let settings = AppSettings { requests_per_minute: 3, messages_per_day: 3, ..AppSettings::default() };
    // App 1 is counted by shard 1.
    let mut process = Process::with_settings(2, settings);
    let subscriber = process.open(1);
    process.subscribe(1, subscriber, "c");
    for _ in 0..5 {
        let caller = process.accept(0);
        let mut bytes = request("POST", "/apps/1/events", ONE).into_bytes();
        let (now, input) = (process.now, Input::Received { connection: caller, bytes: &mut bytes });
        process.shards[0].handle_input(now, input);
        assert_eq!(process.shards[0].requests.parked(), 1);
        process.feed(0, Input::Closed { connection: caller });
    }
    assert_eq!(process.take(1, subscriber), "");
    let callers = accept_callers(&mut process);
    assert_eq!(ask_until_refused(&mut process, &callers, "/apps/1/events", ONE).0, 3);
    process.finish();
}
