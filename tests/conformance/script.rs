//! The classic scripts of the JavaScript client at `/relay.js` and `/relay-resume.js`.

use crate::common::http::{self, HttpConnection};
use crate::common::rig::on_fresh_servers_at_once;
use crate::common::server::ServerOptions;
use crate::stage::on_each_driver;

const SCRIPTS: [(&str, &[u8]); 2] = [
    ("/relay.js", include_bytes!("../../clients/js/relay.js")),
    ("/relay-resume.js", include_bytes!("../../clients/js/relay-resume.js")),
];

/// R-CLIENT-3, threat T56: the same bytes whatever the query, the host and other headers are, with headers that let any
/// page load them and none take them for something else; HEAD has the length alone.
#[test]
fn constant_bytes() {
    on_each_driver(|server| {
        let foreign = [("Host", "evil.example"), ("X-Forwarded-Host", "</script>"), ("Origin", "https://evil.example")];
        let mut all_tags = Vec::new();
        for (path, script) in SCRIPTS {
            let mut tags = Vec::new();
            for (query, headers) in [
                ("", [].as_slice()),
                ("?x=</script><script>alert(1)//", &[]),
                ("?callback=x&key=app-key&hosts=evil.example", &foreign[1..]),
            ] {
                let answer = http::ask(server.address, "GET", &format!("{path}{query}"), headers, b"").expect(200);
                assert_eq!(answer.body, script, "{path}{query}");
                for (name, value) in [
                    ("content-type", "text/javascript; charset=utf-8"),
                    ("x-content-type-options", "nosniff"),
                    ("cache-control", "public, max-age=3600"),
                    ("access-control-allow-origin", "*"),
                    ("cross-origin-resource-policy", "cross-origin"),
                ] {
                    assert_eq!(answer.header(name), Some(value), "{name}");
                }
                tags.push(answer.header("etag").unwrap().to_owned());
            }
            let mut raw = HttpConnection::open(server.address);
            raw.write(format!("GET {path} HTTP/1.1\r\nHost: \"><script>\r\n\r\n").as_bytes()).unwrap();
            assert!([200, 400].contains(&raw.read().status), "another host gets the script or nothing");
            tags.dedup();
            assert_eq!(tags.len(), 1, "{tags:?}");
            assert!(tags[0].starts_with('"') && tags[0].len() == 18, "{tags:?}");
            all_tags.append(&mut tags);

            // A body after this head would be taken for the next response.
            let mut connection = HttpConnection::open(server.address);
            connection.send("HEAD", path, &[], b"");
            let head = connection.try_read_head().unwrap().expect(200);
            assert_eq!(head.header("content-length"), Some(script.len().to_string().as_str()));
            connection.ask("GET", "/up", &[], b"").expect(200);
        }
        assert_ne!(all_tags[0], all_tags[1]);
    });
}

/// R-CLIENT-3: a client that has the bytes gets 304 without a body, on a connection that serves the next request.
#[test]
fn known_bytes_are_not_sent_again() {
    on_each_driver(|server| {
        for (path, script) in SCRIPTS {
            let tag = http::ask(server.address, "GET", path, &[], b"").header("etag").unwrap().to_owned();
            let mut connection = HttpConnection::open(server.address);
            for (tags, status) in [(tag.as_str(), 304), ("\"other\"", 200), ("*", 304)] {
                let answer = connection.ask("GET", path, &[("If-None-Match", tags)], b"").expect(status);
                assert_eq!(answer.header("etag"), Some(tag.as_str()));
                assert_eq!(answer.body, if status == 200 { script } else { b"" });
            }
        }
    });
}

/// R-CLIENT-3: other methods are 405; the prefix works too; the metrics port has no script.
#[test]
fn methods_and_ports() {
    on_fresh_servers_at_once(
        |driver| ServerOptions::new(driver).with(&["--path-prefix", "/realtime"]),
        |server| {
            for (path, script) in SCRIPTS {
                let prefixed = format!("/realtime{path}");
                assert_eq!(http::ask(server.address, "GET", &prefixed, &[], b"").expect(200).body, script);
                for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
                    let refused = http::ask(server.address, method, path, &[], b"").expect(405);
                    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
                }
                http::ask(server.health, "GET", path, &[], b"").expect(404);
            }
            for target in ["/relay.js/", "/Relay.js", "/x/relay.js", "/relay-resume.js/", "/relay-resume.map"] {
                http::ask(server.address, "GET", target, &[], b"").expect(404);
            }
        },
    );
}
