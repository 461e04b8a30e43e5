//! HTTP/1.1 of the API: status codes, keep-alive, routes, health (sections 7 and 10 of the Pusher protocol).

use serde_json::json;

use crate::common::http::{self, HttpConnection, encode_request};
use crate::common::rig::on_fresh_servers_at_once;
use crate::common::server::{ServerOptions, TestServer};
use crate::common::socket::Socket;
use crate::common::unique;
use crate::stage::on_each_driver;

/// P-STAT-4, R-AUTH-5, R-ERR-2: an unknown app is 404 before any credential is checked; unknown paths are 404.
#[test]
fn unknown_apps_and_paths_are_404() {
    on_each_driver(|server| {
        let app = server.app();
        for target in
            ["/apps/999999/events", "/api/v1/apps/999999/events", "/apps//events", "/nothing", "/apps", "/api/v1"]
        {
            http::ask(server.address, "POST", target, &[], b"{}").expect(404);
        }
        for target in [app.path("/nothing"), app.relay_path("/nothing"), app.path(""), app.path("/events/more")] {
            http::ask(server.address, "POST", &target, &[], b"{}").expect(404);
        }
        http::ask(server.address, "GET", &app.path("/events"), &[], b"").expect(405);
    });
}

/// R-ERR-1, P-STAT-7, P-SDK-16: errors under `/apps` are one line of text, under `/api/v1` JSON with a code and a message.
#[test]
fn errors_read_as_their_base_says() {
    on_each_driver(|server| {
        let app = server.app();
        let empty = json!({}).to_string();
        let large = json!({"name": "e", "channel": "c", "data": "d".repeat(10_241)}).to_string();
        let cases = [
            ("/events", empty.as_str(), true, 400, "bad_request"),
            ("/events", large.as_str(), true, 413, "too_large"),
            ("/events", "{}", false, 401, "unauthorized"),
            ("/nothing", "{}", false, 404, "not_found"),
        ];
        for (path, body, signed, status, code) in cases {
            let ask = |path: String| {
                let target = if signed { app.sign("POST", &path, body.as_bytes()) } else { path };
                http::ask(server.address, "POST", &target, &[], body.as_bytes()).expect(status)
            };
            let text = ask(app.path(path));
            assert!(text.header("content-type").unwrap().starts_with("text/plain"), "{:?}", text.headers);
            assert!(!text.text().contains('\n') && text.text().len() > 3, "{:?}", text.text());
            let relay = ask(app.relay_path(path));
            assert!(relay.header("content-type").unwrap().starts_with("application/json"), "{:?}", relay.headers);
            let members = relay.json();
            assert_eq!(members["error"], code, "{members}");
            assert!(!members["message"].as_str().unwrap().is_empty(), "{members}");
            assert_eq!(members.as_object().unwrap().len(), 2, "{members}");
        }
    });
}

/// P-HTTP-16, P-HTTP-15: every status keeps the connection alive after a complete request; pipelined requests are
/// answered in order.
#[test]
fn every_status_keeps_the_connection() {
    on_each_driver(|server| {
        let app = server.app();
        let mut connection = HttpConnection::open(server.address);
        let valid = json!({"name": "e", "channel": "c", "data": "x"}).to_string();
        let large = json!({"name": "e", "channel": "c", "data": "d".repeat(10_241)}).to_string();
        let mut requests = Vec::new();
        let mut statuses = Vec::new();
        for _ in 0..3 {
            for (target, body, status) in [
                (app.sign("POST", &app.path("/events"), valid.as_bytes()), valid.as_str(), 200),
                (app.path("/events"), "{}", 401),
                ("/apps/999999/events".to_owned(), "{}", 404),
                (app.sign("POST", &app.path("/events"), b"{}"), "{}", 400),
                (app.sign("POST", &app.path("/events"), large.as_bytes()), large.as_str(), 413),
            ] {
                connection.ask("POST", &target, &[], body.as_bytes()).expect(status);
                requests.extend(encode_request("POST", &target, &[], body.as_bytes()));
                statuses.push(status);
            }
            connection.ask("GET", "/up", &[], b"").expect(200);
        }
        connection.write(&requests).unwrap();
        for status in statuses {
            connection.read().expect(status);
        }
        connection.send("GET", "/up", &[("Connection", "close")], b"");
        connection.read().expect(200);
        connection.expect_end();
    });
}

/// P-HTTP-19: every probe of a load balancer gets 200, in HTTP/1.0 too, and the connection is kept or closed as usual.
#[test]
fn every_probe_is_answered() {
    on_each_driver(|server| {
        let up = format!("/up/{}", server.app().id);
        let paths = ["/", "/up", "/health", "/healthz", "/ready", "/readyz", "/accept-traffic", &up];
        for path in paths {
            let mut connection = HttpConnection::open(server.address);
            let get = connection.ask("GET", path, &[], b"").expect(200);
            let options = connection.ask("OPTIONS", path, &[], b"").expect(200);
            assert_eq!(
                (options.text(), options.header("content-type")),
                (get.text(), get.header("content-type")),
                "{path}"
            );
            connection.ask("POST", path, &[], b"{}").expect(405);
            for method in ["GET", "HEAD", "OPTIONS"] {
                let mut connection = HttpConnection::open(server.address);
                connection.write(format!("{method} {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
                let head = connection.try_read_head().unwrap().expect(200);
                assert_eq!(head.header("content-length"), Some("3"), "{method} {path}");
            }
        }
        for request in ["OPTIONS * HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let mut connection = HttpConnection::open(server.address);
            connection.write(request.as_bytes()).unwrap();
            connection.read().expect(200);
        }
    });
}

/// P-HTTP-20: an idle connection is kept for the time that the operator sets, measured from its last request, not from
/// its first.
#[test]
fn keep_alive_is_a_setting() {
    let options = |driver| ServerOptions::new(driver).with(&["--http-keep-alive", "5"]);
    on_fresh_servers_at_once(options, |server| {
        let mut connection = HttpConnection::open(server.address);
        connection.ask("GET", "/up", &[], b"").expect(200);
        let since = std::time::Instant::now();
        connection.expect_end();
        let kept = since.elapsed().as_secs_f64();
        assert!((4.9..20.0).contains(&kept), "kept for {kept} s");
    });
}

/// P-HTTP-18: a compressed body is 415, whatever its signature covers; a body without coding is accepted, and so is one
/// with a byte order mark.
#[test]
fn codings_of_bodies() {
    on_each_driver(|server| {
        let app = server.app();
        let body = json!({"name": "e", "channel": "c", "data": "x"}).to_string();
        let target = app.sign("POST", &app.path("/events"), body.as_bytes());
        for coding in ["gzip", "deflate", "br", "GZIP", "identity, gzip"] {
            let headers = [("Content-Encoding", coding)];
            let answer = http::ask(server.address, "POST", &target, &headers, b"\x1f\x8b\x08\x00").expect(415);
            assert!(answer.text().contains("Content-Encoding"), "{}", answer.text());
        }
        for coding in ["identity", "Identity", ""] {
            let headers = [("Content-Encoding", coding)];
            http::ask(server.address, "POST", &target, &headers, body.as_bytes()).expect(200);
        }
        let marked = format!("\u{feff}{body}");
        server.post_signed(app, &app.path("/events"), marked.as_bytes()).expect(200);
        let batch = format!("\u{feff}{{\"batch\":[{body}]}}");
        server.post_signed(app, &app.path("/batch_events"), batch.as_bytes()).expect(200);
    });
}

/// P-HTTP-18, P-AUTH-2: a byte order mark before a message, and before the JSON that is signed.
#[test]
fn byte_order_marks_in_messages() {
    on_each_driver(|server| {
        let mut socket = Socket::open(server, server.app());
        socket.send("\u{feff}{\"event\":\"pusher:ping\",\"data\":{}}");
        assert_eq!(socket.next_json()["event"], "pusher:pong");
        let roster = socket.join(&unique("presence-mark"), "\u{feff}{\"user_id\":\"7\"}");
        assert_eq!(roster["ids"], json!(["7"]));
        socket.send_signin("\u{feff}{\"id\":\"7\"}");
        assert_eq!(socket.next_json()["event"], "pusher:signin_success");
    });
}

/// P-LIM-11, P-STAT-5: a body of 1 MiB is read and checked, one byte more is 413; a query of 8 KiB is read, one byte
/// more is 400; a head beyond 16 KiB or 64 headers is 431.
#[test]
fn http_limits() {
    on_each_driver(|server| {
        let app = server.app();
        let mebibyte = 1024 * 1024;
        let body_of = |bytes: usize| {
            let start = r#"{"name":"e","channel":"c","data":"x","pad":""#;
            format!("{start}{}\"}}", "p".repeat(bytes - start.len() - 2))
        };
        for (bytes, status) in [(mebibyte - 1, 200), (mebibyte, 200)] {
            server.post_signed(app, &app.path("/events"), body_of(bytes).as_bytes()).expect(status);
        }
        let mut connection = HttpConnection::open(server.address);
        let head =
            format!("POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", app.path("/events"), mebibyte + 1);
        connection.write(head.as_bytes()).unwrap();
        connection.read().expect(413);

        let padded = |bytes: usize| format!("/up?{}", "q".repeat(bytes));
        http::get(server.address, &padded(8 * 1024 - 1)).expect(200);
        http::get(server.address, &padded(8 * 1024)).expect(200);
        http::get(server.address, &padded(8 * 1024 + 1)).expect(400);

        let many = |count: usize| (0..count).map(|index| format!("X-H{index}: v\r\n")).collect::<String>();
        let ask = |headers: &str| {
            let mut connection = HttpConnection::open(server.address);
            connection.write(format!("GET /up HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes()).unwrap();
            connection.read().status
        };
        assert_eq!((ask(&many(62)), ask(&many(63)), ask(&many(64))), (200, 200, 431));
        // 4 bytes end the head, 33 precede the header's value, 2 follow it.
        let fixed = "GET /up HTTP/1.1\r\nHost: h\r\nX-Pad: \r\n\r\n".len();
        let long = |bytes: usize| format!("X-Pad: {}\r\n", "p".repeat(bytes - fixed));
        assert_eq!((ask(&long(16 * 1024 - 1)), ask(&long(16 * 1024)), ask(&long(16 * 1024 + 1))), (200, 200, 431));
    });
}

/// P-FALL-1: fallback transports and statistics are 404 at once, with CORS; OPTIONS is 204.
#[test]
fn fallback_transports_are_refused_with_cors() {
    on_each_driver(|server| {
        for target in ["/pusher/app/app-key/123/abcdefgh/xhr_streaming?protocol=7&n=1", "/timeline/v2/jsonp/1?a=b"] {
            for method in ["POST", "GET"] {
                let answer =
                    http::ask(server.address, method, target, &[("Origin", "https://example.com")], b"").expect(404);
                assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            }
            let answer =
                http::ask(server.address, "OPTIONS", target, &[("Origin", "https://example.com")], b"").expect(204);
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            let methods = answer.header("access-control-allow-methods").unwrap();
            assert!(methods.contains("POST") && methods.contains("GET"), "{methods}");
            let headers = answer.header("access-control-allow-headers").unwrap().to_lowercase();
            assert!(headers.contains("content-type"), "{headers}");
        }
    });
}

/// R-BASE-3: health answers on both ports; `/up/{appId}` reports on the app.
#[test]
fn health_routes() {
    on_each_driver(|server| {
        for address in [server.address, server.health] {
            for path in ["/", "/up", "/health", "/healthz", "/ready", "/readyz"] {
                http::get(address, path).expect(200);
                let mut connection = HttpConnection::open(address);
                connection
                    .write(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
                    .unwrap();
                assert_eq!(connection.try_read_head().unwrap().status, 200);
                connection.expect_end();
            }
        }
        http::get(server.address, &format!("/up/{}", server.app().id)).expect(200);
        http::get(server.address, "/up/999999").expect(404);
        http::get(server.health, "/nothing").expect(404);
    });
}

/// R-BASE-3: the health port has no apps: no sockets, no API.
#[test]
fn health_port_serves_no_app() {
    on_each_driver(|server| {
        let app = server.app();
        let body = json!({"name": "e", "channel": "c", "data": "x"}).to_string();
        let target = app.sign("POST", &app.path("/events"), body.as_bytes());
        http::ask(server.health, "POST", &target, &[], body.as_bytes()).expect(404);
        let mut connection = HttpConnection::open(server.health);
        connection.write(crate::common::wire::upgrade_request(&format!("/app/{}", app.key)).as_bytes()).unwrap();
        assert_ne!(connection.try_read_head().unwrap().status, 101);
    });
}

/// P-CONN-1, R-BASE-3: a plain GET of the socket's path is 426, and one port serves sockets and API at once.
#[test]
fn plain_get_of_the_socket_path_is_426() {
    on_each_driver(|server: &TestServer| {
        http::get(server.address, &format!("/app/{}", server.app().key)).expect(426);
        let mut socket = Socket::open(server, server.app());
        socket.subscribe("c-426");
        server.publish(server.app(), "c-426", "e", "x");
        socket.expect_data("e", "c-426", "x");
    });
}

/// P-HTTP-1, P-HTTP-16: chunked bodies are treated like those with a length; `Expect: 100-continue` is answered.
#[test]
fn chunked_bodies_and_expect_continue() {
    on_each_driver(|server| {
        let app = server.app();
        let body = json!({"name": "e", "channel": "chunked", "data": "x"}).to_string();
        let target = app.sign("POST", &app.path("/events"), body.as_bytes());
        let mut socket = Socket::open(server, app);
        socket.subscribe("chunked");
        let mut connection = HttpConnection::open(server.address);
        let (first, second) = body.split_at(7);
        let chunked = format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:X};ext=1\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        );
        for piece in [chunked.as_bytes().to_vec()].into_iter().chain(chunked.as_bytes().chunks(100).map(<[u8]>::to_vec))
        {
            connection.write(&piece).unwrap();
        }
        connection.read().expect(200);
        connection.read().expect(200);
        socket.expect_data("e", "chunked", "x");
        socket.expect_data("e", "chunked", "x");
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write(head.as_bytes()).unwrap();
        assert_eq!(connection.try_read_head().unwrap().status, 100);
        connection.write(body.as_bytes()).unwrap();
        connection.read().expect(200);
        socket.expect_data("e", "chunked", "x");
    });
}
