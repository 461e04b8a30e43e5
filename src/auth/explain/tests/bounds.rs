//! The bounds of one call, at their limit (threat T54).

use proptest::prelude::*;

use super::*;
use crate::limits::{
    APP_KEYS_MAX, EXPLAIN_BODY_BYTES_MAX, EXPLAIN_DIGESTS_MAX, EXPLAIN_FIELD_BYTES_MAX, EXPLAIN_HMACS_MAX,
    EXPLAIN_OTHER_APPS_HMACS_MAX,
};

/// An app with as many keys as it may have, among many others.
fn crowded(others: u32) -> Directory {
    let keys: Vec<(String, String)> =
        (0..APP_KEYS_MAX).map(|number| (format!("key-{number}"), format!("secret-of-key-{number}"))).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, secret)| (&**key, &**secret)).collect();
    let other = |serial: u32| {
        app(serial, &format!("{serial}0"), &[(&format!("other-{serial}"), &format!("secret-of-app-{serial}"))])
    };
    Directory::new(1, std::iter::once(app(1, "3", &keys)).chain((2..2 + others).map(other)).collect(), Vec::new())
}

/// A presence channel with data that has many forms.
fn question(data_bytes: usize, signature: &str) -> Question {
    let name = "é/<&".repeat(data_bytes / 5);
    let data = serde_json::json!({"user_id": "7", "user_info": {"name": name, "none": {}, "a": 1}}).to_string();
    Question::Channel {
        socket_id: "1.2".into(),
        channel: "presence-a b".into(),
        auth: format!("key-3:{signature}"),
        channel_data: Some(data),
    }
}

/// R-EXPLAIN-4, T54: an app with 8 keys, data with all forms and 1,000 other apps: 512 HMACs at most, and the verdict says that the
/// search was cut.
#[test]
fn hmacs_end_at_the_bound() {
    let directory = crowded(1_000);
    let answer = explain(&state(&directory, ""), &question(100, &"0a".repeat(32)));
    assert_eq!((answer.verdict, answer.cause), (Verdict::Cut, Cause::Unknown));
    assert!(answer.hmacs <= EXPLAIN_HMACS_MAX && answer.hmacs > EXPLAIN_HMACS_MAX - 20, "{}", answer.hmacs);
    assert!(answer.hint(Reader::Admin).contains("the search was cut"));
    assert_eq!(answer.to_json(Reader::ReadOnly)["verdict"], "cut");
}

/// R-EXPLAIN-4, T54: the newest other apps are tried up to their bound, and one beyond it is not: then the search was cut.
#[test]
fn other_apps_end_at_the_bound() {
    let directory = crowded(1_000);
    let explained = |serial: usize| {
        let secret = format!("secret-of-app-{serial}");
        let Question::Channel { socket_id, channel, channel_data, .. } = question(0, "") else { unreachable!() };
        let text = format!("{socket_id}:{channel}:{}", channel_data.as_deref().unwrap_or_default());
        let auth = format!("key-3:{}", sign(&secret, &text));
        explain(&state(&directory, ""), &Question::Channel { socket_id, channel, auth, channel_data })
    };
    let newest = explained(1_001);
    assert_eq!((newest.cause, newest.other_app.as_deref()), (Cause::SecretOfOtherApp, Some("10010")));
    assert_eq!(explained(1_002 - EXPLAIN_OTHER_APPS_HMACS_MAX).cause, Cause::SecretOfOtherApp);
    let beyond = explained(1_001 - EXPLAIN_OTHER_APPS_HMACS_MAX);
    assert_eq!((beyond.cause, beyond.verdict), (Cause::Unknown, Verdict::Cut));
}

/// R-EXPLAIN-4, T54: the largest data and the largest body stay within bytes and digests, and use the CPU for no longer than
/// documented. The time is that of this thread, in a build for tests; `cargo bench --bench auth` has that of a release.
#[test]
fn the_worst_case() {
    let directory = crowded(1_000);
    let state = state(&directory, "");
    let long = question(EXPLAIN_FIELD_BYTES_MAX * 3 / 4, &"0a".repeat(32));
    let body = format!("{{\"name\":\"é\",\"data\":\"{}\"}}", "é/<&x".repeat((EXPLAIN_BODY_BYTES_MAX - 40) / 6));
    let query = format!("auth_key=key-3&auth_timestamp={NOW_S}&auth_version=1.0&body_md5={}", "0a".repeat(16));
    let request = |body: &str, signature: &str| Question::Request {
        method: "POST".into(),
        target: format!("/apps/3/events?{query}&{}auth_signature={signature}", "a=b%20c&".repeat(30)),
        headers: vec![("Host".into(), "relay.test".into())],
        body: Some(body.as_bytes().to_vec()),
    };
    let signed = sign("secret-of-key-3", &format!("POST\n/apps/3/events\n{}{query}", "a=b c&".repeat(30)));
    let questions = [
        ("the longest channel_data", long),
        ("the longest body, a wrong signature", request(&body, &"0a".repeat(32))),
        ("the longest body, another MD5", request(&body, &signed)),
        ("JSON at its limit, another MD5", request(&body[..60_000].replace("é\",", "é\"}"), &signed)),
        ("usual data", question(200, &"0a".repeat(32))),
    ];
    for (name, question) in questions {
        let before = cpu_us();
        let answer = explain(&state, &question);
        let took_us = cpu_us() - before;
        println!(
            "{name}: {} HMACs, {} digests, {took_us} us of CPU, {}",
            answer.hmacs,
            answer.digests,
            answer.verdict.label()
        );
        assert!(answer.hmacs <= EXPLAIN_HMACS_MAX && answer.digests <= EXPLAIN_DIGESTS_MAX, "{name}: {answer:?}");
        assert_ne!(answer.verdict, Verdict::Accepted, "{name}");
        assert!(took_us < 200_000, "{name}: {took_us} us");
    }
}

/// CPU time of this thread.
fn cpu_us() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// R-EXPLAIN-4, T54: no length of data, number of apps or form of signature exceeds the bounds.
    #[test]
    fn nothing_exceeds_the_bounds(bytes in 0_usize..20_000, others in 0_u32..400, length in 0_usize..70) {
        let directory = crowded(others);
        let question = question(bytes, &"0a".repeat(64)[..length]);
        let answer = explain(&state(&directory, ""), &question);
        check_harmless(&directory, &question, &answer);
        prop_assert_ne!(answer.verdict, Verdict::Accepted);
    }
}
