//! Authentication of publishers: Pusher signatures, key and secret headers, tokens (section 8 of the Pusher protocol,
//! section 2 of Relay's; threats T3 to T6).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::common::cli::{self, create_token};
use crate::common::http::{HttpConnection, Response};
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{ServerOptions, TestServer};
use crate::common::sign::{App, Signing, md5_hex, unix_now};
use crate::common::socket::Socket;
use crate::common::{eventually, eventually_within, unique};
use crate::stage::on_each_driver;

const BODY: &str = r#"{"name":"e","channel":"auth","data":"x"}"#;

/// The signer of these tests produces the documented vectors: P-SIGN-6, R-BASE-2, P-AUTH-6.
#[test]
fn the_signer_gives_the_documented_vectors() {
    let (key, secret) = ("278d425bdf160c739803".to_owned(), "7ad3773142a6692b25b8".to_owned());
    let app = App { id: "3".to_owned(), key, secret };
    let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    assert_eq!(md5_hex(body), "ec365a775a4cd0599faeb73354201b6f");
    let mut signing = Signing::new(&app, "POST", "/apps/3/events", body);
    signing.set("auth_timestamp", "1353088179");
    assert_eq!(signing.signature(), "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c");
    let mut signing = Signing::new(&app, "GET", "/api/v1/apps/3/channels", b"");
    signing.set("auth_timestamp", "1353088179");
    assert_eq!(signing.signature(), "66402df180a48cf5b53bfcfd895640573bba96697327e3c40969b2a98e83306f");
    let auth = app.sign_private("1234.1234", "private-foobar");
    assert!(auth.ends_with(":58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"));
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    let auth = app.sign_presence("1234.1234", "presence-foobar", data);
    assert!(auth.ends_with(":31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80"));
}

/// P-SIGN-1, threat T4: a timestamp within 600 s is accepted, one beyond is 401 with that reason; so is one that is not
/// a number.
#[test]
fn timestamp_window() {
    on_each_driver(|server| {
        let app = server.app();
        let now = i64::try_from(unix_now()).unwrap();
        // Two seconds remain on each side for the request's transit.
        for (offset, status) in [(-598, 200), (598, 200), (-602, 401), (602, 401), (-i64::from(u32::MAX), 401)] {
            let mut signing = signing(app);
            signing.set("auth_timestamp", &(now + offset).to_string());
            let answer = post(server, &signing.target(), BODY).expect(status);
            if status == 401 && now + offset > 0 {
                assert!(answer.text().starts_with("Timestamp expired: Given timestamp ("), "{}", answer.text());
            }
        }
        for text in ["", "x", "1e9", &format!("{now}.5"), &"9".repeat(30)] {
            let mut signing = signing(app);
            signing.set("auth_timestamp", text);
            post(server, &signing.target(), BODY).expect(401);
        }
    });
}

/// P-SIGN-1, P-STAT-2, threat T4: without any one parameter, with another version or another key, a correctly signed request is 401.
#[test]
fn every_parameter_is_required() {
    on_each_driver(|server| {
        let app = server.app();
        for parameter in ["auth_key", "auth_timestamp", "auth_version", "body_md5"] {
            let mut signing = signing(app);
            signing.remove(parameter);
            post(server, &signing.target(), BODY).expect(401);
        }
        for (parameter, value) in
            [("auth_version", "1.1"), ("auth_version", ""), ("auth_key", "nosuchkey"), ("auth_key", "")]
        {
            let mut signing = signing(app);
            signing.set(parameter, value);
            post(server, &signing.target(), BODY).expect(401);
        }
        let target = signing(app).target();
        let unsigned = target.split("&auth_signature=").next().unwrap();
        post(server, unsigned, BODY).expect(401);
        post(server, &format!("{unsigned}&auth_signature="), BODY).expect(401);
        post(server, &target, BODY).expect(200);
    });
}

/// Threat T4, P-SIGN-1, P-SIGN-2: the signed parts may not change: body, parameters, method, path; nor be duplicated.
#[test]
fn altered_requests_are_401() {
    on_each_driver(|server| {
        let app = server.app();
        let channel = unique("altered");
        let mut socket = Socket::open(server, app);
        socket.subscribe(&channel);
        let body = json!({"name": "e", "channel": channel, "data": "x"}).to_string();
        let target = app.sign("POST", &app.path("/events"), body.as_bytes());
        post(server, &target, &body.replace("\"x\"", "\"y\"")).expect(401);
        post(server, &target, &format!("{body} ")).expect(401);
        post(server, &target, "").expect(401);
        post(server, &format!("{target}&added=1"), &body).expect(401);
        post(server, &target.replacen('?', "?added=1&", 1), &body).expect(401);
        let stamp = signed_timestamp(&target);
        post(server, &target.replacen(&stamp, &format!("{stamp}0"), 1), &body).expect(401);
        post(server, &target.replacen(&stamp, &(stamp.parse::<u64>().unwrap() - 1).to_string(), 1), &body).expect(401);
        let signature = target.split("auth_signature=").nth(1).unwrap();
        post(server, &format!("{target}&auth_signature={signature}"), &body).expect(401);
        post(server, &format!("{target}&auth_signature={}", "0".repeat(64)), &body).expect(401);
        post(server, &format!("{target}&auth_version=1.0"), &body).expect(401);
        post(server, &format!("{target}&auth_key={}", app.key), &body).expect(401);
        post(server, &target.replacen("/events", "/batch_events", 1), &body).expect(401);
        post(server, &target.replacen("/apps/", "/api/v1/apps/", 1), &body).expect(200);
        socket.expect_data("e", &channel, "x");
        let get = Signing::new(app, "GET", &app.path("/events"), body.as_bytes());
        post(server, &get.target(), &body).expect(401);
        socket.expect_quiet();
    });
}

/// Threat T4, P-SIGN-2: each of the 256 one-bit changes of a valid signature is 401, as are other spellings of it. The connection's
/// address stays below the bound of failures by spreading over loopback addresses.
#[test]
fn forged_signatures_are_401() {
    on_each_driver(|server| {
        let app = server.app();
        let target = signing(app).target();
        let (unsigned, valid) = target.split_once("&auth_signature=").unwrap();
        let mut forged = vec![
            valid[..63].to_owned(),
            format!("{valid}0"),
            format!("{valid}00"),
            format!("0x{valid}"),
            valid.to_uppercase(),
            "0".repeat(64),
        ];
        for bit in 0..256 {
            let mut bytes = hex::decode(valid).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            forged.push(hex::encode(bytes));
        }
        for (index, signature) in forged.iter().enumerate() {
            let source = format!("127.77.{}.1", index / 50);
            let answer = post_from(server, &source, &format!("{unsigned}&auth_signature={signature}"), &[], BODY);
            assert_eq!(answer.status, 401, "{signature}");
        }
        post(server, &target, BODY).expect(200);
    });
}

/// P-SIGN-2, P-SIGN-4, P-SIGN-5, P-SDK-19: other orders and encodings of the same request are accepted: parameters in any order, keys in upper
/// case, values percent-encoded or with `+`, the path percent-encoded.
#[test]
fn equivalent_spellings_are_accepted() {
    on_each_driver(|server| {
        let app = server.app();
        let mut signing = signing(app);
        signing.set("note", "a b,c");
        let (query, signature) = (signing.sorted_query(), signing.signature());
        let mut reversed: Vec<&str> = query.split('&').collect();
        reversed.reverse();
        let encode = |space: &str| query.replace("a b,c", &format!("a{space}b%2Cc"));
        for query in [
            encode("%20"),
            encode("+"),
            reversed.join("&").replace(' ', "%20"),
            encode("%20").replace("auth_key", "AUTH_KEY"),
        ] {
            post(server, &format!("{}?{query}&auth_signature={signature}", signing.path), BODY).expect(200);
            post(server, &format!("{}?auth_signature={signature}&{query}", signing.path), BODY).expect(200);
        }
        // Raw values: the node, Go and Python SDKs sign the text that is in the URL.
        let mut raw = Signing::new(app, "POST", &app.path("/events"), BODY.as_bytes());
        raw.set("note", "a%20b+c");
        post(server, &raw.target(), BODY).expect(200);
        // The path as a client may have encoded it after signing.
        let plain = app.sign("POST", &app.path("/events"), BODY.as_bytes());
        post(server, &plain.replacen("/events", "/%65vents", 1), BODY).expect(200);
    });
}

/// P-SDK-20, P-SIGN-5: PHP signs `k=a,b` but sends `k[0]=a&k[1]=b`; `k[]=a&k[]=b` is the documented form. All are
/// accepted.
#[test]
fn array_parameters() {
    on_each_driver(|server| {
        let app = server.app();
        let mut signing = signing(app);
        signing.set("list", "a,b");
        let signature = signing.signature();
        for sent in
            ["list[0]=a&list[1]=b", "list[]=a&list[]=b", "list%5B0%5D=a&list%5B1%5D=b", "list=a,b", "list=a%2Cb"]
        {
            let query = signing.sorted_query().replace("list=a,b", sent);
            post(server, &format!("{}?{query}&auth_signature={signature}", signing.path), BODY).expect(200);
        }
        let query = signing.sorted_query().replace("list=a,b", "list[]=b&list[]=a");
        post(server, &format!("{}?{query}&auth_signature={signature}", signing.path), BODY).expect(401);
    });
}

/// P-SDK-18, P-SIGN-1: without a body, `body_md5` of the empty body is accepted and so is its absence; then the empty
/// body itself is checked (400, not 401). A wrong one is 401.
#[test]
fn body_md5_of_nothing() {
    on_each_driver(|server| {
        let mut signing = Signing::new(server.app(), "POST", &server.app().path("/events"), b"");
        post(server, &signing.target(), "").expect(400);
        signing.set("body_md5", "d41d8cd98f00b204e9800998ecf8427e");
        post(server, &signing.target(), "").expect(400);
        signing.set("body_md5", &md5_hex(b"x"));
        post(server, &signing.target(), "").expect(401);
    });
}

/// P-SIGN-3: replay within the window is accepted (a documented choice), not beyond it.
#[test]
fn replay_is_bounded_by_the_window() {
    on_each_driver(|server| {
        let target = signing(server.app()).target();
        for _ in 0..3 {
            post(server, &target, BODY).expect(200);
        }
    });
}

/// Threat T3, R-AUTH-5, P-SIGN-2: key, secret and token of one app are 401 on another's path.
#[test]
fn credentials_of_another_app_are_401() {
    on_each_driver(|server| {
        let (app, other) = (server.app(), server.named_app("other"));
        let target = Signing::new(other, "POST", &app.path("/events"), BODY.as_bytes()).target();
        post(server, &target, BODY).expect(401);
        for path in [app.path("/events"), app.relay_path("/events")] {
            post_with(server, &path, &[("X-Relay-Key", &other.key), ("X-Relay-Secret", &other.secret)], BODY)
                .expect(401);
            post_with(server, &path, &[("X-Relay-Key", &app.key), ("X-Relay-Secret", &other.secret)], BODY).expect(401);
        }
    });
}

/// R-AUTH-1, R-BASE-1, threat T5: key and secret headers publish on both bases; one alone, a wrong or an altered one is 401.
#[test]
fn key_and_secret_headers() {
    on_each_driver(|server| {
        let app = server.app();
        for path in [app.path("/events"), app.relay_path("/events")] {
            post_with(server, &path, &[("X-Relay-Key", &app.key), ("X-Relay-Secret", &app.secret)], BODY).expect(200);
            post_with(server, &path, &[("x-relay-secret", &app.secret), ("x-relay-key", &app.key)], BODY).expect(200);
            post_with(server, &path, &[("X-Relay-Key", &app.key)], BODY).expect(401);
            post_with(server, &path, &[("X-Relay-Secret", &app.secret)], BODY).expect(401);
            let longer = format!("{}x", app.secret);
            for secret in ["", &app.secret[1..], &longer, &app.secret.to_uppercase(), &app.key] {
                if secret != app.secret {
                    post_with(server, &path, &[("X-Relay-Key", &app.key), ("X-Relay-Secret", secret)], BODY)
                        .expect(401);
                }
            }
            post_with(server, &path, &[], BODY).expect(401);
        }
    });
}

/// R-AUTH-4: of several credentials the first present of signature, token and headers is used and must pass.
#[test]
fn no_fall_through_between_methods() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let token = create_token(&server.data, app, &[]).token;
        let (good_bearer, bad_bearer) = (format!("Bearer {token}"), format!("Bearer rly_{}", "x".repeat(40)));
        let path = app.path("/events");
        await_token(&server, app, &token);
        let signed = app.sign("POST", &path, BODY.as_bytes());
        let forged = format!("{}0", &signed[..signed.len() - 1]);
        let forged = if forged == signed { format!("{}1", &signed[..signed.len() - 1]) } else { forged };
        let pair = [("X-Relay-Key", app.key.as_str()), ("X-Relay-Secret", app.secret.as_str())];
        let ask = |target: &str, bearer: Option<&str>, headers: bool| {
            let mut sent = Vec::new();
            sent.extend(bearer.map(|bearer| ("Authorization", bearer)));
            sent.extend(headers.then_some(pair).into_iter().flatten());
            post_with(&server, target, &sent, BODY).status
        };
        assert_eq!(ask(&signed, Some(&bad_bearer), false), 200);
        assert_eq!(ask(&forged, Some(&good_bearer), true), 401);
        assert_eq!(ask(&path, Some(&good_bearer), false), 200);
        assert_eq!(ask(&path, Some(&bad_bearer), true), 401);
        assert_eq!(ask(&path, None, true), 200);
        // R-TOKEN-1: a Bearer value without `rly_` is not a Relay token and is treated as absent; so is another scheme.
        assert_eq!(ask(&path, Some("Bearer eyJhbGciOi"), true), 200);
        assert_eq!(ask(&path, Some("Basic eDp5"), true), 200);
        assert_eq!(ask(&path, Some("Bearer eyJhbGciOi"), false), 401);
    });
}

/// R-AUTH-2, R-TOKEN-1, R-TOKEN-2, R-TOKEN-5, R-TOKEN-6, threat T5: tokens publish within their scopes; the form is
/// `rly_` and 40 base62 characters; no file of the store and no list contains one.
#[test]
fn tokens_and_scopes() {
    on_fresh_servers(ServerOptions::new, |server| {
        let (app, data) = (server.app(), server.data.to_str().unwrap());
        let all = create_token(&server.data, app, &[]);
        let publish = create_token(&server.data, app, &["--scopes", "events:publish"]);
        let batch = create_token(&server.data, app, &["--scopes", "events:batch"]);
        let reader = create_token(&server.data, app, &["--scopes", "channels:read"]);
        for made in [&all, &publish, &batch, &reader] {
            let random = made.token.strip_prefix("rly_").expect("R-TOKEN-1");
            assert!(random.len() == 40 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", made.token);
            eventually("the token is known", || {
                (bearer(&server, app, &made.token, "/events").status != 401).then_some(())
            });
        }
        for (made, events, batches) in [(&all, 200, 200), (&publish, 200, 403), (&batch, 403, 200), (&reader, 403, 403)]
        {
            bearer(&server, app, &made.token, "/events").expect(events);
            bearer(&server, app, &made.token, "/batch_events").expect(batches);
        }
        let list = cli::run_json(&["token", "list", "--app", &app.id, "--data", data, "--json"]);
        let ids: BTreeSet<&str> = list.as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap()).collect();
        assert_eq!(ids, BTreeSet::from([all.id.as_str(), &publish.id, &batch.id, &reader.id]));
        for made in [&all, &publish, &batch, &reader] {
            assert!(!list.to_string().contains(&made.token[4..]), "R-TOKEN-5: a list shows no token");
            for file in std::fs::read_dir(&server.data).unwrap().flatten().filter(|entry| entry.path().is_file()) {
                let bytes = std::fs::read(file.path()).unwrap();
                let found = bytes.windows(40).any(|window| window == &made.token.as_bytes()[4..]);
                assert!(!found, "R-TOKEN-2: {:?} holds a plain token", file.path());
            }
            assert!(!server.log().contains(&made.token[4..]), "R-AUTH-7: the log shows no token");
        }
        assert!(!server.log().contains(&app.secret), "R-AUTH-7: the log shows no secret");
    });
}

/// R-TOKEN-3, R-ERR-2, threats T3 and T5: expired, revoked, unknown and other apps' tokens are 401, all with the same
/// message; a revocation takes effect within 2 s.
#[test]
fn tokens_end() {
    on_fresh_servers_at_once(
        |driver| ServerOptions::new(driver).app("other", &[]),
        |server| {
            let (app, other, data) = (server.app(), server.named_app("other"), server.data.to_str().unwrap());
            let soon = rfc3339(SystemTime::now() + Duration::from_secs(4));
            let short = create_token(&server.data, app, &["--expires-at", &soon]);
            let revoked = create_token(&server.data, app, &[]);
            let foreign = create_token(&server.data, other, &[]);
            for (owner, made) in [(app, &short), (app, &revoked), (other, &foreign)] {
                await_token(&server, owner, &made.token);
            }
            cli::run(&["token", "revoke", &revoked.id, "--data", data]);
            eventually_within("the revoked token is refused", Duration::from_secs(2), || {
                (bearer(&server, app, &revoked.token, "/events").status == 401).then_some(())
            });
            eventually("the short token expires", || {
                (bearer(&server, app, &short.token, "/events").status == 401).then_some(())
            });
            let unknown = format!("rly_{}", "a".repeat(40));
            let texts: BTreeSet<String> = [&short.token, &revoked.token, &foreign.token, &unknown]
                .map(|token| bearer(&server, app, token, "/events").expect(401).text().to_owned())
                .into();
            assert_eq!(texts.len(), 1, "one answer for all: {texts:?}");
            for malformed in ["rly_", "rly_short", &format!("{unknown}a"), &unknown.to_uppercase()] {
                bearer(&server, app, malformed, "/events").expect(401);
            }
            bearer(&server, other, &foreign.token, "/events").expect(200);
        },
    );
}

/// R-TOKEN-4: `last_used_at` is null before the first use and set after it.
#[test]
fn last_use_is_recorded() {
    on_fresh_servers_at_once(ServerOptions::new, |server| {
        let (app, data) = (server.app(), server.data.to_str().unwrap());
        let made = create_token(&server.data, app, &[]);
        let last_used = || {
            let list = cli::run_json(&["token", "list", "--app", &app.id, "--data", data, "--json"]);
            list[0]["last_used_at"].clone()
        };
        assert_eq!(last_used(), Value::Null);
        await_token(&server, app, &made.token);
        eventually_within("last_used_at is written", Duration::from_secs(70), || last_used().is_string().then_some(()));
    });
}

/// P-STAT-6, threat T6: of 10,000 wrong tokens of one address 100, and one for each 600 ms, are 401, all others 429
/// with `Retry-After`; valid credentials of that address still pass, other addresses are not affected, and an unknown
/// token gets the same answer as any other failure.
#[test]
fn brute_force_is_braked() {
    on_fresh_servers(ServerOptions::new, |server| {
        let app = server.app();
        let path = app.path("/events");
        let mut statuses = Vec::new();
        let mut connection = connect_from(&server, "127.88.1.1");
        let start = std::time::Instant::now();
        for attempt in 0..10_000 {
            let token = format!("Bearer rly_{attempt:0>40}");
            let answer = connection.ask("POST", &path, &[("Authorization", &token)], BODY.as_bytes());
            if answer.status == 429 {
                let seconds: u32 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
                assert!((1..=60).contains(&seconds), "{seconds}");
            }
            statuses.push(answer.status);
        }
        assert!(statuses[..100].iter().all(|status| *status == 401), "{statuses:?}");
        let forgiven = start.elapsed().as_millis() as usize / 600 + 1;
        let unauthorized = statuses[100..].iter().filter(|status| **status == 401).count();
        assert!(statuses.iter().all(|status| matches!(status, 401 | 429)));
        assert!(unauthorized <= forgiven, "{unauthorized} beyond the first 100, {forgiven} forgiven");
        let signed = app.sign("POST", &path, BODY.as_bytes());
        connection.ask("POST", &signed, &[], BODY.as_bytes()).expect(200);
        // The limit may allow several more meanwhile.
        eventually("the brake is on", || {
            let another = format!("Bearer rly_{}", "z".repeat(40));
            let answer = connection.ask("POST", &path, &[("Authorization", &another)], b"{}");
            assert!(matches!(answer.status, 401 | 429), "{}", answer.text());
            (answer.status == 429).then_some(())
        });
        let mut elsewhere = connect_from(&server, "127.88.1.2");
        elsewhere.ask("POST", &path, &[("Authorization", "Bearer rly_x")], b"{}").expect(401);
    });
}

/// P-SIGN-6: the vector itself expired long ago: the server distinguishes its correct signature from a wrong one, which
/// shows that neither publishes.
#[test]
fn an_expired_vector_does_not_publish() {
    on_each_driver(|server| {
        let app = server.app();
        let mut signing = signing(app);
        signing.set("auth_timestamp", "1353088179");
        let answer = post(server, &signing.target(), BODY).expect(401);
        assert!(answer.text().contains("(2012-11-16T17:49:39Z) not within 600s of server time"), "{}", answer.text());
    });
}

fn signed_timestamp(target: &str) -> String {
    target.split("auth_timestamp=").nth(1).and_then(|rest| rest.split('&').next()).unwrap().to_owned()
}

fn signing(app: &App) -> Signing {
    Signing::new(app, "POST", &app.path("/events"), BODY.as_bytes())
}

#[track_caller]
fn post(server: &TestServer, target: &str, body: &str) -> Response {
    post_with(server, target, &[], body)
}

#[track_caller]
fn post_with(server: &TestServer, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
    // Each test function uses an address of its own, so that the rate limit on failures affects none.
    let name = std::thread::current().name().unwrap_or("main").to_owned();
    let sum = name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let source = format!("127.66.{}.{}", sum >> 8 & 0xFF, (sum & 0xFF).clamp(1, 254));
    post_from(server, &source, target, headers, body)
}

#[track_caller]
fn post_from(server: &TestServer, source: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
    connect_from(server, source).ask("POST", target, headers, body.as_bytes())
}

fn connect_from(server: &TestServer, source: &str) -> HttpConnection {
    HttpConnection::open_from(source.parse().unwrap(), server.address)
}

fn bearer(server: &TestServer, app: &App, token: &str, endpoint: &str) -> Response {
    let batch = r#"{"batch":[{"name":"e","channel":"auth","data":"x"}]}"#;
    let body = if endpoint == "/events" { BODY } else { batch };
    let header = [("Authorization", format!("Bearer {token}"))];
    let header: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    post_with(server, &app.path(endpoint), &header, body)
}

fn await_token(server: &TestServer, app: &App, token: &str) {
    eventually("the token is known", || (bearer(server, app, token, "/events").status == 200).then_some(()));
}

/// RFC 3339 in UTC, by `date`, which shares no code with the server.
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let output = std::process::Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%FT%TZ"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}
