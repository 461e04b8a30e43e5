//! The auth endpoints with a credential of the app, and what they refuse (R-AUTHEP rules; threats T33, T35, T40, T41).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::cli::create_token;
use crate::common::http::{self, Response};
use crate::common::server::TestServer;
use crate::common::sign::App;
use crate::common::socket::Socket;
use crate::common::unique;
use crate::stage::on_each_driver;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Asks with key and secret.
fn ask(server: &TestServer, app: &App, path: &str, content_type: &str, body: &str) -> Response {
    let headers = [("X-Relay-Key", &*app.key), ("X-Relay-Secret", &*app.secret), ("Content-Type", content_type)];
    http::ask(server.address, "POST", path, &headers, body.as_bytes())
}

fn ask_form(server: &TestServer, body: &str) -> Response {
    ask(server, server.app(), &server.app().relay_path("/auth"), FORM, body)
}

/// What every answer of the endpoint has (R-AUTHEP-4, R-AUTHEP-5, threat T41).
#[track_caller]
fn check_headers(answer: &Response) {
    assert_eq!(answer.header("content-type"), Some(JSON));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

/// R-AUTHEP-1, R-AUTHEP-2, R-BASE-1: private and presence channels, as a form and as JSON, under both bases, with each
/// kind of credential; a subscription with the answer succeeds.
#[test]
fn channels_are_signed_for_each_credential() {
    on_each_driver(|server| {
        let app = server.app();
        let token = create_token(&server.data, app, &["--scopes", "channels:auth"]);
        let bearer = format!("Bearer {}", token.token);
        let data = r#"{"user_id":"7","user_info":{"name":"Zoé & co"}}"#;
        for path in [app.path("/auth"), app.relay_path("/auth")] {
            let mut socket = Socket::open(server, app);
            let (private, presence) = (unique("private-a"), unique("presence-a"));
            let form = format!("socket_id={}&channel_name={private}&ignored=1", socket.socket_id);
            let answer = ask(server, app, &path, FORM, &form).expect(200);
            check_headers(&answer);
            let auth = app.sign_private(&socket.socket_id, &private);
            assert_eq!(answer.json(), json!({"auth": auth}));
            socket.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": private, "auth": auth}}));
            socket.expect_event("pusher_internal:subscription_succeeded");

            let body = json!({"socket_id": socket.socket_id, "channel_name": presence, "channel_data": data});
            let answer = crate::common::eventually("the token is known", || {
                let headers = [("Authorization", &*bearer), ("Content-Type", JSON)];
                let answer = http::ask(server.address, "POST", &path, &headers, body.to_string().as_bytes());
                (answer.status != 401).then_some(answer)
            });
            let answer = answer.expect(200).json();
            let auth = app.sign_presence(&socket.socket_id, &presence, data);
            assert_eq!(answer, json!({"auth": auth, "channel_data": data}));
            let subscribe = json!({"channel": presence, "auth": auth, "channel_data": answer["channel_data"]});
            socket.send_json(&json!({"event": "pusher:subscribe", "data": subscribe}));
            socket.expect_event("pusher_internal:subscription_succeeded");

            let signed = app.sign("POST", &path, body.to_string().as_bytes());
            let headers = [("Content-Type", JSON)];
            let answer = http::ask(server.address, "POST", &signed, &headers, body.to_string().as_bytes());
            assert_eq!(answer.expect(200).json()["auth"], auth);
        }
    });
}

/// R-AUTHEP-9, P-AUTH-4: a user is signed at a path of its own, and signs in with the answer; neither path signs what
/// belongs to the other (threat T33).
#[test]
fn users_are_signed_at_their_own_path() {
    on_each_driver(|server| {
        let app = server.app();
        let mut socket = Socket::open(server, app);
        let user = r#"{"id":"7","user_info":{"name":"Zoé"}}"#;
        let body = json!({"socket_id": socket.socket_id, "user_data": user}).to_string();
        let answer = ask(server, app, &app.path("/user-auth"), JSON, &body).expect(200).json();
        assert_eq!(answer, json!({"auth": app.sign_user(&socket.socket_id, user), "user_data": user}));
        socket.send_json(&json!({"event": "pusher:signin", "data": answer}));
        socket.expect_event("pusher:signin_success");
        ask(server, app, &app.path("/auth"), JSON, &body).expect(400);
        let channel = json!({"socket_id": socket.socket_id, "channel_name": "private-a"}).to_string();
        ask(server, app, &app.path("/user-auth"), JSON, &channel).expect(400);
        for (data, text) in [("{}", "id"), ("x", "object"), (r#"{"id":"a b"}"#, "character")] {
            let body = json!({"socket_id": "1.1", "user_data": data}).to_string();
            let answer = ask(server, app, &app.path("/user-auth"), JSON, &body).expect(400).json();
            assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
        }
        let answer = ask(server, app, &app.path("/user-auth"), JSON, r#"{"socket_id":"1.1"}"#).expect(400).json();
        assert!(answer["message"].as_str().unwrap().contains("user_data"), "{answer}");
    });
}

/// R-AUTHEP-2, R-AUTHEP-4, R-AUTHEP-7: without a valid credential nothing is signed, and the answer is JSON under both
/// bases; without an authorizer the default paths of clients do not exist.
#[test]
fn strangers_get_nothing() {
    on_each_driver(|server| {
        let (app, other) = (server.app(), server.named_app("other"));
        let narrow = create_token(&server.data, app, &["--scopes", "events:publish"]);
        let bearer = format!("Bearer {}", narrow.token);
        let body = b"socket_id=1.1&channel_name=private-a";
        for path in [app.path("/auth"), app.relay_path("/auth"), app.path("/user-auth")] {
            for (headers, status, error) in [
                (vec![], 401, "unauthorized"),
                (vec![("Cookie", "session=1"), ("Origin", "https://a.test")], 401, "unauthorized"),
                (vec![("X-Relay-Key", &*app.key)], 401, "unauthorized"),
                (vec![("X-Relay-Key", &*app.key), ("X-Relay-Secret", "wrong")], 401, "unauthorized"),
                (vec![("X-Relay-Key", &*other.key), ("X-Relay-Secret", &*other.secret)], 401, "unauthorized"),
                (vec![("Authorization", "Bearer rly_x")], 401, "unauthorized"),
            ] {
                let answer = http::ask(server.address, "POST", &path, &headers, body).expect(status);
                check_headers(&answer);
                assert_eq!(answer.json()["error"], error);
            }
            crate::common::eventually("the token is known", || {
                let answer = http::ask(server.address, "POST", &path, &[("Authorization", &*bearer)], body);
                (answer.status == 403 && answer.json()["error"] == "forbidden").then_some(())
            });
        }
        for path in ["/broadcasting/auth", "/pusher/auth", "/pusher/user-auth"] {
            for path in [path.to_owned(), format!("{path}?key={}", app.key)] {
                http::ask(server.address, "POST", &path, &[], body).expect(404);
                http::ask(server.address, "OPTIONS", &path, &[("Origin", "https://a.test")], b"").expect(404);
            }
        }
    });
}

/// R-AUTHEP-4, threat T33: values that could be read as something else are not signed; each refusal names its field.
#[test]
fn only_canonical_values_are_signed() {
    on_each_driver(|server| {
        let app = server.app();
        let sign = |socket_id: &str, channel: &str| {
            let body = json!({"socket_id": socket_id, "channel_name": channel}).to_string();
            ask(server, app, &app.path("/auth"), JSON, &body)
        };
        sign("1.1", "private-a").expect(200);
        sign("18446744073709551615.0", "private-a").expect(200);
        for socket_id in [
            "",
            "1",
            "1.",
            ".1",
            "1.1.1",
            "01.1",
            "1.01",
            "+1.1",
            "-1.1",
            " 1.1",
            "1.1 ",
            "1.1\n",
            "1.1\0",
            "1,1",
            "1.18446744073709551616",
            "\u{ff11}.1",
            "1.1:private-x",
            "1.1::user:",
            "POST\n/apps/1/events",
            "1e1.1",
            "0x1.1",
        ] {
            let answer = sign(socket_id, "private-a").expect(400).json();
            assert!(answer["message"].as_str().unwrap().contains("socket_id"), "{socket_id:?}: {answer}");
        }
        let long = format!("private-{}", "x".repeat(193));
        for channel in [
            "",
            "a",
            "public",
            "cache-private-a",
            "no-history-private-a",
            "#server-to-user-1",
            ":user:",
            "Private-a",
            "private",
            "private-a\n",
            "private-a\0",
            "private-a b",
            "private-\u{ff41}",
            "private-a:{\"user_id\":1}",
            "presence-a/b",
            &long,
        ] {
            let answer = sign("1.1", channel).expect(400).json();
            assert!(answer["message"].as_str().unwrap().contains("channel"), "{channel:?}: {answer}");
        }
        sign("1.1", &long[..200]).expect(200);
    });
}

/// R-AUTHEP-1, P-LIM-7: data of members at its limit and one byte beyond, and data that no subscription would accept.
#[test]
fn channel_data_is_checked() {
    on_each_driver(|server| {
        let app = server.app();
        let sign = |channel: &str, data: Option<&str>| {
            let mut body = json!({"socket_id": "1.1", "channel_name": channel});
            if let Some(data) = data {
                body["channel_data"] = data.into();
            }
            ask(server, app, &app.path("/auth"), JSON, &body.to_string())
        };
        let of_length = |bytes: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "x".repeat(bytes - 28));
        sign("presence-a", Some(&of_length(10_240))).expect(200);
        for (channel, data, text) in [
            ("presence-a", Some(of_length(10_241)), "10240"),
            ("presence-a", None, "channel_data"),
            ("presence-a", Some("{}".to_owned()), "user_id"),
            ("presence-a", Some("[]".to_owned()), "object"),
            ("presence-a", Some(r#"{"user_id":""}"#.to_owned()), "user_id"),
            ("private-a", Some(r#"{"user_id":"1"}"#.to_owned()), "presence"),
        ] {
            let answer = sign(channel, data.as_deref()).expect(400).json();
            assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
        }
    });
}

/// R-AUTHEP-4, threats T35, T41: a body that two parsers could read in two ways is refused, and so are fields in the
/// query; whatever is signed was sent once, in the body.
#[test]
fn ambiguous_requests_are_refused() {
    on_each_driver(|server| {
        let app = server.app();
        let path = app.relay_path("/auth");
        ask(server, app, &path, FORM, "socket_id=1.1&channel_name=private-a").expect(200);
        ask(
            server,
            app,
            &path,
            "application/x-www-form-urlencoded; charset=UTF-8",
            "channel_name=private-a&socket_id=1.1",
        )
        .expect(200);
        for body in [
            "",
            "socket_id=1.1",
            "channel_name=private-a",
            "socket_id=1.1&channel_name=private-a&channel_name=private-b",
            "socket_id=1.1&socket_id=1.2&channel_name=private-a",
            "socket_id=1.1&channel_name[]=private-a",
            "socket_id[]=1.1&channel_name=private-a",
            "socket_id=1.1&channel_name=private-a&channel_name[0]=private-b",
            "socket_id=1.1&channel_name=private-a&Channel_Name=private-b",
            "socket_id=1.1&channel_name=private-a&channel%5Fname=private-b",
            "socket_id=1.1&channel_name=private-a&channels[]=private-b",
            "socket_id=1.1&channels=private-a",
            "socket_id=1.1&channels[0]=private-a",
            "socket_id=1.1&channels[]=private-a&channels[]=private-a",
            "socket_id=1.1&channels[]=private-a&channel_data={}",
            "socket_id=1.1&channel_name=private-a&user_data={}",
            "socket_id=1.1&channel_name=private-%FF",
            "socket_id=1.1&channel_name=private-%zz",
            "socket_id=1.1;channel_name=private-a",
            r#"{"socket_id":"1.1","channel_name":"private-a"}"#,
        ] {
            let answer = ask(server, app, &path, FORM, body).expect(400);
            check_headers(&answer);
        }
        for body in [
            "",
            "[]",
            r#"["1.1","private-a",null,null,null]"#,
            "null",
            "{",
            "socket_id=1.1&channel_name=private-a",
            r#"{"socket_id":"1.1","channel_name":"private-a"} x"#,
            r#"{"socket_id":"1.1","channel_name":"private-a","channel_name":"private-b"}"#,
            r#"{"socket_id":"1.1","socket_id":"1.1","channel_name":"private-a"}"#,
            r#"{"socket_id":1.1,"channel_name":"private-a"}"#,
            r#"{"socket_id":"1.1","channel_name":["private-a"]}"#,
            r#"{"socket_id":"1.1","channel_name":null,"channels":"private-a"}"#,
            r#"{"socket_id":"1.1","channels":[]}"#,
            r#"{"socket_id":"1.1","channels":["private-a",1]}"#,
            r#"{"socket_id":"1.1","channels":["private-a"],"channel_name":"private-b"}"#,
            r#"{"socket_id":"1.1","channel_name":"presence-a","channel_data":{"user_id":"1"}}"#,
        ] {
            ask(server, app, &path, JSON, body).expect(400);
        }
        let body = "socket_id=1.1&channel_name=private-a";
        for content_type in ["text/plain", "multipart/form-data", "application/json; charset=utf-16", FORM_OF_LATIN, ""]
        {
            ask(server, app, &path, content_type, body).expect(400);
        }
        for query in ["channel_name=private-b", "socket_id=1.2", "channels[]=private-b", "callback=x", "CALLBACK=x"] {
            let answer = ask(server, app, &format!("{path}?{query}"), FORM, body).expect(400);
            check_headers(&answer);
        }
        let get = http::ask(server.address, "GET", &format!("{path}?callback=x"), &[], b"");
        assert_eq!(get.expect(405).header("allow"), Some("POST"));
    });
}

const FORM_OF_LATIN: &str = "application/x-www-form-urlencoded; charset=iso-8859-1";

/// R-AUTHEP-10: up to 100 channels, each answered as it would be alone.
#[test]
fn lists_are_answered_one_by_one() {
    on_each_driver(|server| {
        let app = server.app();
        let answer = ask_form(server, "socket_id=1.1&channels[]=private-a&channels%5B%5D=public&channels[]=presence-a");
        let answer = answer.expect(200).json();
        let channels = answer["channels"].as_object().unwrap();
        assert_eq!(channels["private-a"], json!({"auth": app.sign_private("1.1", "private-a")}));
        for (channel, text) in [("public", "public"), ("presence-a", "channel_data")] {
            assert_eq!(
                (&channels[channel]["status"], &channels[channel]["error"]),
                (&json!(400), &json!("bad_request"))
            );
            assert!(channels[channel]["message"].as_str().unwrap().contains(text), "{answer}");
        }
        let names: Vec<String> = (0..100).map(|number| format!("private-{number}")).collect();
        let body = json!({"socket_id": "1.1", "channels": names});
        let path = app.relay_path("/auth");
        let answer: Value = ask(server, app, &path, JSON, &body.to_string()).expect(200).json();
        for name in &names {
            assert_eq!(answer["channels"][name]["auth"], app.sign_private("1.1", name));
        }
        let more: Vec<String> = (0..101).map(|number| format!("private-{number}")).collect();
        let body = json!({"socket_id": "1.1", "channels": more});
        let answer = ask(server, app, &path, JSON, &body.to_string()).expect(400).json();
        assert!(answer["message"].as_str().unwrap().contains("100"), "{answer}");
    });
}

/// R-AUTHEP-6, P-ENC-2: an encrypted channel is signed only if the app stores a master key; its shared secret is that
/// of the key, which was shown once.
#[test]
fn encrypted_channels_need_a_stored_key() {
    on_each_driver(|server| {
        let app = server.named_app("plain");
        let (auth, keys) = (app.relay_path("/auth"), app.relay_path("/encryption-key"));
        let body = r#"{"socket_id":"1.1","channel_name":"private-encrypted-a"}"#;
        let answer = ask(server, app, &auth, JSON, body).expect(400).json();
        assert!(answer["message"].as_str().unwrap().contains("/encryption-key"), "{answer}");
        let shown = ask(server, app, &keys, JSON, "").expect(201).json();
        assert_eq!(shown["stored"], false);
        ask(server, app, &auth, JSON, body).expect(400);
        ask(server, app, &keys, JSON, r#"{"store":1}"#).expect(400);

        let shown = ask(server, app, &keys, JSON, r#"{"store":true}"#).expect(201);
        assert_eq!(shown.header("cache-control"), Some("no-store"));
        let key = STANDARD.decode(shown.json()["encryption_master_key"].as_str().unwrap()).unwrap();
        assert_eq!(key.len(), 32);
        let secret = Sha256::digest([&b"private-encrypted-a"[..], &key].concat());
        let answer = ask(server, app, &auth, JSON, body).expect(200).json();
        let expected =
            json!({"auth": app.sign_private("1.1", "private-encrypted-a"), "shared_secret": STANDARD.encode(secret)});
        assert_eq!(answer, expected);

        let headers = [("X-Relay-Key", &*app.key), ("X-Relay-Secret", &*app.secret)];
        http::ask(server.address, "DELETE", &keys, &headers, b"").expect(204);
        http::ask(server.address, "DELETE", &keys, &headers, b"").expect(404);
        ask(server, app, &auth, JSON, body).expect(400);
    });
}

/// R-AUTHEP-5, threat T40: a preflight and an answer name the origins of the app; without an authorizer never
/// credentials; a page of another origin gets 403 and no header.
#[test]
fn pages_of_listed_origins_may_ask() {
    on_each_driver(|server| {
        let preflight = |app: &App, origin: &str| {
            let headers = [("Origin", origin), ("Access-Control-Request-Headers", "x-csrf-token,authorization")];
            http::ask(server.address, "OPTIONS", &app.path("/auth"), &headers, b"")
        };
        let open = preflight(server.app(), "https://any.test").expect(204);
        assert_eq!(open.header("access-control-allow-origin"), Some("*"));
        assert_eq!(open.header("access-control-allow-headers"), Some("x-csrf-token,authorization"));
        assert_eq!(open.header("access-control-allow-methods"), Some("POST"));
        let listed = server.named_app("origin");
        let own = preflight(listed, "https://example.com").expect(204);
        assert_eq!(own.header("access-control-allow-origin"), Some("https://example.com"));
        for answer in [&open, &own] {
            assert_eq!(
                (answer.header("access-control-allow-credentials"), answer.header("vary")),
                (None, Some("Origin"))
            );
        }
        let foreign = preflight(listed, "https://example.com.evil.test").expect(403);
        assert_eq!(foreign.header("access-control-allow-origin"), None);
        let keys = [("X-Relay-Key", &*listed.key), ("X-Relay-Secret", &*listed.secret)];
        for (origin, status) in [("https://example.com", 200), ("https://evil.test", 403), ("null", 403)] {
            let headers: Vec<_> = keys.iter().copied().chain([("Origin", origin)]).collect();
            let body = b"socket_id=1.1&channel_name=private-a";
            let answer = http::ask(server.address, "POST", &listed.path("/auth"), &headers, body).expect(status);
            check_headers(&answer);
            assert_eq!(answer.header("access-control-allow-origin"), (status == 200).then_some(origin));
        }
        let unknown = http::ask(server.address, "OPTIONS", "/apps/none/auth", &[("Origin", "https://a.test")], b"");
        assert_eq!(unknown.expect(204).header("access-control-allow-origin"), None);
    });
}
