//! HAProxy, with one mistake at a time. It shows its name only on its error pages, so the tests name it (`--proxy`).

use super::*;

const HAPROXY: Proxy = Proxy::Haproxy;
const HOP: Option<&str> = Some("HAProxy");
const FORWARD: &str = "option forwardfor";
const PROTO: &str = "http-request set-header X-Forwarded-Proto https";

/// R-DIAG-2: the configuration of docs/proxies.md.
#[test]
fn haproxy_as_documented() {
    documented_is_well(HAPROXY);
}

/// R-SSE-6: events pass it at once.
#[test]
fn haproxy_streams() {
    streams_pass(HAPROXY);
}

/// R-DIAG-2: self-signed, expired, for another name, and no TLS at all.
#[test]
fn haproxy_certificates() {
    certificates_are_judged(HAPROXY);
}

/// A further line in the frontend.
#[track_caller]
fn with(line: &str) -> Deployment {
    Deployment::changed(HAPROXY, &[(PROTO, &format!("{PROTO}\n    {line}"))])
}

/// R-DIAG-2: each header of the upgrade dropped by a rule.
#[test]
fn haproxy_upgrade() {
    let report = with("http-request del-header Upgrade").examine(&[]);
    report.expect("websocket", "problem", HOP, &["drops the header", "http-request del-header"]);
    let report = with("http-request set-header Sec-WebSocket-Version 8").examine(&[]);
    report.expect("websocket", "problem", HOP, &["Sec-WebSocket"]);
}

/// R-DIAG-2: the port behind it is wrong; its own page is recognized without `--proxy`.
#[test]
fn haproxy_down() {
    let nowhere = free_address(0).expect("a free port").to_string();
    let down = Deployment::changed(HAPROXY, &[("server relay1 127.0.0.1:", &format!("server relay1 {nowhere} #"))]);
    let line = "server relay1 127.0.0.1:6001 check";
    down.examine(&[]).expect("relay", "problem", HOP, &["503", "does not reach Relay", line]);
    let report = Report::of(&["--public", &down.url()]);
    report.expect("relay", "problem", HOP, &["HAProxy answers /up with 503"]);
    report.expect_only(&["relay"]);
}

/// R-DIAG-2: a silent WebSocket is closed.
#[test]
fn haproxy_idle() {
    let short = Deployment::changed(HAPROXY, &[("timeout tunnel 1h", "timeout tunnel 1s")]);
    short.examine(&["--idle", "20"]).expect_closed_when_idle(HOP, "timeout tunnel 1h");
    Deployment::changed(HAPROXY, &[]).examine(&["--idle", "2"]).expect("idle", "ok", None, &["open after 2 s"]);
}

/// R-DIAG-2: a rule that refuses long bodies.
#[test]
fn haproxy_body() {
    let rule = "http-request deny deny_status 413 if { req.hdr_val(content-length) gt 100000 }";
    let report = with(rule).examine(&[]);
    report.expect("body", "problem", HOP, &["413", "65536 pass", "http-request deny"]);
    report.expect_only(&["body"]);
}

/// R-DIAG-2, R-BASE-2: rules that rewrite the path.
#[test]
fn haproxy_paths() {
    let report = with("http-request replace-path (.*)%2D(.*) \\1-\\2").examine(&[]);
    report.expect("path", "problem", HOP, &["%2D", "rewritten", "replace-path"]);
    report.expect_only(&["path"]);
    let report = with("http-request replace-path (.*)//(.*) \\1/\\2").examine(&[]);
    report.expect("path", "advice", HOP, &["with one slash", "replace-path"]);
    let cut = with("http-request replace-path /relay(/.*) \\1");
    let report = cut.examine_url(&format!("{}/relay", cut.url()), &[]);
    report.expect("api", "advice", HOP, &["Relay receives /api/v1/apps/", "path_prefix"]);
    report.expect_only(&["api"]);
}

/// R-DIAG-2, R-DIAG-1: headers that get lost on the way.
#[test]
fn haproxy_headers() {
    let report = Deployment::changed(HAPROXY, &[(FORWARD, "http-request del-header Authorization")]).examine(&[]);
    report.expect("client_address", "advice", HOP, &["no hop sends", FORWARD]);
    report.expect("headers", "problem", HOP, &["drops Authorization"]);
    let report = with("http-request set-header Host relay.internal").examine(&[]);
    report.expect("host", "advice", HOP, &["relay.internal", "set-header Host"]);
}

/// R-DIAG-2: a rule for the host that compares it with its port, on the default port.
#[test]
fn haproxy_host_with_port() {
    let Some(listen) = free_address(80) else {
        return tools::say_skipped("port 80 cannot be bound here: Host with the default port is not tested");
    };
    let host = listen.ip();
    let examine = |comparison: &str| {
        let rule = format!("{PROTO}\n    http-request deny deny_status 404 if !{{ {comparison} -i {host} }}");
        let changes = [(PROTO, &*rule)];
        let options = Options { changes: &changes, listen: Some(listen), ..Options::default() };
        Deployment::start(HAPROXY, &options).examine_url(&format!("http://{host}"), &[])
    };
    let report = examine("req.hdr(host)");
    report.expect("host_port", "problem", HOP, &[":80` is refused", "req.hdr(host),field(1,:)"]);
    report.expect_only(&["host_port"]);
    // The line that the finding names.
    examine("req.hdr(host),field(1,:)").expect_well(&["host_port"]);
}
