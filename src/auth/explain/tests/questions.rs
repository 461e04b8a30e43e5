//! Questions as JSON (R-EXPLAIN-1).

use serde_json::json;

use super::*;
use crate::limits::{EXPLAIN_BODY_BYTES_MAX, EXPLAIN_FIELD_BYTES_MAX};
use crate::openapi::body::read_object;

fn decode(value: &Value) -> Result<Asked, QuestionError> {
    Asked::from_json(value.clone())
}

/// R-EXPLAIN-1: each kind of question, with optional members and without.
#[test]
fn each_kind_is_read() {
    let asked =
        decode(&json!({"app_id": "3", "socket_id": "1.2", "channel": "private-a", "auth": "k:s"})).expect("valid");
    assert_eq!(asked.app_id.as_deref(), Some("3"));
    assert!(matches!(asked.subject, Subject::Question(Question::Channel { channel_data: None, .. })));
    let asked = decode(&json!({"app_id": "3", "socket_id": "1.2", "user_data": "{}", "auth": "", "channel": "a"}));
    assert!(matches!(asked.expect("valid").subject, Subject::Question(Question::User { channel: Some(_), .. })));
    let asked = decode(&json!({
        "method": "POST", "path": "https://relay.test:6001/apps/3/events?a=b%20c#x", "headers": {"A": "b"}, "body": "{}"
    }));
    let Subject::Question(Question::Request { target, headers, body, .. }) = asked.expect("valid").subject else {
        panic!()
    };
    assert_eq!((&*target, body), ("/apps/3/events?a=b%20c", Some(b"{}".to_vec())));
    assert_eq!(headers, [("A".into(), "b".into()), ("Host".into(), "relay.test:6001".into())]);
    let asked = decode(&json!({"method": "POST", "path": "/apps/3/events", "body_base64": "H4s="})).expect("valid");
    assert!(
        matches!(asked.subject, Subject::Question(Question::Request { body: Some(body), .. }) if body == b"\x1f\x8b")
    );
    let asked = decode(&json!({"refusal_id": format!("ref_{}", "0a".repeat(16))})).expect("valid");
    assert_eq!(asked.subject, Subject::Refusal(RefusalId([10; 16])));
}

/// R-EXPLAIN-1, R-EXPLAIN-4: a question that cannot be answered is refused with the name of the field and the expectation.
#[test]
fn mistakes_name_the_field() {
    let long = "x".repeat(EXPLAIN_FIELD_BYTES_MAX + 1);
    let rows = [
        (json!([]), "JSON object"),
        (json!({}), "Send either"),
        (json!({"app_id": 3, "socket_id": "1.2"}), "JSON object"),
        (json!({"app_id": "3", "socket": "1.2"}), "unknown field `socket`"),
        (json!({"socket_id": "1.2\n", "channel": "a", "auth": ""}), "socket_id must be"),
        (json!({"socket_id": "1.2", "auth": ""}), "channel is missing"),
        (json!({"socket_id": "1.2", "channel": "a", "auth": "", "channel_data": "", "user_data": ""}), "not both"),
        (json!({"socket_id": "1.2", "channel": "a", "method": "GET"}), "Send either"),
        (json!({"method": "", "path": "/"}), "method must be"),
        (json!({"method": "GET /", "path": "/"}), "method must be"),
        (json!({"method": "GET"}), "path is missing"),
        (json!({"method": "GET", "path": "apps/3"}), "path must begin"),
        (json!({"method": "GET", "path": "/", "body": "", "body_base64": ""}), "not both"),
        (json!({"method": "GET", "path": "/", "body_base64": "!"}), "body_base64 must be"),
        (json!({"refusal_id": "7"}), "refusal_id must be"),
        (json!({"refusal_id": "7", "auth": ""}), "Send either"),
        (json!({"socket_id": "1.2", "channel": long, "auth": ""}), "channel is longer than 65536"),
        (json!({"method": "GET", "path": "/", "headers": {"a": long}}), "headers is longer"),
        (
            json!({"method": "GET", "path": "/", "body": "x".repeat(EXPLAIN_BODY_BYTES_MAX + 1)}),
            "body is longer than 1048576",
        ),
    ];
    for (value, expected) in rows {
        let error = decode(&value).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.len() < 400, "{error}");
    }
    assert!(decode(&json!({"socket_id": "1.2", "channel": "x".repeat(EXPLAIN_FIELD_BYTES_MAX), "auth": ""})).is_ok());
    assert!(decode(&json!({"method": "GET", "path": "/", "body": "x".repeat(EXPLAIN_BODY_BYTES_MAX)})).is_ok());
    for text in [&b"\xff"[..], b"{", b"", b"[[[1]]]", br#"{"app_id":"1","app_id":"2"}"#] {
        read_object(text).expect_err("refused before the question is read");
    }
}
