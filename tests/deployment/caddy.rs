//! Caddy, with one mistake at a time.

use super::*;

const CADDY: Proxy = Proxy::Caddy;
const HOP: Option<&str> = Some("Caddy");
const TRANSPORT: &str = "transport http {";

/// R-DIAG-2: the configuration of docs/proxies.md.
#[test]
fn caddy_as_documented() {
    documented_is_well(CADDY);
}

/// R-SSE-6: events pass it at once.
#[test]
fn caddy_streams() {
    streams_pass(CADDY);
}

/// R-DIAG-2: self-signed, expired, for another name, and no TLS at all.
#[test]
fn caddy_certificates() {
    certificates_are_judged(CADDY);
}

/// A further line in `reverse_proxy`.
#[track_caller]
fn with(line: &str) -> Deployment {
    Deployment::changed(CADDY, &[(TRANSPORT, &format!("{line}\n        {TRANSPORT}"))])
}

/// A further line in the site.
#[track_caller]
fn with_directive(line: &str) -> Deployment {
    Deployment::changed(CADDY, &[("reverse_proxy", &format!("{line}\n    reverse_proxy"))])
}

/// R-DIAG-2: each header of the upgrade dropped.
#[test]
fn caddy_upgrade() {
    let report = with_directive("request_header -Upgrade").examine(&[]);
    report.expect("websocket", "problem", HOP, &["drops the header", "remove `header_up`"]);
    let report = with_directive("request_header Sec-WebSocket-Version 8").examine(&[]);
    report.expect("websocket", "problem", HOP, &["Sec-WebSocket"]);
}

/// R-DIAG-2: the port behind it is wrong.
#[test]
fn caddy_down() {
    let nowhere = free_address(0).expect("a free port").to_string();
    let report =
        Deployment::changed(CADDY, &[("reverse_proxy 127.0.0.1:", &format!("reverse_proxy {nowhere} 127.0.0.9:"))]);
    let report = report.examine(&[]);
    report.expect("relay", "problem", HOP, &["Caddy answers /up with 502", "reverse_proxy 127.0.0.1:6001"]);
    report.expect_only(&["relay"]);
}

/// R-DIAG-2: a silent WebSocket is closed.
#[test]
fn caddy_idle() {
    let short = Deployment::changed(CADDY, &[(TRANSPORT, "transport http {\n            read_timeout 1s")]);
    short.examine(&["--idle", "20"]).expect_closed_when_idle(HOP, "read_timeout");
    Deployment::changed(CADDY, &[]).examine(&["--idle", "2"]).expect("idle", "ok", None, &["open after 2 s"]);
}

/// R-DIAG-2: a limit of bodies.
#[test]
fn caddy_body() {
    let report = with_directive("request_body {\n        max_size 100KB\n    }").examine(&[]);
    report.expect("body", "problem", HOP, &["refuses a body of 1048576 bytes", "65536 pass", "max_size 24MB"]);
    report.expect_only(&["body"]);
}

/// R-DIAG-2, R-BASE-2: directives that rewrite the path.
#[test]
fn caddy_paths() {
    let report = with_directive("uri path_regexp %2D -").examine(&[]);
    report.expect("path", "problem", HOP, &["rewritten", "remove `rewrite`"]);
    let cut = Deployment::changed(CADDY, &[("reverse_proxy", "uri strip_prefix /relay\n    reverse_proxy")]);
    let report = cut.examine_url(&format!("{}/relay", cut.url()), &[]);
    report.expect("api", "advice", HOP, &["Relay receives /api/v1/apps/", "path_prefix"]);
}

/// R-DIAG-2, R-DIAG-1: headers that get lost on the way, another Host, and a page instead of Relay.
#[test]
fn caddy_headers() {
    let report = with("header_up -X-Forwarded-For\n        header_up -X-Relay-Secret").examine(&[]);
    report.expect("client_address", "advice", HOP, &["no hop sends", "header_up -X-Forwarded-For"]);
    report.expect("headers", "problem", HOP, &["drops X-Relay-Secret"]);
    let report = with("header_up Host relay.internal").examine(&[]);
    report.expect("host", "advice", HOP, &["relay.internal", "header_up Host"]);
    let report = with_directive("respond /app/* <html>App</html> 200").examine(&[]);
    report.expect("websocket", "problem", HOP, &["a web page", "reverse_proxy"]);
}
