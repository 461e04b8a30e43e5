//! The auth endpoints with an authorizer: what the backend receives, when Relay signs, and what it withstands
//! (R-AUTHEP-3, R-AUTHEP-5, R-AUTHEP-7 to R-AUTHEP-11; threats T34, T36 to T40).

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::http::{self, HttpConnection, Response};
use crate::common::receiver::read_request;
use crate::common::rig::{on_fresh_servers, on_fresh_servers_at_once};
use crate::common::server::{Driver, ServerOptions, TestServer};
use crate::common::sign::unix_now;
use crate::common::socket::Socket;
use crate::common::{cli, eventually, unique};

/// One request that the backend received.
#[derive(Clone, Debug)]
struct Seen {
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present == name).map(|(_, value)| &**value)
    }
}

/// The backend of a customer: answers each request with the bytes that its closure returns, on a thread of its own.
struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

type Answer = dyn Fn(&Seen, &mut TcpStream) + Send + Sync;

impl Backend {
    fn start(answer: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Self {
        Self::streaming(move |seen, stream| {
            let _ = stream.write_all(answer(seen).as_bytes());
        })
    }

    fn streaming(answer: impl Fn(&Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let backend = Self { address, seen: Arc::clone(&seen), connections: Arc::clone(&connections) };
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some((headers, body)) = read_request(&mut reader) {
                        let request = Seen { headers, body };
                        seen.lock().expect("no holder panics").push(request.clone());
                        answer(&request, reader.get_mut());
                    }
                });
            }
        });
        backend
    }

    /// A setting with its URL.
    fn setting(&self, name: &str) -> &'static str {
        Box::leak(format!("{name}=http://{}/relay/auth", self.address).into_boxed_str())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no holder panics").clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("no holder panics").len()
    }
}

fn ok(body: &str) -> String {
    answer(200, "application/json", body)
}

fn answer(status: u16, content_type: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Some\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const PRIVATE: &str = "authorizer_allow_private=true";

fn options(driver: Driver, settings: &[&'static str]) -> ServerOptions {
    let apps = vec![("main", settings.to_vec())];
    ServerOptions { apps, ..ServerOptions::new(driver) }.app("other", &["client_events=true"])
}

/// What a page sends.
fn ask(server: &TestServer, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let headers: Vec<_> = form.iter().chain(headers).copied().collect();
    http::ask(server.address, "POST", path, &headers, body.as_bytes())
}

fn ask_for(server: &TestServer, socket_id: &str, channel: &str) -> Response {
    ask(server, &server.app().relay_path("/auth"), &[], &format!("socket_id={socket_id}&channel_name={channel}"))
}

/// R-AUTHEP-3, R-AUTHEP-5, R-AUTHEP-7, threats T35, T37, T40: the backend receives a new form and the caller's session,
/// nothing of Relay's; a subscription with the answer succeeds, under every path.
#[test]
fn the_backend_decides() {
    let backend = Backend::start(|seen| match seen.body.contains("presence") {
        true => ok(r#"{"auth":"forged:signature","channel_data":"{\"user_id\":\"7\"}"}"#),
        false => ok(r#"{"auth":"forged:signature"}"#),
    });
    on_fresh_servers(
        |driver| {
            let origins = "allowed_origins=app.localhost,app.test";
            options(driver, &[PRIVATE, backend.setting("authorizer_url"), origins])
        },
        |server| {
            let app = server.app();
            let mut socket =
                Socket::upgrade_with(&server, app, &format!("/app/{}", app.key), &[("Origin", "http://app.localhost")])
                    .0;
            socket.established();
            let key = format!("?key={}", app.key);
            let paths = [
                app.path("/auth"),
                app.relay_path("/auth"),
                format!("/broadcasting/auth{key}"),
                format!("/pusher/auth{key}"),
            ];
            for path in &paths {
                let (private, presence) = (unique("private-a"), unique("presence-a"));
                let before = backend.count();
                let headers = [
                    ("Cookie", "laravel_session=abc; relay_session=secret; XSRF-TOKEN=x"),
                    ("X-CSRF-Token", "csrf"),
                    ("X-XSRF-TOKEN", "xsrf"),
                    ("Authorization", "Bearer eyJ.user"),
                    ("Origin", "http://app.localhost:8000"),
                    ("X-Custom", "1"),
                    ("Referer", "http://app.localhost:8000/page"),
                ];
                let body = format!("channel_name={private}&socket_id={}&extra=1", socket.socket_id);
                let found = ask(&server, path, &headers, &body).expect(200);
                assert_eq!(found.header("access-control-allow-origin"), Some("http://app.localhost:8000"));
                assert_eq!(found.header("access-control-allow-credentials"), Some("true"));
                assert_eq!(found.header("cache-control"), Some("no-store"));
                let auth = app.sign_private(&socket.socket_id, &private);
                assert_eq!(found.json(), json!({"auth": auth}));
                let seen = &backend.seen()[before];
                let encoded = private.replace('-', "%2D");
                assert_eq!(seen.body, format!("socket_id={}&channel_name={encoded}", socket.socket_id));
                for (name, value) in [
                    ("cookie", Some("laravel_session=abc; XSRF-TOKEN=x")),
                    ("x-csrf-token", Some("csrf")),
                    ("x-xsrf-token", Some("xsrf")),
                    ("authorization", Some("Bearer eyJ.user")),
                    ("origin", Some("http://app.localhost:8000")),
                    ("content-type", Some("application/x-www-form-urlencoded")),
                    ("accept", Some("application/json")),
                    ("x-requested-with", Some("XMLHttpRequest")),
                    ("x-relay-authorizer", Some("1")),
                    ("x-custom", None),
                    ("referer", None),
                ] {
                    assert_eq!(seen.header(name), value, "{name}");
                }
                socket.send_json(&json!({"event": "pusher:subscribe", "data": {"channel": private, "auth": auth}}));
                socket.expect_event("pusher_internal:subscription_succeeded");
                let body = json!({"socket_id": socket.socket_id, "channel_name": presence}).to_string();
                let found =
                    http::ask(server.address, "POST", path, &[("Content-Type", "application/json")], body.as_bytes());
                let data = r#"{"user_id":"7"}"#;
                let auth = app.sign_presence(&socket.socket_id, &presence, data);
                assert_eq!(found.expect(200).json(), json!({"auth": auth, "channel_data": data}));
                let insecure = ask(
                    &server,
                    path,
                    &[("Origin", "http://app.test")],
                    &format!("socket_id={}&channel_name={private}", socket.socket_id),
                );
                assert_eq!(insecure.expect(200).header("access-control-allow-credentials"), None, "threat T40");
                let before = backend.count();
                ask(&server, path, &[("Origin", "http://evil.test")], "socket_id=1.1&channel_name=private-a")
                    .expect(403);
                assert_eq!(backend.count(), before);
                let preflight =
                    http::ask(server.address, "OPTIONS", path, &[("Origin", "https://app.test")], b"").expect(204);
                assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"));
            }
            ask(&server, "/pusher/auth", &[], "socket_id=1.1&channel_name=private-a").expect(404);
            ask(&server, "/pusher/auth?key=none", &[], "socket_id=1.1&channel_name=private-a").expect(404);
            ask(&server, &format!("/pusher/user-auth{key}"), &[], "socket_id=1.1").expect(404);
            ask(&server, &app.path("/user-auth"), &[], "socket_id=1.1").expect(401);
        },
    );
}

/// R-AUTHEP-2, threats T35, T37: a request with a credential of Relay, valid or not, never reaches the authorizer; the
/// browser cannot send the data of a member.
#[test]
fn credentials_never_reach_the_backend() {
    let backend = Backend::start(|_| ok("{}"));
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            let before = backend.count();
            let socket = Socket::open(&server, server.app());
            let path = server.app().relay_path("/auth");
            let body = format!("socket_id={}&channel_name=private-a", socket.socket_id);
            for headers in [
                vec![("Authorization", "Bearer rly_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")],
                vec![("Authorization", "bearer   rly_x")],
                vec![("X-Relay-Key", "x")],
                vec![("X-Relay-Key", &*server.app().key), ("X-Relay-Secret", "wrong")],
                vec![("Authorization", "Basic a"), ("Authorization", "Basic b")],
            ] {
                ask(&server, &path, &headers, &body).expect(401);
            }
            ask(&server, &format!("{path}?auth_key=x&auth_signature=y"), &[], &body).expect(401);
            ask(&server, &path, &[], &format!("{body}&channel_data=%7B%22user_id%22%3A1%7D")).expect(400);
            assert_eq!(backend.count(), before);
            let upper = [("Authorization", "BEARER RLY_AAAA")];
            ask(&server, &path, &upper, &body).expect(200);
            assert_eq!(backend.seen()[before].header("authorization"), None, "threat T37");
        },
    );
}

/// R-AUTHEP-8, threat T34: only for a socket that is open on the app; otherwise the backend is not asked.
#[test]
fn the_socket_must_be_open() {
    let backend = Backend::start(|_| ok("{}"));
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            let closed = Socket::open(&server, server.app());
            let closed_id = closed.socket_id.clone();
            closed.leave();
            eventually("the socket is closed", || {
                (ask_for(&server, &closed_id, "private-a").status == 403).then_some(())
            });
            let before = backend.count();
            let foreign = Socket::open(&server, server.named_app("other"));
            for socket_id in [&*foreign.socket_id, &closed_id, "1.1", "0.7", "4294967296.4294967295", "123456.654321"] {
                let found = ask_for(&server, socket_id, "private-a").expect(403).json();
                assert!(found["message"].as_str().unwrap().contains("socket_id"), "{found}");
            }
            let stream = |unix_s: u64| format!("0.{unix_s}123456");
            for unix_s in [unix_now() - 620, unix_now() + 620, unix_now() - 24 * 3_600] {
                ask_for(&server, &stream(unix_s), "private-a").expect(403);
            }
            // R-SSE-5: of a stream whose time is near, and for private channels alone.
            ask_for(&server, &stream(unix_now()), "presence-a").expect(403);
            assert_eq!(backend.count(), before);
            let auth = ask_for(&server, &stream(unix_now()), "private-a").expect(200).json()["auth"].clone();
            assert!(auth.is_string() && backend.count() == before + 1, "{auth}");
            // Both shards: several sockets, each known wherever the request arrives.
            let sockets: Vec<Socket> = (0..8).map(|_| Socket::open(&server, server.app())).collect();
            for socket in &sockets {
                ask_for(&server, &socket.socket_id, "private-a").expect(200);
            }
        },
    );
}

/// R-AUTHEP-8, threat T34: a socket that is closed while the backend decides is not signed for.
#[test]
fn a_socket_closed_meanwhile_gets_nothing() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let backend = Backend::start(move |_| {
        let (open, changed) = &*opened;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        ok("{}")
    });
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            *gate.0.lock().unwrap() = false;
            let before = backend.count();
            let socket = Socket::open(&server, server.app());
            let body = format!("socket_id={}&channel_name=private-a", socket.socket_id);
            let mut caller = HttpConnection::open(server.address);
            caller.send(
                "POST",
                &server.app().relay_path("/auth"),
                &[("Content-Type", "application/x-www-form-urlencoded")],
                body.as_bytes(),
            );
            eventually("the backend is asked", || (backend.count() > before).then_some(()));
            let id = socket.socket_id.clone();
            socket.leave();
            // A request for the closed socket is refused at once, so the shard knows.
            eventually("the shard knows", || (ask_for(&server, &id, "private-b").status == 403).then_some(()));
            *gate.0.lock().unwrap() = true;
            gate.1.notify_all();
            caller.read().expect(403);
        },
    );
}

/// R-AUTHEP-3, threats T36, T37, T38: an answer that is not an unmistakable yes signs nothing; every failure reads the
/// same, and a redirect carries no cookie anywhere.
#[test]
fn only_an_unmistakable_yes_signs() {
    let elsewhere = Backend::start(|_| ok("{}"));
    let to = format!("http://{}/login", elsewhere.address);
    let next = Arc::new(Mutex::new(String::new()));
    let current = Arc::clone(&next);
    let backend = Backend::streaming(move |_, stream| {
        let bytes = current.lock().unwrap().clone();
        let _ = match &*bytes {
            "drip" => (0..100).try_for_each(|_| {
                std::thread::sleep(Duration::from_millis(100));
                stream.write_all(b" ")
            }),
            "huge" => {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{\"a\":\"";
                stream
                    .write_all(head.as_bytes())
                    .and_then(|()| (0..100_000).try_for_each(|_| stream.write_all(&[b'x'; 10_000])))
            }
            // It is closed after each answer and says so, or the next request could be sent on it.
            bytes => stream.write_all(bytes.replacen("\r\nContent", "\r\nConnection: close\r\nContent", 1).as_bytes()),
        };
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            let mut texts = Vec::new();
            let json = "application/json";
            for (bytes, status) in [
                (answer(200, "text/html", "<html>{}</html>"), 502),
                (answer(200, "text/html", "{}"), 502),
                (answer(200, json, ""), 502),
                (answer(200, json, "null"), 502),
                (answer(200, json, "[]"), 502),
                (answer(200, json, "\"ok\""), 502),
                (redirect, 502),
                (answer(200, json, r#"{"authorized":false}"#), 403),
                (answer(200, json, r#"{"error":"no"}"#), 403),
                (answer(403, json, "{}"), 403),
                (answer(419, "text/html", "expired"), 403),
                (answer(500, "text/html", "stack trace"), 502),
                ("nonsense\r\n\r\n".to_owned(), 502),
                (String::new(), 502),
                ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_owned(), 502),
                ("huge".to_owned(), 502),
                ("drip".to_owned(), 502),
                (answer(200, json, r#"{"authorized":true}"#), 200),
            ] {
                *next.lock().unwrap() = bytes.clone();
                let socket = Socket::open(&server, server.app());
                let body = format!("socket_id={}&channel_name=private-a", socket.socket_id);
                let found = ask(&server, &server.app().relay_path("/auth"), &[("Cookie", "session=1")], &body);
                assert_eq!(found.status, status, "{bytes:.80}: {}", found.text());
                if status == 502 {
                    texts.push(found.text().to_owned());
                    // A refusal in between: the authorizer is left alone only after ten failures in a row.
                    *next.lock().unwrap() = answer(403, json, "{}");
                    ask(&server, &server.app().relay_path("/auth"), &[], &body).expect(403);
                }
            }
            assert_eq!(elsewhere.count(), 0, "a redirect was followed");
            texts.dedup();
            assert_eq!(texts.len(), 1, "{texts:?}");
            assert!(server.log().contains("the authorizer of this app gave no valid answer"), "{}", server.log());
            assert!(!server.log().contains("session=1"));
        },
    );
}

/// R-AUTHEP-3, threat T38: an authorizer on an internal address is not connected to, unless the operator permits it.
#[test]
fn internal_addresses_are_not_reached() {
    let backend = Backend::start(|_| ok("{}"));
    let url: &'static str =
        Box::leak(format!("authorizer_url=https://localhost:{}/", backend.address.port()).into_boxed_str());
    on_fresh_servers(
        |driver| options(driver, &[url]),
        |server| {
            let socket = Socket::open(&server, server.app());
            let found = ask_for(&server, &socket.socket_id, "private-a").expect(502);
            assert!(!found.text().contains("address"), "{}", found.text());
            assert_eq!(backend.connections.load(Ordering::SeqCst), 0);
            eventually("the operator reads why", || server.log().contains("is not a public address").then_some(()));
            let refused = cli::run(&[
                "app",
                "set",
                &server.app().id,
                "authorizer_url=http://127.0.0.1:1/",
                "--data",
                server.data.to_str().unwrap(),
            ]);
            let text = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success() && text.contains("--allow-private"), "{text}");
        },
    );
}

/// R-AUTHEP-11, threat T39: an authorizer that is Relay itself ends after one hop.
#[test]
fn loops_end_after_one_hop() {
    on_fresh_servers(
        |driver| options(driver, &[]),
        |server| {
            let app = server.app();
            let url = format!("authorizer_url=http://{}{}", server.address, app.relay_path("/auth"));
            cli::set_app(&server.data, app, &[PRIVATE, &url]);
            let socket = Socket::open(&server, app);
            eventually("the setting is in effect", || {
                (ask_for(&server, &socket.socket_id, "private-a").status == 502).then_some(())
            });
            let marked = ask(
                &server,
                &app.relay_path("/auth"),
                &[("X-Relay-Authorizer", "1")],
                "socket_id=1.1&channel_name=private-a",
            );
            marked.expect(508);
            eventually("the operator reads why", || server.log().contains("it answered 508").then_some(()));
        },
    );
}

/// R-AUTHEP-10: a list asks the backend once per channel, and each gets its own answer.
#[test]
fn lists_are_judged_one_by_one() {
    let backend = Backend::start(|seen| match &seen.body {
        body if body.contains("presence") => ok(r#"{"channel_data":{"user_id":"7"}}"#),
        body if body.contains("no") => answer(403, "text/plain", "no"),
        body if body.contains("broken") => answer(500, "text/plain", "x"),
        _ => ok("{}"),
    });
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            let before = backend.count();
            let socket = Socket::open(&server, server.app());
            let names = ["private-a", "private-no", "private-broken", "presence-a", "public"];
            let body = json!({"socket_id": socket.socket_id, "channels": names}).to_string();
            let found = http::ask(
                server.address,
                "POST",
                &server.app().path("/auth"),
                &[("Content-Type", "application/json")],
                body.as_bytes(),
            );
            let found = found.expect(200).json();
            let channels = &found["channels"];
            assert_eq!(channels["private-a"]["auth"], server.app().sign_private(&socket.socket_id, "private-a"));
            let data = r#"{"user_id":"7"}"#;
            assert_eq!(
                channels["presence-a"]["auth"],
                server.app().sign_presence(&socket.socket_id, "presence-a", data)
            );
            for (name, status) in [("private-no", 403), ("private-broken", 502), ("public", 400)] {
                assert_eq!(channels[name]["status"], status, "{found}");
            }
            assert_eq!(backend.count() - before, 4);
        },
    );
}

/// R-AUTHEP-9: the backend of `user_authorizer_url` says who the user is.
#[test]
fn the_backend_names_the_user() {
    let backend = Backend::start(|_| ok(r#"{"user_data":"{\"id\":\"7\"}"}"#));
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("user_authorizer_url")]),
        |server| {
            let app = server.app();
            let mut socket = Socket::open(&server, app);
            let path = format!("/pusher/user-auth?key={}", app.key);
            let body = format!("socket_id={}", socket.socket_id);
            let found = ask(&server, &path, &[], &body).expect(200).json();
            socket.send_json(&json!({"event": "pusher:signin", "data": found}));
            socket.expect_event("pusher:signin_success");
            ask(&server, &path, &[], &format!("{body}&user_data=%7B%22id%22%3A%228%22%7D")).expect(400);
            ask(&server, &app.path("/auth"), &[], &format!("{body}&channel_name=private-a")).expect(401);
        },
    );
}

/// R-AUTHEP-8, threat T39: one socket may have 200 channels judged at once, the next is 429 with `Retry-After`.
#[test]
fn one_socket_has_a_rate() {
    let backend = Backend::start(|_| ok("{}"));
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            let socket = Socket::open(&server, server.app());
            let list = |from: usize, count: usize| {
                let names: Vec<String> = (from..from + count).map(|number| format!("private-{number}")).collect();
                let body = json!({"socket_id": socket.socket_id, "channels": names}).to_string();
                http::ask(
                    server.address,
                    "POST",
                    &server.app().path("/auth"),
                    &[("Content-Type", "application/json")],
                    body.as_bytes(),
                )
            };
            list(0, 100).expect(200);
            list(100, 100).expect(200);
            let refused = list(200, 100).expect(429);
            let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=10).contains(&seconds), "{seconds}");
            let other = Socket::open(&server, server.app());
            ask_for(&server, &other.socket_id, "private-a").expect(200);
        },
    );
}

/// R-AUTHEP-11, threat T39: the backend sees at most `max_authorizer_requests` at once, all callers are answered, and
/// publishes are served meanwhile.
#[test]
fn requests_in_flight_are_bounded() {
    let (current, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&current), Arc::clone(&peak));
    let backend = Backend::start(move |_| {
        let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        counted.fetch_sub(1, Ordering::SeqCst);
        ok("{}")
    });
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url"), "max_authorizer_requests=8"]),
        |server| {
            peak.store(0, Ordering::SeqCst);
            let socket = Socket::open(&server, server.app());
            let mut callers: Vec<HttpConnection> = (0..100).map(|_| HttpConnection::open(server.address)).collect();
            let body = format!("socket_id={}&channel_name=private-a", socket.socket_id);
            for caller in &mut callers {
                caller.send(
                    "POST",
                    &server.app().relay_path("/auth"),
                    &[("Content-Type", "application/x-www-form-urlencoded")],
                    body.as_bytes(),
                );
            }
            server.publish(server.app(), "public", "e", "x");
            for caller in &mut callers {
                caller.read().expect(200);
            }
            let peak = peak.load(Ordering::SeqCst);
            assert!((2..=8).contains(&peak), "{peak} at once");
        },
    );
}

/// R-AUTHEP-3, R-AUTHEP-11: a backend that hangs costs a caller 5 s: those in flight get 502, those that wait 503 with
/// `Retry-After`; then it is left alone, and another app is served all the time.
#[test]
fn hanging_backends_cost_five_seconds() {
    let hanging = Backend::streaming(|_, stream| {
        let mut end = [0];
        let _ = std::io::Read::read(stream, &mut end);
    });
    let working = Backend::start(|_| ok("{}"));
    on_fresh_servers_at_once(
        |driver| {
            let apps = vec![
                ("main", vec![PRIVATE, hanging.setting("authorizer_url"), "max_authorizer_requests=4"]),
                ("quick", vec![PRIVATE, working.setting("authorizer_url")]),
            ];
            ServerOptions { apps, ..ServerOptions::new(driver) }
        },
        |server| {
            let socket = Socket::open(&server, server.app());
            let quick = Socket::open(&server, server.named_app("quick"));
            let body = format!("socket_id={}&channel_name=private-a", socket.socket_id);
            let started = Instant::now();
            let mut callers: Vec<HttpConnection> = (0..20).map(|_| HttpConnection::open(server.address)).collect();
            for caller in &mut callers {
                caller.send(
                    "POST",
                    &server.app().relay_path("/auth"),
                    &[("Content-Type", "application/x-www-form-urlencoded")],
                    body.as_bytes(),
                );
            }
            let path = server.named_app("quick").relay_path("/auth");
            ask(&server, &path, &[], &format!("socket_id={}&channel_name=private-a", quick.socket_id)).expect(200);
            assert!(started.elapsed() < Duration::from_secs(4), "another app waited");
            let answers: Vec<Response> = callers.iter_mut().map(HttpConnection::read).collect();
            let took = started.elapsed();
            assert!(took >= Duration::from_millis(4_900) && took < Duration::from_secs(20), "{took:?}");
            let of = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
            assert_eq!((of(502), of(503)), (4, 16));
            let waiting = answers.iter().find(|answer| answer.status == 503).unwrap();
            assert!(waiting.header("retry-after").is_some());
        },
    );
}

/// R-AUTHEP-11: after ten failures in a row the authorizer is left alone for a while, without a request to it.
#[test]
fn failing_backends_are_left_alone() {
    let backend = Backend::start(|_| answer(500, "text/plain", "x"));
    on_fresh_servers(
        |driver| options(driver, &[PRIVATE, backend.setting("authorizer_url")]),
        |server| {
            let before = backend.count();
            let socket = Socket::open(&server, server.app());
            for _ in 0..10 {
                ask_for(&server, &socket.socket_id, "private-a").expect(502);
            }
            let refused = ask_for(&server, &socket.socket_id, "private-a").expect(503);
            assert!(refused.header("retry-after").is_some());
            assert_eq!(backend.count() - before, 10);
            let metrics = http::get(server.health, "/metrics").expect(200);
            for line in [
                "relay_authorizer_questions_total{result=\"failed\"} 10",
                "relay_authorizer_questions_total{result=\"busy\"} 1",
            ] {
                assert!(metrics.text().contains(line), "{line}");
            }
        },
    );
}
