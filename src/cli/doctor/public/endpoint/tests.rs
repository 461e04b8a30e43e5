//! Answers of auth endpoints, and what the doctor says about them.

use super::*;

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer { status, headers, body: body.as_bytes().to_vec() }
}

/// R-DIAG-3, R-PIT-1, R-PIT-2: every answer that is no signature is named, with a fix.
#[test]
fn wrong_answers_are_named() {
    let html = "<!DOCTYPE html><title>Sign in</title>";
    let cases = [
        (answer(200, &[], ""), "empty body", "BROADCAST_CONNECTION"),
        (answer(200, &[("Content-Type", "text/html")], html), "a web page", "login page"),
        (answer(200, &[], "true!"), "text instead of JSON", "401 or 403"),
        (answer(200, &[], "[]"), "no `auth`", "KEY:SIGNATURE"),
        (answer(200, &[], r#"{"auth":true}"#), "KEY:SIGNATURE", "KEY:SIGNATURE"),
        (answer(200, &[], r#"{"data":{"auth":"k:s"}}"#), "inside of `data`", "top level"),
        (answer(200, &[], r#"{"auth":"k:s","channel_data":{"user_id":"7"}}"#), "an object", "very string"),
        (answer(419, &[], html), "CSRF", "headersProvider"),
        (answer(403, &[], "<h1>CSRF verification failed.</h1>"), "CSRF", "@csrf_exempt"),
        (answer(422, &[], "ActionController::InvalidAuthenticityToken"), "CSRF", "X-CSRF-TOKEN"),
        (answer(302, &[("Location", "https://app.test/login?next=x")], ""), "redirects to", "login page"),
        (answer(301, &[("Location", "https://app.test/pusher/auth/")], ""), "redirects to", "use the URL"),
        (answer(401, &[], ""), "401 for this user", "--auth-header"),
        (answer(404, &[], ""), "no such route", "install:broadcasting"),
        (answer(405, &[], ""), "does not accept POST", "POST"),
        (answer(415, &[], ""), "does not accept a form", "urlencoded"),
        (answer(500, &[], ""), "application fails", "log"),
    ];
    for (answer, part, fix_part) in cases {
        let (found, cost, fix) = authorization(&answer, "private-a").expect_err(part);
        assert!(found.contains(part) && fix.contains(fix_part) && !cost.is_empty(), "{found} / {fix}");
    }
    let (found, ..) = authorization(&answer(200, &[], r#"{"auth":"k:s"}"#), "presence-a").expect_err("no data");
    assert!(found.contains("no `channel_data`"), "{found}");
}

/// R-DIAG-3: the forms that SDKs answer are accepted.
#[test]
fn signatures_are_taken() {
    let private = authorization(&answer(200, &[], r#"{"auth":"key:0a"}"#), "private-a").expect("a signature");
    assert_eq!(private, Authorization { auth: "key:0a".into(), channel_data: None });
    let body = r#"{"auth":"key:0a","channel_data":"{\"user_id\":\"7\"}","shared_secret":null}"#;
    let presence = authorization(&answer(200, &[], body), "presence-a").expect("a signature");
    assert_eq!(presence.channel_data.as_deref(), Some(r#"{"user_id":"7"}"#));
}

/// R-DIAG-3: flags with a wrong form are named; headers come from the command line or from a file.
#[test]
fn flags_are_checked() {
    let url = "https://app.test/auth?a=b";
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "Cookie: session=1; b=2\n\nX-CSRF-Token:  t \n").expect("written");
    let from_file = format!("@{}", file.path().display());
    let endpoint = Endpoint::new(url, "private-a", &[from_file, "Authorization: Bearer x".into()]).expect("flags");
    let names: Vec<&str> = endpoint.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, endpoint.path()), (vec!["Cookie", "X-CSRF-Token", "Authorization"], "/auth?a=b"));
    assert_eq!((endpoint.headers[1].1.as_str(), endpoint.url().as_str()), ("t", url));
    for (url, channel, header, flag) in [
        ("app.test", "private-a", "A: b", "--auth"),
        (url, "orders", "A: b", "--channel"),
        (url, "private-a", "no colon", "--auth-header"),
        (url, "private-a", "A b: c", "--auth-header"),
        (url, "private-a", "@/nowhere", "--auth-header"),
    ] {
        assert_eq!(Endpoint::new(url, channel, &[header.into()]).expect_err(flag).0, flag);
    }
}
